"""Which of the ways to segment a volume is taken, and what the sizes of planes mean in it.

A 3D network sees volumes (`NATIVE`). A 2D network goes through the planes of a stack each on its
own (`PLANES`), through its planes with the objects joined through z (`JOINED`: `throughz`), or
through all three stacks of planes (`ORTHOGONAL`: `orthogonal`).

What makes a volume is an axis named Z of at least two planes. T is never taken for it: frames are
segmented one by one, and `linking` follows their objects. Files and layers without names for their
axes are read as z before t, so a movie without names needs axes such as TYX.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_unet.core.spec import VOLUMES

if TYPE_CHECKING:
    from napari_unet.core.stack import Stack

AUTO, PLANES, JOINED, ORTHOGONAL = VOLUMES
NATIVE = "native"
"""How a 3D network takes a volume, whatever was asked for."""


def settle_way(asked: str, ndim: int, head: str, stack: Stack) -> str:
    """Return how a stack is segmented: `NATIVE`, `PLANES`, `JOINED` or `ORTHOGONAL`.

    Parameters
    ----------
    asked
        `PredictSettings.volumes`.
    ndim, head
        The network's: a 3D one knows one way only, and classes have no objects to join.
    stack
        Without planes in z there is nothing to join either.
    """
    if ndim == 3:
        return NATIVE
    depth = stack.frame_shape(3)[0]
    if depth < 2 or asked == PLANES:
        return PLANES
    way = JOINED if asked == AUTO else asked
    return PLANES if way == JOINED and head != "instance" else way


def frame_ndim(way: str) -> int:
    """Return whether a way takes planes (2) or volumes (3) one by one."""
    return 3 if way in (NATIVE, ORTHOGONAL) else 2


def object_axes(way: str) -> str:
    """Return the axes along which an object may extend, for the passport."""
    return "YX" if way == PLANES else "ZYX"


def anisotropy(stack: Stack) -> float:
    """Return how much longer a voxel is in z than in the plane; 1 where its size is unknown."""
    if stack.voxel_size_um is None:
        return 1.0
    z, y, x = stack.voxel_size_um
    return z / math.sqrt(y * x)


def ball_voxels(pixels: float, ratio: float) -> int:
    """Return the voxels of the ball whose largest section has so many pixels.

    Parameters
    ----------
    ratio
        How much longer a voxel is in z than in the plane.
    """
    diameter = 2 * math.sqrt(pixels / math.pi)
    return round(math.pi / 6 * diameter**3 / ratio)
