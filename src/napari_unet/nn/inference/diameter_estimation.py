"""How large an image's objects are, and whether it is like the training images: before the run.

A network that is shown objects far from the size it was trained on finds fragments or clumps, with
low maps. So a small part of the image is segmented at several scales (scale trials). The best scale
is that at which the objects found have the size that the network works on best, the highest
distance maps and the most certain foreground, and are found again when the image is turned
(consistency).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.core.errors import SettingsError
from napari_unet.core.evaluation.metrics import evaluate
from napari_unet.core.image.diameters import (
    TOLERANCE,
    peak_heights,
    typical_diameter,
    working_scale,
)
from napari_unet.core.image.domain_shift import (
    ShiftRemark,
    intensity_statistics,
    shift_remark,
    size_remark,
    statistic_ranges,
)
from napari_unet.core.instances.heads import get_head
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.model import choose_scale, open_frame

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.model import Model

ESTIMATING = "looking at the image"
"""What is done, for the progress bar."""
SCALES = (1.0, 0.25, 0.5, 2.0, 4.0)
"""Scales that are tried, in network pixels an image pixel; the image's own comes first."""
EDGES = {2: 256, 3: 64}
"""Edge length of the part that is segmented, in network pixels, for planes and volumes."""
CANDIDATES = {2: 4, 3: 3}
"""The part is chosen among so many places along each axis, by how much intensities vary there."""
PRIOR_COUNT, PRIOR_PEAK = 2, 0.5
"""So many objects of that peak are added to those found: a few high ones are no proof."""
SIMILAR_QUALITY = 0.2
"""Trials whose qualities differ by less count nearly alike in the estimate."""
CONCLUSIVE_PEAK, CONCLUSIVE_COUNT = 0.7, 3
"""With so high and so many objects of the right size, other scales need not be tried."""


@dataclass(frozen=True)
class ScaleTrial:
    """What a model finds in a part of an image at one scale.

    Attributes
    ----------
    scale
        Network pixels an image pixel.
    diameter
        Of the objects found, in image pixels; 0 without any.
    objects
        How many there are.
    statistics
        ``peak`` (mean over the objects of their largest relative distance, 1 at best),
        ``certainty`` (mean of |2 p - 1|), ``share`` (of the pixels that are objects), and those of
        `intensity_statistics`.
    consistency
        Average precision, at an IoU of 0.5, of what is found in the part turned by 90 degrees; 0
        if that was not computed.
    """

    scale: float
    diameter: float
    objects: int
    statistics: Mapping[str, float]
    consistency: float = 0.0

    def quality(self, wanted: float) -> float:
        """Return how much the objects found look like the training objects; more is better.

        Parameters
        ----------
        wanted
            Diameter of the objects that the network works on best, in network pixels.
        """
        peaks = self.objects * self.statistics["peak"] + PRIOR_COUNT * PRIOR_PEAK
        peak = peaks / (self.objects + PRIOR_COUNT)
        seen = 3 * peak + 2 * self.statistics["certainty"] + 2 * self.consistency
        return seen - self._scale_error(wanted)

    def is_conclusive(self, wanted: float) -> bool:
        """Return whether other scales need not be tried."""
        enough = self.objects >= CONCLUSIVE_COUNT and self.statistics["peak"] >= CONCLUSIVE_PEAK
        return enough and self._scale_error(wanted) <= math.log(TOLERANCE)

    def _scale_error(self, wanted: float) -> float:
        """Return how far the objects' size for the network is from the wanted, as |log ratio|."""
        return abs(math.log(self.scale * self.diameter / wanted))


def resolve_diameter(
    stack: Stack, model: Model, settings: PredictSettings
) -> tuple[PredictSettings, tuple[ShiftRemark, ...]]:
    """Run `diameter_steps` to its end."""
    return run_to_end(diameter_steps(stack, model, settings))


def diameter_steps(
    stack: Stack, model: Model, settings: PredictSettings
) -> Generator[Progress, None, tuple[PredictSettings, tuple[ShiftRemark, ...]]]:
    """Resolve the settings' sizes for a stack, and compare it with the training images.

    A diameter in micrometres becomes pixels, a missing one is estimated from the middle frame, and
    the model's minimum size, which counts the network's pixels, becomes pixels of the image. It
    yields between two scale trials.

    Returns
    -------
    settings
        With `min_size`, and with `diameter` unless the model records no size.
    remarks
        What is unlike the training images, if the model's card knows and the settings ask for it.

    Raises
    ------
    SettingsError
        A diameter in micrometres for an image of unknown pixel size, or a model without a size.
    """
    settings = _in_pixels(stack, settings)
    if model.spec.head != "instance":
        return settings, ()
    wanted, ranges = model.diameter, model.card.training.get("statistics")
    trials: list[ScaleTrial] = []
    if wanted and (settings.diameter is None or (settings.survey and ranges)):
        trials = yield from scale_trial_steps(stack, model, settings)
    found = _combine(trials, wanted) if wanted else 0.0
    if settings.diameter is None and wanted:
        settings = replace(settings, diameter=wanted / working_scale(found, wanted))
    scale = choose_scale(model, settings)
    remarks: list[ShiftRemark | None] = []
    if settings.survey and ranges and trials:
        same = [trial for trial in trials if math.isclose(trial.scale, scale)]
        frame = _middle_frame(stack, model, settings)
        used = same[0] if same else try_scale(frame, scale, model, settings)
        remarks = [
            shift_remark(used.statistics, ranges),
            size_remark(found, settings.diameter or 0),
        ]
    if settings.min_size is None:
        chosen = model.decoding.in_image(scale, model.spec.ndim)
        settings = replace(settings, min_size=chosen.min_size)
    return settings, tuple(remark for remark in remarks if remark)


def estimate_diameter(stack: Stack, model: Model, settings: PredictSettings | None = None) -> float:
    """Estimate the diameter of a stack's objects from a small part of its middle frame.

    Parameters
    ----------
    stack
        The image.
    model
        An instance model that records the size of its training objects.
    settings
        Which channel, and the number format.

    Returns
    -------
    float
        In pixels; 0 if nothing was found.
    """
    if not model.diameter:
        return 0.0
    trials = run_to_end(scale_trial_steps(stack, model, settings or PredictSettings()))
    return _combine(trials, model.diameter)


def scale_trial_steps(
    stack: Stack, model: Model, settings: PredictSettings
) -> Generator[Progress, None, list[ScaleTrial]]:
    """Segment a part of the middle frame at several scales, unless its own is conclusive.

    The result depends on the stack alone, not on which frames or tiles are run. Yields between two
    trials: a network that finds thousands of objects in noise takes long over each.
    """
    if not stack.indices(model.spec.ndim):
        return []
    frame = _middle_frame(stack, model, settings)
    if frame.blank:
        return []
    own = try_scale(frame, SCALES[0], model, settings)
    if own.is_conclusive(model.diameter or 0.0):
        return [own]
    trials = []
    for scale in SCALES:
        yield Progress(0, 0, ESTIMATING)
        trials.append(try_scale(frame, scale, model, settings, consistency=True))
    return trials


def try_scale(
    frame: Frame,
    scale: float,
    model: Model,
    settings: PredictSettings,
    *,
    consistency: bool = False,
) -> ScaleTrial:
    """Segment the part of a frame whose intensities vary most, at one scale.

    Parameters
    ----------
    scale
        Network pixels an image pixel.
    consistency
        Whether to segment the part once more, turned by 90 degrees.
    """
    image = _busiest(frame.at(scale))
    maps, labels = _objects_in(image, model, settings)
    peaks = peak_heights(labels, maps[1])
    statistics = intensity_statistics(image) | {
        "peak": float(peaks.mean()) if len(peaks) else 0.0,
        "certainty": float(np.abs(2 * maps[0] - 1).mean()),
        "share": float((labels > 0).mean()),
    }
    again = 0.0
    if consistency and len(peaks):
        _, turned = _objects_in(np.rot90(image, 1, (-2, -1)), model, settings)
        again = float(evaluate(np.rot90(turned, -1, (-2, -1)), labels, (0.5,)).ap[0])
    return ScaleTrial(scale, typical_diameter(labels) / scale, len(peaks), statistics, again)


def training_statistics(model: Model, samples: Samples) -> dict[str, list[float]]:
    """Return the ranges of the training images' statistics, for the model's card."""
    seen, settings = [], PredictSettings()
    for sample in samples.items:
        axes = "CZYX" if sample.labels.ndim == 3 else "CYX"
        frame = _middle_frame(open_stack(sample.image, axes=axes), model, settings)
        scale = working_scale(sample.diameter, model.diameter)
        if not frame.blank:
            seen.append(try_scale(frame, scale, model, settings).statistics)
    return statistic_ranges(seen)


def _in_pixels(stack: Stack, settings: PredictSettings) -> PredictSettings:
    if settings.diameter_um is None:
        return settings
    if not stack.voxel_size_um:
        raise SettingsError(
            f"diameter_um is {settings.diameter_um}, but the image does not say how large its "
            "pixels are; give the diameter in pixels."
        )
    pixels = settings.diameter_um / stack.voxel_size_um[-1]
    return replace(settings, diameter=pixels, diameter_um=None)


def _combine(trials: list[ScaleTrial], wanted: float) -> float:
    """Return the objects' diameter in image pixels, 0 if nothing was found.

    It is that of the best trial, or lies between those of several that are nearly as good.
    """
    found = [trial for trial in trials if trial.objects]
    if not found:
        return 0.0
    quality = np.array([trial.quality(wanted) for trial in found])
    weights = np.exp((quality - quality.max()) / SIMILAR_QUALITY)
    sizes = np.log([trial.diameter for trial in found])
    return float(np.exp(np.average(sizes, weights=weights)))


def _objects_in(
    image: np.ndarray, model: Model, settings: PredictSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps and the labels of a part of a frame, (C, *spatial), in network pixels."""
    runner = model.runner(model.choose_precision(settings.precision))
    raw = runner(torch.from_numpy(np.ascontiguousarray(image))[None])[0].cpu().numpy()
    maps = get_head(model.spec).activate(raw)
    chosen = model.decoding.updated(threshold=settings.threshold, merge=settings.merge)
    return maps, decode_instances(maps, chosen)


def _middle_frame(stack: Stack, model: Model, settings: PredictSettings) -> Frame:
    frames = stack.indices(model.spec.ndim)
    at_own_scale = replace(settings, diameter=None, diameter_um=None)
    return open_frame(stack, model, at_own_scale, frames[len(frames) // 2])


def _busiest(frame: Frame) -> np.ndarray:
    """Read the part of a frame whose intensities vary most, among some on a grid."""
    edge, count = EDGES[len(frame.shape)], CANDIDATES[len(frame.shape)]
    windows = [
        [
            slice(start, min(start + edge, size))
            for start in np.unique(np.linspace(0, max(0, size - edge), count).astype(int)).tolist()
        ]
        for size in frame.shape
    ]
    parts = (frame.read(window) for window in itertools.product(*windows))
    return max(parts, key=lambda part: float(part.std()))
