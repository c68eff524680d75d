"""A 2D network on the three stacks of planes of a volume; its raw maps are averaged.

A block's maps are those of the whole volume, since each plane's tiles read all that they depend on.
What a block needs in memory is its maps and, one orientation at a time, the part of the image that
its planes read: it does not grow with the volume.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.core.image.frames import Frame
from napari_unet.core.progress import map_steps, run_to_end
from napari_unet.core.tiles import nearest_first, plan_tiles
from napari_unet.core.volumes.modes import (
    BLOCK_VOXELS,
    LIVE_BLOCK_VOXELS,
    PLANE_AXES,
    block_edges,
    load_planes,
    plane_frame,
)
from napari_unet.nn.inference.compatibility import choose_scale
from napari_unet.nn.inference.memory import choose_edge
from napari_unet.nn.inference.tile_runner import MARGIN, Focus, TileRunner, run_tiles
from napari_unet.nn.unet.net import out_channels

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from torch import Tensor

    from napari_unet.core.image.normalise import Normaliser
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.inference.model import Model, Runner


@dataclass(frozen=True)
class OrthogonalRunner:
    """A 2D network over one volume, block by block.

    Attributes
    ----------
    runner, spec
        The network.
    frame
        The volume, in its own voxels.
    scale
        Network pixels a pixel in y and x.
    edge
        Edge length of the tiles in which planes are run, in network pixels.
    """

    runner: Runner
    spec: ModelSpec
    frame: Frame
    scale: float
    edge: int

    def plan(self, edge: int | Sequence[int], region: Window | None = None) -> list[Tile]:
        """Cover the volume, or a region of it, with blocks."""
        edges = (edge,) * 3 if isinstance(edge, int) else edge
        size = self.frame.size
        return plan_tiles(size, edges, (0,) * 3, (1,) * 3, margin=MARGIN, region=region)

    def planes(self, tile: Tile) -> int:
        """Count the planes that a block takes."""
        return sum(o.stop - o.start for o in tile.outer)

    def run(self, tile: Tile) -> np.ndarray:
        """Run one block; averaged raw maps, float32 (K, *outer)."""
        return run_to_end(self.steps(tile))

    def steps(self, tile: Tile) -> Generator[None, None, np.ndarray]:
        """Run one block, yielding after every plane; return its averaged raw maps."""
        outer = tile.outer
        maps = np.zeros((out_channels(self.spec), *(o.stop - o.start for o in outer)), np.float32)
        for normal, axes in enumerate(PLANE_AXES):
            positions, region = outer[normal], tuple(outer[axis] for axis in axes)
            across = np.moveaxis(maps, normal + 1, 0)  # one (K, *plane) after the other
            for place, raw in zip(across, self._planes(normal, positions, region), strict=True):
                place += raw
                yield
        maps /= 3
        return maps

    def _planes(self, normal: int, positions: slice, region: Window) -> Iterator[np.ndarray]:
        """Yield the raw maps (K, *region) of the planes across an axis."""
        frame = plane_frame(self.frame, normal, positions.start, self.scale)
        runner = TileRunner(self.runner, self.spec, frame)
        tiles = runner.plan(self.edge, region)
        reads = [frame.source(runner.network_tile(tile).read) for tile in tiles]
        window = tuple(
            slice(min(part.start for part in axis), max(part.stop for part in axis))
            for axis in zip(*reads, strict=True)
        )
        held = load_planes(frame, positions, window)
        raw = np.zeros((out_channels(self.spec), *(r.stop - r.start for r in region)), np.float32)
        for position in range(positions.start, positions.stop):
            one = replace(runner, frame=replace(held, index=(position,)))
            for tile, maps in run_tiles(one, tiles):
                pairs = zip(tile.write, region, strict=True)
                place = tuple(slice(w.start - r.start, w.stop - r.start) for w, r in pairs)
                raw[(slice(None), *place)] = maps[(slice(None), *tile.inner)].cpu().numpy()
            yield raw


def prepare_volume(
    model: Model,
    stack: Stack,
    settings: PredictSettings,
    index: tuple[int, ...],
    *,
    live: bool = False,
    normaliser: Normaliser | None = None,
) -> tuple[OrthogonalRunner, tuple[int, ...]]:
    """Return the runner of a volume and the edges of its blocks.

    Without a normaliser the volume's intensities are measured.
    """
    norm, scale = model.card.normalisation, choose_scale(model, settings)
    channels = stack.pick_channels(model.spec.in_channels, settings.channel)
    if normaliser is None:
        frame = Frame.from_stack(stack, index, 3, channels, percentiles=(norm["low"], norm["high"]))
    else:
        size = stack.frame_shape(3)
        frame = Frame(stack, index, channels, normaliser, size, size)
    runner = model.runner(model.choose_precision(settings.precision), settings.augment)
    edge = settings.tile or choose_edge(model.spec, runner, 1, live=live)
    edges = block_edges(frame.size, LIVE_BLOCK_VOXELS if live else BLOCK_VOXELS)
    if settings.tile:
        edges = (settings.tile,) * 3
    return OrthogonalRunner(runner, model.spec, frame, scale, edge), edges


def run_blocks(
    runner: OrthogonalRunner, tiles: Sequence[Tile], focus: Focus | None = None
) -> Iterator[tuple[Tile, Tensor | None]]:
    """Run blocks, nearest to the focus first; yield each with its raw maps (K, *outer).

    Before that it comes without maps after every plane, so that whoever waits can stop.
    """
    waiting = list(tiles)
    while waiting:
        tile = waiting.pop(nearest_first(waiting, focus() if focus else None))
        yield from _run_block(runner, tile)


def _run_block(
    runner: OrthogonalRunner, tile: Tile
) -> Generator[tuple[Tile, Tensor | None], None, None]:
    maps = yield from map_steps(runner.steps(tile), lambda _: (tile, None))
    yield tile, torch.from_numpy(maps)
