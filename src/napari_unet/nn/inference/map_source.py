"""Where the maps of a frame come from: the seam between networks and the block engine.

The engine asks a `MapSource` for the tiles of a block and for their raw maps, and knows nothing
else of the network. `open_map_source` is the one place that chooses the source, and
`core.volumes.modes` says what a frame is. What a source gives must not depend on the block: the
maps of a pixel are the same in every region that holds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from napari_unet.core.image.frames import Frame
from napari_unet.core.volumes.modes import ORTHOGONAL, resolve_volume_mode
from napari_unet.nn.inference.compatibility import choose_scale
from napari_unet.nn.inference.orthogonal import OrthogonalRunner, prepare_volume, run_blocks
from napari_unet.nn.inference.seam_check import SeamCheck
from napari_unet.nn.inference.tile_runner import TileRunner, prepare, run_tiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from torch import Tensor

    from napari_unet.core.image.normalise import Normaliser
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.inference.model import Model


class MapSource(Protocol):
    """Gives the raw maps (foreground logit and height, or one for each class) of one frame."""

    @property
    def size(self) -> tuple[int, ...]:
        """The frame's size, (Y, X) or (Z, Y, X)."""
        ...

    @property
    def blank(self) -> bool:
        """Whether there is nothing to find, so that no maps need be made."""
        ...

    def plan(self, region: Window) -> list[Tile]:
        """Cover a region of the frame with tiles, with a margin of one pixel (`predict.MARGIN`)."""
        ...

    def run(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, Tensor]]:
        """Yield tiles (these, or parts of them) with their raw maps (K, *outer)."""
        ...

    def certify(self, tiles: Sequence[Tile], rng: np.random.Generator) -> float | None:
        """Return the largest |difference| of the maps across the borders of tiles.

        The tiles need not be run whole. None if it cannot be told.
        """
        ...


@dataclass(frozen=True)
class NetworkMaps:
    """The maps of a network of the frame's own dimensions, tile by tile."""

    runner: TileRunner
    edge: int

    @property
    def size(self) -> tuple[int, ...]:
        """The frame's size."""
        return self.runner.frame.size

    @property
    def blank(self) -> bool:
        """Whether every channel is constant."""
        return self.runner.frame.blank

    def plan(self, region: Window) -> list[Tile]:
        """Cover a region with tiles of the size that the memory allows."""
        return self.runner.plan(self.edge, region)

    def run(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, Tensor]]:
        """Run tiles; where memory is short, parts of them."""
        return run_tiles(self.runner, tiles)

    def certify(self, tiles: Sequence[Tile], rng: np.random.Generator) -> float | None:
        """Run a crop across a corner of tiles in parts, cut where the tiles are, and in one."""
        check = SeamCheck(list(tiles), rng)
        for tile in tiles:
            pairs = list(zip(tile.write, check.window, strict=True))
            part = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in pairs)
            if all(w.start < w.stop for w in part):
                for cut, raw in self.run(self.plan(part)):
                    check.see(cut, raw)
        return check.difference(self.runner)


@dataclass(frozen=True)
class OrthogonalMaps:
    """The averaged maps of a 2D network on a volume's three stacks of planes."""

    runner: OrthogonalRunner
    edges: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """The volume's size."""
        return self.runner.frame.size

    @property
    def blank(self) -> bool:
        """Whether every channel is constant."""
        return self.runner.frame.blank

    def plan(self, region: Window) -> list[Tile]:
        """Cover a region with boxes that are small enough to be waited for."""
        return self.runner.plan(self.edges, region)

    def run(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, Tensor]]:
        """Run boxes, one after the other."""
        for tile, raw in run_blocks(self.runner, tiles):
            if raw is not None:
                yield tile, raw

    def certify(self, tiles: Sequence[Tile], rng: np.random.Generator) -> float | None:
        """Return None: each plane has tiles of its own."""
        return None


def open_map_source(
    stack: Stack,
    model: Model,
    settings: PredictSettings,
    index: tuple[int, ...],
    normaliser: Normaliser,
    *,
    on_device: bool = False,
    live: bool = False,
) -> MapSource:
    """Return the source of a frame's maps.

    Parameters
    ----------
    settings
        Settled: with a diameter in pixels, if any, and a number format.
    index
        The frame's position along the leading axes.
    normaliser
        The frame's, measured once for all its blocks, with an entry for each distinct channel.
    on_device
        Whether the raw maps stay where the network runs.
    live
        Whether somebody watches, so that tiles should be small.
    """
    if resolve_volume_mode(settings.volumes, model.spec.ndim, model.spec.head, stack) == ORTHOGONAL:
        return OrthogonalMaps(
            *prepare_volume(model, stack, settings, index, live=True, normaliser=normaliser)
        )
    channels = stack.pick_channels(model.spec.in_channels, settings.channel)
    size = stack.frame_shape(model.spec.ndim)
    frame = Frame(stack, index, channels, normaliser, size, size).at(choose_scale(model, settings))
    runner, edge = prepare(model, frame, settings, on_device=on_device, live=live)
    return NetworkMaps(runner, edge)
