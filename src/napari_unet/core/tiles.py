"""Where tiles lie, what they read and write, and the receptive field: integers only.

A tile is exact when it reads every input pixel that its outputs depend on. How many those are
follows from the network's spec alone: `input_interval` walks the network backwards along one axis,
and everything else here is built on its answer. Tiles are exact, so nothing is blended. No image,
no network, no memory is touched.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.core.settings.model_spec import ModelSpec

Index = tuple[int, ...]
"""A position along some axes, outermost first."""
Window = tuple[slice, ...]


def input_interval(spec: ModelSpec, axis: int, start: int, stop: int) -> tuple[int, int]:
    """Return the input pixels on which the outputs ``[start, stop)`` of one axis depend.

    Parameters
    ----------
    spec
        The network.
    axis
        Spatial axis, 0 to ``spec.ndim - 1``.
    start, stop
        Output pixels, in the grid on which pixel 0 begins a pooling window at every level.

    Returns
    -------
    start, stop
        The tightest interval that holds them all; it may begin below 0, where padding is.
    """
    if spec.reach is not None:  # of a network whose parts are not known
        return start - spec.reach[axis], stop + spec.reach[axis]
    factors = [level[axis] for level in spec.factors]

    def up(level: int, lo: int, hi: int) -> tuple[int, int]:
        """Walk back from the outputs of `level`'s way up to the input of its way down."""
        reach = spec.convs * (spec.kernel_at(level)[axis] // 2)
        lo, hi = lo - reach, hi + reach
        if level == spec.depth:
            return lo, hi
        factor = factors[level]
        below = up(level + 1, *_before_upsampling(spec, factor, lo, hi))
        # The skip needs [lo, hi) of the way down; what came up from below needs at least as much.
        return below[0] * factor - reach, below[1] * factor + reach

    return up(0, start, stop)


def _before_upsampling(spec: ModelSpec, factor: int, lo: int, hi: int) -> tuple[int, int]:
    """Return the coarse pixels from which the fine pixels ``[lo, hi)`` were made."""
    if factor == 1:
        return lo, hi
    if spec.up == "transpose":
        return lo // factor, -(-hi // factor)
    # Linear interpolation: a fine pixel's centre lies between two coarse ones.
    first = math.floor((lo + 0.5) / factor - 0.5)
    last = math.floor((hi - 0.5) / factor - 0.5) + 1
    return first, last + 1


def receptive_field(spec: ModelSpec) -> tuple[int, ...]:
    """Return how far an output pixel sees along each axis, in pixels to the farther side.

    The reach depends on where in the pooling windows a pixel lies; this is the largest. For two
    3 x 3 convolutions a level and 2 x 2 pooling it is 23, 51 and 107 pixels at depth 2, 3 and 4.
    """
    reaches = []
    for axis, stride in enumerate(spec.stride):
        spans = [(pixel, input_interval(spec, axis, pixel, pixel + 1)) for pixel in range(stride)]
        reaches.append(max(max(p - lo, hi - 1 - p) for p, (lo, hi) in spans))
    return tuple(reaches)


def tile_halo(spec: ModelSpec, margin: int = 0) -> tuple[int, ...]:
    """Return what a tile on the pooling grid must read on each side of each axis, in pixels.

    It is smaller than `receptive_field`, since the outermost pixels of such a tile begin and end a
    pooling window: 94 instead of 107 pixels at depth 4. With a `margin`, the outputs that many
    pixels around the tile are exact, too; the first few come free, out of the same pooling windows.
    """
    halos = []
    for axis, stride in enumerate(spec.stride):
        lo, hi = input_interval(spec, axis, -margin, stride + margin)
        halos.append(max(-lo, hi - stride))
    return tuple(halos)


@dataclass(frozen=True)
class LevelPart:
    """A part of one level of a network, along every axis, in the level's pixels.

    Attributes
    ----------
    read
        What the level's convolutions look at for it, inside the level.
    write
        What they make of it.
    below
        On the way up, the part of the next level from which `read` is up-sampled.
    """

    read: Window
    write: Window
    below: Window


def level_part(spec: ModelSpec, level: int, write: Window, shape: Sequence[int]) -> LevelPart:
    """Return what has to be known for the part `write` of a level of that shape."""
    read, below = [], []
    for axis, (w, size) in enumerate(zip(write, shape, strict=True)):
        reach = spec.convs * (spec.kernel_at(level)[axis] // 2)
        factor = spec.factors[level][axis]
        start, stop = max(0, w.start - reach), min(size, w.stop + reach)
        read.append(slice(start, stop))
        first, last = _before_upsampling(spec, factor, start, stop)
        below.append(slice(max(0, first), min(size // factor, last)))
    return LevelPart(tuple(read), write, tuple(below))


@dataclass(frozen=True)
class Tile:
    """One tile of a plane or volume, along every axis.

    Attributes
    ----------
    read
        Input window, in the frame padded at its far end to the pooling grid.
    write
        Output window that this tile alone is responsible for; the tiles' windows cover the frame
        once.
    outer
        `write` with the margin that decoding wants to see, clipped to the frame.
    crop
        `outer` inside the network's answer for `read`.
    """

    read: Window
    write: Window
    outer: Window
    crop: Window

    @property
    def read_shape(self) -> tuple[int, ...]:
        """Size of the input window."""
        return tuple(s.stop - s.start for s in self.read)

    @property
    def inner(self) -> Window:
        """`write` inside `outer`."""
        return relative_window(self.write, self.outer)

    def __str__(self) -> str:
        """Draw each axis: ``-`` is read, ``o`` is seen by decoding, ``x`` is written."""
        return " ".join(map(_draw, self.read, self.outer, self.write))


def relative_window(window: Sequence[slice], origin: Sequence[slice]) -> Window:
    """Return a window relative to the start of another."""
    return tuple(
        slice(w.start - o.start, w.stop - o.start) for w, o in zip(window, origin, strict=True)
    )


def _draw(read: slice, outer: slice, write: slice) -> str:
    size = max(read.stop, outer.stop) - read.start
    step = max(1, size // 32)
    return "".join(
        "x" if write.start <= p < write.stop else "o" if outer.start <= p < outer.stop else "-"
        for p in range(read.start, read.start + size, step)
    )


def plan_tiles(
    shape: Sequence[int],
    tile: Sequence[int],
    halo: Sequence[int],
    stride: Sequence[int],
    *,
    margin: int = 0,
    region: Window | None = None,
) -> list[Tile]:
    """Cover a plane or volume, or a region of it, with tiles.

    Parameters
    ----------
    shape
        Size of the frame.
    tile
        Wanted size of the written windows; rounded down to the pooling grid, at least one cell.
    halo
        What a tile on the grid must read on each side: `tile_halo` for the same `margin`.
    stride
        The pooling grid (``spec.stride``); tiles and what they read begin on it.
    margin
        How far around its written window a tile's outputs must be exact.
    region
        Part of the frame to cover; all of it if not given.

    Returns
    -------
    list of Tile
        In raster order. Empty when the frame or region is.
    """
    region = region or tuple(slice(0, size) for size in shape)
    if any(min(size, r.stop) <= r.start for size, r in zip(shape, region, strict=True)):
        return []
    axes = [
        list(_plan_axis(*axis, margin))
        for axis in zip(shape, tile, halo, stride, region, strict=True)
    ]
    return [Tile(*zip(*parts, strict=True)) for parts in itertools.product(*axes)]


def _plan_axis(
    size: int, tile: int, halo: int, stride: int, region: slice, margin: int
) -> Iterator[tuple[slice, slice, slice, slice]]:
    """Yield read, write, outer and crop of each tile along one axis."""
    padded = _up(size, stride)
    first = region.start // stride
    cells = -(-min(size, region.stop) // stride) - first
    count = max(1, -(-cells // max(1, tile // stride)))
    # Equal tiles: a sliver at the end would pay a whole halo for a few pixels.
    step = -(-cells // count)
    for cell in range(first, first + cells, step):
        begin, end = cell * stride, (cell + step) * stride
        write = slice(max(begin, region.start), min(end, region.stop, size))
        outer = slice(max(0, write.start - margin), min(size, write.stop + margin))
        low = (begin - halo) // stride * stride
        high = _up(_up(write.stop, stride) + halo, stride)
        read = slice(max(0, low), min(padded, high))
        crop = slice(outer.start - read.start, outer.stop - read.start)
        yield read, write, outer, crop


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def nearest_first(tiles: Sequence[Tile], focus: Sequence[float] | None) -> int:
    """Return the position of the tile whose written window is nearest to `focus`, if any."""
    if focus is None:
        return 0

    def distance(tile: Tile) -> float:
        gaps = (
            max(w.start - f, 0.0, f - (w.stop - 1)) for w, f in zip(tile.write, focus, strict=True)
        )
        return math.hypot(*gaps)

    return min(range(len(tiles)), key=lambda i: distance(tiles[i]))
