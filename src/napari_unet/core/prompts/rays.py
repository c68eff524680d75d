"""A ray through a volume, as a click in a 3D view is one: which voxel along it is meant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.core.tiles import Index, Window

    Read = Callable[[Index, Window], np.ndarray]


@dataclass(frozen=True)
class Ray:
    """The part of a line of sight that lies in a stack.

    Attributes
    ----------
    near, far
        Its ends, in front and behind: (z, y, x), or with the time in front, in voxels.
    """

    near: tuple[float, ...]
    far: tuple[float, ...]

    def voxels(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the voxels along it, int (N, ndim), the nearest first, without those outside."""
        near, far = np.array(self.near, float), np.array(self.far, float)
        count = 2 * math.ceil(float(np.abs(far - near).max(initial=0))) + 1
        steps = np.linspace(0, 1, count)[:, None]
        found = np.floor(near + steps * (far - near) + 0.5).astype(int)
        found = found[np.all((found >= 0) & (found < np.array(shape)), axis=1)]
        kept = np.ones(len(found), bool)
        kept[1:] = (np.diff(found, axis=0) != 0).any(axis=1)
        return np.asarray(found[kept])


def values_along(voxels: np.ndarray, read: Read) -> np.ndarray:
    """Return the values at voxels along a ray, reading of each plane only what the ray meets.

    Parameters
    ----------
    voxels
        int (N, ndim), as `Ray.voxels` returns them.
    read
        Returns a window (Y, X) of a plane, by the plane's index along the other axes.
    """
    values: list[np.ndarray] = [np.zeros(0)] * len(voxels)
    planes = np.unique(voxels[:, :-2], axis=0)
    for plane in planes:
        here = np.flatnonzero((voxels[:, :-2] == plane).all(axis=1))
        places = voxels[here, -2:]
        low, high = places.min(axis=0), places.max(axis=0) + 1
        window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        block = read(tuple(int(n) for n in plane), window)
        for at, (y, x) in zip(here, places - low, strict=True):
            values[at] = block[y, x]
    return np.array(values)


def first_inside(voxels: np.ndarray, inside: np.ndarray) -> tuple[int, ...] | None:
    """Return the first voxel of a ray that is in an object, or None.

    Parameters
    ----------
    inside
        For each voxel whether, or in which object, it is.
    """
    found = np.flatnonzero(inside)
    return tuple(int(n) for n in voxels[found[0]]) if len(found) else None
