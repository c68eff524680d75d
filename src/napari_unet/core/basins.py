"""The watershed of one tile: what can be known from a tile and a margin of one pixel.

Every foreground pixel points to the highest of its neighbours; following the pointers it ends in a
peak, and the pixels of one peak are its basin. Pointers that leave the tile end in a name: that of
the pixel beyond. `objects` joins the tiles and merges the basins.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_unet.core.tiles import Tile


@dataclass(frozen=True)
class Basins:
    """What one tile knows of its objects. Pixels are named by their flat index in the frame.

    Attributes
    ----------
    ids
        uint32, the tile's written window: which basin a pixel belongs to, counted from 1; 0 is
        background.
    names, peaks, sizes
        For each basin the pixel where its ascent ends (its peak, or the first pixel beyond the
        tile), that pixel's height, and how many of the tile's pixels end there.
    passes, heights
        int64 (M, 2) pairs of names that touch, and the height of the pass between them.
    border, border_names
        Foreground pixels on the tile's own faces, ascending, and the name of their basin.
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
        bool, the tile's outer window, which reaches one pixel beyond the written one wherever the
        frame does.
    height
        float32 of the same shape: what the pixels climb.
    tile
        Where the window lies.
    shape
        Size of the frame.
    """
    level = _padded_level(foreground, height, tile)
    padded, core = level.shape, (slice(1, -1),) * level.ndim
    inside = np.zeros(padded, bool)
    inside[core] = np.isfinite(level[core])
    pixels = np.flatnonzero(inside)
    ends = _ascend(level, inside, pixels)

    number = np.zeros(level.size, np.uint32)
    number[ends[pixels]] = 1
    peaks = np.flatnonzero(number)
    number[peaks] = np.arange(1, len(peaks) + 1, dtype=np.uint32)
    ids = np.zeros(padded, np.uint32)
    ids.ravel()[pixels] = number[ends[pixels]]
    ids = np.ascontiguousarray(ids[core])
    pairs, heights = _passes(level.ravel(), ends, pixels, _steps(padded))
    faces = pixels[_on_faces(pixels, padded, tile, shape)]
    first, second, names, border, border_names = (
        _names(local, padded, tile, shape)
        for local in (pairs[:, 0], pairs[:, 1], peaks, faces, ends[faces])
    )
    return Basins(
        ids=ids,
        names=names,
        peaks=level.ravel()[peaks],
        sizes=np.bincount(ids.ravel(), minlength=len(peaks) + 1)[1:],
        passes=np.stack([first, second], 1),
        heights=heights,
        border=border,
        border_names=border_names,
    )


def _padded_level(foreground: np.ndarray, height: np.ndarray, tile: Tile) -> np.ndarray:
    """Return the height of the tile's window and one pixel around it; background is -infinity."""
    level = np.full([w.stop - w.start + 2 for w in tile.write], -np.inf, np.float32)
    at = tuple(
        slice(1 + o.start - w.start, 1 + o.stop - w.start)
        for o, w in zip(tile.outer, tile.write, strict=True)
    )
    level[at] = np.where(foreground, height, -np.inf)
    return level


def _ascend(level: np.ndarray, inside: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return where each pixel's ascent ends, by flat index; outside the tile nothing climbs."""
    core = (slice(1, -1),) * level.ndim
    ends = np.arange(level.size)
    ends[pixels] += _steps(level.shape)[_steepest(level)[inside[core]]]
    while True:  # pointer jumping: each round doubles the distance looked ahead
        ahead = ends[ends[pixels]]
        if np.array_equal(ahead, ends[pixels]):
            return ends
        ends[pixels] = ahead


def _names(
    local: np.ndarray, padded: tuple[int, ...], tile: Tile, shape: tuple[int, ...]
) -> np.ndarray:
    """Turn flat indices in the padded tile into flat indices in the frame."""
    flat = np.zeros(len(local), np.int64)
    where = np.unravel_index(local, padded)
    for position, window, extent in zip(where, tile.write, shape, strict=True):
        flat = flat * extent + (position - 1 + window.start)
    return flat


def _steps(padded: tuple[int, ...]) -> np.ndarray:
    """Return the flat distance to each of the 3^n neighbours, in raster order, self included."""
    strides = np.cumprod((1, *padded[:0:-1]))[::-1]
    return np.array([np.dot(o, strides) for o in itertools.product((-1, 0, 1), repeat=len(padded))])


def _steepest(level: np.ndarray) -> np.ndarray:
    """Return which neighbour of each inner pixel is highest; of equals, the last in raster order.

    The tie rule makes (height, position) a strict order, so that plateaus have one peak.
    """
    size = [n - 2 for n in level.shape]
    best = np.full(size, -np.inf, np.float32)
    choice = np.zeros(size, np.uint8)
    for number, offset in enumerate(itertools.product((0, 1, 2), repeat=len(size))):
        near = level[tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))]
        choice[near >= best] = number
        np.maximum(best, near, out=best)
    return choice


def _passes(
    level: np.ndarray, ends: np.ndarray, pixels: np.ndarray, steps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of touching basins, by their ends, and the highest pass of each pair.

    Only steps forward in raster order are taken from the tile's own pixels: over all tiles every
    pair of neighbouring pixels is seen exactly once.
    """
    pairs, heights = [], []
    for step in steps[len(steps) // 2 + 1 :]:
        beside = pixels + step
        apart = (ends[pixels] != ends[beside]) & np.isfinite(level[beside])
        here, there = pixels[apart], beside[apart]
        pairs.append(np.sort(np.stack([ends[here], ends[there]], 1), 1))
        heights.append(np.minimum(level[here], level[there]))
    return highest_passes(np.concatenate(pairs), np.concatenate(heights))


def highest_passes(pairs: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep each pair (M, 2) of names once, in order, with its greatest height."""
    if not len(pairs):
        return pairs.reshape(0, 2), heights
    order = np.lexsort((-heights, pairs[:, 1], pairs[:, 0]))
    pairs, heights = pairs[order], heights[order]
    first = np.ones(len(pairs), bool)
    first[1:] = (pairs[1:] != pairs[:-1]).any(1)
    return pairs[first], heights[first]


def _on_faces(
    pixels: np.ndarray, padded: tuple[int, ...], tile: Tile, shape: tuple[int, ...]
) -> np.ndarray:
    """Tell which pixels lie on a face of the tile beyond which the frame goes on."""
    found = np.zeros(len(pixels), bool)
    where = np.unravel_index(pixels, padded)
    for position, extent, window, whole in zip(where, padded, tile.write, shape, strict=True):
        if window.start > 0:
            found |= position == 1
        if window.stop < whole:
            found |= position == extent - 2
    return found
