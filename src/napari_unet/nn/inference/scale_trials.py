"""A look at a part of a frame at one scale: what a model finds there, and how well it fits."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.core.evaluation.metrics import score
from napari_unet.core.image.diameters import (
    TOLERANCE,
    equivalent_diameters,
    object_diameters,
    peak_heights,
    typical_diameter,
)
from napari_unet.core.image.domain_shift import intensity_statistics
from napari_unet.core.instances.heads import get_head
from napari_unet.core.instances.matching import Overlap, match
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.nn.inference.model_input import get_voxel_ratio
from napari_unet.nn.inference.size_regression import size_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.inference.runner import Runner
    from napari_unet.nn.inference.taught_size import TaughtSize

EDGES = {2: 256, 3: 64}
"""Edge length of the part that is segmented, in network pixels, for planes and volumes."""
CANDIDATES = {2: 4, 3: 3}
"""The part is chosen among so many places along each axis, by how much intensities vary there."""
BUSY = 0.5
"""Places where they vary less than this share of the most are not looked at."""
TURNED_TOGETHER = 2**14
"""A square part of so many pixels goes through the network together with its turned copy: of 32 px
that takes half the time, of 128 px seven eighths."""
PRIOR_COUNT, PRIOR_PEAK = 2, 0.5
"""So many objects of that peak are added to those found: a few high ones are no proof."""
CONCLUSIVE_PEAK, CONCLUSIVE_COUNT = 0.7, 3
"""With so high and so many objects of the right size, other scales need not be tried."""
CLEAR_PEAK, CLEAR_RATIO, CLEAR_COUNT = 0.7, 1.6, 3
"""An object is clear if its peak is so high, its size for the network within this ratio of the
best, and it is found again when the image is turned; so many of them are no accident."""
CLEAR_CREDIT, CLEAR_HALF = 1.0, 5
"""What many clear objects add to a trial's quality, and how many add half of that: a few large
clumps can be as certain as many objects, but they are few."""


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
        ``certainty`` (mean of |2 p - 1|), ``share`` (of the pixels that are objects).
    consistency
        Average precision, at an IoU of 0.5, of what is found in the part turned by 90 degrees; 0
        unless it is `turned`.
    clear, clear_diameter
        How many of the objects are clear, see `CLEAR_PEAK`, and their median diameter in image
        pixels; 0 unless it is `turned`.
    expected
        Diameter of the objects by the look of the part, in image pixels; 0 for a model that has not
        learned to tell it.
    taught
        The size that the model was taught; None for a model that was not tuned.
    voxel_ratio
        See `core.image.diameters.equivalent_diameters`.
    turned
        Whether the part was looked at turned by 90 degrees, too.
    features
        What a size regressor reads, `size_features`; None without a working diameter.
    part, labels, peaks
        What was looked at, float32 (C, *spatial), the objects found in it, and each one's largest
        relative distance.
    """

    scale: float
    diameter: float
    objects: int
    statistics: Mapping[str, float]
    consistency: float = 0.0
    clear: int = 0
    clear_diameter: float = 0.0
    expected: float = 0.0
    taught: TaughtSize | None = None
    voxel_ratio: float = 1.0
    turned: bool = False
    features: np.ndarray | None = field(default=None, repr=False, compare=False)
    part: np.ndarray | None = field(default=None, repr=False, compare=False)
    labels: np.ndarray | None = field(default=None, repr=False, compare=False)
    peaks: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def shift_statistics(self) -> dict[str, float]:
        """The statistics that tell domain shift: `statistics`, and those of the intensities."""
        seen = {} if self.part is None else intensity_statistics(self.part)
        return {**seen, **self.statistics}

    @property
    def found(self) -> float:
        """Diameter of the objects found, corrected by how large the taught ones look to a model."""
        return self.diameter / self.taught.seen if self.taught else self.diameter

    @property
    def size(self) -> float:
        """Diameter of the objects in image pixels, by all that is seen; 0: unknown."""
        if self.found and self.expected:
            return math.sqrt(self.found * self.expected)
        return self.found or self.expected

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
        seen += CLEAR_CREDIT * self.clear / (self.clear + CLEAR_HALF)
        surprise = self.taught.penalty(wanted / self.scale) if self.taught else 0.0
        return seen - surprise - sum(self._scale_errors(wanted))

    def count_clear_looking(self, wanted: float) -> int:
        """Count the objects that are clear if they are found again when the image is turned.

        Parameters
        ----------
        wanted
            Diameter of the objects that the network works on best, in network pixels.
        """
        if self.labels is None or self.peaks is None:
            return 0
        sizes = object_diameters(self.labels, self.voxel_ratio)
        return int(_look_clear(sizes, self.peaks, wanted).sum())

    def is_conclusive(self, wanted: float) -> bool:
        """Return whether other scales need not be tried."""
        enough = self.objects >= CONCLUSIVE_COUNT and self.statistics["peak"] >= CONCLUSIVE_PEAK
        return enough and max(self._scale_errors(wanted)) <= math.log(TOLERANCE)

    def _scale_errors(self, wanted: float) -> tuple[float, float]:
        """Return how far the objects' size for the network is from the wanted, as |log ratio|.

        By those found, and by the look of the part, which is the better judge and counts twice.
        """

        def error(diameter: float) -> float:
            return abs(math.log(self.scale * diameter / wanted)) if diameter else 0.0

        return error(self.found), 2 * error(self.expected)


def try_scale(
    frame: Frame, scale: float, model: Model, settings: PredictSettings, *, turned: bool = False
) -> ScaleTrial:
    """Segment a part of a frame where intensities vary, at a scale in network pixels a pixel.

    With `turned` its consistency is checked, too (`check_consistency`).
    """
    at_scale = frame.at(scale)
    # Without a regressor all rests on what is found: the busiest part shows most.
    image, _ = choose_part(at_scale, BUSY if model.size else 1.0)
    whole = image.shape[1:] == at_scale.shape
    views = [torch.from_numpy(image)]
    if turned and image[0].size <= TURNED_TOGETHER and image.shape[-2] == image.shape[-1]:
        views.append(_turned(image))
    raw, summary = _runner(model, settings).summary(torch.stack(views), hold=whole)
    maps, labels = _decode(raw[0], model, settings)
    peaks = peak_heights(labels, maps[1])
    statistics = {
        "peak": float(peaks.mean()) if len(peaks) else 0.0,
        "certainty": float(np.abs(2 * maps[0] - 1).mean()),
        "share": float((labels > 0).mean()),
    }
    long = get_voxel_ratio(model, frame.stack)
    diameter = typical_diameter(labels, long) / scale
    trial = ScaleTrial(scale, diameter, len(peaks), statistics, voxel_ratio=long)
    trial = replace(trial, part=image, labels=labels, peaks=peaks)
    if model.diameter:
        ratio = scale * trial.diameter / model.diameter
        features = size_features(
            summary.cpu().numpy(), statistics | {"objects": math.log1p(len(peaks))}, ratio
        )
        expected = model.diameter * math.exp(model.size(features)) / scale if model.size else 0.0
        trial = replace(trial, expected=expected, features=features)
    if not turned:
        return trial
    return check_consistency(trial, model, settings, raw[1] if len(raw) > 1 else None)


def check_consistency(
    trial: ScaleTrial, model: Model, settings: PredictSettings, raw: torch.Tensor | None = None
) -> ScaleTrial:
    """Segment what a trial looked at once more, turned by 90 degrees, and compare the objects.

    Parameters
    ----------
    raw
        The raw maps of the turned part, if they are known.
    """
    trial, labels = replace(trial, turned=True), trial.labels
    if not trial.objects or trial.part is None or labels is None:
        return trial
    if raw is None:
        raw = _runner(model, settings).maps(_turned(trial.part))
    _, turned = _decode(raw, model, settings)
    overlap = Overlap.from_labels(np.rot90(turned, -1, (-2, -1)), labels)
    trial = replace(trial, consistency=float(score(overlap, (0.5,)).ap[0]))
    if not model.diameter or trial.peaks is None:
        return trial
    sizes = equivalent_diameters(overlap.true_sizes, labels.ndim, trial.voxel_ratio)
    again = np.isin(np.arange(len(sizes)), match(overlap).true)
    clear = sizes[again & _look_clear(sizes, trial.peaks, model.diameter)] / trial.scale
    found = float(np.median(clear)) if len(clear) else 0.0
    return replace(trial, clear=len(clear), clear_diameter=found)


def find_objects(
    image: np.ndarray, model: Model, settings: PredictSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return maps and labels of a part of a frame (C, *spatial)."""
    raw = _runner(model, settings).maps(torch.from_numpy(np.ascontiguousarray(image)))
    return _decode(raw, model, settings)


def _turned(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.rot90(image, 1, (-2, -1)).copy())


def _runner(model: Model, settings: PredictSettings) -> Runner:
    return model.runner(model.choose_precision(settings.precision))


def _decode(
    raw: torch.Tensor, model: Model, settings: PredictSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps and labels that raw maps (K, *spatial) stand for."""
    maps = get_head(model.spec).activate(raw.cpu().numpy())
    chosen = model.decoding.updated(threshold=settings.threshold, merge=settings.merge)
    return maps, decode_instances(maps, chosen)


def name_clear_objects(
    labels: np.ndarray, distance: np.ndarray, wanted: float, voxel_ratio: float = 1.0
) -> np.ndarray:
    """Return the labels of clear objects, whether they would be found again or not.

    Parameters
    ----------
    distance
        The relative distances that the network gave for the labels.
    wanted
        Diameter of the objects that the network works on best, in its pixels.
    voxel_ratio
        See `core.image.diameters.equivalent_diameters`.
    """
    names, counts = np.unique(labels[labels > 0], return_counts=True)
    sizes = equivalent_diameters(counts, labels.ndim, voxel_ratio)
    return np.asarray(names[_look_clear(sizes, peak_heights(labels, distance), wanted)])


def _look_clear(sizes: np.ndarray, peaks: np.ndarray, wanted: float) -> np.ndarray:
    near = np.abs(np.log(sizes / wanted)) <= math.log(CLEAR_RATIO)
    return np.asarray(near & (peaks >= CLEAR_PEAK))


def choose_part(frame: Frame, busy: float) -> tuple[np.ndarray, list[slice]]:
    """Read a part of a frame where there is something: among some on a grid, a typical one.

    Those count whose intensities vary at least `busy` times as much as in the busiest, which often
    shows the largest objects; the middle one of them is taken. Its window comes with it.
    """
    ndim = len(frame.shape)
    edge, count = EDGES[ndim], CANDIDATES[ndim]
    starts = (np.linspace(0, max(0, size - edge), count).astype(int) for size in frame.shape)
    axes = [
        [slice(start, min(start + edge, size)) for start in np.unique(along).tolist()]
        for along, size in zip(starts, frame.shape, strict=True)
    ]
    windows = [list(window) for window in itertools.product(*axes)]
    if len(windows) == 1:
        return frame.read(tuple(windows[0])), windows[0]
    # The channels of a grey image for a network with three inputs are equal.
    several = len(set(frame.channels)) > 1
    seen = frame if several else replace(frame, channels=frame.channels[:1])
    parts = _read_parts(seen, windows)
    spreads = np.nan_to_num([float(np.ascontiguousarray(part).std()) for part in parts])
    order = np.argsort(spreads)
    enough = order[spreads[order] >= busy * spreads.max()]
    chosen = int(enough[len(enough) // 2])
    part = parts[chosen] if several else parts[chosen].repeat(len(frame.channels), 0)
    return np.ascontiguousarray(part), windows[chosen]


def _read_parts(frame: Frame, windows: Sequence[Sequence[slice]]) -> list[np.ndarray]:
    """Read windows of a frame, which overlap: at once if that is no more than one by one."""
    pixels = sum(math.prod(w.stop - w.start for w in window) for window in windows)
    if math.prod(frame.shape) > pixels:
        return [frame.read(tuple(window)) for window in windows]
    whole = frame.read(tuple(slice(0, size) for size in frame.shape))
    return [whole[:, *window] for window in windows]
