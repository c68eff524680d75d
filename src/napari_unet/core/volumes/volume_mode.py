"""How a volume is segmented, and the planes of its three orientations.

A 3D network sees volumes (`NATIVE`). A 2D network goes through the planes of a stack each on its
own (`PLANES`), through its planes with the objects joined through z (`JOINED`, see `stitch3d`), or
through the planes of all three orientations (`ORTHOGONAL`). `AUTO` is `ORTHOGONAL` where the stack
is a true volume (`is_volume`), since it finds more objects there (benchmarks/large.md), else
`JOINED`.

What makes a volume is an axis named Z of at least two planes. T is never taken for it: frames are
segmented one by one, and `core.tracking` follows their objects. Files and layers without names for
their axes are read as z before t, so a movie without names needs axes such as TYX.
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
"""How a 3D network takes a volume, whatever was requested."""
MIN_DIAMETERS_DEEP = 1.5
"""Depth of a volume in objects' diameters, at least: below it no whole object is seen from the
side."""
MAX_ANISOTROPY = 4.0
"""How much longer than wide, or wider than long, the voxels of a volume may be, at most: beyond it
planes across y and x are mostly interpolated."""
BLOCK_VOXELS = 2**24
"""Voxels of a block in the orthogonal mode; about 1 GB of memory while it is computed."""
LIVE_BLOCK_VOXELS = 2**22
"""The same while somebody watches: smaller blocks appear sooner."""
PLANE_AXES = ((1, 2), (0, 2), (0, 1))
"""Axes of the planes across z, y and x, in the volume's order."""
_RESLICED: tuple[dict[str, str], ...] = ({}, {"Z": "Y", "Y": "Z"}, {"X": "Z", "Z": "Y", "Y": "X"})
"""New names of the axes of a volume of which planes across z, y and x are taken."""


def resolve_volume_mode(
    requested: str, ndim: int, head: str, stack: Stack, diameter: float | None = None
) -> str:
    """Return how a stack is segmented: `NATIVE`, `PLANES`, `JOINED` or `ORTHOGONAL`.

    Parameters
    ----------
    requested
        `PredictSettings.volumes`.
    ndim, head
        The network's: a 3D one has only one mode, and classes have no objects to join.
    stack
        All of it, never a block. Without planes in z there is nothing to join either.
    diameter
        Of the objects, in pixels of the stack; if unknown, `AUTO` is not `ORTHOGONAL`.
    """
    if ndim == 3:
        return NATIVE
    depth = stack.frame_shape(3)[0]
    if depth < 2 or requested == PLANES:
        return PLANES
    if requested not in (AUTO, JOINED):
        return requested
    if head != "instance":
        return PLANES
    return ORTHOGONAL if requested == AUTO and is_volume(stack, diameter) else JOINED


def is_volume(stack: Stack, diameter: float | None) -> bool:
    """Tell whether a stack shows objects from the side as well as from above.

    It does if its voxels are at most `MAX_ANISOTROPY` times as long in z as in the plane, or the
    other way round, and it is at least `MIN_DIAMETERS_DEEP` diameters of an object deep. Without a
    voxel size or a diameter the answer is no.
    """
    if stack.voxel_size_um is None or diameter is None:
        return False
    ratio = anisotropy(stack)
    depth = stack.frame_shape(3)[0] * ratio  # in the pixels of a plane
    return max(ratio, 1 / ratio) <= MAX_ANISOTROPY and depth >= MIN_DIAMETERS_DEEP * diameter


def get_mode_ndim(mode: str) -> int:
    """Return whether the frames of a mode are planes (2) or volumes (3)."""
    return 3 if mode in (NATIVE, ORTHOGONAL) else 2


def object_axes(mode: str) -> str:
    """Return the axes along which an object may extend, for the provenance."""
    return "YX" if mode == PLANES else "ZYX"


def anisotropy(stack: Stack) -> float:
    """Return how much longer a voxel is in z than in the plane; 1 where its size is unknown."""
    if stack.voxel_size_um is None:
        return 1.0
    z, y, x = stack.voxel_size_um
    return z / math.sqrt(y * x)


def ball_voxels(pixels: float, ratio: float) -> int:
    """Return the voxels of the ball whose largest section has that many pixels.

    Parameters
    ----------
    ratio
        How much longer a voxel is in z than in the plane.
    """
    diameter = 2 * math.sqrt(pixels / math.pi)
    return round(math.pi / 6 * diameter**3 / ratio)


def reslice(stack: Stack, normal: int) -> Stack:
    """Return a stack whose planes are those across an axis, 0 (z), 1 (y) or 2 (x)."""
    names = _RESLICED[normal]
    axes = "".join(names.get(letter, letter) for letter in stack.axes)
    return replace(stack, axes=axes)


def plane_frame(volume: Frame, normal: int, position: int, scale: float) -> Frame:
    """Return one plane of a volume as the network sees it, normalised like the volume.

    Parameters
    ----------
    volume
        All of it; not rescaled.
    normal, position
        The axis across which the plane lies, and where.
    scale
        Network pixels per pixel in y and x.
    """
    ratio = anisotropy(volume.stack)
    factors = (scale * ratio, scale, scale)
    axes = PLANE_AXES[normal]
    size = tuple(volume.size[axis] for axis in axes)
    shape = tuple(max(1, round(volume.size[axis] * factors[axis])) for axis in axes)
    stack = reslice(volume.stack, normal)
    index = (*volume.index, position)
    return Frame(stack, index, volume.channels, volume.normaliser, size, shape)


def load_planes(plane: Frame, positions: slice, window: Window) -> Frame:
    """Return a plane whose stack is in memory, for these positions and this window.

    Files are read once for all planes, whatever the orientation of their chunks.

    Parameters
    ----------
    positions
        The planes that will be read; the returned frame is the first of them.
    window
        The part of them that will be read, in the stack's pixels.
    """
    distinct = sorted(set(plane.channels))
    part = plane.stack.read(plane.index[:-1], (positions, *window), tuple(distinct))
    origin = (0, positions.start, *(w.start for w in window))
    whole = (len(distinct), *plane.stack.frame_shape(3))
    stack = replace(plane.stack, data=LoadedPart(part, origin, whole), axes="CZYX")
    channels = tuple(distinct.index(channel) for channel in plane.channels)
    return replace(plane, stack=stack, index=(positions.start,), channels=channels)


class LoadedPart:
    """A part of a larger array, indexed as the whole; nothing outside the part can be read."""

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
        # 1e-9: a whole root such as 8 ** (1 / 3) may come out just below it.
        share = int(left ** (1 / (len(size) - turn)) + 1e-9)
        edges[axis] = max(1, min(size[axis], share))
        left //= edges[axis]
    return tuple(edges)
