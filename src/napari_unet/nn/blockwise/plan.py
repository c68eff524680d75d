"""What is requested becomes a plan, or is held against that of the unfinished run to be resumed.

One tile is then tried, to say what the run will take.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.assemble import pack_block
from napari_unet.core.blockwise.blocks import BlockPlan, choose_block, choose_planes_per_batch
from napari_unet.core.blockwise.estimate import TileCost
from napari_unet.core.blockwise.run_directory import (
    RunDirectory,
    clear,
    packed_size,
    write_run_text,
)
from napari_unet.core.blockwise.run_plan import PLAN, RunPlan
from napari_unet.core.errors import OutputError
from napari_unet.core.image.domain_shift import ShiftReport
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.io.lazy_arrays import UnreadableError
from napari_unet.core.io.provenance import (
    describe_image,
    differing_settings,
    hash_stack,
    make_provenance,
)
from napari_unet.core.io.stack import with_retries
from napari_unet.core.progress import ImageReport, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.volumes.volume_mode import JOINED, get_mode_ndim, object_axes
from napari_unet.nn.inference.decode import decode_settings
from napari_unet.nn.inference.device_memory import LIVE_TENSORS
from napari_unet.nn.inference.diameter_estimation import ESTIMATING
from napari_unet.nn.inference.model import write_exactly
from napari_unet.nn.inference.model_input import choose_scale, get_channels, image_remarks
from napari_unet.nn.inference.seam_check import check_seams
from napari_unet.nn.inference.segment import resolve_settings

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unet.core.blockwise.output_location import OutputLocation
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.progress import Progress
    from napari_unet.core.tiles import Tile
    from napari_unet.nn.blockwise.executor import BlockRun, Executor
    from napari_unet.nn.inference.map_source import MapSource
    from napari_unet.nn.inference.model import Model

_WARM_UP_SECONDS = 2.0
"""A tile that takes less is timed once more: the first pass of a network sets things up."""


class OtherRunError(OutputError):
    """An unfinished run is not of what is requested now."""


@dataclass(frozen=True)
class BlockwiseRequest:
    """What is to be segmented, and where the labels go.

    Attributes
    ----------
    source
        A stack, or anything that `open_stack` takes.
    target
        Where the labels go.
    settings
        How the model is run.
    block
        Edge length of a block, or one for each axis; see `choose_block`.
    resume
        Whether an unfinished run at the target is resumed.
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


def resolve_plan(
    request: BlockwiseRequest, run: BlockRun, executor: Executor
) -> Generator[Progress, None, None]:
    """Make the plan of a run and write it into its folder, unless an unfinished run is resumed.

    Raises
    ------
    OtherRunError
        The unfinished run that is to be resumed is of another image, model or settings.
    OutputError
        There is an unfinished run, and it shall neither be resumed nor replaced.
    """
    directory, stack, model = run.directory, run.stack, run.model
    if (directory.folder / PLAN).exists():
        if request.resume:
            _prepare_resume(directory, _plan_values(request, run, directory.plan.ndim))
            return
        if not request.overwrite:
            raise OutputError(
                f"{directory.folder} holds an unfinished run; go on with it (--resume), or begin "
                "anew (--overwrite)."
            )
    directory.empty()
    readable = with_retries(stack, lenient=True)
    resolved, mode, min_voxels, found = yield from resolve_settings(
        readable, model, request.settings
    )
    values = _plan_values(request, run, get_mode_ndim(mode))
    noticed = image_remarks(stack, model, request.settings)
    if noticed:
        yield ImageReport(0, 0, ESTIMATING, noticed)
    if found:
        yield ShiftReport(0, 0, ESTIMATING, found)
    write_exactly(model, directory.folder / "model")
    decode = decode_settings(model, resolved) if model.spec.head == "instance" else None
    size = stack.frame_shape(get_mode_ndim(mode))
    block = choose_block(size, request.block)
    provenance = make_provenance(
        with_retries(stack), model.card.identity, request.settings, hashed=False
    ) | {
        "diameter_px": resolved.diameter,
        "scale": choose_scale(model, resolved),
        "volumes": mode,
        OBJECT_AXES: object_axes(mode),
        "data_hash": values["identity"]["data"],
        "remarks": [*(r.text for r in noticed), *(r.text for r in found)],
        "channels": list(get_channels(stack, model, request.settings)),
        "image": describe_image(stack),
    }
    plan = RunPlan(
        **{**values, "block": block},
        run=uuid.uuid4().hex,
        resolved=asdict(resolved),
        decode=asdict(decode) if decode else None,
        precision=executor.call(_choose_precision, request.settings.precision),
        provenance=provenance,
        min_voxels=min_voxels if mode == JOINED else None,
        levels=request.target.levels,
        planes_per_batch=choose_planes_per_batch(
            stack.labels_shape[: -len(size)], BlockPlan(size, block)
        ),
    )
    write_run_text(directory.folder / PLAN, plan.to_json())


def _choose_precision(run: BlockRun, requested: str) -> str:
    return run.model.choose_precision(requested)


def _plan_values(request: BlockwiseRequest, run: BlockRun, ndim: int) -> dict[str, Any]:
    """Return the attributes in which a plan has to agree with a request to be resumed.

    `ndim`, the axes of a frame, follows from settings and data.
    """
    stack, block = run.stack, request.block
    return {
        "axes": stack.labels_axes,
        "shape": stack.labels_shape,
        "ndim": ndim,
        "block": None if block is None else choose_block(stack.frame_shape(ndim), block),
        "settings": asdict(request.settings),
        "identity": {
            "weights": _hash_weights(run.model),
            "data": _hash_data(stack),
            "zarr_format": request.target.zarr_format,
        },
    }


def _prepare_resume(directory: RunDirectory, requested: dict[str, Any]) -> None:
    """Check that an unfinished run is the one requested; make it try failed blocks again."""
    plan = directory.plan
    if different := plan.differs(**requested):
        raise OtherRunError(
            f"{directory.folder} holds an unfinished run of another kind ({different}); give the "
            "same image, model and settings, or begin anew (--overwrite)."
        )
    if (directory.folder / "failed").exists():
        for frame in range(plan.frames):
            for number in directory.done("failed", frame):
                directory.block(plan.batches.batch_of(frame), number).unlink(missing_ok=True)
        # What came after the blocks counts the failed ones as empty.
        for name in ("join", "stacked", "written", "result", "failed"):
            clear(directory.folder / name)
    if not directory.result.exists():  # killed after the result was moved to its place
        clear(directory.folder / "written")


def check_same_result(
    path: Path, provenance: dict[str, Any], request: BlockwiseRequest, stack: Stack, model: Model
) -> None:
    """Raise OtherRunError unless a finished result is what is requested; it is not replaced."""
    if not provenance:
        raise OtherRunError(
            f"{path} holds labels that do not say how they were made; choose another name, or "
            "overwrite them (--overwrite)."
        )
    different = list(differing_settings(provenance, model.card.hash, request.settings))
    data = provenance.get("data_hash")
    if data is not None and _hash_data(stack) not in (data, None):
        different.append("another image")
    if different:
        raise OtherRunError(
            f"{path} holds finished labels of another kind ({'; '.join(different)}); give the same "
            "image, model and settings, choose another name, or begin anew (--overwrite)."
        )


def _hash_weights(model: Model) -> str:
    if model.is_foreign:
        return model.card.hash
    digest = hashlib.sha256()
    for name, value in sorted(model.net.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _hash_data(stack: Stack) -> str | None:
    """Return the data's `hash_stack`; None if a part that goes into it cannot be read."""
    try:
        return hash_stack(with_retries(stack))
    except UnreadableError:
        return None


def measure_tile(run: BlockRun) -> TileCost:
    """Run a tile of the middle frame, and check the seams at a corner of blocks if requested."""
    plan = run.directory.plan
    frame = plan.frames // 2
    unknown = TileCost(run.model.device_name)
    try:
        maps = run.maps(frame)
    except UnreadableError:
        return unknown
    number = plan.blocks.count // 2
    tiles = maps.plan(plan.blocks.window(number))
    if maps.frame.blank or not tiles:
        return unknown
    seam = _check_seams(run, maps, number) if run.settings.certify else None
    try:
        seconds, disk_bytes = _time_tile(run, frame, tiles[0])
    except UnreadableError:
        seconds = disk_bytes = 0.0
    width = run.model.runner(plan.precision).dtype.itemsize * run.model.spec.width
    memory = LIVE_TENSORS * width * float(np.prod(tiles[0].read_shape))
    edges = tuple(w.stop - w.start for w in tiles[0].write)
    return TileCost(unknown.device, seconds, disk_bytes, memory, edges, seam)


def _check_seams(run: BlockRun, maps: MapSource, number: int) -> float | None:
    """Compare a crop across a corner of tiles, if possible of several blocks, with one piece."""
    blocks = run.directory.plan.blocks
    near = [number, *(other for other in blocks.neighbours(number) if other < number)]
    tiles = [tile for block in sorted(near) for tile in maps.plan(blocks.window(block))]
    if len(tiles) == 1:
        return 0.0  # one piece has no seams
    try:
        return check_seams(maps, tiles, np.random.default_rng(run.settings.seed))
    except UnreadableError:
        return None


def _time_tile(run: BlockRun, frame: int, tile: Tile) -> tuple[float, float]:
    """Return the seconds and the bytes on the disk that a tile takes, for each pixel."""
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        ids, summary = run_to_end(run.decode(frame, tile.write, [tile]))
        seconds = time.perf_counter() - began
        if seconds >= _WARM_UP_SECONDS:
            break
    labels = packed_size({"ids": ids})
    everything = packed_size(pack_block(ids, summary))
    # Ids and labels of all levels, and the tables twice: of the blocks, and of their joining.
    disk_bytes = labels * (1 + 4 / 3) + 2 * (everything - labels)
    return seconds / ids.size, disk_bytes / ids.size
