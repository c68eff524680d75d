"""Running a network over a frame, tile by tile, with the answer of one piece."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_unet.core.errors import DeviceError
from napari_unet.core.image.frames import Resampling
from napari_unet.core.instances.heads import get_head
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.tiles import Tile, Window, nearest_first, plan_tiles, tile_halo
from napari_unet.nn.inference.compatibility import check_fit, choose_scale, open_frame
from napari_unet.nn.inference.diameter_estimation import resolve_diameter
from napari_unet.nn.inference.embeddings import FeatureCache, FrameFeatures
from napari_unet.nn.inference.memory import choose_edge, is_out_of_memory
from napari_unet.nn.inference.tta import OFF

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.tiles import Window
    from napari_unet.nn.inference.model import Model, Runner


MARGIN = 1
"""Pixels around a tile that decoding wants to see."""

Focus = Callable[[], Sequence[float] | None]


class Pending(NamedTuple):
    """A tile that was sent to the device, and its raw maps (K, *outer), once they are `there`."""

    tile: Tile
    raw: Tensor
    there: torch.cuda.Event | None = None


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
    batch
        How many tiles go through together where their sizes allow.
    on_device
        Whether raw maps stay where the network runs; otherwise they come to the host.
    features
        Where the trunk's features are kept for clicks, if they are.
    """

    runner: Runner
    spec: ModelSpec
    frame: Frame
    batch: int = 1
    on_device: bool = False
    features: FrameFeatures | None = None

    def plan(self, edge: int, region: Window | None = None) -> list[Tile]:
        """Cover the frame, or a region of it, with tiles of about `edge` network pixels."""
        ndim, frame = self.spec.ndim, self.frame
        if not frame.rescaled:
            halo, grid = tile_halo(self.spec, MARGIN), self.spec.stride
            return plan_tiles(frame.size, (edge,) * ndim, halo, grid, margin=MARGIN, region=region)
        edges = [max(1, edge * n // m) for n, m in zip(frame.size, frame.shape, strict=True)]
        unit = (1,) * ndim
        return plan_tiles(frame.size, edges, (0,) * ndim, unit, margin=MARGIN, region=region)

    def launch(self, tiles: Sequence[Tile]) -> list[Pending]:
        """Run tiles whose `network_tile` reads equal shapes; a GPU goes on in the background."""
        parts = [self.network_tile(tile) for tile in tiles]
        raw = self._raw(parts)
        crops = [maps[(slice(None), *p.crop)] for maps, p in zip(raw, parts, strict=True)]
        if self.on_device and self.frame.rescaled:
            pairs = zip(crops, tiles, strict=True)
            crops = [to_stack(self.frame, crop, tile.outer) for crop, tile in pairs]
        if raw.device.type != "cuda":
            return [Pending(tile, crop) for tile, crop in zip(tiles, crops, strict=True)]
        if not self.on_device:
            # The answers follow at once, so that fetching them does not wait for what is sent next.
            hosts = [torch.empty(crop.shape, pin_memory=True) for crop in crops]
            pairs = zip(hosts, crops, strict=True)
            crops = [host.copy_(crop, non_blocking=True) for host, crop in pairs]
        there = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record(torch.cuda.current_stream(raw.device))
        return [Pending(tile, crop, there) for tile, crop in zip(tiles, crops, strict=True)]

    def _raw(self, parts: Sequence[Tile]) -> Tensor:
        """Run what tiles read; their features are kept on the way if that is wanted."""
        images = torch.from_numpy(np.stack([self.frame.read(part.read) for part in parts]))
        if self.features is None:
            return self.runner(images)
        seen = self.runner.trunk(images)
        for part, one, image in zip(parts, seen, images, strict=True):
            self.features.keep(part, one, image)
        return self.runner.read(seen)

    def collect(self, pending: Pending) -> Tensor:
        """Wait for a tile's raw maps, float32 (K, *outer), in the stack's pixels."""
        if pending.there:
            pending.there.synchronize()
        if self.on_device:
            return pending.raw
        maps = pending.raw.cpu()
        if not self.frame.rescaled:
            return maps
        return torch.from_numpy(self.frame.to_stack(maps.numpy(), pending.tile.outer))

    def run(self, tile: Tile) -> np.ndarray:
        """Run one tile; raw maps of its outer window, on the host."""
        return self.collect(self.launch([tile])[0]).cpu().numpy()

    def network_tile(self, tile: Tile) -> Tile:
        """Return what the network has to compute for a tile, in its own pixels."""
        frame = self.frame
        if not frame.rescaled:
            return tile
        region, halo, grid = frame.in_network(tile.outer), tile_halo(self.spec), self.spec.stride
        enough = [n + step for n, step in zip(frame.shape, grid, strict=True)]
        return plan_tiles(frame.shape, enough, halo, grid, region=region)[0]


def run_tiles(
    runner: TileRunner, tiles: Sequence[Tile], focus: Focus | None = None
) -> Iterator[tuple[Tile, Tensor]]:
    """Run tiles, nearest to the focus first; yield each with its raw maps (K, *outer).

    The maps are complete: any CUDA stream may read them. Where the device runs out of memory, the
    tiles left are halved and the run goes on.

    Raises
    ------
    DeviceError
        Not even a tile of the smallest size fits into the device's memory.
    """
    waiting = list(tiles)
    running: deque[Pending] = deque()
    # A GPU computes the next batch while this one is taken in.
    ahead = 1 + runner.batch if runner.runner.device.type == "cuda" else 1
    while waiting or running:
        maps = None
        try:
            while waiting and len(running) < ahead:
                batch = _next_batch(runner, waiting, focus() if focus else None)
                running.extend(runner.launch(batch))
                waiting = [tile for tile in waiting if tile not in batch]
            maps = runner.collect(running[0])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if maps is not None:
            yield running.popleft().tile, maps
            continue
        # Out here the error is gone, and with it what the pass that failed had in memory.
        waiting = _halve(runner, [*(pending.tile for pending in running), *waiting])
        running.clear()
        if runner.runner.device.type == "cuda":
            torch.cuda.empty_cache()


def _next_batch(
    runner: TileRunner, waiting: list[Tile], focus: Sequence[float] | None
) -> list[Tile]:
    """Choose the nearest tile, and others for which the network reads just as much."""
    batch = [waiting[nearest_first(waiting, focus)]]
    wanted = runner.network_tile(batch[0]).read_shape
    for tile in waiting:
        if len(batch) == runner.batch:
            break
        if tile is not batch[0] and runner.network_tile(tile).read_shape == wanted:
            batch.append(tile)
    return batch


def _halve(runner: TileRunner, tiles: Sequence[Tile]) -> list[Tile]:
    """Divide tiles into such of half the edge length, in the network's pixels."""
    frame = runner.frame
    largest = max(max(runner.network_tile(tile).read_shape) for tile in tiles)
    edge = max(
        -(-(w.stop - w.start) * m // n) // 2
        for tile in tiles
        for w, n, m in zip(tile.write, frame.size, frame.shape, strict=True)
    )
    if edge < max(runner.spec.stride):
        raise DeviceError(
            f"The memory of {runner.runner.device} does not hold one tile of {largest} pixels; "
            "close other programs, or choose the device 'cpu'."
        )
    return [part for tile in tiles for part in runner.plan(edge, tile.write)]


def prepare(
    model: Model,
    frame: Frame,
    settings: PredictSettings,
    *,
    live: bool = False,
    on_device: bool = False,
    cache: FeatureCache | None = None,
) -> tuple[TileRunner, int]:
    """Return the runner of a frame and the edge length of its tiles.

    In a `cache` the features are kept, unless answers are averaged over several views of a tile.
    """
    runner = model.runner(model.choose_precision(settings.precision), settings.augment)
    batch = settings.batch or (4 if runner.device.type == "cuda" and model.spec.ndim == 2 else 1)
    scale = choose_scale(model, settings)
    edge = settings.tile or choose_edge(model.spec, runner, batch, live=live, scale=scale)
    features = None
    if cache is not None and settings.augment == OFF:
        features = FrameFeatures(runner, model.spec, frame, cache)
    return TileRunner(runner, model.spec, frame, batch, on_device, features), edge


def predict(
    source: Stack | np.ndarray | str | Path | Any,
    model: Model,
    settings: PredictSettings | None = None,
) -> np.ndarray:
    """Return a model's maps of a whole stack.

    Parameters
    ----------
    source
        A stack, or anything that `open_stack` takes.
    model
        The model; a 2D model runs plane by plane.
    settings
        How it is run.

    Returns
    -------
    np.ndarray
        float32 (K, [T,] [Z,] Y, X): foreground probability and relative distance of an instance
        head, class probabilities of a semantic one. A frame of one value only has maps of 0.

    Raises
    ------
    UnetError
        An input, setting or device that cannot be used.
    """
    stack, head = open_stack(source), get_head(model.spec)
    check_fit(stack, model)
    settings, _ = resolve_diameter(stack, model, settings or PredictSettings(survey=False))
    maps = np.zeros((len(head.names), *stack.labels_shape), np.float32)
    for index in stack.indices(model.spec.ndim):
        frame = open_frame(stack, model, settings, index)
        runner, edge = prepare(model, frame, settings)
        for tile, raw in run_tiles(runner, [] if frame.blank else runner.plan(edge)):
            inner = head.activate(raw[(slice(None), *tile.inner)].numpy())
            place: Any = (slice(None), *index, *tile.write)
            maps[place] = inner
    return maps


@torch.inference_mode()
def to_stack(frame: Frame, maps: Tensor, window: Window) -> Tensor:
    """Resample maps to the stack's pixels; equal to `Frame.to_stack`, on every device.

    Parameters
    ----------
    frame
        Whose maps they are.
    maps
        float32 (K, ...), of ``frame.in_network(window)``.
    window
        The wanted part of the frame, in the stack's pixels.
    """
    for axis, (w, n, m) in enumerate(zip(window, frame.size, frame.shape, strict=True), 1):
        if n != m:
            maps = _apply(Resampling(m, n), maps, axis, w.start, w.stop)
    return maps


def _apply(zoom: Resampling, values: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Sum the taps one after the other, for the same rounding as numpy's."""
    index, weight = zoom.taps(start, stop)
    places = _send(index - index.min(), values.device)
    shape = [1] * values.ndim
    shape[axis] = stop - start
    weights = _send(weight, values.device).view(*shape, -1)
    total = values.index_select(axis, places[:, 0]) * weights[..., 0]
    for tap in range(1, index.shape[1]):
        total += values.index_select(axis, places[:, tap]) * weights[..., tap]
    return total


def _send(values: np.ndarray, device: torch.device) -> Tensor:
    """Copy a small table to the device; from pinned memory, so that nothing waits for a GPU."""
    table = torch.from_numpy(values)
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table
