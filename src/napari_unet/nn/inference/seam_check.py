"""The seam certificate: a crop across tile borders, predicted once more in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.nn.inference.memory import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.inference.orthogonal import OrthogonalRunner
    from napari_unet.nn.inference.tile_runner import TileRunner

CROP = {2: 192, 3: 48}
"""Edge length of the crop, in pixels."""


class SeamCheck:
    """Gathers what the tiles said about a random crop, and compares it with one piece.

    Parameters
    ----------
    tiles
        The tiles of the frame that is checked.
    rng
        Chooses the crop: its middle is the corner of a tile that has neighbours, if any has.
    """

    def __init__(self, tiles: list[Tile], rng: np.random.Generator) -> None:
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

    def see(self, tile: Tile, raw: Tensor) -> None:
        """Keep what a tile's raw maps (K, *outer) say about the crop."""
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

    def difference(self, runner: TileRunner | OrthogonalRunner) -> float | None:
        """Return the largest |difference| of the raw maps (logits).

        None if a tile was missing, or if the memory does not hold the crop in one piece.
        """
        if self._seen is None or np.isnan(self._seen).any():
            return None
        enough = max(max(runner.frame.shape), CROP[len(self.window)]) + max(runner.spec.stride)
        tile = runner.plan(enough, self.window)[0]
        try:
            raw = runner.run(tile)[(slice(None), *tile.inner)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return float(np.abs(raw - self._seen).max(initial=0.0))
