"""Who does the steps of a run in blocks: this process here, a cluster in `cluster`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_unet.core.blockwise import assemble as assembling
from napari_unet.core.blockwise.assemble import pack_block
from napari_unet.core.blockwise.run_directory import packed_size
from napari_unet.core.io.retry import UnreadableError
from napari_unet.nn.blockwise.block import BlockIds, BlockRun, block_steps
from napari_unet.nn.inference.decode import SemanticDecoder
from napari_unet.nn.inference.seam_check import check_seams
from napari_unet.nn.inference.tile_runner import LIVE_TENSORS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.core.blockwise.summary import BlockSummary
    from napari_unet.core.tiles import Tile
    from napari_unet.nn.blockwise.block import BlockRun
    from napari_unet.nn.inference.map_source import MapSource


Item = tuple[int, ...]


class Pool(Protocol):
    """Who does the steps of a run."""

    @property
    def workers(self) -> int:
        """How many processes work."""
        ...

    def start(self, run: BlockRun) -> None:
        """Get to know the run; its plan is not needed yet."""
        ...

    def precision(self, wanted: str) -> str:
        """Return the number format that suits the devices."""
        ...

    def probe(self) -> Probe:
        """Run a tile to see how long it takes."""
        ...

    def run(self, kind: str, items: Sequence[Item]) -> Iterator[tuple[Item | None, Any]]:
        """Do a step for each item, in any order.

        Yields an item when it is done, a block with the problem of each of its frames ("" if there
        is none), and in between, often enough for a cancel, None with the pixels that are done
        beyond the finished items.
        """
        ...

    def close(self) -> None:
        """Stop, and let go of everything."""
        ...


class LocalPool:
    """Does everything in this process."""

    workers = 1

    def start(self, run: BlockRun) -> None:
        """Get to know the run."""
        self._run = run

    def precision(self, wanted: str) -> str:
        """Return the number format that suits the device."""
        return self._run.model.choose_precision(wanted)

    def probe(self) -> Probe:
        """Run a tile to see how long it takes."""
        return probe(self._run)

    def run(self, kind: str, items: Sequence[Item]) -> Iterator[tuple[Item | None, Any]]:
        """Do a step for each item, one after the other."""
        for item in items:
            problems: list[str] = []
            if kind == "block":
                steps = block_steps(self._run, *item)
                try:
                    while True:
                        try:
                            yield None, next(steps)
                        except StopIteration as end:
                            problems = end.value
                            break
                finally:
                    steps.close()
            else:
                STEPS[kind](self._run.place, *item)
            yield item, problems

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


STEPS: dict[str, Any] = {
    "join": assembling.join_node,
    "label": assembling.label_node,
    "write": assembling.write_block,
    "coarsen": assembling.coarsen_part,
    "idle": assembling.idle,
}
"""The steps that need no network; each takes the `RunDirectory` and its item."""


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
    if maps.frame.blank or not tiles:
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
        return check_seams(maps, tiles, np.random.default_rng(run.settings.seed))
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
) -> tuple[float, np.ndarray, BlockSummary | None]:
    began, out, decoder = time.perf_counter(), BlockIds(tile.write), run.decoder
    decoder.out = out
    decoder.start((), maps.frame.size)
    for part, raw in maps.run([tile]):
        decoder.add(part, raw)
    decoder.out = None
    if isinstance(decoder, SemanticDecoder):
        return time.perf_counter() - began, out.ids, None
    table, pieces = decoder.summarise(tile.write)
    return time.perf_counter() - began, table[out.ids], pieces
