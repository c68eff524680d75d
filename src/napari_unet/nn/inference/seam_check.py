"""The seam check: a crop across the borders of tiles, predicted once more in one piece.

The largest difference goes into the result's provenance under ``seam``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.nn.inference.device_memory import is_out_of_memory
from napari_unet.nn.inference.tile_runner import TileRunner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.inference.launched_tiles import Computed
    from napari_unet.nn.inference.map_source import MapSource

CROP = {2: 192, 3: 48}
"""Edge length of the crop, in pixels."""


class SeamCheck:
    """Gathers the tiles' maps of a random crop, and compares them with those of one piece.

    Parameters
    ----------
    tiles
        The tiles of the frame that is checked.
    rng
        Chooses the crop: its middle is the corner of a tile that has neighbours, if any has.
    """

    def __init__(self, tiles: Sequence[Tile], rng: np.random.Generator) -> None:
        low = np.min([[w.start for w in tile.write] for tile in tiles], 0)
        high = np.max([[w.stop for w in tile.write] for tile in tiles], 0)
        corners = np.array([[w.start for w in tile.write] for tile in tiles])
        between = (corners > low).sum(1)
        best = np.flatnonzero(between == between.max())
        middle = corners[rng.choice(best)]
        edge = CROP[len(low)]
        start = np.clip(middle - edge // 2, low, np.maximum(low, high - edge))
        stop = np.minimum(start + edge, high)
        self.window: Window = tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        self._seen: np.ndarray | None = None

    def see(self, tile: Tile, raw: Computed) -> None:
        """Keep the part of a tile's raw maps (K, *outer) that lies in the crop, if any."""
        assert isinstance(raw, torch.Tensor)
        pairs = list(zip(self.window, tile.write, strict=True))
        common = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs]
        if any(lo >= hi for lo, hi in common):
            return
        if self._seen is None:
            size = [w.stop - w.start for w in self.window]
            self._seen = np.full((len(raw), *size), np.nan, np.float32)
        there = tuple(
            slice(lo - w.start, hi - w.start)
            for (lo, hi), w in zip(common, self.window, strict=True)
        )
        here = tuple(
            slice(lo - o.start, hi - o.start)
            for (lo, hi), o in zip(common, tile.outer, strict=True)
        )
        self._seen[(slice(None), *there)] = raw[(slice(None), *here)].cpu().numpy()

    def difference(self, source: MapSource) -> float | None:
        """Return the largest |difference| of the raw maps (logits).

        None if a tile was missing, or if the memory does not hold the crop in one piece.
        """
        if self._seen is None or np.isnan(self._seen).any():
            return None
        enough = max(max(source.frame.shape), CROP[len(self.window)]) + math.lcm(
            *source.spec.stride
        )
        tile, *others = source.plan(self.window, enough)
        if others:  # the network takes no piece of that size
            return None
        try:
            raw = source.run_tile(tile)[(slice(None), *tile.inner)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return float(np.abs(raw - self._seen).max(initial=0.0))


def check_seams(source: MapSource, tiles: Sequence[Tile], rng: np.random.Generator) -> float | None:
    """Compare a crop across a corner of tiles, run in parts, with the same crop run in one piece.

    The parts are cut where the tiles are, which need not be run whole.

    Returns
    -------
    float or None
        The largest |difference| of the raw maps (logits). None if it cannot be told: as in
        `SeamCheck.difference`, or for an orthogonal run, each plane of which has tiles of its own.
    """
    if not isinstance(source, TileRunner):
        return None
    check = SeamCheck(tiles, rng)
    for tile in tiles:
        pairs = list(zip(tile.write, check.window, strict=True))
        part = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs)
        if all(w.start < w.stop for w in part):
            for cut, raw in source.run(source.plan(part)):
                check.see(cut, raw)
    return check.difference(source)
