"""From a stack to labels: `segment`, and `segment_steps`, which reports every tile and frame."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.image.domain_shift import ShiftReport
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.io.provenance import make_provenance
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.progress import (
    FrameDone,
    ImageReport,
    Progress,
    Stalled,
    TileDone,
    run_to_end,
)
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.volumes.stitch3d import stitch_steps
from napari_unet.core.volumes.volume_mode import (
    AUTO,
    JOINED,
    ORTHOGONAL,
    anisotropy,
    ball_voxels,
    get_mode_ndim,
    object_axes,
    resolve_volume_mode,
)
from napari_unet.nn.inference.decode import InstanceDecoder, SemanticDecoder, open_decoder
from napari_unet.nn.inference.diameter_estimation import ESTIMATING, diameter_steps
from napari_unet.nn.inference.map_source import open_map_source
from napari_unet.nn.inference.model_input import (
    check_fit,
    choose_scale,
    get_channels,
    image_remarks,
)
from napari_unet.nn.inference.plane_batches import batch_planes
from napari_unet.nn.inference.seam_check import SeamCheck, check_seams
from napari_unet.nn.inference.tile_runner import Waiting

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.image.domain_shift import ShiftRemark
    from napari_unet.core.tiles import Index, Window
    from napari_unet.nn.inference.embeddings import FeatureCache
    from napari_unet.nn.inference.map_source import MapSource
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.inference.tile_runner import Focus

Step = TileDone | FrameDone | ShiftReport | ImageReport | Progress
Steps = Generator[Step, None, "SegmentResult"]


@dataclass(frozen=True)
class SegmentResult:
    """A finished segmentation.

    Attributes
    ----------
    labels
        The output array, of the stack's labels shape.
    objects
        How many objects there are, over all frames.
    provenance
        How they were made: model, data, settings, versions, device, speed, and under ``seam`` the
        largest |difference| in logits between the tiles and one piece.
    """

    labels: Any
    objects: int
    provenance: dict[str, Any]


@dataclass
class _Run:
    """What a run keeps from frame to frame; `notes` are of its provenance."""

    settings: PredictSettings
    decoder: InstanceDecoder | SemanticDecoder
    done: int = 0
    objects: int = 0
    pixels: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


def segment_steps(
    source: Stack | np.ndarray | str | Path | Any,
    model: Model,
    settings: PredictSettings | None = None,
    *,
    out: Any = None,
    what: Sequence[Index] | None = None,
    window: Window | None = None,
    focus: Focus | None = None,
    preview: bool = False,
    features: FeatureCache | None = None,
) -> Steps:
    """Segment a stack, yielding after every tile and every frame.

    Before the first tile come an `ImageReport` and a `ShiftReport`, if there is something to remark
    on how the image was read, or in what it is unlike the training images. Closing the
    generator ends the run after the current tile; what is finished stays in `out`.

    Parameters
    ----------
    source
        A stack, or anything that `open_stack` takes.
    model
        The model; a 2D model takes volumes as `PredictSettings.volumes` chooses.
    settings
        How it is run.
    out
        Where the labels go: an array of uint32 and of the stack's labels shape, indexed by integers
        and slices. Until a frame is done it holds provisional ids. Made in memory if not given.
    what
        Which frames (volumes for a 3D model and the mode "orthogonal", else planes), as positions
        along the leading axes; taken in the order in which it is iterated. All if not given.
    window
        Part of each frame to segment, one slice an axis; all of it if not given. With `what` or
        `window` the mode "auto" is never "orthogonal": they are of planes.
    focus
        Called before each tile; returns the position (in the frame's pixels) near which tiles come
        first.
    preview
        Whether somebody watches: tiles are smaller, and each report brings labels to show.
    features
        Where the features of the image are kept, so that a `ClickSession` need not compute them.

    Returns
    -------
    SegmentResult
        The labels with their provenance.

    Raises
    ------
    UnetError
        An input, setting or device that cannot be used.
    """
    settings = settings or PredictSettings()
    stack, began = open_stack(source), time.perf_counter()
    check_fit(stack, model)
    requested = settings
    if settings.volumes == AUTO and (what is not None or window is not None):
        settings = replace(settings, volumes=JOINED)
    noticed = image_remarks(stack, model, settings)
    if noticed:
        yield ImageReport(0, 0, ESTIMATING, noticed)
    settings, mode, minimum, remarks = yield from resolve_settings(stack, model, settings)
    if remarks:
        yield ShiftReport(0, 0, ESTIMATING, remarks)
    frames = stack.indices(get_mode_ndim(mode)) if what is None else what
    decoder = open_decoder(model, settings, _output(stack, out), preview=preview)
    run = _Run(settings, decoder)
    precision = model.choose_precision(settings.precision)
    run.notes |= {"device": model.device_name, "precision": precision, "tile": None, "seam": None}
    run.notes |= {"diameter_px": settings.diameter, "scale": choose_scale(model, settings)}
    run.notes |= {"volumes": mode, OBJECT_AXES: object_axes(mode)}
    run.notes["remarks"] = [*(r.text for r in noticed), *(r.text for r in remarks)]
    run.notes["channels"] = list(get_channels(stack, model, requested))
    sources = (
        open_map_source(
            stack,
            model,
            settings,
            index,
            on_device=decoder.on_device,
            live=preview,
            cache=features,
            wanted=decoder.wanted,
        )
        for index in frames
    )
    with closing(batch_planes(sources, window, settings.batch)) as batched:
        for number, map_source in enumerate(batched):
            yield from _segment_frame(run, map_source, len(frames) - number, window, focus)
    if mode == JOINED:
        # What is small in a single plane may be the section of a large object.
        least = minimum if len(frames) > 1 else requested.min_size or 0
        yield from _join_planes(run, frames, window, least)
    seconds = time.perf_counter() - began
    provenance = make_provenance(stack, model.card.identity, requested) | run.notes
    provenance |= {
        "objects": run.objects,
        "seconds": round(seconds, 3),
        "mpx_per_s": round(run.pixels / 1e6 / seconds, 4),
    }
    return SegmentResult(decoder.out, run.objects, provenance)


def segment(
    source: Stack | np.ndarray | str | Path | Any,
    model: Model,
    settings: PredictSettings | None = None,
) -> np.ndarray:
    """Segment a stack.

    Parameters
    ----------
    source
        A stack, or anything that `open_stack` takes.
    model
        The model; a 2D model takes volumes as `PredictSettings.volumes` chooses.
    settings
        How it is run.

    Returns
    -------
    np.ndarray
        uint16, or uint32 above 65,535 objects in a frame, of the stack's shape without C: (Y, X),
        with T and Z in front where there are any. 0 is background.

    Raises
    ------
    UnetError
        An input, setting or device that cannot be used.

    Warns
    -----
    ShiftWarning
        The image is unlike those the model was trained on.
    """

    def warn(step: Step) -> None:
        if isinstance(step, ShiftReport):
            step.warn()

    labels: np.ndarray = run_to_end(segment_steps(source, model, settings), warn).labels
    return labels.astype(np.min_scalar_type(max(256, int(labels.max(initial=0)))), copy=False)


class ResolvedSettings(NamedTuple):
    """How a stack is segmented, once it is known what the settings mean for it.

    Attributes
    ----------
    settings
        With sizes in pixels, and the volume mode of a 2D model.
    mode
        See `core.volumes.volume_mode`.
    minimum_voxels
        Size of the smallest object of several planes; 0 where there are none.
    remarks
        What is unlike the training images.
    """

    settings: PredictSettings
    mode: str
    minimum_voxels: int
    remarks: tuple[ShiftRemark, ...]


def resolve_settings(
    stack: Stack, model: Model, settings: PredictSettings
) -> Generator[Progress, None, ResolvedSettings]:
    """Resolve sizes and the volume mode, which depends on them; yield as `diameter_steps` does."""
    if model.is_foreign:  # its size in pixels is unknown, and so is how a rescaled axis looks to it
        if settings.volumes == ORTHOGONAL:
            raise SettingsError(
                f"volumes is {ORTHOGONAL}, which the model {model.name!r} cannot do, as others "
                f"built it; choose {JOINED} or planes."
            )
        settings = replace(
            settings, volumes=JOINED if settings.volumes == AUTO else settings.volumes
        )
    known = (model.spec.ndim, model.spec.head, stack)
    mode = resolve_volume_mode(settings.volumes, *known)
    if mode not in (JOINED, ORTHOGONAL):
        resolved, remarks = yield from diameter_steps(stack, model, settings)
        return ResolvedSettings(resolved, mode, 0, remarks)
    # A minimum size that was given counts for whole objects: their parts in single planes, before
    # they are joined, may be as small as the model's own minimum.
    requested = settings.min_size
    resolved, remarks = yield from diameter_steps(stack, model, replace(settings, min_size=None))
    mode = resolve_volume_mode(settings.volumes, *known, diameter=resolved.diameter)
    if requested is None:
        minimum = ball_voxels(resolved.min_size or 0, anisotropy(stack))
    else:
        minimum = requested
    if mode == ORTHOGONAL:
        resolved = replace(resolved, min_size=minimum)
    return ResolvedSettings(replace(resolved, volumes=mode), mode, minimum, remarks)


def _join_planes(
    run: _Run, frames: Sequence[Index], window: Window | None, minimum: int
) -> Generator[Progress, None, None]:
    """Join the objects of each time point's planes through z."""
    run.objects = 0
    for time_point in dict.fromkeys(index[:-1] for index in frames):
        planes = [index for index in frames if index[:-1] == time_point]
        progress = (run.done, run.done)
        run.objects += yield from stitch_steps(run.decoder.out, planes, window, minimum, progress)


def _output(stack: Stack, out: Any) -> Any:
    if out is None:
        return np.zeros(stack.labels_shape, np.uint32)
    if tuple(out.shape) != stack.labels_shape or np.dtype(out.dtype) != np.uint32:
        raise InputError(
            f"The output is {out.dtype} of shape {tuple(out.shape)}; give uint32 of shape "
            f"{stack.labels_shape}."
        )
    return out


def _segment_frame(
    run: _Run, source: MapSource, frames_left: int, window: Window | None, focus: Focus | None
) -> Generator[Progress, None, None]:
    """Segment one plane or volume; the seams of the first one are checked."""
    index = source.frame.index
    tiles = [] if source.frame.blank else source.plan(window)
    total = run.done + source.count_steps(tiles) * frames_left
    certify = run.settings.certify and run.done == 0
    rng = np.random.default_rng(run.settings.seed)
    watched = certify and len(tiles) > 1 and not source.decodes
    seam = SeamCheck(tiles, rng) if watched else None
    run.notes["tile"] = source.edge
    run.decoder.start(index, source.frame.size)
    count = 0
    try:
        for step in source.steps(tiles, focus):
            if isinstance(step, Waiting):
                yield Stalled(run.done, max(1, total), "tiles", step.reason)
                continue
            tile, raw = step
            run.done += 1
            total = max(total, run.done)  # tiles were halved where memory was short
            if raw is None:
                yield Progress(run.done, total, "planes")
                continue
            if seam:
                seam.see(tile, raw)
            shown = run.decoder.add(tile, raw)
            count += 1
            run.pixels += math.prod(w.stop - w.start for w in tile.write)
            yield TileDone(run.done, total, "tiles", index, tile.write, shown)
        if seam:
            run.notes["seam"] = seam.difference(source)
        elif certify and source.decodes and len(tiles) > 1:  # a crop is computed again for it
            run.notes["seam"] = check_seams(source, tiles, rng)
        elif certify and count == 1:
            run.notes["seam"] = 0.0  # one tile has no seams; checking would double the work
    finally:  # the tiles of a cancelled run become labels, too
        objects = run.decoder.finish()
    run.objects += objects
    yield FrameDone(run.done, total, "frames", index, objects)
