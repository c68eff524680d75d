"""The three stacks of planes that a volume is made of, for a network that sees planes only.

The planes across z, y and x are read as if each axis in turn were z (`turned`). Across y and x they
hold the axis z, whose voxels are longer: it is resampled until its pixels are square.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.frames import Frame
from napari_unet.core.volumes.ways import anisotropy

if TYPE_CHECKING:
    from napari_unet.core.stack import Stack
    from napari_unet.core.tiles import Window

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
