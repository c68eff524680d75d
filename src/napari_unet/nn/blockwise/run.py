"""Stacks larger than memory: block by block into an OME-Zarr label image, resumed after a kill.

    plan  ->  blocks (network)  ->  joining (tables)  ->  writing  ->  moved to the target

What a step has finished is on the disk (`core.blockwise.run_directory`), so a run that ends early,
for whatever reason, loses the block at hand and nothing else. An `Executor` does the steps: this
process, or a cluster.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise import assemble
from napari_unet.core.blockwise.estimate import ResourceEstimate, RunEstimated, TileCost
from napari_unet.core.blockwise.run_directory import RunDirectory, locked, make_preview
from napari_unet.core.errors import OutputError
from napari_unet.core.io.ome_zarr import find_labels_transform, fits_no_level
from napari_unet.core.io.provenance import PROVENANCE_KEY, find_provenance, hash_labels
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress
from napari_unet.nn.blockwise.executor import BLOCK_STEP, BlockRun, LocalExecutor
from napari_unet.nn.blockwise.plan import check_same_result, measure_tile, resolve_plan
from napari_unet.nn.inference.model_input import check_fit
from napari_unet.nn.inference.segment import SegmentResult

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.blockwise.output_location import OutputLocation
    from napari_unet.core.blockwise.run_plan import RunPlan
    from napari_unet.core.io.stack import Stack
    from napari_unet.nn.blockwise.executor import Executor, StepArguments
    from napari_unet.nn.blockwise.plan import BlockwiseRequest
    from napari_unet.nn.inference.model import Model

_BLOCK_WEIGHT = 20
"""Steps that a block counts in the progress; every other step counts one, for it needs no network.
"""


@dataclass(frozen=True)
class BlockDone(Progress):
    """A block that is on the disk, or that could not be read.

    Attributes
    ----------
    index
        The frame's position along the leading axes of the labels.
    window
        The block's place in the frame.
    problem
        Why it was left empty; "" if it was not.
    """

    index: tuple[int, ...] = ()
    window: tuple[slice, ...] = ()
    problem: str = ""


def segment_blocks(
    request: BlockwiseRequest, model: Model
) -> Generator[Progress, None, SegmentResult]:
    """Segment a stack block by block, yielding often and, for each block, a `BlockDone`.

    Before that come an `ShiftReport`, if there is something to remark on, and a `RunEstimated`.
    Closing the generator ends the run after the tile at hand; finished blocks stay for `resume`.

    Returns
    -------
    SegmentResult
        With the array of full resolution, opened for reading; in the provenance `failed_blocks`
        says which blocks could not be read and are empty.

    Raises
    ------
    UnetError
        An input, setting, device or cluster that cannot be used; a target that cannot be written,
        is in use, holds something else, or is too small.
    """
    stack, target, began = open_stack(request.source), request.target, time.perf_counter()
    check_fit(stack, model)
    target.check(request.resume or request.overwrite)
    if target.image and fits_no_level(target.image, stack.labels_axes, stack.labels_shape):
        raise OutputError(
            f"{target.path} would be labels of {target.image}, which is of another size than "
            f"{stack.labels_shape}; give them a place of their own."
        )
    folder = target.unfinished
    if target.path.exists() and request.resume and not target.is_unfinished:
        if folder.exists():  # killed while it was deleted
            with locked(folder):
                RunDirectory(folder).empty()
        return _read_result(request, stack, model)
    with ExitStack() as exits:
        exits.enter_context(target.naming_errors())
        executor = _open_executor(request.scheduler, exits)
        target.make_folder()
        exits.enter_context(locked(folder))
        directory = RunDirectory(folder)
        exits.callback(_remove_if_empty, directory)
        run = BlockRun(directory, stack, model, request.preview)
        executor.start(run)
        yield from resolve_plan(request, run, executor)
        if directory.plan.frames * directory.plan.blocks.count and request.preview:
            make_preview(directory)
        cost = yield from _estimate(directory, executor, target)
        objects = yield from _do_stages(directory, executor)
        provenance = _complete_provenance(directory, cost, objects, time.perf_counter() - began)
        _describe(directory, target, stack, provenance)
        target.publish(directory)
        if not provenance["failed_blocks"]:  # else the next run tries them again
            directory.empty()
        return SegmentResult(target.open(), objects, provenance)


def _read_result(request: BlockwiseRequest, stack: Stack, model: Model) -> SegmentResult:
    """Return a result that exists already; raises OtherRunError if something else is requested."""
    target = request.target
    provenance = find_provenance(target.path)
    check_same_result(target.path, provenance, request, stack, model)
    return SegmentResult(target.open(), int(provenance.get("objects", 0)), provenance)


def _open_executor(scheduler: str | None, exits: ExitStack) -> Executor:
    if scheduler is None:
        return LocalExecutor()
    from napari_unet.nn.blockwise.cluster import ClusterExecutor

    executor = ClusterExecutor(scheduler)
    exits.callback(executor.close)
    return executor


def _estimate(
    directory: RunDirectory, executor: Executor, target: OutputLocation
) -> Generator[Progress, None, TileCost]:
    """Run one tile; report what the run will take, and raise if the disk is too small."""
    plan = directory.plan
    if not plan.frames * plan.blocks.count:
        return TileCost(plan.provenance.get("device", "cpu"))
    yield Progress(0, 0, "trying one tile")
    cost = executor.call(measure_tile)
    estimate = ResourceEstimate.from_tile(
        cost,
        blocks=_count_frames(plan, _find_missing(directory, "blocks", plan.blocks.count)),
        block_pixels=int(np.prod(plan.block)),
        folder=directory.folder,
        workers=executor.workers,
    )
    yield RunEstimated(0, 0, "about to start", estimate)
    estimate.check(target.path)
    return cost


def _complete_provenance(
    directory: RunDirectory, cost: TileCost, objects: int, seconds: float
) -> dict[str, Any]:
    """Return the plan's provenance with what is known in the end."""
    plan = directory.plan
    failed = [
        [*plan.index(frame), *(w.start for w in plan.blocks.window(number))]
        for frame in range(plan.frames)
        for number in sorted(directory.done("failed", frame))
    ]
    pixels = float(np.prod(plan.shape, dtype=float))
    return plan.provenance | {
        "device": cost.device,
        "precision": plan.precision,
        "tile": max(cost.tile, default=None),
        "block": list(plan.block),
        "blocks": plan.frames * plan.blocks.count,
        "failed_blocks": failed,
        "seam": cost.seam,
        "labels_hash": hash_labels(directory.label_image.open(mode="r"), sampled=True),
        "objects": objects,
        "seconds": round(seconds, 3),
        "mpx_per_s": round(pixels / 1e6 / max(seconds, 1e-9), 4),
    }


def _describe(
    directory: RunDirectory, target: OutputLocation, stack: Stack, provenance: dict[str, Any]
) -> None:
    """Write the metadata of the label image."""
    # Coordinates are those of the OME-Zarr that holds the labels, if any, else those of the stack.
    transform = None
    if target.image is not None:
        transform = find_labels_transform(target.image, stack.labels_axes, stack.labels_shape)
    directory.label_image.describe(
        target.name,
        transform or stack.labels_transform,
        {PROVENANCE_KEY: provenance},
        target.source,
    )


def _remove_if_empty(directory: RunDirectory) -> None:
    """Leave no folder behind in which no block is finished."""
    if not (directory.folder / "blocks").exists():
        directory.empty()


def _find_missing(directory: RunDirectory, kind: str, count: int) -> list[StepArguments]:
    """List batch (of frames) and number of what has no file of a kind yet."""
    return [
        (batch, number)
        for batch in range(directory.plan.batches.count)
        for number in sorted(set(range(count)) - directory.done(kind, batch))
    ]


def _count_frames(plan: RunPlan, steps: Sequence[StepArguments]) -> int:
    """Count the frames' parts that steps for batches stand for."""
    return sum(len(plan.batches.frames(batch)) for batch, *_ in steps)


def _do_stages(directory: RunDirectory, executor: Executor) -> Generator[Progress, None, int]:
    """Do what is missing, stage by stage; return the number of objects."""
    plan, image = directory.plan, directory.label_image
    blocks, frames = plan.blocks, plan.frames
    joined = plan.decode is not None and blocks.count > 1
    nodes = [int(np.prod(blocks.nodes(level))) for level in range(blocks.levels + 1)]
    parts = [assemble.level_blocks(directory, level).count for level in range(image.levels)]
    steps = _BLOCK_WEIGHT * blocks.count + 2 * joined * sum(nodes) + sum(parts)
    counter = _StepCounter(steps * frames)
    yield from _compute_blocks(directory, executor, counter)
    if joined:
        yield from _join_blocks(directory, executor, nodes, counter)
    if plan.min_voxels is None:
        objects = [assemble.count_in_frame(directory, frame) for frame in range(frames)]
    else:
        objects = yield from _stitch_volumes(directory, counter)
    image.create(np.uint16 if max(objects, default=0) < 2**16 else np.uint32)
    for level, count in enumerate(parts):
        missing = _find_missing(directory, f"written/{level}", count)
        counter.skip(frames * count - _count_frames(plan, missing))
        arguments = missing if level == 0 else [(level, *step) for step in missing]
        for step, _ in executor.do("coarsen" if level else "write", arguments):
            yield counter.add("writing", _count_frames(plan, [step[-2:]]) if step else 0)
    return sum(objects)


def _compute_blocks(
    directory: RunDirectory, executor: Executor, counter: _StepCounter
) -> Generator[Progress, None, None]:
    plan = directory.plan
    missing = _find_missing(directory, "blocks", plan.blocks.count)
    finished = plan.frames * plan.blocks.count - _count_frames(plan, missing)
    counter.skip(_BLOCK_WEIGHT * finished)
    pixels = max(1, int(np.prod(plan.block)))
    for step, answer in executor.do(BLOCK_STEP, missing):
        if step is None:
            yield counter.peek(_BLOCK_WEIGHT * answer // (pixels + 1), "blocks")
            continue
        batch, number = step
        window = plan.blocks.window(number)
        for frame, problem in zip(plan.batches.frames(batch), answer, strict=True):
            at = counter.add("blocks", _BLOCK_WEIGHT)
            yield BlockDone(at.done, at.total, "blocks", plan.index(frame), window, problem)


def _join_blocks(
    directory: RunDirectory, executor: Executor, nodes: Sequence[int], counter: _StepCounter
) -> Generator[Progress, None, None]:
    """Join up the tree, number the objects, and hand their labels down."""
    levels = list(enumerate(nodes))

    def do(kind: str, folder: str, level: int, count: int) -> Generator[Progress, None, None]:
        missing = _find_missing(directory, f"{folder}{level}", count)
        counter.skip(directory.plan.frames * count - len(missing))
        for _ in executor.do(kind, [(frame, level, number) for frame, number in missing]):
            yield counter.add("joining")

    for level, count in levels:
        yield from do("join", "join/up", level, count)
    for frame in range(directory.plan.frames):
        if not directory.numbers(frame).exists():
            assemble.number_frame(directory, frame)
            yield counter.peek(0, "numbering")
    for level, count in reversed(levels):
        yield from do("label", "join/down", level, count)


def _stitch_volumes(
    directory: RunDirectory, counter: _StepCounter
) -> Generator[Progress, None, list[int]]:
    """Join the objects of planes through z; return how many there are in each volume."""
    volumes = range(directory.plan.volumes)
    for volume in volumes:
        if not directory.stacked(volume).exists():
            for _ in assemble.stitch_volume(directory, volume):
                yield counter.peek(0, "joining through z")
    return [assemble.count_in_volume(directory, volume) for volume in volumes]


@dataclass
class _StepCounter:
    """Counts the steps of a run for its progress."""

    total: int
    done: int = 0

    def skip(self, steps: int) -> None:
        """Count steps that an earlier run did."""
        self.done += steps

    def add(self, what: str, steps: int = 1) -> Progress:
        """Count steps that are done now."""
        self.done += steps
        return Progress(self.done, self.total, what)

    def peek(self, further: int, what: str) -> Progress:
        """Report steps that are under way without counting them."""
        return Progress(min(self.total, self.done + further), self.total, what)
