"""Where a model is unsure: an uncertainty map, and the objects and places most worth a look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_unet.core.image.diameters import peak_heights
from napari_unet.core.instances.heads import InstanceHead, SemanticHead

if TYPE_CHECKING:
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
    """

    score: float
    index: Index
    centre: tuple[float, ...]
    window: Window
    label: int = 0


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
    """
    uncertainty = uncertainty_map(maps, head)
    if disagreement is not None:
        uncertainty = np.maximum(uncertainty, disagreement)
    known = np.zeros(labels.shape, bool) if known is None else known
    if isinstance(head, SemanticHead):
        found = _rank_squares(uncertainty, known, index, edge)
    else:
        found = [
            *_rank_objects(uncertainty, maps[1], labels, known, index),
            *_rank_missed(uncertainty, labels, known, index),
        ]
    return sorted(found, key=lambda region: (-region.score, region.index, region.centre))


def _rank_objects(
    uncertainty: np.ndarray,
    height: np.ndarray,
    labels: np.ndarray,
    known: np.ndarray,
    index: Index,
) -> list[UncertainRegion]:
    ids = np.unique(labels[labels > 0])
    if not len(ids):
        return []
    mean = np.asarray(ndimage.mean(uncertainty, labels, ids))
    flatness = 1 - peak_heights(labels, height)
    known_share = np.asarray(ndimage.mean(known, labels, ids))
    centres = ndimage.center_of_mass(labels > 0, labels, ids)
    _, compact = np.unique(labels, return_inverse=True)
    boxes = ndimage.find_objects(compact.reshape(labels.shape) + int(labels.min() > 0))
    return [
        UncertainRegion(float(max(a, b)), index, tuple(map(float, centre)), box, int(label))
        for a, b, label, centre, box, share in zip(
            mean, flatness, ids, centres, boxes, known_share, strict=True
        )
        if share < 0.5 and box is not None
    ]


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
