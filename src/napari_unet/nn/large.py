"""Stacks larger than memory: block by block into an OME-Zarr label image, going on after a kill.

    plan  ->  blocks (network)  ->  joining (tables)  ->  writing  ->  in place

What a block or a step has finished is on the disk (`core.workplace`), so a run that ends early,
however, loses the block at hand and nothing else. Who does the steps is a `Pool`: this process, or
a cluster (`nn.cluster`).
"""

from __future__ import annotations

import hashlib
import time
import uuid
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core import assembling, stacking
from napari_unet.core.axes import OBJECT_AXES
from napari_unet.core.blocks import BlockPlan, choose_block
from napari_unet.core.framegroups import choose_together
from napari_unet.core.guard import UnreadableError, guarded
from napari_unet.core.passport import make_passport
from napari_unet.core.preflight import Needs, Preflight
from napari_unet.core.runplan import RunPlan
from napari_unet.core.shift import Surveyed
from napari_unet.core.spec import OutputError, PredictSettings, Progress
from napari_unet.core.stack import Stack, open_stack
from napari_unet.core.volumes import JOINED, frame_ndim, object_axes, settle_way
from napari_unet.core.workplace import Workplace, clear, locked, write_text
from napari_unet.nn.blocks import BlockDone, BlockRun, Probe, make_preview
from napari_unet.nn.decode import decode_settings
from napari_unet.nn.fit import check_fit, choose_scale
from napari_unet.nn.model import write_exactly
from napari_unet.nn.pool import Item, LocalPool, Pool
from napari_unet.nn.segment import SegmentResult, settle_sizes

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.labelplace import LabelPlace
    from napari_unet.nn.model import Model

WEIGHT = 20
"""A block counts so many steps in the progress; everything else counts one."""


class OtherRunError(OutputError):
    """An unfinished run is not of what is asked for now."""


@dataclass(frozen=True)
class LargeRequest:
    """What is to be segmented, and where the labels go.

    Attributes
    ----------
    source
        A stack, or anything that `open_stack` takes.
    target
        Where the labels go: see `core.labelplace`.
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
        remarks = yield from _settle(request, run, pool)
        if place.plan.frames * place.plan.blocks.count and request.preview:
            make_preview(place)
        found = yield from _preflight(place, pool, target)
        objects = yield from _all_stages(place, pool)
        passport = _passport(place, found, remarks, objects, time.perf_counter() - began)
        return _publish(place, target, objects, passport)


def finished_result(target: LabelPlace) -> SegmentResult:
    """Return a result that is there already."""
    from napari_unet.core.results import read_passport

    passport = read_passport(target.path)
    return SegmentResult(target.open(), int(passport.get("objects", 0)), passport)


def _open_pool(request: LargeRequest, stack: ExitStack) -> Pool:
    if request.scheduler is None:
        return LocalPool()
    from napari_unet.nn.cluster import ClusterPool

    pool = ClusterPool(request.scheduler)
    stack.callback(pool.close)
    return pool


def _settle(
    request: LargeRequest, run: BlockRun, pool: Pool
) -> Generator[Progress, None, list[str]]:
    """Read the plan of an unfinished run, or make one; return the remarks."""
    place, stack, model = run.place, run.stack, run.model
    way = settle_way(request.settings.volumes, model.spec.ndim, model.spec.head, stack)
    ndim = frame_ndim(way)
    size = stack.frame_shape(ndim)
    asked: dict[str, Any] = {
        "axes": stack.labels_axes,
        "shape": stack.labels_shape,
        "ndim": ndim,
        "block": choose_block(size, request.block) if request.block is not None else None,
        "settings": asdict(request.settings),
        "identity": {
            "weights": _digest(model),
            "data": _fingerprint(stack, model, request.settings),
            "zarr_format": request.target.zarr_format,
        },
    }
    if (place.folder / "plan.json").exists():
        if request.resume:
            _go_on(place, asked)
            return list(place.plan.passport.get("remarks", []))
        if not request.overwrite:
            raise OutputError(
                f"{place.folder} holds an unfinished run; go on with it (--resume), or begin "
                "anew (--overwrite)."
            )
    place.empty()
    whole = guarded(stack, lenient=True)
    settled, least, found = settle_sizes(whole, model, request.settings, way)
    if found:
        yield Surveyed(0, 0, "looking at the image", found)
    remarks = [remark.text for remark in found]
    write_exactly(model, place.folder / "model")
    decode = decode_settings(model, settled) if model.spec.head == "instance" else None
    passport = make_passport(guarded(stack), model.card, request.settings, hashed=False)
    passport |= {
        "data_hash": asked["identity"]["data"],
        "diameter_px": settled.diameter,
        "scale": choose_scale(model, settled),
        "remarks": remarks,
        "volumes": way,
        OBJECT_AXES: object_axes(way),
    }
    block = choose_block(size, request.block)
    plan = RunPlan(
        **{**asked, "block": block},
        run=uuid.uuid4().hex,
        voxel_size_um=stack.voxel_size_um,
        settled=asdict(settled),
        decode=asdict(decode) if decode else None,
        precision=pool.precision(request.settings.precision),
        passport=passport,
        least_voxels=least if way == JOINED else None,
        together=choose_together(stack.labels_shape[:-ndim], BlockPlan(size, block)),
    )
    write_text(place.folder / "plan.json", plan.to_json())
    return remarks


def _go_on(place: Workplace, asked: dict[str, Any]) -> None:
    """Check that an unfinished run is the one that is asked for; forget what had failed in it."""
    if different := place.plan.differs(**asked):
        raise OtherRunError(
            f"{place.folder} holds an unfinished run of another kind ({different}); give the same "
            "image, model and settings, or begin anew (--overwrite)."
        )
    if (place.folder / "failed").exists():
        plan = place.plan
        for frame in range(plan.frames):
            for number in place.done("failed", frame):
                place.block(plan.groups.of(frame), number).unlink(missing_ok=True)
        for name in ("join", "stacked", "written", "result", "failed"):
            clear(place.folder / name)


def _preflight(
    place: Workplace, pool: Pool, target: LabelPlace
) -> Generator[Progress, None, Probe]:
    plan = place.plan
    if not plan.frames * plan.blocks.count:
        return Probe(plan.passport.get("device", "cpu"), 0.0, 0.0, 0.0, (), None)
    yield Progress(0, 0, "trying one tile")
    todo = _missing(place, "blocks", plan.blocks.count)
    found, left = pool.probe(), _frames_in(plan, todo)
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


def _missing(place: Workplace, kind: str, count: int) -> list[Item]:
    """List group (of frames) and number of what has no file yet."""
    return [
        (group, number)
        for group in range(place.plan.groups.count)
        for number in sorted(set(range(count)) - place.done(kind, group))
    ]


def _frames_in(plan: RunPlan, items: Sequence[Item]) -> int:
    """Count the frames' parts that items of groups and numbers stand for."""
    return sum(len(plan.groups.frames(group)) for group, *_ in items)


def _all_stages(place: Workplace, pool: Pool) -> Generator[Progress, None, int]:
    """Do what is missing, stage by stage; return how many objects there are."""
    plan = place.plan
    image, blocks, frames = assembling.label_image(place), plan.blocks, plan.frames
    joined = plan.decode is not None and blocks.count > 1
    nodes = [int(np.prod(blocks.nodes(level))) for level in range(blocks.levels + 1)]
    parts = [assembling.level_blocks(plan, image, level).count for level in range(image.levels)]
    steps = WEIGHT * blocks.count + 2 * joined * sum(nodes) + sum(parts)
    count = _Count(steps * frames)
    todo = _missing(place, "blocks", blocks.count)
    count.skip(WEIGHT * (frames * blocks.count - _frames_in(plan, todo)))
    yield from _blocks(place, pool, todo, count)
    if joined:
        yield from _join(place, pool, nodes, count)
    if plan.least_voxels is None:
        objects = [assembling.objects_of(place, frame) for frame in range(frames)]
    else:
        objects = yield from _stack(place, count)
    image.create(np.uint16 if max(objects, default=0) < 2**16 else np.uint32)
    for level, each in enumerate(parts):
        todo = _missing(place, f"written/{level}", each)
        count.skip(frames * each - _frames_in(plan, todo))
        items = todo if level == 0 else [(level, *item) for item in todo]
        for item, _ in pool.run("coarsen" if level else "write", items):
            yield count.step("writing", _frames_in(plan, [item[-2:]]) if item else 0)
    return sum(objects)


def _blocks(
    place: Workplace, pool: Pool, todo: Sequence[Item], count: _Count
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
    place: Workplace, pool: Pool, nodes: Sequence[int], count: _Count
) -> Generator[Progress, None, None]:
    for level, each in enumerate(nodes):
        todo = [(f, level, n) for f, n in _missing(place, f"join/up{level}", each)]
        count.skip(place.plan.frames * each - len(todo))
        for _, _ in pool.run("join", todo):
            yield count.step("joining")
    for frame in range(place.plan.frames):
        if not place.numbers(frame).exists():
            assembling.number_frame(place, frame)
            yield count.at(0, "numbering")
    for level, each in reversed(list(enumerate(nodes))):
        todo = [(f, level, n) for f, n in _missing(place, f"join/down{level}", each)]
        count.skip(place.plan.frames * each - len(todo))
        for _, _ in pool.run("label", todo):
            yield count.step("joining")


def _stack(place: Workplace, count: _Count) -> Generator[Progress, None, list[int]]:
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


def _publish(
    place: Workplace, target: LabelPlace, objects: int, passport: dict[str, Any]
) -> SegmentResult:
    """Write the metadata and put the image in its place; tidy up unless a block is missing."""
    from napari_unet.core.results import PASSPORT

    assembling.label_image(place).describe(
        target.name, place.plan.voxel_size_um, {PASSPORT: passport}, target.source
    )
    target.put(place)
    if not passport["failed_blocks"]:
        place.empty()
    return SegmentResult(target.open(), objects, passport)


def _leave(place: Workplace) -> None:
    """Leave no folder behind in which no block is finished."""
    if not (place.folder / "blocks").exists():
        place.empty()


def _digest(model: Model) -> str:
    """Return a hash of a model's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(model.net.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _fingerprint(stack: Stack, model: Model, settings: PredictSettings) -> str | None:
    from napari_unet.core.passport import fingerprint

    try:
        return fingerprint(guarded(stack))
    except UnreadableError:
        return None
