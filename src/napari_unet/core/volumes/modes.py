"""Which of the ways to segment a volume is taken, and what the sizes of planes mean in it.

A 3D network sees volumes (`NATIVE`). A 2D network goes through the planes of a stack each on its
own (`PLANES`), through its planes with the objects joined through z (`JOINED`: `throughz`), or
through all three stacks of planes (`ORTHOGONAL`: `orthogonal`). `AUTO` is `ORTHOGONAL` where the
stack is a true volume (`is_volume`), for there it finds more (benchmarks/large.md), else `JOINED`.

What makes a volume is an axis named Z of at least two planes. T is never taken for it: frames are
segmented one by one, and `linking` follows their objects. Files and layers without names for their
axes are read as z before t, so a movie without names needs axes such as TYX.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.image.frames import Frame
from napari_unet.core.settings.tasks import VOLUMES

if TYPE_CHECKING:
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Window


AUTO, PLANES, JOINED, ORTHOGONAL = VOLUMES
NATIVE = "native"
"""How a 3D network takes a volume, whatever was asked for."""


DEEP_ENOUGH = 1.5
"""Diameters of an object that a volume is deep, at least: whole objects are seen from the side."""
MOST_ANISOTROPY = 4.0
"""How much longer than wide, or wider than long, the voxels of a volume may be: planes across z are
mostly interpolated beyond that."""


def resolve_volume_mode(
    asked: str, ndim: int, head: str, stack: Stack, diameter: float | None = None
) -> str:
    """Return how a stack is segmented: `NATIVE`, `PLANES`, `JOINED` or `ORTHOGONAL`.

    Parameters
    ----------
    asked
        `PredictSettings.volumes`.
    ndim, head
        The network's: a 3D one knows one way only, and classes have no objects to join.
    stack
        The whole of it, never a block. Without planes in z there is nothing to join either.
    diameter
        Of the objects, in pixels of the stack; not known: `AUTO` is not `ORTHOGONAL`.
    """
    if ndim == 3:
        return NATIVE
    depth = stack.frame_shape(3)[0]
    if depth < 2 or asked == PLANES:
        return PLANES
    if asked not in (AUTO, JOINED):
        return asked
    if head != "instance":
        return PLANES
    return ORTHOGONAL if asked == AUTO and is_volume(stack, diameter) else JOINED


def is_volume(stack: Stack, diameter: float | None) -> bool:
    """Tell whether a stack shows objects from the side as well as from above.

    So it is if its voxels are at most `MOST_ANISOTROPY` times as long in z as in the plane, or the
    other way round, and its extent in z is at least `DEEP_ENOUGH` times the objects' diameter. What
    is not known to be so, for want of a voxel size or a diameter, is not taken for a volume.
    """
    if stack.voxel_size_um is None or diameter is None:
        return False
    ratio = anisotropy(stack)
    depth = stack.frame_shape(3)[0] * ratio  # in the pixels of a plane
    return max(ratio, 1 / ratio) <= MOST_ANISOTROPY and depth >= DEEP_ENOUGH * diameter


def frame_ndim(way: str) -> int:
    """Return whether a way takes planes (2) or volumes (3) one by one."""
    return 3 if way in (NATIVE, ORTHOGONAL) else 2


def object_axes(way: str) -> str:
    """Return the axes along which an object may extend, for the provenance."""
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


BLOCK = 2**24
"""Voxels of a block; about 1 GB of memory while it is computed."""
LIVE_BLOCK = 2**22
"""The same while somebody watches."""

_TURNS: tuple[dict[str, str], ...] = ({}, {"Z": "Y", "Y": "Z"}, {"X": "Z", "Z": "Y", "Y": "X"})
ACROSS = ((1, 2), (0, 2), (0, 1))
"""Axes of the planes across z, y and x, in the volume's order."""


def turned(stack: Stack, normal: int) -> Stack:
    """Return a stack whose planes are those across an axis, 0 (z), 1 (y) or 2 (x)."""
    names = _TURNS[normal]
    axes = "".join(names.get(letter, letter) for letter in stack.axes)
    return replace(stack, axes=axes)


def plane_frame(volume: Frame, normal: int, position: int, scale: float) -> Frame:
    """Return one plane of a volume as the network sees it, with the volume's percentiles.

    Parameters
    ----------
    volume
        All of it; not rescaled.
    normal, position
        The axis across which the plane lies, and where.
    scale
        Network pixels a pixel in y and x.
    """
    ratio = anisotropy(volume.stack)
    factors = (scale * ratio, scale, scale)
    size = tuple(volume.size[axis] for axis in ACROSS[normal])
    shape = tuple(max(1, round(volume.size[axis] * factors[axis])) for axis in ACROSS[normal])
    stack = turned(volume.stack, normal)
    index = (*volume.index, position)
    return Frame(stack, index, volume.channels, volume.normaliser, size, shape)


def held_frame(plane: Frame, positions: slice, window: Window) -> Frame:
    """Return a plane whose stack is held in memory, for these positions and this window of it.

    Files are read once for all planes, however they lie in them.

    Parameters
    ----------
    positions
        Planes that will be asked for; the frame stands at the first.
    window
        The part of them that will be read, in the stack's pixels.
    """
    distinct = sorted(set(plane.channels))
    part = plane.stack.read(plane.index[:-1], (positions, *window), tuple(distinct))
    origin = (0, positions.start, *(w.start for w in window))
    whole = (len(distinct), *plane.stack.frame_shape(3))
    stack = replace(plane.stack, data=HeldPart(part, origin, whole), axes="CZYX")
    channels = tuple(distinct.index(channel) for channel in plane.channels)
    return replace(plane, stack=stack, index=(positions.start,), channels=channels)


class HeldPart:
    """A part of a larger array, indexed as the whole; beyond the part nothing can be read."""

    def __init__(self, part: np.ndarray, origin: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self.shape, self.dtype, self.ndim = shape, part.dtype, part.ndim
        self._part, self._origin = part, origin

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        moved = tuple(
            slice(k.start - o, k.stop - o) if isinstance(k, slice) else k - o
            for k, o in zip(key, self._origin, strict=True)
        )
        return np.asarray(self._part[moved])


def block_edges(size: tuple[int, ...], voxels: int) -> tuple[int, ...]:
    """Return the edges of a block of at most so many voxels; what a thin axis lacks others get."""
    edges, left = list(size), max(1, voxels)
    order = sorted(range(len(size)), key=lambda axis: size[axis])
    for turn, axis in enumerate(order):
        share = int(left ** (1 / (len(size) - turn)) + 1e-9)
        edges[axis] = max(1, min(size[axis], share))
        left //= edges[axis]
    return tuple(edges)
