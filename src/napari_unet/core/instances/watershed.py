"""The watershed of one tile: what can be known from a tile and a margin of one pixel.

Every foreground pixel points to the highest of its neighbours; following the pointers it ends in a
peak, and the pixels of one peak are its (catchment) basin. Pointers that leave the tile end in a
name: that of the pixel outside. `tile_merger` joins the tiles and merges the basins.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.tiles import Tile, Window


@dataclass(frozen=True)
class Basins:
    """What one tile knows about its objects. Pixels are named by their flat index in the frame.

    Attributes
    ----------
    ids
        uint32, the basin of each pixel of the tile's written window, counted from 1; 0 is
        background.
    names, peaks, sizes
        For each basin the pixel where its ascent ends (its peak, or the first pixel outside the
        tile), that pixel's height, and how many of the tile's pixels end there.
    passes, heights
        int64 (M, 2) pairs of names that touch, and the height of the pass between them.
    border, border_names
        Foreground pixels on the tile's `inner_faces`, ascending, and the name of their basin.
    """

    ids: np.ndarray
    names: np.ndarray
    peaks: np.ndarray
    sizes: np.ndarray
    passes: np.ndarray
    heights: np.ndarray
    border: np.ndarray
    border_names: np.ndarray


def find_basins(
    foreground: np.ndarray, height: np.ndarray, tile: Tile, shape: tuple[int, ...]
) -> Basins:
    """Divide the foreground of one tile into basins.

    Parameters
    ----------
    foreground
        bool, the tile's outer window, which is one pixel larger than the written one wherever the
        frame continues.
    height
        float32 of the same shape, along which the pixels ascend: the relative distance.
    tile
        Where the window lies.
    shape
        Size of the frame.
    """
    level = _padded_level(foreground, height, tile)
    inner = (slice(1, -1),) * level.ndim
    core = np.zeros(level.shape, bool)
    core[inner] = True
    # From here on a pixel is known by its rank among the foreground pixels, margin included.
    places = np.flatnonzero(level > -np.inf)
    own = np.flatnonzero(core.ravel()[places])
    pixels = np.flatnonzero(level[inner] > -np.inf)
    rank = np.zeros(level.size, np.intp)
    rank[places] = np.arange(len(places))
    ends = _ascend(own, rank[_steepest(level).ravel()[pixels]], len(places))

    number = np.zeros(len(places), np.uint32)
    number[ends[own]] = 1
    peaks = np.flatnonzero(number)
    number[peaks] = np.arange(1, len(peaks) + 1, dtype=np.uint32)
    basin = number[ends[own]]
    ids = np.zeros(level[inner].shape, np.uint32)
    ids.ravel()[pixels] = basin
    pairs, heights = _passes(level, core.ravel(), places, ends)
    on_face = np.zeros(level.shape, bool)
    for face in inner_faces(tile, shape):
        on_face[face] = level[face] > -np.inf
    faces = rank[np.flatnonzero(on_face)]
    first, second, names, border, border_names = (
        frame_indices(places[ranks], level.shape, tile, shape)
        for ranks in (pairs[:, 0], pairs[:, 1], peaks, faces, ends[faces])
    )
    return Basins(
        ids=ids,
        names=names,
        peaks=level.ravel()[places[peaks]],
        sizes=np.bincount(basin, minlength=len(peaks) + 1)[1:],
        passes=np.stack([first, second], 1),
        heights=heights,
        border=border,
        border_names=border_names,
    )


def _padded_level(foreground: np.ndarray, height: np.ndarray, tile: Tile) -> np.ndarray:
    """Return the height of the tile's window and one pixel around it; background is -infinity."""
    shape, known = padded_window(tile)
    level = np.full(shape, -np.inf, np.float32)
    np.copyto(level[known], height, where=foreground & np.isfinite(height))
    level += 0  # -0 becomes 0: heights that are equal have equal bits
    return level


def padded_window(tile: Tile) -> tuple[tuple[int, ...], Window]:
    """Return the size of a tile with one pixel around it, and the outer window's place in that."""
    shape = tuple(w.stop - w.start + 2 for w in tile.write)
    known = tuple(
        slice(1 + o.start - w.start, 1 + o.stop - w.start)
        for o, w in zip(tile.outer, tile.write, strict=True)
    )
    return shape, known


def _steepest(level: np.ndarray) -> np.ndarray:
    """Return which neighbour of each inner pixel is highest, as a flat index in `level`.

    Height and place are packed into one integer, so that one maximum along each axis finds both.
    Of equals it is the last in raster order: a strict order, by which plateaus have one peak.
    """
    bits = level.view(np.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers in the order of the floats
    packed = np.left_shift(bits, 32, dtype=np.int64)
    packed |= np.arange(level.size).reshape(level.shape)
    for axis in range(level.ndim):
        before, middle, after = (
            packed[(slice(None),) * axis + (part,)]
            for part in (slice(None, -2), slice(1, -1), slice(2, None))
        )
        packed = np.maximum(before, middle)
        np.maximum(packed, after, out=packed)
    packed &= 0xFFFFFFFF
    return packed


def _ascend(own: np.ndarray, steepest: np.ndarray, count: int) -> np.ndarray:
    """Return where the ascent of each of `count` pixels ends; pixels outside the tile stay."""
    ends = np.arange(count)
    ends[own] = steepest
    while True:  # pointer jumping: each round doubles the length of the pointers
        ahead = ends[ends]
        if np.array_equal(ahead, ends):
            return ends
        ends = ahead


def frame_indices(
    local: np.ndarray, padded: tuple[int, ...], tile: Tile, shape: tuple[int, ...]
) -> np.ndarray:
    """Turn flat indices in the padded tile into flat indices in the frame."""
    flat = np.zeros(len(local), np.int64)
    where = np.unravel_index(local, padded)
    for position, window, extent in zip(where, tile.write, shape, strict=True):
        flat = flat * extent + (position - 1 + window.start)
    return flat


def _passes(
    level: np.ndarray, core: np.ndarray, places: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of touching basins, by their ends, and the highest pass of each pair.

    Only steps forward in raster order are taken from the tile's own pixels: over all tiles every
    pair of neighbouring pixels is seen exactly once.
    """
    basin = np.full(level.size, -1, np.int32)
    basin[places] = ends
    there = basin >= 0
    here = there & core
    flat = level.ravel()
    pairs, heights = [], []
    for step in forward_steps(level.shape):
        apart = basin[:-step] != basin[step:]
        apart &= here[:-step]
        apart &= there[step:]
        at = np.flatnonzero(apart)
        pairs.append(np.stack([basin[at], basin[at + step]], 1))
        heights.append(np.minimum(flat[at], flat[at + step]))
    return highest_passes(np.sort(np.concatenate(pairs), 1), np.concatenate(heights))


def forward_steps(padded: tuple[int, ...]) -> list[int]:
    """Return the flat distances to the neighbours that come later in raster order."""
    strides = np.cumprod((1, *padded[:0:-1]))[::-1]
    offsets = list(itertools.product((-1, 0, 1), repeat=len(padded)))
    return [int(np.dot(offset, strides)) for offset in offsets[len(offsets) // 2 + 1 :]]


def highest_passes(pairs: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep each pair (M, 2) of numbers below 2^31 once, in order, with its greatest height."""
    if not len(pairs):
        return pairs.reshape(0, 2), heights
    codes = pairs[:, 0].astype(np.int64) << 32 | pairs[:, 1]
    order = np.argsort(codes)
    codes = codes[order]
    first = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    return pairs[order[first]], np.maximum.reduceat(heights[order], first)


def inner_faces(tile: Tile, shape: tuple[int, ...]) -> Iterator[Window]:
    """Yield the faces of the padded tile's own pixels behind which the frame continues."""
    for axis, (window, whole) in enumerate(zip(tile.write, shape, strict=True)):
        size = window.stop - window.start
        for at, continues in ((1, window.start > 0), (size, window.stop < whole)):
            if continues:
                yield tuple(
                    slice(at, at + 1) if a == axis else slice(1, -1) for a in range(len(shape))
                )
