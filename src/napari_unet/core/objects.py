"""Fields to separate objects, tile by tile, with the same answer for every tiling.

The method is a watershed by steepest ascent. Every foreground pixel points to the highest of its
neighbours; following the pointers it ends in a peak, and the pixels of one peak are its basin. A
basin whose peak hardly rises above the pass to a higher neighbour belongs to that neighbour.

Both steps need only what is next to a pixel, so a tile with a margin of one pixel computes its
share exactly. What it cannot know are pointers that leave it: it names the pixel beyond, and
`Joiner` looks the name up in the tile that owns it. Passes between basins are collected in the same
way, and the merging is done once, on a table of basins instead of pixels. Therefore the labels do
not depend on the tiles, nor on their order; an object may be larger than any tile.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import numpy as np

from .spec import setting
from .tiles import Tile, Window


@dataclass(frozen=True)
class DecodeSettings:
    """How fields become objects; calibrated for each model and kept in its card."""

    threshold: float = setting(0.5, "foreground probability that makes an object", low=0, high=1)
    merge: float = setting(0.2, "passes shallower than this do not divide", low=0, high=1)
    min_size: int = setting(10, "smaller objects are dropped", unit="px", low=0)

    def updated(self, **changes: float | None) -> DecodeSettings:
        """Return a copy with those changes that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]


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
    size = tuple(w.stop - w.start for w in tile.write)
    padded = tuple(n + 2 for n in size)
    level = np.full(padded, -np.inf, np.float32)
    at = tuple(
        slice(1 + o.start - w.start, 1 + o.stop - w.start)
        for o, w in zip(tile.outer, tile.write, strict=True)
    )
    level[at] = np.where(foreground, height, -np.inf)
    core = tuple(slice(1, -1) for _ in size)

    inside = np.zeros(padded, bool)
    inside[core] = np.isfinite(level[core])
    pixels = np.flatnonzero(inside)
    ends = np.arange(level.size)
    ends[pixels] += _steps(padded)[_steepest(level, size)[inside[core]]]
    while True:  # pointer jumping: each round doubles the distance looked ahead
        ahead = ends[ends[pixels]]
        if np.array_equal(ahead, ends[pixels]):
            break
        ends[pixels] = ahead

    def name(local: np.ndarray) -> np.ndarray:
        """Turn flat indices in the padded tile into flat indices in the frame."""
        flat = np.zeros(len(local), np.int64)
        for position, window, extent in zip(
            np.unravel_index(local, padded), tile.write, shape, strict=True
        ):
            flat = flat * extent + (position - 1 + window.start)
        return flat

    number = np.zeros(level.size, np.uint32)
    number[ends[pixels]] = 1
    peaks = np.flatnonzero(number)
    number[peaks] = np.arange(1, len(peaks) + 1, dtype=np.uint32)
    ids = np.zeros(padded, np.uint32)
    ids.ravel()[pixels] = number[ends[pixels]]
    ids = np.ascontiguousarray(ids[core])
    pairs, heights = _passes(level.ravel(), ends, pixels, _steps(padded))
    faces = pixels[_on_faces(pixels, padded, tile, shape)]
    return Basins(
        ids=ids,
        names=name(peaks),
        peaks=level.ravel()[peaks],
        sizes=np.bincount(ids.ravel(), minlength=len(peaks) + 1)[1:],
        passes=np.stack([name(pairs[:, 0]), name(pairs[:, 1])], 1),
        heights=heights,
        border=name(faces),
        border_names=name(ends[faces]),
    )


def _steps(padded: tuple[int, ...]) -> np.ndarray:
    """Return the flat distance to each of the 3^n neighbours, in raster order, self included."""
    strides = np.cumprod((1, *padded[:0:-1]))[::-1]
    return np.array([np.dot(o, strides) for o in itertools.product((-1, 0, 1), repeat=len(padded))])


def _steepest(level: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return which neighbour of each pixel is highest; of equals, the last in raster order.

    The tie rule makes (height, position) a strict order, so that plateaus have one peak.
    """
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
    return _highest(np.concatenate(pairs), np.concatenate(heights))


def _highest(pairs: np.ndarray, heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep each pair once, with its greatest height."""
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


@dataclass
class Joiner:
    """Collects the basins of a frame's tiles and says, in the end, which are one object.

    Provisional ids count the basins of all tiles in the order in which they were added; `finish`
    gives the table that turns them into labels.
    """

    settings: DecodeSettings
    count: int = 0
    _parts: list[Basins] = field(default_factory=list)

    def add(self, basins: Basins) -> np.ndarray:
        """Take a tile's basins in; return its provisional ids, uint32, 0 is background."""
        ids = basins.ids + np.uint32(self.count) * (basins.ids > 0)
        self.count += len(basins.names)
        self._parts.append(replace(basins, ids=np.empty(0, np.uint32)))
        return ids

    def finish(self) -> np.ndarray:
        """Return the label of each provisional id, uint32 (count + 1,); entry 0 is 0.

        Labels are consecutive from 1 in raster order of the objects' highest pixels.
        """
        if not self.count:
            return np.zeros(1, np.uint32)
        names = _look_up(self._all("names"), self._all("border"), self._all("border_names"))
        roots, owner = np.unique(names, return_inverse=True)
        sizes = np.bincount(owner, self._all("sizes"), len(roots))
        peaks = np.full(len(roots), -np.inf, np.float32)
        # Beyond a tile the named pixel is lower than the peak it leads to, so the maximum is right.
        np.maximum.at(peaks, owner, self._all("peaks"))
        pairs = _look_up(self._all("passes"), self._all("border"), self._all("border_names"))
        # A tile that was never computed owns names that no basin has.
        known = np.isin(pairs, roots).all(1)
        pairs, heights = pairs[known], self._all("heights")[known]
        root = merge_basins(peaks, np.searchsorted(roots, pairs), heights, self.settings.merge)
        sizes = np.bincount(root, sizes, len(roots))
        kept = (root == np.arange(len(roots))) & (sizes >= max(1, self.settings.min_size))
        label = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
        return np.concatenate([[np.uint32(0)], label[root][owner]])

    def _all(self, what: str) -> np.ndarray:
        return np.concatenate([getattr(part, what) for part in self._parts])


def _look_up(names: np.ndarray, border: np.ndarray, border_names: np.ndarray) -> np.ndarray:
    """Follow names from tile to tile until they end in a peak (or in a tile never computed)."""
    order = np.argsort(border)
    border, border_names = border[order], border_names[order]
    if not len(border):
        return names
    while True:
        at = np.minimum(np.searchsorted(border, names), len(border) - 1)
        ahead = np.where(border[at] == names, border_names[at], names)
        if np.array_equal(ahead, names):
            return names
        names = ahead


def merge_basins(
    peaks: np.ndarray, pairs: np.ndarray, heights: np.ndarray, depth: float
) -> np.ndarray:
    """Merge basins over passes that lie less than `depth` below the lower of two peaks.

    Passes are taken from the highest down, and a merged basin has the higher of the two peaks
    (topological persistence: Edelsbrunner et al. 2002), so noise on a pass never joins two objects.

    Parameters
    ----------
    peaks
        Height of each basin's peak.
    pairs, heights
        (M, 2) basins that touch, and the height of the pass.
    depth
        Passes this deep divide.

    Returns
    -------
    np.ndarray
        For each basin the one with the highest peak among those it is merged with.
    """
    # Merging only raises peaks, so a pass that is too deep now stays too deep.
    shallow = peaks[pairs].min(1) - heights < depth
    pairs, heights = _highest(np.sort(pairs[shallow], 1), heights[shallow])
    parent = list(range(len(peaks)))
    peak = peaks.tolist()

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    order = np.lexsort((pairs[:, 1], pairs[:, 0], -heights))
    for (a, b), height in zip(pairs[order].tolist(), heights[order].tolist(), strict=True):
        low, high = sorted((root(a), root(b)), key=lambda node: (peak[node], node))
        if low != high and peak[low] - height < depth:
            parent[low] = high
    return np.array([root(node) for node in range(len(peaks))], dtype=np.int64)


def separate(maps: np.ndarray, settings: DecodeSettings | None = None) -> np.ndarray:
    """Turn an instance head's maps into labels, in one piece.

    Parameters
    ----------
    maps
        float32 (2, [Z,] Y, X): foreground probability and relative distance.

    Returns
    -------
    np.ndarray
        uint32 ([Z,] Y, X), the labels that any tiling of the same maps gives.
    """
    shape, settings = maps.shape[1:], settings or DecodeSettings()
    joiner = Joiner(settings)
    ids = joiner.add(tile_basins(maps, whole_tile(shape), shape, settings))
    return np.asarray(joiner.finish()[ids])


def tile_basins(
    maps: np.ndarray, tile: Tile, shape: tuple[int, ...], settings: DecodeSettings
) -> Basins:
    """Divide what a tile's maps (2, *outer) say is foreground into basins."""
    return find_basins(maps[0] > settings.threshold, maps[1], tile, shape)


def whole_tile(shape: tuple[int, ...]) -> Tile:
    """Return the tile that is a whole frame."""
    window: Window = tuple(slice(0, size) for size in shape)
    return Tile(read=window, write=window, outer=window, crop=window)
