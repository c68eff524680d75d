"""Fields to separate objects, tile by tile, with the same answer for every tiling.

The method is a watershed by steepest ascent (`basins`). A basin whose peak hardly rises above the
pass to a higher neighbour belongs to that neighbour.

Ascent needs only what is next to a pixel, so a tile with a margin of one pixel computes its share
exactly. Where an ascent leaves the tile, it names the pixel beyond, and `TileMerger` looks the name
up in the tile that owns it. Passes between basins are collected in the same way, and the merging is
done once, on a table of basins instead of pixels. Therefore the labels do not depend on the tiles,
nor on their order; an object may be larger than any tile.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import numpy as np

from napari_unet.core.instances.persistence import merge_basins
from napari_unet.core.instances.watershed import Basins, find_basins
from napari_unet.core.settings.fields import setting
from napari_unet.core.tiles import Tile, Window


@dataclass(frozen=True)
class DecodeSettings:
    """How fields become objects; calibrated for each model and kept in its card."""

    threshold: float = setting(0.5, "foreground probability that makes an object", low=0, high=1)
    merge: float = setting(0.2, "passes shallower than this do not divide", low=0, high=1)
    min_size: int = setting(
        10,
        "smaller objects are dropped; a model's card counts the network's pixels",
        unit="px",
        low=0,
    )

    def updated(self, **changes: float | None) -> DecodeSettings:
        """Return a copy with those changes that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]

    def in_image(self, scale: float, ndim: int) -> DecodeSettings:
        """Return a copy whose `min_size` counts an image's pixels instead of the network's.

        Parameters
        ----------
        scale
            Network pixels an image pixel, along each of `ndim` axes.
        """
        return replace(self, min_size=round(self.min_size / scale**ndim))


@dataclass
class TileMerger:
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
        names = resolve_roots(self._all("names"), self._all("border"), self._all("border_names"))
        roots, owner = np.unique(names, return_inverse=True)
        sizes = np.bincount(owner, self._all("sizes"), len(roots))
        peaks = np.full(len(roots), -np.inf, np.float32)
        # Beyond a tile the named pixel is lower than the peak it leads to, so the maximum is right.
        np.maximum.at(peaks, owner, self._all("peaks"))
        pairs = resolve_roots(self._all("passes"), self._all("border"), self._all("border_names"))
        # A tile that was never computed owns names that no basin has.
        known = np.isin(pairs, roots).all(1)
        pairs, heights = pairs[known], self._all("heights")[known]
        root = merge_basins(peaks, np.searchsorted(roots, pairs), heights, self.settings.merge)
        sizes = np.bincount(root, sizes, len(roots))
        kept = (root == np.arange(len(roots))) & (sizes >= max(1, self.settings.min_size))
        label = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
        return np.concatenate([[np.uint32(0)], label[root][owner]])

    def gathered(self) -> Basins:
        """Return the basins of all tiles, one after the other, without their pixels' ids."""
        if not self._parts:
            return no_basins()
        return Basins(*(self._all(item.name) for item in fields(Basins)))

    def _all(self, what: str) -> np.ndarray:
        return np.concatenate([getattr(part, what) for part in self._parts])


def no_basins() -> Basins:
    """Return what a tile without foreground knows."""
    names, floats = np.zeros(0, np.int64), np.zeros(0, np.float32)
    pairs = np.zeros((0, 2), np.int64)
    return Basins(np.zeros(0, np.uint32), names, floats, names, pairs, floats, names, names)


def resolve_roots(names: np.ndarray, border: np.ndarray, border_names: np.ndarray) -> np.ndarray:
    """Follow names from tile to tile until they end in a peak (or in a tile never computed).

    Two tiles that round differently may each find the peak on the other's side of their border:
    such a ring is one peak, named by the smallest name in it.
    """
    if not len(border):
        return names
    order = np.argsort(border)
    border, ends = border[order], border_names[order]

    def find(wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = np.minimum(np.searchsorted(border, wanted), len(border) - 1)
        return at, border[at] == wanted

    smallest = ends
    for _ in range(len(border).bit_length()):  # each round doubles the number of tiles crossed
        at, goes_on = find(ends)
        if not goes_on.any():
            break
        smallest = np.where(goes_on, np.minimum(smallest, smallest[at]), smallest)
        ends = np.where(goes_on, ends[at], ends)
    at, ring = find(ends)
    ends = np.where(ring, smallest[at], ends)
    at, crosses = find(names)
    return np.where(crosses, ends[at], names)


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
    joiner = TileMerger(settings)
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
