"""Stacks larger than memory: block by block into an OME-Zarr label image, going on after a kill.

    plan  ->  blocks (network)  ->  joining (tables)  ->  writing  ->  in place

What a block or a step has finished is on the disk (`core.blockwise.workplace`), so a run that ends
early, however, loses the block at hand and nothing else. Who does the steps is a `Pool`: this
process, or a cluster (`cluster`).
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise import assembling
from napari_unet.core.blockwise.preflight import Needs, Preflight
from napari_unet.core.blockwise.preview import make_preview
from napari_unet.core.blockwise.workplace import Workplace, locked
from napari_unet.core.io.ngff import place_in
from napari_unet.core.spec import PredictSettings, Progress
from napari_unet.core.stack import open_stack
from napari_unet.nn.blockwise.blocks import BlockRun
from napari_unet.nn.blockwise.largeplan import settle_plan
from napari_unet.nn.blockwise.pool import LocalPool, Pool
from napari_unet.nn.blockwise.probe import Probe
from napari_unet.nn.blockwise.stages import all_stages, frames_in, missing
from napari_unet.nn.fit import check_fit
from napari_unet.nn.segment import SegmentResult

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.blockwise.labelplace import LabelPlace
    from napari_unet.core.stack import Stack
    from napari_unet.nn.model import Model


@dataclass(frozen=True)
class LargeRequest:
    """What is to be segmented, and where the labels go.

    Attributes
    ----------
    source
        A stack, or anything that `open_stack` takes.
    target
        Where the labels go: see `core.blockwise.labelplace`.
    settings
        How the model is run.
    block
        Edge length of a block, or one for each axis; see `choose_block`.
    resume
        Whether an unfinished run at the target is gone on with.
    overwrite
        Whether a result or an unfinished run at the target is replaced.
    scheduler
        Address of a dask scheduler; None: this process does everything.
    preview
        Whether provisional labels are written for somebody who watches.
    """

    source: Any
    target: LabelPlace
    settings: PredictSettings = field(default_factory=PredictSettings)
    block: int | tuple[int, ...] | None = None
    resume: bool = False
    overwrite: bool = False
    scheduler: str | None = None
    preview: bool = False


def segment_blocks(request: LargeRequest, model: Model) -> Generator[Progress, None, SegmentResult]:
    """Segment a stack block by block, yielding often and, of each block, a `BlockDone`.

    Before the start come a `Surveyed`, if there is something to remark on, and a `Preflight`.
    Closing the generator ends the run after the tile at hand; finished blocks stay for `resume`.

    Returns
    -------
    SegmentResult
        With the array of full resolution, opened for reading; in the passport `failed_blocks` says
        which blocks could not be read and are empty.

    Raises
    ------
    UnetError
        An input, setting, device or cluster that cannot be used; a place that cannot be written,
        is in use, holds something else, or is too small.
    """
    stack, target, began = open_stack(request.source), request.target, time.perf_counter()
    check_fit(stack, model)
    target.check(request.resume or request.overwrite)
    folder = target.unfinished
    if target.path.exists() and request.resume and not folder.exists():
        return finished_result(target)
    with ExitStack() as exits:
        exits.enter_context(target.naming())
        pool = _open_pool(request, exits)
        target.make_folder()
        exits.enter_context(locked(folder))
        place = Workplace(folder)
        exits.callback(_leave, place)
        run = BlockRun(place, stack, model, request.preview)
        pool.start(run)
        remarks = yield from settle_plan(request, run, pool)
        if place.plan.frames * place.plan.blocks.count and request.preview:
            make_preview(place)
        found = yield from _preflight(place, pool, target)
        objects = yield from all_stages(place, pool)
        passport = _passport(place, found, remarks, objects, time.perf_counter() - began)
        _describe(place, target, stack, passport)
        return _publish(place, target, objects, passport)


def finished_result(target: LabelPlace) -> SegmentResult:
    """Return a result that is there already."""
    from napari_unet.core.io.results import read_passport

    passport = read_passport(target.path)
    return SegmentResult(target.open(), int(passport.get("objects", 0)), passport)


def _open_pool(request: LargeRequest, stack: ExitStack) -> Pool:
    if request.scheduler is None:
        return LocalPool()
    from napari_unet.nn.blockwise.cluster import ClusterPool

    pool = ClusterPool(request.scheduler)
    stack.callback(pool.close)
    return pool


def _preflight(
    place: Workplace, pool: Pool, target: LabelPlace
) -> Generator[Progress, None, Probe]:
    plan = place.plan
    if not plan.frames * plan.blocks.count:
        return Probe(plan.passport.get("device", "cpu"), 0.0, 0.0, 0.0, (), None)
    yield Progress(0, 0, "trying one tile")
    todo = missing(place, "blocks", plan.blocks.count)
    found, left = pool.probe(), frames_in(plan, todo)
    needs = Needs.of(
        blocks=left,
        block_pixels=int(np.prod(plan.block)),
        seconds=found.seconds,
        disk_bytes=found.disk_bytes,
        tile_bytes=found.tile_bytes,
        device=found.device,
        folder=place.folder,
        workers=pool.workers,
    )
    yield Preflight(0, 0, "about to start", needs)
    needs.check(target.path)
    return found


def _passport(
    place: Workplace, found: Probe, remarks: list[str], objects: int, seconds: float
) -> dict[str, Any]:
    plan = place.plan
    failed = [
        [*plan.index(frame), *(w.start for w in plan.blocks.window(number))]
        for frame in range(plan.frames)
        for number in sorted(place.done("failed", frame))
    ]
    pixels = float(np.prod(plan.shape, dtype=float))
    return plan.passport | {
        "device": found.device,
        "precision": plan.precision,
        "tile": max(found.tile, default=None),
        "block": list(plan.block),
        "blocks": plan.frames * plan.blocks.count,
        "failed_blocks": failed,
        "seam": found.seam,
        "objects": objects,
        "seconds": round(seconds, 3),
        "mpx_per_s": round(pixels / 1e6 / max(seconds, 1e-9), 4),
    }


def _describe(place: Workplace, target: LabelPlace, stack: Stack, passport: dict[str, Any]) -> None:
    """Write the metadata: labels lie where the image does that holds them, or that they are of."""
    from napari_unet.core.io.results import PASSPORT

    there = None
    if target.image is not None:
        there = place_in(target.image, stack.labels_axes, stack.labels_shape)
    assembling.label_image(place).describe(
        target.name, there or stack.labels_place, {PASSPORT: passport}, target.source
    )


def _publish(
    place: Workplace, target: LabelPlace, objects: int, passport: dict[str, Any]
) -> SegmentResult:
    """Put the image in its place; tidy up unless a block is missing."""
    target.put(place)
    if not passport["failed_blocks"]:
        place.empty()
    return SegmentResult(target.open(), objects, passport)


def _leave(place: Workplace) -> None:
    """Leave no folder behind in which no block is finished."""
    if not (place.folder / "blocks").exists():
        place.empty()
