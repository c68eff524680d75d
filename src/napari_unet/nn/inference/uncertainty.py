"""Where a model is uncertain in a stack: the regions most worth correcting, in that order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_unet.core.image.diameters import peak_heights
from napari_unet.core.instances.heads import InstanceHead, SemanticHead, get_head
from napari_unet.core.instances.mask import ObjectMask, number_objects
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress
from napari_unet.core.review.gain import NetworkSigns
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.diameter_estimation import diameter_steps
from napari_unet.nn.inference.map_source import run_frame
from napari_unet.nn.inference.model_input import check_fit, choose_scale, open_frame
from napari_unet.nn.inference.runner import FLIPS, OFF

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.io.stack import Stack
    from napari_unet.nn.inference.model import Model

    Known = Callable[[tuple[int, ...]], np.ndarray | None]
    LabelsAt = Callable[[tuple[int, ...]], np.ndarray]
    from napari_unet.core.tiles import Index, Window


_SIGMA = 2.0
"""Pixels of the Gaussian that averages uncertainty where no object was found: the rim of every
object is uncertain, and would count as a missed one without it."""
_MIN_UNCERTAINTY = 0.15
"""Where no object was found, less uncertain places are not worth a look."""


@dataclass(frozen=True)
class UncertainRegion:
    """One object or place that is worth a look.

    Attributes
    ----------
    score
        Uncertainty, from 0 to 1.
    index
        The frame's position along the leading axes of the labels.
    centre
        ([z,] y, x) in the frame's voxels.
    window
        The region's bounding box in the frame.
    label
        The object's label; 0 where none was found.
    signs
        What the maps say about an object beyond that, if it was asked for.
    """

    score: float
    index: Index
    centre: tuple[float, ...]
    window: Window
    label: int = 0
    signs: NetworkSigns | None = None


@dataclass(frozen=True)
class FrameUncertainty(Progress):
    """How uncertain one frame is: the map, float32 ([Z,] Y, X), and its uncertain regions."""

    index: tuple[int, ...] = ()
    uncertainty: np.ndarray | None = None
    places: tuple[UncertainRegion, ...] = ()


def find_uncertain_regions(
    source: Any,
    model: Model,
    settings: PredictSettings | None = None,
    *,
    known: Known | None = None,
    labels: LabelsAt | None = None,
    agreement: bool = False,
    signs: bool = False,
) -> Generator[Progress, None, list[UncertainRegion]]:
    """Find what is most worth correcting, yielding after every tile and frame.

    Parameters
    ----------
    source
        A stack, or anything that `open_stack` takes.
    known
        Returns for a frame, given by its index, what was annotated already: bool ([Z,] Y, X), or
        None.
    labels
        Returns a frame's objects, ([Z,] Y, X), whose uncertainty is asked for; None: those that the
        model finds.
    agreement
        Whether disagreement between the mirrored image and the image counts as uncertain, too;
        takes 4 to 8 times as long.
    signs
        Whether objects are looked at more closely, for their `signs`.

    Returns
    -------
    list of UncertainRegion
        Of all frames, the most uncertain first.
    """
    stack = open_stack(source)
    check_fit(stack, model)
    settings, _ = yield from diameter_steps(stack, model, settings or PredictSettings(survey=False))
    settings = replace(settings, augment=OFF)
    indices = stack.indices(model.spec.ndim)
    found: list[UncertainRegion] = []
    for number, index in enumerate(indices):
        frame = open_frame(stack, model, settings, index)
        maps = yield from _maps(model, frame, settings, number, len(indices))
        other = None
        if agreement:
            mean = yield from _maps(
                model, frame, replace(settings, augment=FLIPS), number, len(indices)
            )
            # Where all views agree, their mean is the first one's maps.
            other = np.minimum(1, 2 * np.abs(maps - mean).max(0))
        objects = labels(index) if labels else _decode(model, maps, settings)
        places = rank_uncertain_regions(
            maps,
            objects,
            get_head(model.spec),
            known=known(index) if known else None,
            disagreement=other,
            index=index,
            signs=signs,
        )
        uncertainty = uncertainty_map(maps, get_head(model.spec))
        if other is not None:
            uncertainty = np.maximum(uncertainty, other)
        found += places
        yield FrameUncertainty(
            number + 1, len(indices), "frames", index, uncertainty, tuple(places)
        )
    return sorted(found, key=lambda place: (-place.score, place.index, place.centre))


def window_uncertainty(
    stack: Stack, model: Model, settings: PredictSettings, index: Index, window: Window
) -> Generator[Progress, None, np.ndarray]:
    """Return the `uncertainty_map` of a window of one frame, yielding after every tile."""
    settings = replace(settings, augment=OFF)
    frame = open_frame(stack, model, settings, index)
    found = np.zeros([w.stop - w.start for w in window], np.float32)
    head = get_head(model.spec)
    for place, maps in run_frame(model, frame, settings, live=True, region=window):
        inside = tuple(
            slice(p.start - w.start, p.stop - w.start) for p, w in zip(place, window, strict=True)
        )
        found[inside] = uncertainty_map(maps, head)
        yield Progress(0, 0, "looking for doubt")
    return found


def _maps(
    model: Model, frame: Frame, settings: PredictSettings, number: int, total: int
) -> Generator[Progress, None, np.ndarray]:
    """Predict one frame's maps, float32 (K, [Z,] Y, X), yielding after every tile."""
    maps = np.zeros((len(get_head(model.spec).names), *frame.size), np.float32)
    for window, inner in run_frame(model, frame, settings, live=True):
        maps[(slice(None), *window)] = inner
        yield Progress(number, total, "frames")
    return maps


def _decode(model: Model, maps: np.ndarray, settings: PredictSettings) -> np.ndarray:
    if model.spec.head != "instance":
        return np.asarray(maps.argmax(0))
    decoding = model.decoding.in_image(choose_scale(model, settings), model.spec.ndim)
    return decode_instances(
        maps, decoding.updated(threshold=settings.threshold, merge=settings.merge)
    )


def uncertainty_map(maps: np.ndarray, head: InstanceHead | SemanticHead) -> np.ndarray:
    """Return the uncertainty of each pixel, float32 ([Z,] Y, X), 0 to 1.

    For objects it is how near the foreground's probability is to a half, for classes how near the
    second likeliest is to the likeliest (margin sampling, Scheffer et al. 2001).

    Parameters
    ----------
    maps
        A head's maps (K, [Z,] Y, X).
    """
    if isinstance(head, InstanceHead):
        return np.asarray(1 - np.abs(2 * np.clip(maps[0], 0, 1) - 1), np.float32)
    second, first = np.partition(maps, -2, axis=0)[-2:]
    return np.asarray(1 - (first - second), np.float32)


def rank_uncertain_regions(
    maps: np.ndarray,
    labels: np.ndarray,
    head: InstanceHead | SemanticHead,
    *,
    known: np.ndarray | None = None,
    disagreement: np.ndarray | None = None,
    index: Index = (),
    edge: int = 64,
    signs: bool = False,
) -> list[UncertainRegion]:
    """List the uncertain regions of one frame, the most uncertain first.

    Objects are uncertain for uncertain pixels, and for middles without a peak in the distance map;
    places without an object for pixels that nearly were foreground. Of classes, squares are listed.

    Parameters
    ----------
    maps, labels
        The model's answer, (K, [Z,] Y, X) and ([Z,] Y, X).
    known
        bool: regions that are annotated already are left out.
    disagreement
        How much the answers for mirrored copies of the frame differ, 0 to 1.
    index
        The frame's position, for the result.
    edge
        Edge length of the squares, in pixels.
    signs
        Whether objects have their `signs`.
    """
    uncertainty = uncertainty_map(maps, head)
    if disagreement is not None:
        uncertainty = np.maximum(uncertainty, disagreement)
    known = np.zeros(labels.shape, bool) if known is None else known
    if isinstance(head, SemanticHead):
        found = _rank_squares(uncertainty, known, index, edge)
    else:
        found = [
            *_rank_objects(uncertainty, maps[1], labels, known, index, signs),
            *_rank_missed(uncertainty, labels, known, index),
        ]
    return sorted(found, key=lambda region: (-region.score, region.index, region.centre))


def _rank_objects(
    uncertainty: np.ndarray,
    height: np.ndarray,
    labels: np.ndarray,
    known: np.ndarray,
    index: Index,
    signs: bool,
) -> list[UncertainRegion]:
    ids, compact = number_objects(labels)
    if not len(ids):
        return []
    mean = np.asarray(ndimage.mean(uncertainty, labels, ids))
    flatness = 1 - peak_heights(labels, height)
    known_share = np.asarray(ndimage.mean(known, labels, ids))
    centres = ndimage.center_of_mass(labels > 0, labels, ids)
    boxes = ndimage.find_objects(compact)
    found = []
    for a, b, label, centre, box, share in zip(
        mean, flatness, ids, centres, boxes, known_share, strict=True
    ):
        if share >= 0.5 or box is None:
            continue
        seen = None
        if signs:
            mask = ObjectMask(box, labels[box] == label)
            seen = NetworkSigns.from_maps(mask, labels, uncertainty, height)
        place = tuple(map(float, centre))
        found.append(UncertainRegion(float(max(a, b)), index, place, box, int(label), seen))
    return found


def _rank_missed(
    uncertainty: np.ndarray, labels: np.ndarray, known: np.ndarray, index: Index
) -> list[UncertainRegion]:
    """Find places where an object may have been missed."""
    outside = np.where((labels > 0) | known, 0, uncertainty)
    smooth = ndimage.gaussian_filter(outside, _SIGMA)
    blobs, _ = ndimage.label(smooth > _MIN_UNCERTAINTY)
    boxes = ndimage.find_objects(blobs)
    found = []
    for number, box in enumerate(boxes, 1):
        inside = blobs[box] == number
        peak = float(smooth[box][inside].max())
        middle = [float(m + s.start) for m, s in zip(np.argwhere(inside).mean(0), box, strict=True)]
        found.append(UncertainRegion(peak, index, tuple(middle), box))
    return found


def _rank_squares(
    uncertainty: np.ndarray, known: np.ndarray, index: Index, edge: int
) -> list[UncertainRegion]:
    """Average the uncertainty over squares of which at least half is not known."""
    found = []
    starts = [range(0, size, edge) for size in uncertainty.shape]
    for corner in np.ndindex(*(len(some) for some in starts)):
        window = tuple(slice(c * edge, (c + 1) * edge) for c in corner)
        open_ = ~known[window]
        if 2 * np.count_nonzero(open_) < open_.size:
            continue
        centre = tuple(
            (s.start + min(s.stop, n) - 1) / 2
            for s, n in zip(window, uncertainty.shape, strict=True)
        )
        found.append(
            UncertainRegion(float(uncertainty[window][open_].mean()), index, centre, window)
        )
    return found
