"""One tile of a run in blocks, tried before the start: how long all of it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.blockwise.assembling import pack_block
from napari_unet.core.blockwise.guard import UnreadableError
from napari_unet.core.blockwise.workplace import packed_size
from napari_unet.nn.blockwise.blocks import BlockIds
from napari_unet.nn.decode import SemanticDecoder
from napari_unet.nn.memory import LIVE_TENSORS

if TYPE_CHECKING:
    from napari_unet.core.blockwise.pieces import Pieces
    from napari_unet.core.tiles import Tile
    from napari_unet.nn.blockwise.blocks import BlockRun
    from napari_unet.nn.maps import MapSource

QUICK = 2.0
"""Seconds: a tile that takes less is timed once more."""


@dataclass(frozen=True)
class Probe:
    """What one tile tells of a run.

    Attributes
    ----------
    device
        Where the network runs.
    seconds, disk_bytes
        For each pixel.
    tile_bytes
        Memory of the device that a batch of tiles takes.
    tile
        Edge lengths of the tile.
    seam
        The largest |difference| across the borders of tiles and blocks; None if not checked.
    """

    device: str
    seconds: float
    disk_bytes: float
    tile_bytes: float
    tile: tuple[int, ...]
    seam: float | None


def probe(run: BlockRun) -> Probe:
    """Run a tile of the middle frame, and across a corner of blocks if that is asked for."""
    plan = run.place.plan
    frame = plan.frames // 2
    device, spec = str(run.model.device), run.model.spec
    try:
        maps = run.maps(frame)
    except UnreadableError:
        return Probe(device, 0.0, 0.0, 0.0, (), None)
    number = plan.blocks.count // 2
    tiles = maps.plan(plan.blocks.window(number))
    if maps.blank or not tiles:
        return Probe(device, 0.0, 0.0, 0.0, (), None)
    seam = _certify(run, maps, number) if run.settings.certify else None
    try:
        seconds, disk = _time_tile(run, maps, tiles[0])
    except UnreadableError:
        seconds = disk = 0.0
    width = run.model.runner(plan.precision).dtype.itemsize * spec.width
    memory = LIVE_TENSORS * width * float(np.prod(tiles[0].read_shape))
    edges = tuple(w.stop - w.start for w in tiles[0].write)
    return Probe(device, seconds, disk, memory, edges, seam)


def _certify(run: BlockRun, maps: MapSource, number: int) -> float | None:
    """Compare a crop across a corner of tiles, if possible of several blocks, with one piece."""
    blocks = run.place.plan.blocks
    near = [number, *(other for other in blocks.neighbours(number) if other < number)]
    tiles = [tile for block in sorted(near) for tile in maps.plan(blocks.window(block))]
    if len(tiles) == 1:
        return 0.0  # one piece has no seams
    try:
        return maps.certify(tiles, np.random.default_rng(run.settings.seed))
    except UnreadableError:
        return None


def _time_tile(run: BlockRun, maps: MapSource, tile: Tile) -> tuple[float, float]:
    """Return the seconds and the bytes on the disk that a tile takes, for each pixel."""
    seconds, ids, pieces = _run_tile(run, maps, tile)
    if seconds < QUICK:  # the first pass of a network sets things up
        seconds, ids, pieces = _run_tile(run, maps, tile)
    labels = packed_size({"ids": ids})
    everything = packed_size(pack_block(ids, pieces))
    # Ids and labels of all levels, and the tables twice: of the blocks, and of their joining.
    disk = labels * (1 + 4 / 3) + 2 * (everything - labels)
    return seconds / ids.size, disk / ids.size


def _run_tile(
    run: BlockRun, maps: MapSource, tile: Tile
) -> tuple[float, np.ndarray, Pieces | None]:
    began, out, decoder = time.perf_counter(), BlockIds(tile.write), run.decoder
    decoder.out = out
    decoder.start((), maps.size)
    for part, raw in maps.run([tile]):
        decoder.add(part, raw)
    decoder.out = None
    if isinstance(decoder, SemanticDecoder):
        return time.perf_counter() - began, out.ids, None
    table, pieces = decoder.pieces(tile.write)
    return time.perf_counter() - began, table[out.ids], pieces
