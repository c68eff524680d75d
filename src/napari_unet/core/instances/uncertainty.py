"""Where a model is unsure: a map of doubt, and the objects and places most worth a look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_unet.core.image.diameters import peak_heights
from napari_unet.core.instances.heads import InstanceHead, SemanticHead

SMOOTHING = 2.0
"""Pixels over which doubt is averaged where no object was found: a rim alone is no doubt."""
FAINT = 0.15
"""Where nothing was found, places of less doubt than this are not worth a look."""


@dataclass(frozen=True)
class UncertainRegion:
    """One object or place that is worth a look.

    Attributes
    ----------
    score
        From 0, no doubt, to 1.
    index
        The frame's position along the leading axes of the labels.
    centre
        ([z,] y, x) in the frame's voxels.
    window
        The place's extent in the frame.
    label
        The object's label; 0 where none was found.
    """

    score: float
    index: tuple[int, ...]
    centre: tuple[float, ...]
    window: tuple[slice, ...]
    label: int = 0


def uncertainty_map(maps: np.ndarray, head: InstanceHead | SemanticHead) -> np.ndarray:
    """Return the doubt of each pixel, float32 ([Z,] Y, X), 0 to 1.

    Parameters
    ----------
    maps
        A head's maps (K, [Z,] Y, X). Of objects it is how near the foreground's probability is to
        a half, of classes how near the second likeliest is to the likeliest.
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
    index: tuple[int, ...] = (),
    edge: int = 64,
) -> list[UncertainRegion]:
    """List what is worth a look in one frame, the most doubtful first.

    Objects are doubted for unsure pixels and for middles that are no peaks; places without object
    for a foreground that nearly was one. Classes are doubted square by square.

    Parameters
    ----------
    maps, labels
        The model's answer, (K, [Z,] Y, X) and ([Z,] Y, X).
    known
        bool: what was looked at already is left out.
    disagreement
        How differently mirrored copies of the frame were answered, 0 to 1.
    index
        The frame's position, for the answer.
    edge
        Edge length of the squares, in pixels.
    """
    doubt = uncertainty_map(maps, head)
    if disagreement is not None:
        doubt = np.maximum(doubt, disagreement)
    seen = np.zeros(labels.shape, bool) if known is None else known
    if isinstance(head, SemanticHead):
        found = _squares(doubt, seen, index, edge)
    else:
        found = [
            *_objects(doubt, maps[1], labels, seen, index),
            *_faint(doubt, labels, seen, index),
        ]
    return sorted(found, key=lambda place: (-place.score, place.index, place.centre))


def _objects(
    doubt: np.ndarray,
    height: np.ndarray,
    labels: np.ndarray,
    seen: np.ndarray,
    index: tuple[int, ...],
) -> list[UncertainRegion]:
    names = np.unique(labels[labels > 0])
    if not len(names):
        return []
    unsure = np.asarray(ndimage.mean(doubt, labels, names))
    flat = 1 - peak_heights(labels, height)
    share_seen = np.asarray(ndimage.mean(seen, labels, names))
    centres = ndimage.center_of_mass(labels > 0, labels, names)
    _, compact = np.unique(labels, return_inverse=True)
    boxes = ndimage.find_objects(compact.reshape(labels.shape) + int(labels.min() > 0))
    return [
        UncertainRegion(float(max(a, b)), index, tuple(map(float, centre)), box, int(name))
        for a, b, name, centre, box, part in zip(
            unsure, flat, names, centres, boxes, share_seen, strict=True
        )
        if part < 0.5 and box is not None
    ]


def _faint(
    doubt: np.ndarray, labels: np.ndarray, seen: np.ndarray, index: tuple[int, ...]
) -> list[UncertainRegion]:
    """Find places where an object may have been missed."""
    outside = np.where((labels > 0) | seen, 0, doubt)
    smooth = ndimage.gaussian_filter(outside, SMOOTHING)
    blobs, _ = ndimage.label(smooth > FAINT)
    boxes = ndimage.find_objects(blobs)
    found = []
    for number, box in enumerate(boxes, 1):
        inside = blobs[box] == number
        peak = float(smooth[box][inside].max())
        middle = [float(m + s.start) for m, s in zip(np.argwhere(inside).mean(0), box, strict=True)]
        found.append(UncertainRegion(peak, index, tuple(middle), box))
    return found


def _squares(
    doubt: np.ndarray, seen: np.ndarray, index: tuple[int, ...], edge: int
) -> list[UncertainRegion]:
    """Average the doubt over squares of what was not looked at."""
    found = []
    starts = [range(0, size, edge) for size in doubt.shape]
    for corner in np.ndindex(*(len(some) for some in starts)):
        window = tuple(slice(c * edge, (c + 1) * edge) for c in corner)
        open_ = ~seen[window]
        if 2 * np.count_nonzero(open_) < open_.size:
            continue
        centre = tuple(
            (s.start + min(s.stop, n) - 1) / 2 for s, n in zip(window, doubt.shape, strict=True)
        )
        found.append(UncertainRegion(float(doubt[window][open_].mean()), index, centre, window))
    return found
