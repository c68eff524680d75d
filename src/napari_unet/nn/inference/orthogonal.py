"""A 2D network on the planes of a volume across z, y and x; its raw maps are averaged.

The volume is run box by box. A box's maps are those of the whole volume, since each plane's tiles
read all that they depend on. What a box needs in memory is its maps and, one orientation at a time,
the part of the image that its planes read: it does not grow with the volume.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from napari_unet.core.progress import run_to_end
from napari_unet.core.tiles import nearest_first, plan_tiles
from napari_unet.core.volumes.volume_mode import (
    BLOCK_VOXELS,
    LIVE_BLOCK_VOXELS,
    PLANE_AXES,
    block_edges,
    load_planes,
    plane_frame,
)
from napari_unet.nn.inference.device_memory import choose_edge
from napari_unet.nn.inference.model_input import choose_augment, choose_scale, open_frame
from napari_unet.nn.inference.plane_batches import batch_planes
from napari_unet.nn.inference.tile_runner import MARGIN, TileRunner
from napari_unet.nn.unet.net import out_channels

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from torch import Tensor

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.image.normalise import Normaliser
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index, Tile, Window
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.inference.runner import Runner
    from napari_unet.nn.inference.tile_runner import Focus


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
        Edge lengths of the boxes, in voxels.
    plane_edge
        Edge length of the tiles in which planes are run, in network pixels.
    """

    runner: Runner
    spec: ModelSpec
    frame: Frame
    scale: float
    edge: tuple[int, ...]
    plane_edge: int

    decodes: ClassVar[bool] = False

    def plan(self, region: Window | None = None, edge: int | None = None) -> list[Tile]:
        """Cover the volume, or a region of it, with boxes; of another edge length if given."""
        edges = (edge,) * 3 if edge else self.edge
        size = self.frame.size
        return plan_tiles(size, edges, (0,) * 3, (1,) * 3, margin=MARGIN, region=region)

    def count_steps(self, tiles: Sequence[Tile]) -> int:
        """Return how often `steps` yields: for each plane, and for each box."""
        return sum(1 + sum(o.stop - o.start for o in tile.outer) for tile in tiles)

    def steps(
        self, tiles: Sequence[Tile], focus: Focus | None = None
    ) -> Iterator[tuple[Tile, Tensor | None]]:
        """Run boxes, nearest to the focus first; yield each with its raw maps (K, *outer).

        Before that it comes without maps after every plane, so that whoever waits can stop.
        """
        waiting = list(tiles)
        while waiting:
            tile = waiting.pop(nearest_first(waiting, focus() if focus else None))
            maps = yield from self._run_box(tile)
            yield tile, torch.from_numpy(maps)

    def run(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, Tensor]]:
        """Run boxes, one after the other; yield each with its raw maps (K, *outer)."""
        return ((tile, raw) for tile, raw in self.steps(tiles) if raw is not None)

    def run_tile(self, tile: Tile) -> np.ndarray:
        """Run one box; averaged raw maps, float32 (K, *outer)."""
        return run_to_end(self._run_box(tile))

    def _run_box(self, tile: Tile) -> Generator[tuple[Tile, None], None, np.ndarray]:
        """Run one box, yielding it after every plane; return its averaged raw maps."""
        outer = tile.outer
        maps = np.zeros((out_channels(self.spec), *(o.stop - o.start for o in outer)), np.float32)
        for normal, axes in enumerate(PLANE_AXES):
            positions, region = outer[normal], tuple(outer[axis] for axis in axes)
            across = np.moveaxis(maps, normal + 1, 0)  # one (K, *plane) after the other
            for place, raw in zip(across, self._planes(normal, positions, region), strict=True):
                place += raw
                yield tile, None
        maps /= 3
        return maps

    def _planes(self, normal: int, positions: slice, region: Window) -> Iterator[np.ndarray]:
        """Yield the raw maps (K, *region) of the planes across an axis."""
        frame = plane_frame(self.frame, normal, positions.start, self.scale)
        runner = TileRunner(self.runner, self.spec, frame, self.plane_edge)
        tiles = runner.plan(region)
        reads = [frame.source(runner.network_tile(tile).read) for tile in tiles]
        window = tuple(
            slice(min(part.start for part in axis), max(part.stop for part in axis))
            for axis in zip(*reads, strict=True)
        )
        held = load_planes(frame, positions, window)
        raw = np.zeros((out_channels(self.spec), *(r.stop - r.start for r in region)), np.float32)
        planes = (replace(held, index=(at,)) for at in range(positions.start, positions.stop))
        for one in batch_planes((replace(runner, frame=plane) for plane in planes), region):
            for tile, maps in one.run(tiles):
                pairs = zip(tile.write, region, strict=True)
                place = tuple(slice(w.start - r.start, w.stop - r.start) for w, r in pairs)
                raw[(slice(None), *place)] = maps[(slice(None), *tile.inner)].cpu().numpy()
            yield raw


def open_orthogonal_runner(
    model: Model,
    stack: Stack,
    settings: PredictSettings,
    index: Index,
    *,
    live: bool = False,
    normaliser: Normaliser | None = None,
) -> OrthogonalRunner:
    """Return the runner of a volume.

    Parameters
    ----------
    live
        Whether somebody watches, so that boxes should come quickly.
    normaliser
        The volume's intensities; they are measured if not given.
    """
    scale = choose_scale(model, settings)
    # The volume stays in its own voxels: what is rescaled are its planes, each when it is read.
    frame = open_frame(stack, model, settings, index, normaliser=normaliser, ndim=3).at(1.0)
    augment = choose_augment(settings, frame)
    runner = model.runner(model.choose_precision(settings.precision), augment)
    if settings.tile:
        return OrthogonalRunner(
            runner, model.spec, frame, scale, (settings.tile,) * 3, settings.tile
        )
    boxes = block_edges(frame.size, LIVE_BLOCK_VOXELS if live else BLOCK_VOXELS)
    plane_edge = choose_edge(model.spec, runner, 1, live=live)
    return OrthogonalRunner(runner, model.spec, frame, scale, boxes, plane_edge)
