"""A network run over one plane or volume, tile by tile, with the raw maps of one piece.

Tiles are as large as the device's memory allows (`device_memory`), and are halved where it turns
out to be short.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from napari_unet.core.errors import DeviceError
from napari_unet.core.tiles import nearest_first, plan_tiles, tile_halo
from napari_unet.nn.inference.device_memory import GPU_BATCH, choose_edge, is_out_of_memory
from napari_unet.nn.inference.embeddings import FeatureCache, FrameFeatures
from napari_unet.nn.inference.launched_tiles import PendingTile, Piece, cancel, launch_tiles
from napari_unet.nn.inference.model_input import choose_augment, choose_scale
from napari_unet.nn.inference.remote import WANT_MAPS, RemoteRunner, Wanted, read_answer
from napari_unet.nn.remote.connection import LINES, PendingAnswer

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.inference.launched_tiles import Computed
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.inference.runner import Runner

MARGIN = 1
"""Pixels around a tile whose maps are exact, too: decoding compares each pixel with its
neighbours."""
Focus = Callable[[], Sequence[float] | None]
"""Returns the position, in the frame's pixels, near which tiles run first, if there is one."""
WAIT_SECONDS = 0.3
"""Seconds after which a run that waits for a server says so; it can be cancelled then."""


class Waiting(NamedTuple):
    """A run waits for a server; `reason` is "", or why it takes longer."""

    reason: str


@dataclass(frozen=True)
class TileRunner:
    """A network over one frame: plans its tiles and runs them.

    Attributes
    ----------
    runner
        The network, ready to run.
    spec
        What it is built from.
    frame
        The frame that the tiles are read from.
    edge
        Edge length of the tiles, in the network's pixels.
    batch
        How many tiles go through together where their sizes allow.
    on_device
        Whether raw maps stay where the network runs; otherwise they come to the host.
    features
        Where the trunk's features are kept for clicks, if they are.
    wanted
        What comes of a tile where a server runs the network; elsewhere it is always maps.
    started
        Tiles that were launched already, together with those of other frames (`plane_batches`).
    """

    runner: Runner
    spec: ModelSpec
    frame: Frame
    edge: int
    batch: int = 1
    on_device: bool = False
    features: FrameFeatures | None = None
    wanted: Wanted = WANT_MAPS
    started: tuple[PendingTile, ...] = ()

    @property
    def decodes(self) -> bool:
        """Whether what comes of a tile is decoded already."""
        return isinstance(self.runner, RemoteRunner) and self.wanted != WANT_MAPS

    def plan(self, region: Window | None = None, edge: int | None = None) -> list[Tile]:
        """Cover the frame, or a region of it, with tiles; of another edge length if given."""
        ndim, frame, edge = self.spec.ndim, self.frame, edge or self.edge
        if not frame.rescaled:
            halo, grid = self._halo(MARGIN), self._grid
            edges = self._alike(self.spec.limit_tile((edge,) * ndim), min)
            return plan_tiles(frame.size, edges, halo, grid, margin=MARGIN, region=region)
        edges = tuple(max(1, edge * n // m) for n, m in zip(frame.size, frame.shape, strict=True))
        unit = (1,) * ndim
        return plan_tiles(frame.size, edges, (0,) * ndim, unit, margin=MARGIN, region=region)

    def count_steps(self, tiles: Sequence[Tile]) -> int:
        """Return how often `steps` yields, unless tiles have to be halved."""
        return len(tiles)

    def run(
        self, tiles: Sequence[Tile], focus: Focus | None = None
    ) -> Iterator[tuple[Tile, Tensor]]:
        """Do what `steps` does, always with maps, and silently while a server is waited for."""
        for step in replace(self, wanted=WANT_MAPS).steps(tiles, focus):
            if not isinstance(step, Waiting):
                tile, maps = step
                assert isinstance(maps, torch.Tensor)
                yield tile, maps

    def steps(
        self, tiles: Sequence[Tile], focus: Focus | None = None
    ) -> Iterator[tuple[Tile, Computed] | Waiting]:
        """Run tiles, nearest to the focus first; yield each with its raw maps (K, *outer).

        The maps are complete: any CUDA stream may read them. Where the device runs out of memory,
        the tiles left are halved and the run goes on. While a server keeps it waiting it says so.

        Raises
        ------
        DeviceError
            Not even a tile of the smallest size fits into the device's memory.
        """
        running = deque(pending for pending in self.started if pending.tile in tiles)
        begun = [pending.tile for pending in running]
        waiting = [tile for tile in tiles if tile not in begun]
        # A GPU computes the next batch while this one is taken in.
        ahead = 1 + self.batch if self.runner.device.type == "cuda" else 1
        if isinstance(self.runner, RemoteRunner):
            ahead = LINES
        try:
            while waiting or running:
                maps = None
                try:
                    while waiting and len(running) < ahead:
                        batch = self._next_batch(waiting, focus() if focus else None)
                        running.extend(self.launch(batch))
                        waiting = [tile for tile in waiting if tile not in batch]
                    first = running[0].raw
                    while isinstance(first, PendingAnswer) and not first.wait(WAIT_SECONDS):
                        yield Waiting(first.problem)
                    maps = self.collect(running[0])
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                if maps is not None:
                    yield running.popleft().tile, maps
                    continue
                # Outside the `except` block the error is gone, and with it the tensors of the pass
                # that failed, which its traceback held.
                waiting = self._halve([*(pending.tile for pending in running), *waiting])
                cancel(running)
                running.clear()
                if self.runner.device.type == "cuda":
                    torch.cuda.empty_cache()
        finally:
            cancel(running)

    def run_tile(self, tile: Tile) -> np.ndarray:
        """Run one tile; return the raw maps of its outer window, on the host."""
        source = replace(self, wanted=WANT_MAPS)
        raw = source.collect(source.launch([tile])[0])
        assert isinstance(raw, torch.Tensor)
        return raw.cpu().numpy()

    def launch(self, tiles: Sequence[Tile]) -> list[PendingTile]:
        """Run tiles whose `network_tile` reads equal shapes; see `launch_tiles`."""
        pieces = [self.piece(tile) for tile in tiles]
        return launch_tiles(self.runner, pieces, on_device=self.on_device, wanted=self.wanted)

    def piece(self, tile: Tile) -> Piece:
        """Return a tile with all that it takes to launch it."""
        return Piece(self.frame, tile, self.network_tile(tile), self.features)

    def collect(self, pending: PendingTile) -> Computed:
        """Wait for a tile's raw maps, float32 (K, *outer), in the stack's pixels."""
        if isinstance(pending.raw, PendingAnswer):
            return read_answer(pending.raw.result())
        if pending.ready:
            pending.ready.synchronize()
        if self.on_device:
            return pending.raw
        maps = pending.raw.cpu()
        if not self.frame.rescaled:
            return maps
        return torch.from_numpy(self.frame.to_stack(maps.numpy(), pending.tile.outer))

    def network_tile(self, tile: Tile) -> Tile:
        """Return what the network has to compute for a tile, in its own pixels."""
        frame = self.frame
        if not frame.rescaled:
            return tile
        region, halo, grid = frame.in_network(tile.outer), self._halo(), self._grid
        enough = [n + step for n, step in zip(frame.shape, grid, strict=True)]
        return plan_tiles(frame.shape, enough, halo, grid, region=region)[0]

    @property
    def _grid(self) -> tuple[int, ...]:
        """The pooling grid that tiles lie on, in every view."""
        return self._alike(self.spec.stride, math.lcm)

    def _halo(self, margin: int = 0) -> tuple[int, ...]:
        """Return what a tile must read on each side, in every view: see `tile_halo`."""
        return self._alike(tile_halo(self.spec, margin), max)

    def _alike(self, sizes: tuple[int, ...], combine: Callable[[int, int], int]) -> tuple[int, ...]:
        """Return sizes along the axes; along Y and X the same where a view exchanges them."""
        if not any(view.swap for view in self.runner.views):
            return sizes
        return (*sizes[:-2], *2 * (combine(*sizes[-2:]),))

    def _next_batch(self, waiting: list[Tile], focus: Sequence[float] | None) -> list[Tile]:
        """Choose the nearest tile, and others for which the network reads just as much."""
        batch = [waiting[nearest_first(waiting, focus)]]
        wanted = self.network_tile(batch[0]).read_shape
        for tile in waiting:
            if len(batch) == self.batch:
                break
            if tile is not batch[0] and self.network_tile(tile).read_shape == wanted:
                batch.append(tile)
        return batch

    def _halve(self, tiles: Sequence[Tile]) -> list[Tile]:
        """Divide tiles into tiles of half the edge length, in the network's pixels."""
        frame = self.frame
        largest = max(max(self.network_tile(tile).read_shape) for tile in tiles)
        edge = max(
            -(-(w.stop - w.start) * m // n) // 2
            for tile in tiles
            for w, n, m in zip(tile.write, frame.size, frame.shape, strict=True)
        )
        if edge < max(self._grid):
            raise DeviceError(
                f"The memory of {self.runner.device} does not hold one tile of {largest} pixels; "
                "close other programs, or choose the device 'cpu'."
            )
        return [part for tile in tiles for part in self.plan(tile.write, edge)]


def open_tile_runner(
    model: Model,
    frame: Frame,
    settings: PredictSettings,
    *,
    live: bool = False,
    on_device: bool = False,
    cache: FeatureCache | None = None,
    wanted: Wanted = WANT_MAPS,
) -> TileRunner:
    """Return the runner of a frame, with tiles of the size that the memory allows.

    In a `cache` the features are kept, unless answers come from a server.
    """
    augment = choose_augment(settings, frame)
    runner = model.runner(model.choose_precision(settings.precision), augment)
    several = runner.device.type == "cuda" and model.spec.ndim == 2
    batch = settings.batch or (GPU_BATCH if several else 1)
    scale = choose_scale(model, settings)
    edge = settings.tile or choose_edge(model.spec, runner, batch, live=live, scale=scale)
    features, remote = None, isinstance(runner, RemoteRunner)
    if cache is not None and model.has_features and not remote:
        features = FrameFeatures(runner, model.spec, frame, cache)
    return TileRunner(runner, model.spec, frame, edge, batch, on_device, features, wanted)
