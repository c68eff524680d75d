"""How large objects are, and at which scale a network works on them.

A network is best at the size of object that it saw most. Images whose objects are clearly smaller
or larger are resampled before they reach it, and its maps are resampled back. Where the sizes
nearly agree the image's own pixels are used: they are sharper, and cost nothing.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

TOLERANCE = 1.3
"""Up to this ratio of the sizes an image is used as it is."""
LIMITS = (0.1, 8.0)
"""The least and greatest network pixels an image pixel."""


def object_diameters(labels: np.ndarray) -> np.ndarray:
    """Return each object's diameter in pixels: that of the disc (ball) of the same size."""
    sizes = np.bincount(labels.ravel())[1:]
    sizes = sizes[sizes > 0].astype(float)
    if labels.ndim == 2:
        return np.asarray(2 * np.sqrt(sizes / np.pi))
    return np.asarray(2 * np.cbrt(3 * sizes / (4 * np.pi)))


def median_diameter(labels: np.ndarray) -> float:
    """Return the median of `object_diameters`; 0.0 without objects."""
    diameters = object_diameters(labels)
    return float(np.median(diameters)) if len(diameters) else 0.0


def typical_diameter(labels: np.ndarray) -> float:
    """Return the median of `object_diameters`, weighted by themselves: debris hardly counts."""
    diameters = np.sort(object_diameters(labels))
    if not len(diameters):
        return 0.0
    share = np.cumsum(diameters)
    return float(diameters[np.searchsorted(share, share[-1] / 2)])


def peak_heights(labels: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return the greatest height, at most 1, in each object, in the order of the labels."""
    names = np.unique(labels[labels > 0])
    return np.minimum(1, np.asarray(ndimage.maximum(height, labels, names), np.float32))


def working_scale(diameter: float, wanted: float | None) -> float:
    """Return network pixels an image pixel.

    Parameters
    ----------
    diameter
        Of the image's objects, in pixels; 0 if there are none.
    wanted
        Of the objects that the network is best at, in pixels; None if that is not known.
    """
    if not diameter or not wanted:
        return 1.0
    scale = wanted / diameter
    if abs(math.log(scale)) <= math.log(TOLERANCE):
        return 1.0
    return min(max(scale, LIMITS[0]), LIMITS[1])
