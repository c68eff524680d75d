"""How large an image's objects are, and whether it is like the training images: before the run.

A network that is shown objects far from the size it was trained on finds fragments or clumps, with
low maps. So a small part of the image is segmented at several scales (scale trials). The best scale
is that at which the objects found have the size that the network works on best, the highest
distance maps and the most certain foreground, and are found again when the image is turned
(consistency).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import SettingsError
from napari_unet.core.image.diameters import (
    working_scale,
)
from napari_unet.core.image.domain_shift import (
    ShiftRemark,
    shift_remark,
    size_remark,
    statistic_ranges,
    two_sizes_remark,
)
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.model_input import choose_scale, open_frame
from napari_unet.nn.inference.scale_trials import (
    CLEAR_COUNT,
    ScaleTrial,
    check_consistency,
    try_scale,
)
from napari_unet.nn.inference.second_size import find_second_size
from napari_unet.nn.inference.taught_size import taught_size

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.training.samples import Samples
    from napari_unet.core.training.training_sample import Sample
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.inference.taught_size import TaughtSize

ESTIMATING = "looking at the image"
"""What is done, for the progress bar."""
SCALES = (1.0, 0.25, 0.5, 2.0, 4.0)
"""Scales that are tried, in network pixels an image pixel; the image's own comes first."""
FAR_SCALES = (0.125,)
"""Further ones for models with a size regressor: the others find something in any blur."""
LEAST_EDGE = 24
"""An image that a scale leaves fewer pixels than this is not tried at it."""
TAUGHT_STEPS = (1.0, 0.5, 2.0, 0.25, 4.0)
"""Scales that are tried for a tuned model, as multiples of that for the size it was taught."""
BEST, SAME = 2, 1.2
"""The best trials' own sizes are looked for, too: of so many, unless a scale within this ratio was
tried. Between two scales an octave apart the right one may look worse than a wrong one."""
SIMILAR_QUALITY = 0.2
"""Trials whose qualities differ by less count nearly alike in the estimate."""


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
        What is unlike the training images, if the model's card knows and the settings ask for it;
        and whether clear objects of two sizes are seen, unless the settings tell the size.

    Raises
    ------
    SettingsError
        A diameter in micrometres for an image of unknown pixel size, or a model without a size.
    """
    settings = _in_pixels(stack, settings)
    if model.spec.head != "instance":
        return settings, ()
    wanted, told = model.diameter, settings.diameter is not None
    ranges = model.card.training.get("statistics") if settings.survey else None
    look_at_all = wanted and (not told or ranges)
    looks = _FrameTrials.open(stack, model, settings) if look_at_all else None
    trials: list[ScaleTrial] = []
    if looks and (not told or not looks.shows_clear_objects(choose_scale(model, settings))):
        trials = yield from looks.steps()
    found = _combine(trials, wanted) if wanted else 0.0
    if not told and wanted:
        settings = replace(settings, diameter=wanted / working_scale(found, wanted))
    scale = choose_scale(model, settings)
    remarks: list[ShiftRemark | None] = []
    if looks and ranges:
        remarks.append(shift_remark(looks.at(scale).shift_statistics, ranges))
        remarks.append(size_remark(found, settings.diameter or 0, told=told))
    if looks and settings.survey and not told and len(trials) > 1:
        if other := find_second_size(trials, found, looks.frame, model, settings):
            remarks.append(two_sizes_remark(settings.diameter or found, other))
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
    looks = _FrameTrials.open(stack, model, settings or PredictSettings())
    return _combine(run_to_end(looks.steps()), model.diameter) if looks else 0.0


@dataclass(eq=False)
class _FrameTrials:
    """Scale trials of one frame; each scale is tried once, and kept.

    What they say depends on the stack alone, not on which frames or tiles are run.
    """

    frame: Frame
    model: Model
    settings: PredictSettings
    taught: TaughtSize | None
    kept: list[ScaleTrial] = field(default_factory=list)

    @classmethod
    def open(cls, stack: Stack, model: Model, settings: PredictSettings) -> _FrameTrials | None:
        """Open a stack's middle frame; None if there is none, or nothing in it."""
        frames = stack.indices(model.spec.ndim)
        if not frames:
            return None
        at_own_scale = replace(settings, diameter=None, diameter_um=None)
        frame = open_frame(stack, model, at_own_scale, frames[len(frames) // 2])
        return None if frame.blank else cls(frame, model, settings, taught_size(model, stack))

    @property
    def scales(self) -> list[float]:
        """Scales that are tried, the most likely first."""
        if self.taught:
            sizes = (self.taught.diameter / step for step in TAUGHT_STEPS)
            return [working_scale(size, self.model.diameter) for size in sizes]
        return [*SCALES, *(FAR_SCALES if self.model.size else ())]

    def at(self, scale: float, *, turned: bool = False) -> ScaleTrial:
        """Return the trial at a scale, with its consistency if it is to be `turned`."""
        place = next((n for n, t in enumerate(self.kept) if math.isclose(t.scale, scale)), None)
        if place is None:
            given = (self.frame, scale, self.model, self.settings)
            self.kept.append(replace(try_scale(*given, turned=turned), taught=self.taught))
            return self.kept[-1]
        if turned and not self.kept[place].turned:
            self.kept[place] = check_consistency(self.kept[place], self.model, self.settings)
        return self.kept[place]

    def shows_clear_objects(self, scale: float) -> bool:
        """Return whether so many objects are clear at a scale that no other need be looked at."""
        trial, wanted = self.at(scale), self.model.diameter or 0.0
        if math.isclose(scale, self.scales[0]) and trial.is_conclusive(wanted):
            return False  # it is the only one that `steps` looks at
        enough = trial.count_clear_looking(wanted) >= CLEAR_COUNT
        return enough and self.at(scale, turned=True).clear >= CLEAR_COUNT

    def steps(self) -> Generator[Progress, None, list[ScaleTrial]]:
        """Try several scales, unless the first is conclusive.

        That is the image's own, or the one for the size that the model was taught. Yields between
        two trials: a network that finds thousands of objects in noise takes long over each.
        """
        wanted, scales = self.model.diameter or 0.0, self.scales
        first = self.at(scales[0])
        if first.is_conclusive(wanted):
            return [first]
        trials = [self.at(first.scale, turned=True)]

        def look_at(scales: list[float]) -> Generator[Progress, None, None]:
            for scale in scales:
                new = all(abs(math.log(trial.scale / scale)) >= math.log(SAME) for trial in trials)
                if new and scale * max(self.frame.size) >= LEAST_EDGE:
                    yield Progress(0, 0, ESTIMATING)
                    trials.append(self.at(scale, turned=True))

        yield from look_at(scales)
        best = sorted(trials, key=lambda trial: trial.quality(wanted), reverse=True)[:BEST]
        yield from look_at([working_scale(trial.size, wanted) for trial in best if trial.size])
        return trials


def training_statistics(model: Model, samples: Samples) -> dict[str, list[float]]:
    """Return the ranges of the training images' statistics, for the model's card."""
    trials = (try_sample(model, sample) for sample in samples.items)
    return statistic_ranges([trial.shift_statistics for trial in trials if trial])


def try_sample(model: Model, sample: Sample) -> ScaleTrial | None:
    """Segment a part of a training image at its objects' size; None if the image is blank."""
    frame = sample_frame(model, sample)
    scale = working_scale(sample.diameter, model.diameter)
    return None if frame.blank else try_scale(frame, scale, model, PredictSettings())


def sample_frame(model: Model, sample: Sample) -> Frame:
    """Return a training image as a model sees a frame."""
    axes, ratio = "CZYX" if sample.labels.ndim == 3 else "CYX", sample.voxel_ratio
    size = (ratio, 1.0, 1.0) if ratio else None
    stack = open_stack(sample.image, axes=axes, voxel_size_um=size)
    return open_frame(stack, model, PredictSettings(), ())


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

    It is that of the best trial, or lies between those of several that are nearly as good; of a
    tuned model between that and the taught size.
    """
    found = [trial for trial in trials if trial.size]
    if not found:
        taught = trials[0].taught if trials else None
        return taught.diameter if taught else 0.0
    quality = np.array([trial.quality(wanted) for trial in found])
    weights = np.exp((quality - quality.max()) / SIMILAR_QUALITY)
    sizes = np.log([trial.size for trial in found])
    size = float(np.exp(np.average(sizes, weights=weights)))
    best = found[int(quality.argmax())]
    return best.taught.of_image(size, best.objects) if best.taught else size
