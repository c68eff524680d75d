"""A look at an image before the run: how large its objects are, and whether its kind is known.

A network that is shown objects far from the size it knows finds fragments, or clumps, with blurred
middles. So a small part of the image is tried at several scales, and that one is taken at which the
objects found have the size that the network knows best, the fullest middles and surest outlines,
and are found again when the image is turned.
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
    kind_remark,
    ranges_of,
    size_remark,
)
from napari_unet.core.instances.heads import get_head
from napari_unet.core.instances.tile_merger import separate
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress, run_to_end
from napari_unet.core.settings import PredictSettings
from napari_unet.nn.inference.model import choose_scale, open_frame

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.model import Model

ESTIMATING = "looking at the image"
"""What goes on, for who waits."""
SCALES = (1.0, 0.25, 0.5, 2.0, 4.0)
"""Network pixels an image pixel that are tried."""
EDGES = {2: 256, 3: 64}
"""Edge length of the part that is looked at, in network pixels, for planes and volumes."""
CANDIDATES = {2: 4, 3: 3}
"""How many places along each axis are considered for looking at."""
DOUBT_COUNT, DOUBT_PEAK = 2, 0.5
"""What is found is judged as if among it were so many objects of that height: a few full ones are
no proof."""
AS_GOOD = 0.2
"""Looks whose qualities differ by less are nearly as good as each other."""
CLEAR_PEAK, CLEAR_COUNT = 0.7, 3
"""So full and so many, objects of the size that the network knows best leave no doubt."""


@dataclass(frozen=True)
class ScaleTrial:
    """What one part of an image shows at one scale.

    Attributes
    ----------
    scale
        Network pixels an image pixel.
    diameter
        Of the objects found, in image pixels; 0 without any.
    objects
        How many there are.
    statistics
        ``peak`` (mean height of the objects' middles, 1 is full), ``certainty`` (mean of
        |2 p - 1|), ``share`` (of the pixels that are objects), and those of the intensities.
    steadiness
        Average precision, at an IoU of 0.5, of what is found in the part turned by 90 degrees; 0
        if that was not asked for.
    """

    scale: float
    diameter: float
    objects: int
    statistics: Mapping[str, float]
    steadiness: float = 0.0

    def quality(self, wanted: float) -> float:
        """Tell how well the objects found are what the network knows; their size, too."""
        heights = self.objects * self.statistics["peak"] + DOUBT_COUNT * DOUBT_PEAK
        peak = heights / (self.objects + DOUBT_COUNT)
        seen = 3 * peak + 2 * self.statistics["certainty"] + 2 * self.steadiness
        return seen - self._misfit(wanted)

    def clear(self, wanted: float) -> bool:
        """Tell whether other scales need not be tried."""
        sure = self.objects >= CLEAR_COUNT and self.statistics["peak"] >= CLEAR_PEAK
        return sure and self._misfit(wanted) <= math.log(TOLERANCE)

    def _misfit(self, wanted: float) -> float:
        """Return by how much the network saw other sizes than the wanted one, as |log ratio|."""
        return abs(math.log(self.scale * self.diameter / wanted))


def resolve_diameter(
    stack: Stack, model: Model, settings: PredictSettings
) -> tuple[PredictSettings, tuple[ShiftRemark, ...]]:
    """Do all of `diameter_steps` at once."""
    return run_to_end(diameter_steps(stack, model, settings))


def diameter_steps(
    stack: Stack, model: Model, settings: PredictSettings
) -> Generator[Progress, None, tuple[PredictSettings, tuple[ShiftRemark, ...]]]:
    """Turn what was asked about sizes into pixels of this stack, and tell what is unusual about it.

    A diameter in micrometres becomes pixels, a missing one is estimated from the middle frame, and
    the model's smallest size, which counts the network's pixels, becomes pixels of the image. It
    yields between two looks at the image.

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
    looks: list[ScaleTrial] = []
    if wanted and (settings.diameter is None or (settings.survey and ranges)):
        looks = yield from scale_trial_steps(stack, model, settings)
    found = _settled(looks, wanted) if wanted else 0.0
    if settings.diameter is None and wanted:
        settings = replace(settings, diameter=wanted / working_scale(found, wanted))
    scale = choose_scale(model, settings)
    remarks: list[ShiftRemark | None] = []
    if settings.survey and ranges and looks:
        here = [look for look in looks if math.isclose(look.scale, scale)]
        frame = _middle_frame(stack, model, settings)
        look = here[0] if here else try_scale(frame, scale, model, settings)
        remarks = [kind_remark(look.statistics, ranges), size_remark(found, settings.diameter or 0)]
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
    looks = run_to_end(scale_trial_steps(stack, model, settings or PredictSettings()))
    return _settled(looks, model.diameter)


def scale_trial_steps(
    stack: Stack, model: Model, settings: PredictSettings
) -> Generator[Progress, None, list[ScaleTrial]]:
    """Look at the middle frame at several scales, unless its own leaves no doubt.

    The answer depends on the stack alone, not on which frames or tiles are run. Yields between two
    looks: a network that finds thousands of objects in noise takes long over each.
    """
    if not stack.indices(model.spec.ndim):
        return []
    frame = _middle_frame(stack, model, settings)
    if frame.blank:
        return []
    own = try_scale(frame, SCALES[0], model, settings)
    if own.clear(model.diameter or 0.0):
        return [own]
    looks = []
    for scale in SCALES:
        yield Progress(0, 0, ESTIMATING)
        looks.append(try_scale(frame, scale, model, settings, steadiness=True))
    return looks


def try_scale(
    frame: Frame,
    scale: float,
    model: Model,
    settings: PredictSettings,
    *,
    steadiness: bool = False,
) -> ScaleTrial:
    """Find the objects in the busiest part of a frame at one scale."""
    image = _busiest(frame.at(scale))
    maps, labels = _objects_in(image, model, settings)
    peaks = peak_heights(labels, maps[1])
    statistics = intensity_statistics(image) | {
        "peak": float(peaks.mean()) if len(peaks) else 0.0,
        "certainty": float(np.abs(2 * maps[0] - 1).mean()),
        "share": float((labels > 0).mean()),
    }
    steady = 0.0
    if steadiness and len(peaks):
        _, turned = _objects_in(np.rot90(image, 1, (-2, -1)), model, settings)
        steady = float(evaluate(np.rot90(turned, -1, (-2, -1)), labels, (0.5,)).ap[0])
    return ScaleTrial(scale, typical_diameter(labels) / scale, len(peaks), statistics, steady)


def training_statistics(model: Model, samples: Samples) -> dict[str, list[float]]:
    """Return between which values the statistics of training images lie, for the model's card."""
    seen, settings = [], PredictSettings()
    for sample in samples.items:
        axes = "CZYX" if sample.labels.ndim == 3 else "CYX"
        frame = _middle_frame(open_stack(sample.image, axes=axes), model, settings)
        scale = working_scale(sample.diameter, model.diameter)
        if not frame.blank:
            seen.append(try_scale(frame, scale, model, settings).statistics)
    return ranges_of(seen)


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


def _settled(looks: list[ScaleTrial], wanted: float) -> float:
    """Return the objects' diameter in image pixels, 0 if nothing was found.

    It is that of the best look, and between the two if another is as good.
    """
    found = [look for look in looks if look.objects]
    if not found:
        return 0.0
    quality = np.array([look.quality(wanted) for look in found])
    weights = np.exp((quality - quality.max()) / AS_GOOD)
    sizes = np.log([look.diameter for look in found])
    return float(np.exp(np.average(sizes, weights=weights)))


def _objects_in(
    image: np.ndarray, model: Model, settings: PredictSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps and the labels of a part of a frame, (C, *spatial), in network pixels."""
    runner = model.runner(model.choose_precision(settings.precision))
    raw = runner(torch.from_numpy(np.ascontiguousarray(image))[None])[0].cpu().numpy()
    maps = get_head(model.spec).activate(raw)
    chosen = model.decoding.updated(threshold=settings.threshold, merge=settings.merge)
    return maps, separate(maps, chosen)


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
