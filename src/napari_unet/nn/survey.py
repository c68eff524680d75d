"""A look at an image before the run: how large its objects are, and whether its kind is known.

A network that is shown objects far from the size it knows finds fragments, or clumps, with blurred
middles. So a small part of the image is tried at several scales, and that one is taken at which the
objects found have the size that the network knows best, and the fullest middles and surest
outlines. A model that learned from few images is as sure of what it finds at a wrong scale as at
the right one; it begins at the scale at which objects of its images have the size that it knows,
and unless what it finds is far from this size, a second look at the scale that it points to is the
answer.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.core.heads import head_of
from napari_unet.core.objects import separate
from napari_unet.core.shift import Remark, intensity_statistics, kind_remark, ranges_of, size_remark
from napari_unet.core.sizes import TOLERANCE, peak_heights, typical_diameter, working_scale
from napari_unet.core.spec import PredictSettings, SettingsError
from napari_unet.core.stack import open_stack
from napari_unet.nn.fit import choose_scale, open_frame

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.core.frames import Frame
    from napari_unet.core.samples import Samples
    from napari_unet.core.stack import Stack
    from napari_unet.nn.model import Model

SCALES = (0.25, 0.5, 2.0, 4.0)
"""Network pixels an image pixel that are tried beside 1; times the scale at which the usual objects
have the wanted size, if there are such."""
EDGES = {2: 256, 3: 64}
"""Edge length of the part that is looked at, in network pixels, for planes and volumes."""
CANDIDATES = {2: 4, 3: 3}
"""How many places along each axis are considered for looking at."""
DOUBT_COUNT, DOUBT_PEAK = 2, 0.5
"""What is found is judged as if among it were so many objects of that height: a few full ones are
no proof."""
UNUSUAL = 0.4
"""What a size counts for that is e times the usual one."""
MANY_IMAGES = 100
"""A model that learned from fewer images has a usual size: they come from few microscopes."""
CLEAR_PEAK, CLEAR_COUNT = 0.7, 3
"""So full and so many, objects of the size that the network knows best leave no doubt."""
FAR = 2.5
"""A model with a usual size tries other scales only if the objects that it finds at its own are so
many times as large as those that the network knows best, or as small."""


@dataclass(frozen=True)
class Look:
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
    """

    scale: float
    diameter: float
    objects: int
    statistics: Mapping[str, float]

    def quality(self, wanted: float, usual: float | None = None) -> float:
        """Tell how well the objects found are what the network knows; their size, too.

        `usual` is the diameter that objects mostly have in images of this kind, in image pixels.
        """
        heights = self.objects * self.statistics["peak"] + DOUBT_COUNT * DOUBT_PEAK
        peak = heights / (self.objects + DOUBT_COUNT)
        unusual = abs(math.log(self.diameter / usual)) if usual else 0.0
        seen = 3 * peak + 2 * self.statistics["certainty"]
        return seen - self._misfit(wanted) - UNUSUAL * unusual

    def clear(self, wanted: float, usual: float | None = None) -> bool:
        """Tell whether other scales need not be tried."""
        if self.objects < CLEAR_COUNT:
            return False
        if usual:
            return self._misfit(wanted) <= math.log(FAR)
        sure = self.statistics["peak"] >= CLEAR_PEAK
        return sure and self._misfit(wanted) <= math.log(TOLERANCE)

    def _misfit(self, wanted: float) -> float:
        """Return by how much the network saw other sizes than the wanted one, as |log ratio|."""
        return abs(math.log(self.scale * self.diameter / wanted))


def settle_size(
    stack: Stack, model: Model, settings: PredictSettings
) -> tuple[PredictSettings, tuple[Remark, ...]]:
    """Turn what was asked about sizes into pixels of this stack, and tell what is unusual about it.

    A diameter in micrometres becomes pixels, a missing one is estimated from the middle frame, and
    the model's smallest size, which counts the network's pixels, becomes pixels of the image.

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
    looks: list[Look] = []
    if wanted and (settings.diameter is None or (settings.survey and ranges)):
        looks = take_looks(stack, model, settings)
    found = _best(looks, wanted, usual_diameter(model)).diameter if looks and wanted else 0.0
    if settings.diameter is None and wanted:
        settings = replace(settings, diameter=wanted / working_scale(found, wanted))
    scale = choose_scale(model, settings)
    remarks: list[Remark | None] = []
    if settings.survey and ranges and looks:
        here = [look for look in looks if math.isclose(look.scale, scale)]
        frame = _middle_frame(stack, model, settings)
        look = here[0] if here else look_at(frame, scale, model, settings)
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
    looks = take_looks(stack, model, settings or PredictSettings())
    best = _best(looks, model.diameter, usual_diameter(model)) if looks else None
    return best.diameter if best else 0.0


def take_looks(stack: Stack, model: Model, settings: PredictSettings) -> list[Look]:
    """Look at the middle frame at several scales, unless its own leaves no doubt.

    The answer depends on the stack alone, not on which frames or tiles are run.
    """
    frame = _middle_frame(stack, model, settings)
    if frame.blank:
        return []
    wanted, usual = model.diameter or 0.0, usual_diameter(model)
    own = wanted / usual if usual else 1.0
    looks = [look_at(frame, own, model, settings)]
    if looks[0].clear(wanted, usual):
        if usual:  # a network sees sizes less unlike those it knows than they are: again, nearer
            again = look_at(frame, wanted / looks[0].diameter, model, settings)
            return [again] if again.objects else looks
        return looks
    return looks + [look_at(frame, own * scale, model, settings) for scale in SCALES]


def look_at(frame: Frame, scale: float, model: Model, settings: PredictSettings) -> Look:
    """Find the objects in the busiest part of a frame at one scale."""
    image = _busiest(frame.at(scale))
    runner = model.runner(model.choose_precision(settings.precision))
    raw = runner(torch.from_numpy(image)[None])[0].cpu().numpy()
    maps = head_of(model.spec).activate(raw)
    chosen = model.decoding.updated(threshold=settings.threshold, merge=settings.merge)
    labels = separate(maps, chosen)
    peaks = peak_heights(labels, maps[1])
    statistics = intensity_statistics(image) | {
        "peak": float(peaks.mean()) if len(peaks) else 0.0,
        "certainty": float(np.abs(2 * maps[0] - 1).mean()),
        "share": float((labels > 0).mean()),
    }
    return Look(scale, typical_diameter(labels) / scale, len(peaks), statistics)


def training_statistics(model: Model, samples: Samples) -> dict[str, list[float]]:
    """Return between which values the statistics of training images lie, for the model's card."""
    seen, settings = [], PredictSettings()
    for sample in samples.items:
        axes = "CZYX" if sample.labels.ndim == 3 else "CYX"
        frame = _middle_frame(open_stack(sample.image, axes=axes), model, settings)
        scale = working_scale(sample.diameter, model.diameter)
        if not frame.blank:
            seen.append(look_at(frame, scale, model, settings).statistics)
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


def usual_diameter(model: Model) -> float | None:
    """Return the median diameter of what a model was tuned on, in image pixels, if it was few."""
    training = model.card.training
    if training.get("images", MANY_IMAGES) >= MANY_IMAGES:
        return None
    diameter: float | None = training.get("diameter_px", {}).get("q50")
    return diameter


def _best(looks: list[Look], wanted: float, usual: float | None = None) -> Look:
    found = [look for look in looks if look.objects]
    return max(found, key=lambda look: look.quality(wanted, usual)) if found else looks[0]


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
