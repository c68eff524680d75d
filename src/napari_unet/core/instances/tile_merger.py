"""Basins of a frame's tiles merged into objects, with the same answer for every tiling.

Steepest ascent needs only what is next to a pixel, so a tile with a margin of one pixel computes
its share exactly (`watershed`). Where an ascent leaves the tile it ends in the index of the pixel
outside, which `TileMerger` looks up in the tile that owns it. Passes between basins are collected
in the same way, and shallow ones are merged once (`persistence`), on a table of basins instead of
pixels. Therefore the labels depend neither on the tiles nor on their order, and an object may be
larger than any tile.

In a blockwise run the tiles of a block are merged into a `BlockSummary` instead, a table that is
small beside the block's pixels; `core.blockwise.join` connects it with those of other blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np

from napari_unet.core.instances.persistence import merge_basins
from napari_unet.core.instances.watershed import Basins, find_basins, highest_passes
from napari_unet.core.settings.tasks import DecodeSettings
from napari_unet.core.tiles import Tile, Window


@dataclass
class TileMerger:
    """Collects the basins of a frame's tiles and tells, in the end, which of them are one object.

    Provisional ids count the basins of all tiles in the order in which they were added; `finish`
    returns the table that turns them into labels.
    """

    settings: DecodeSettings
    count: int = 0
    _parts: list[Basins] = field(default_factory=list)

    def add(self, basins: Basins) -> np.ndarray:
        """Add the basins of a tile; return its provisional ids, uint32, 0 is background."""
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
        basins = self.all_basins()
        roots, owner, sizes, peaks = _merge_by_peak(basins)
        pairs = _resolve_roots(basins.passes, basins.border, basins.border_names)
        # A tile that was never computed owns peaks that no basin has.
        known = np.isin(pairs, roots).all(1)
        pairs, heights = pairs[known], basins.heights[known]
        root = merge_basins(peaks, np.searchsorted(roots, pairs), heights, self.settings.merge)
        sizes = np.bincount(root, sizes, len(roots))
        kept = (root == np.arange(len(roots))) & (sizes >= max(1, self.settings.min_size))
        label = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
        return np.concatenate([[np.uint32(0)], label[root][owner]])

    def all_basins(self) -> Basins:
        """Return the basins of all tiles, one after the other, without their pixels' ids."""
        parts = [_no_basins(), *self._parts]
        return Basins(
            *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Basins))
        )


def _no_basins() -> Basins:
    """Return the basins of a tile without foreground."""
    names, floats = np.zeros(0, np.int64), np.zeros(0, np.float32)
    pairs = np.zeros((0, 2), np.int64)
    return Basins(np.zeros(0, np.uint32), names, floats, names, pairs, floats, names, names)


def decode_instances(maps: np.ndarray, settings: DecodeSettings | None = None) -> np.ndarray:
    """Turn an instance head's maps into labels, as a single tile.

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
    merger = TileMerger(settings)
    ids = merger.add(tile_basins(maps, whole_tile(shape), shape, settings))
    return np.asarray(merger.finish()[ids])


def tile_basins(
    maps: np.ndarray, tile: Tile, shape: tuple[int, ...], settings: DecodeSettings
) -> Basins:
    """Divide the foreground of a tile's maps (2, *outer) into basins."""
    return find_basins(maps[0] > settings.threshold, maps[1], tile, shape)


def whole_tile(shape: tuple[int, ...]) -> Tile:
    """Return the tile that is a whole frame."""
    window: Window = tuple(slice(0, size) for size in shape)
    return Tile(read=window, write=window, outer=window, crop=window)


@dataclass(frozen=True)
class BlockSummary:
    """What one block knows about its objects. Pixels are named by their flat index in the frame.

    The attributes are the names of the arrays in a block's file.

    Attributes
    ----------
    names, peaks, sizes
        For each basin the pixel where its ascent ends (its peak, or the first pixel outside the
        block; ascending), that pixel's height, and how many of the block's pixels end there.
    faces
        uint8, the faces of the block that a basin touches and behind which the frame continues.
    pairs, heights
        int64 (M, 2) basins, counted from 0, that touch, and the height of the highest pass.
    outward, beyond, outward_heights
        Basins that touch a pixel outside the block, that pixel, and the height of the pass.
    border, border_basins
        Foreground pixels on the faces, ascending, and their basins.
    """

    names: np.ndarray
    peaks: np.ndarray
    sizes: np.ndarray
    faces: np.ndarray
    pairs: np.ndarray
    heights: np.ndarray
    outward: np.ndarray
    beyond: np.ndarray
    outward_heights: np.ndarray
    border: np.ndarray
    border_basins: np.ndarray


def summarise(
    basins: Basins, block: Window, shape: tuple[int, ...]
) -> tuple[np.ndarray, BlockSummary]:
    """Sum up the basins of a block's tiles.

    Parameters
    ----------
    basins
        Those of all its tiles: `TileMerger.all_basins`.
    block
        The tiles' written windows together.
    shape
        Size of the frame.

    Returns
    -------
    table
        uint32, for each provisional id of the `TileMerger` the basin's number in the block, from 1.
    summary
        What the block knows.
    """
    roots, owner, sizes, peaks = _merge_by_peak(basins)
    ends = _resolve_roots(basins.passes, basins.border, basins.border_names)
    at, known = find_sorted(roots, ends)
    inside = known.all(1) & (at[:, 0] != at[:, 1])
    pairs, heights = highest_passes(np.sort(at[inside], 1), basins.heights[inside])
    out = known.sum(1) == 1
    mine = known[out, 0]
    border, border_basins, faces = _find_border(basins, roots, block, shape)
    summary = BlockSummary(
        names=roots,
        peaks=peaks,
        sizes=sizes,
        faces=faces,
        pairs=pairs,
        heights=heights,
        outward=np.where(mine, at[out, 0], at[out, 1]),
        beyond=np.where(mine, ends[out, 1], ends[out, 0]),
        outward_heights=basins.heights[out],
        border=border,
        border_basins=border_basins,
    )
    table = np.concatenate([[0], owner.ravel() + 1]).astype(np.uint32)
    return table, summary


def _find_border(
    basins: Basins, roots: np.ndarray, block: Window, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the foreground pixels on the block's faces, their basins, and each basin's faces."""
    positions = np.unravel_index(basins.border, shape) if len(basins.border) else ()
    bits = np.zeros(len(basins.border), np.uint8)
    for axis, at in enumerate(positions):
        window = block[axis]
        if window.start > 0:
            bits[at == window.start] |= face_bit(axis, 0)
        if window.stop < shape[axis]:
            bits[at == window.stop - 1] |= face_bit(axis, 1)
    on = np.flatnonzero(bits)
    on = on[np.argsort(basins.border[on])]
    border = basins.border[on]
    names = _resolve_roots(basins.border_names[on], basins.border, basins.border_names)
    owners = np.searchsorted(roots, names).astype(np.uint32)
    faces = np.zeros(len(roots), np.uint8)
    np.bitwise_or.at(faces, owners, bits[on])
    return border, owners, faces


def face_bit(axis: int, side: int) -> int:
    """Return the bit that stands for the near (0) or far (1) face across an axis."""
    return 1 << (2 * axis + side)


def _merge_by_peak(basins: Basins) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Merge those basins of several tiles that ascend to one peak.

    Returns
    -------
    roots
        int64, the merged basins by the pixel of their peak (or the first one outside the tiles),
        ascending.
    owner
        For each basin its position in `roots`.
    sizes, peaks
        Pixels and height of the peak of each merged basin.
    """
    names = _resolve_roots(basins.names, basins.border, basins.border_names)
    roots, owner = np.unique(names, return_inverse=True)
    sizes = np.bincount(owner, basins.sizes, len(roots)).astype(np.int64)
    peaks = np.full(len(roots), -np.inf, np.float32)
    # The pixel outside a tile is lower than the peak it leads to, so the maximum is right.
    np.maximum.at(peaks, owner, basins.peaks)
    return roots, owner, sizes, peaks


def _resolve_roots(names: np.ndarray, border: np.ndarray, border_names: np.ndarray) -> np.ndarray:
    """Follow names from tile to tile until they end in a peak (or in a tile never computed).

    Two tiles that round differently may each find the peak on the other's side of their border:
    such a ring is one peak, named by the smallest name in it.

    Parameters
    ----------
    names
        Pixels, by their flat index in the frame.
    border, border_names
        Of all tiles; see `Basins`.
    """
    if not len(border):
        return names
    order = np.argsort(border)
    border, ends = border[order], border_names[order]
    smallest = ends
    for _ in range(len(border).bit_length()):  # each round doubles the number of tiles crossed
        at, goes_on = find_sorted(border, ends)
        if not goes_on.any():
            break
        smallest = np.where(goes_on, np.minimum(smallest, smallest[at]), smallest)
        ends = np.where(goes_on, ends[at], ends)
    at, ring = find_sorted(border, ends)
    ends = np.where(ring, smallest[at], ends)
    at, crosses = find_sorted(border, names)
    return np.where(crosses, ends[at], names)


def find_sorted(ordered: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the wanted numbers in an ascending array, and which are in it."""
    if not len(ordered):
        return np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape, bool)
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return at, ordered[at] == wanted
