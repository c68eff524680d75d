"""How much of its convex hull an object fills, whatever blocks it lies in.

Pixels count as squares and voxels as cubes, as in ImageJ, so that a box fills all of its hull;
`skimage.measure.regionprops` hulls their centres instead, which in 3D takes seconds an object.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import ConvexHull

if TYPE_CHECKING:
    from collections.abc import Sequence


def hull_points(mask: np.ndarray, origin: Sequence[int]) -> np.ndarray:
    """Return corners of a mask's pixels that have the convex hull of all corners.

    Parameters
    ----------
    mask
        bool, (Y, X) or (Z, Y, X).
    origin
        Position of its first pixel; the corner before a pixel has the pixel's own position.

    Returns
    -------
    np.ndarray
        (N, D) float64; empty for an empty mask.
    """
    lines = np.argwhere(mask.any(-1))
    if not len(lines):
        return np.zeros((0, mask.ndim))
    rows = mask[tuple(lines.T)]
    left, right = rows.argmax(-1), rows.shape[-1] - rows[:, ::-1].argmax(-1)
    ends = np.concatenate([np.column_stack([lines, end]) for end in (left, right)])
    steps = np.array([(*step, 0) for step in itertools.product((0, 1), repeat=mask.ndim - 1)])
    corners = (ends[:, None, :] + steps).reshape(-1, mask.ndim) + np.asarray(origin)
    points = corners.astype(float)
    return np.asarray(points[ConvexHull(points).vertices])


def hull_size(points: np.ndarray) -> float:
    """Return the area or volume of the convex hull of points (N, D)."""
    return float(ConvexHull(points).volume)
