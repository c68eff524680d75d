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

from napari_unet.core.blockwise import assemble as assembling
from napari_unet.core.blockwise import stitch_z as stacking
from napari_unet.core.blockwise.assemble import make_preview
from napari_unet.core.blockwise.estimate import Preflight, ResourceEstimate
from napari_unet.core.blockwise.run_directory import RunDirectory, locked
from napari_unet.core.io.ome_zarr import place_in
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress
from napari_unet.core.settings import PredictSettings
from napari_unet.nn.blockwise.block import BlockDone, BlockRun
from napari_unet.nn.blockwise.executor import LocalPool, Pool, Probe
from napari_unet.nn.blockwise.plan import resolve_plan
from napari_unet.nn.inference.model import check_fit
from napari_unet.nn.inference.segment import SegmentResult

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.blockwise.output_location import OutputLocation
    from napari_unet.core.blockwise.run_plan import RunPlan
    from napari_unet.core.io.stack import Stack
    from napari_unet.nn.blockwise.executor import Item, Pool
    from napari_unet.nn.inference.model import Model


@dataclass(frozen=True)
class BlockwiseRequest:
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
    target: OutputLocation
    settings: PredictSettings = field(default_factory=PredictSettings)
    block: int | tuple[int, ...] | None = None
    resume: bool = False
    overwrite: bool = False
    scheduler: str | None = None
    preview: bool = False


def segment_blocks(
    request: BlockwiseRequest, model: Model
) -> Generator[Progress, None, SegmentResult]:
    """Segment a stack block by block, yielding often and, of each block, a `BlockDone`.

    Before the start come a `ImageSurvey`, if there is something to remark on, and a `Preflight`.
    Closing the generator ends the run after the tile at hand; finished blocks stay for `resume`.

    Returns
    -------
    SegmentResult
        With the array of full resolution, opened for reading; in the provenance `failed_blocks`
        says which blocks could not be read and are empty.

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
        place = RunDirectory(folder)
        exits.callback(_leave, place)
        run = BlockRun(place, stack, model, request.preview)
        pool.start(run)
        remarks = yield from resolve_plan(request, run, pool)
        if place.plan.frames * place.plan.blocks.count and request.preview:
            make_preview(place)
        found = yield from _preflight(place, pool, target)
        objects = yield from all_stages(place, pool)
        provenance = _provenance(place, found, remarks, objects, time.perf_counter() - began)
        _describe(place, target, stack, provenance)
        return _publish(place, target, objects, provenance)


def finished_result(target: OutputLocation) -> SegmentResult:
    """Return a result that is there already."""
    from napari_unet.core.io.label_writer import read_provenance

    provenance = read_provenance(target.path)
    return SegmentResult(target.open(), int(provenance.get("objects", 0)), provenance)


def _open_pool(request: BlockwiseRequest, stack: ExitStack) -> Pool:
    if request.scheduler is None:
        return LocalPool()
    from napari_unet.nn.blockwise.cluster import ClusterPool

    pool = ClusterPool(request.scheduler)
    stack.callback(pool.close)
    return pool


def _preflight(
    place: RunDirectory, pool: Pool, target: OutputLocation
) -> Generator[Progress, None, Probe]:
    plan = place.plan
    if not plan.frames * plan.blocks.count:
        return Probe(plan.provenance.get("device", "cpu"), 0.0, 0.0, 0.0, (), None)
    yield Progress(0, 0, "trying one tile")
    todo = missing(place, "blocks", plan.blocks.count)
    found, left = pool.probe(), frames_in(plan, todo)
    needs = ResourceEstimate.of(
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


def _provenance(
    place: RunDirectory, found: Probe, remarks: list[str], objects: int, seconds: float
) -> dict[str, Any]:
    plan = place.plan
    failed = [
        [*plan.index(frame), *(w.start for w in plan.blocks.window(number))]
        for frame in range(plan.frames)
        for number in sorted(place.done("failed", frame))
    ]
    pixels = float(np.prod(plan.shape, dtype=float))
    return plan.provenance | {
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


def _describe(
    place: RunDirectory, target: OutputLocation, stack: Stack, provenance: dict[str, Any]
) -> None:
    """Write the metadata: labels lie where the image does that holds them, or that they are of."""
    from napari_unet.core.io.label_writer import PROVENANCE_KEY

    there = None
    if target.image is not None:
        there = place_in(target.image, stack.labels_axes, stack.labels_shape)
    assembling.label_image(place).describe(
        target.name, there or stack.labels_place, {PROVENANCE_KEY: provenance}, target.source
    )


def _publish(
    place: RunDirectory, target: OutputLocation, objects: int, provenance: dict[str, Any]
) -> SegmentResult:
    """Put the image in its place; tidy up unless a block is missing."""
    target.put(place)
    if not provenance["failed_blocks"]:
        place.empty()
    return SegmentResult(target.open(), objects, provenance)


def _leave(place: RunDirectory) -> None:
    """Leave no folder behind in which no block is finished."""
    if not (place.folder / "blocks").exists():
        place.empty()


WEIGHT = 20
"""A block counts so many steps in the progress; everything else counts one."""


def missing(place: RunDirectory, kind: str, count: int) -> list[Item]:
    """List group (of frames) and number of what has no file yet."""
    return [
        (group, number)
        for group in range(place.plan.groups.count)
        for number in sorted(set(range(count)) - place.done(kind, group))
    ]


def frames_in(plan: RunPlan, items: Sequence[Item]) -> int:
    """Count the frames' parts that items of groups and numbers stand for."""
    return sum(len(plan.groups.frames(group)) for group, *_ in items)


def all_stages(place: RunDirectory, pool: Pool) -> Generator[Progress, None, int]:
    """Do what is missing, stage by stage; return how many objects there are."""
    plan = place.plan
    image, blocks, frames = assembling.label_image(place), plan.blocks, plan.frames
    joined = plan.decode is not None and blocks.count > 1
    nodes = [int(np.prod(blocks.nodes(level))) for level in range(blocks.levels + 1)]
    parts = [assembling.level_blocks(plan, image, level).count for level in range(image.levels)]
    steps = WEIGHT * blocks.count + 2 * joined * sum(nodes) + sum(parts)
    count = _Count(steps * frames)
    todo = missing(place, "blocks", blocks.count)
    count.skip(WEIGHT * (frames * blocks.count - frames_in(plan, todo)))
    yield from _blocks(place, pool, todo, count)
    if joined:
        yield from _join(place, pool, nodes, count)
    if plan.least_voxels is None:
        objects = [assembling.objects_of(place, frame) for frame in range(frames)]
    else:
        objects = yield from _stack(place, count)
    image.create(np.uint16 if max(objects, default=0) < 2**16 else np.uint32)
    for level, each in enumerate(parts):
        todo = missing(place, f"written/{level}", each)
        count.skip(frames * each - frames_in(plan, todo))
        items = todo if level == 0 else [(level, *item) for item in todo]
        for item, _ in pool.run("coarsen" if level else "write", items):
            yield count.step("writing", frames_in(plan, [item[-2:]]) if item else 0)
    return sum(objects)


def _blocks(
    place: RunDirectory, pool: Pool, todo: Sequence[Item], count: _Count
) -> Generator[Progress, None, None]:
    plan = place.plan
    pixels = max(1, int(np.prod(plan.block)))
    for item, what in pool.run("block", todo):
        if item is None:
            yield count.at(WEIGHT * what // (pixels + 1), "blocks")
            continue
        window = plan.blocks.window(item[1])
        for frame, problem in zip(plan.groups.frames(item[0]), what, strict=True):
            step = count.step("blocks", WEIGHT)
            yield BlockDone(step.done, step.total, "blocks", plan.index(frame), window, problem)


def _join(
    place: RunDirectory, pool: Pool, nodes: Sequence[int], count: _Count
) -> Generator[Progress, None, None]:
    for level, each in enumerate(nodes):
        todo = [(f, level, n) for f, n in missing(place, f"join/up{level}", each)]
        count.skip(place.plan.frames * each - len(todo))
        for _, _ in pool.run("join", todo):
            yield count.step("joining")
    for frame in range(place.plan.frames):
        if not place.numbers(frame).exists():
            assembling.number_frame(place, frame)
            yield count.at(0, "numbering")
    for level, each in reversed(list(enumerate(nodes))):
        todo = [(f, level, n) for f, n in missing(place, f"join/down{level}", each)]
        count.skip(place.plan.frames * each - len(todo))
        for _, _ in pool.run("label", todo):
            yield count.step("joining")


def _stack(place: RunDirectory, count: _Count) -> Generator[Progress, None, list[int]]:
    """Join the objects of planes through z; return how many there are in each volume."""
    found = range(stacking.volumes(place.plan))
    for volume in found:
        if not place.stacked(volume).exists():
            for _ in stacking.join_volume(place, volume, assembling.block_labels):
                yield count.at(0, "joining through z")
    return [stacking.objects_in(place, volume) for volume in found]


@dataclass
class _Count:
    """Counts the steps of a run."""

    total: int
    done: int = 0

    def skip(self, steps: int) -> None:
        self.done += steps

    def step(self, what: str, steps: int = 1) -> Progress:
        self.done += steps
        return Progress(self.done, self.total, what)

    def at(self, beyond: int, what: str) -> Progress:
        return Progress(min(self.total, self.done + beyond), self.total, what)
