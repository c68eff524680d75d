"""Diameters of objects, and the scale at which the network sees an image.

A network is best at objects of the size that it saw most. Images whose objects are clearly smaller
or larger are resampled for it, and its maps are resampled back. Where the sizes nearly agree the
image's own pixels are used: they are sharper, and cost nothing.
"""

from __future__ import annotations

import math

import numpy as np

TOLERANCE = 1.3
"""Up to this ratio of the sizes an image is not resampled."""
LIMITS = (0.1, 8.0)
"""Smallest and largest scale, in network pixels per image pixel."""


def object_diameters(labels: np.ndarray, voxel_ratio: float = 1.0) -> np.ndarray:
    """Return the diameter of each object in pixels: see `equivalent_diameters`."""
    sizes = np.bincount(labels.ravel())[1:]
    return equivalent_diameters(sizes[sizes > 0], labels.ndim, voxel_ratio)


def equivalent_diameters(sizes: np.ndarray, ndim: int, voxel_ratio: float = 1.0) -> np.ndarray:
    """Return the diameter of the disc (`ndim` 2) or ball (3) of each area or volume.

    Parameters
    ----------
    sizes
        Numbers of pixels or voxels.
    voxel_ratio
        How much longer a voxel is in z than in the plane: diameters are in pixels of the plane.
    """
    if ndim == 2:
        return np.asarray(2 * np.sqrt(sizes / np.pi))
    return np.asarray(2 * np.cbrt(0.75 / np.pi * voxel_ratio * sizes))


def median_diameter(labels: np.ndarray) -> float:
    """Return the median of `object_diameters`; 0.0 without objects."""
    diameters = object_diameters(labels)
    return float(np.median(diameters)) if len(diameters) else 0.0


def typical_diameter(labels: np.ndarray, voxel_ratio: float = 1.0) -> float:
    """Return the median of `object_diameters`, weighted by diameter: debris hardly counts."""
    diameters = object_diameters(labels, voxel_ratio)
    return weighted_median(diameters, diameters) if len(diameters) else 0.0


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the median of values that do not all count alike; halfway between two, as usual.

    Parameters
    ----------
    values, weights
        (N,), at least one; the weights are positive.
    """
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order])
    low = min(np.searchsorted(share, share[-1] / 2), len(order) - 1)
    high = low
    if math.isclose(share[low], share[-1] / 2) and low + 1 < len(order):
        high = low + 1
    return float((values[order[low]] + values[order[high]]) / 2)


def peak_heights(labels: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return the maximum of `height`, at most 1, in each object, in the order of the labels."""
    inside = labels > 0
    ids = labels[inside]
    names = np.unique(ids)
    peaks = np.full(len(names), -np.inf, np.float32)
    np.maximum.at(peaks, np.searchsorted(names, ids), height[inside])  # sorts no pixels' places
    return np.minimum(1, peaks)


def working_scale(diameter: float, wanted: float | None) -> float:
    """Return the scale at which an image is resampled, in network pixels per image pixel.

    Parameters
    ----------
    diameter
        Of the image's objects, in pixels; 0 if there are none.
    wanted
        Of the objects that the network is best at, in pixels; None if unknown.
    """
    if not diameter or not wanted:
        return 1.0
    scale = wanted / diameter
    if abs(math.log(scale)) <= math.log(TOLERANCE):
        return 1.0
    return min(max(scale, LIMITS[0]), LIMITS[1])
