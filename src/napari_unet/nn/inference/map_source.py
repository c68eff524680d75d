"""Where the raw maps of a frame come from: one choice for runs in memory and in blocks; `predict`.

Decoding asks a `MapSource` for tiles and for their raw maps, and knows nothing else of the network:
whether it sees the frame in its own dimensions (`TileRunner`), or is a 2D network on a volume's
three stacks of planes (`OrthogonalRunner`). `open_map_source` is the one place that chooses. The
maps of a pixel are the same in every region that holds it: objects do not depend on the tiling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_unet.core.instances.heads import get_head
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.volumes.volume_mode import ORTHOGONAL, resolve_volume_mode
from napari_unet.nn.inference.diameter_estimation import resolve_diameter
from napari_unet.nn.inference.model_input import check_fit, open_frame
from napari_unet.nn.inference.orthogonal import open_orthogonal_runner
from napari_unet.nn.inference.plane_batches import batch_planes
from napari_unet.nn.inference.remote import WANT_MAPS, Wanted
from napari_unet.nn.inference.tile_runner import open_tile_runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.image.normalise import Normaliser
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.tiles import Index, Tile, Window
    from napari_unet.nn.inference.embeddings import FeatureCache
    from napari_unet.nn.inference.launched_tiles import Computed
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.inference.tile_runner import Focus, TileRunner, Waiting


class MapSource(Protocol):
    """Gives the raw maps (foreground logit and height, or one for each class) of one frame."""

    @property
    def frame(self) -> Frame:
        """The plane or volume."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """What the network is built from."""
        ...

    @property
    def edge(self) -> int | tuple[int, ...]:
        """Edge length of the tiles, or their edge lengths."""
        ...

    def plan(self, region: Window | None = None, edge: int | None = None) -> list[Tile]:
        """Cover the frame, or a region, with tiles, with a margin of `tile_runner.MARGIN`."""
        ...

    @property
    def decodes(self) -> bool:
        """Whether what comes of a tile is decoded already, by a server."""
        ...

    def run(self, tiles: Sequence[Tile]) -> Iterator[tuple[Tile, Tensor]]:
        """Yield tiles (these, or parts of them) with their raw maps (K, *outer)."""
        ...

    def steps(
        self, tiles: Sequence[Tile], focus: Focus | None = None
    ) -> Iterator[tuple[Tile, Computed | None] | Waiting]:
        """Do what `run` does, tiles near the focus first, and yield without maps in between."""
        ...

    def count_steps(self, tiles: Sequence[Tile]) -> int:
        """Return how often `steps` is expected to yield."""
        ...

    def run_tile(self, tile: Tile) -> np.ndarray:
        """Run one tile; return the raw maps of its outer window, on the host."""
        ...


def open_map_source(
    stack: Stack,
    model: Model,
    settings: PredictSettings,
    index: Index,
    normaliser: Normaliser | None = None,
    *,
    on_device: bool = False,
    live: bool = False,
    cache: FeatureCache | None = None,
    wanted: Wanted = WANT_MAPS,
) -> MapSource:
    """Return the source of a frame's maps.

    Parameters
    ----------
    settings
        Resolved: with a diameter in pixels, if any.
    index
        The frame's position along the leading axes.
    normaliser
        The frame's, measured once for all its blocks, with an entry for each distinct channel. Not
        given: the frame is run in memory, and measured here.
    on_device
        Whether the raw maps stay where the network runs; those of an orthogonal run never do.
    live
        Whether somebody watches, so that tiles should be small.
    cache
        Where the features are kept for clicks; those of an orthogonal run are not.
    wanted
        What comes of a tile where a server runs the network; an orthogonal run always needs maps.
    """
    if resolve_volume_mode(settings.volumes, model.spec.ndim, model.spec.head, stack) == ORTHOGONAL:
        # A run in blocks can be cancelled between boxes only, so they are always small there.
        small = live or normaliser is not None
        return open_orthogonal_runner(
            model, stack, settings, index, live=small, normaliser=normaliser
        )
    frame = open_frame(stack, model, settings, index, normaliser=normaliser)
    return open_tile_runner(
        model, frame, settings, live=live, on_device=on_device, cache=cache, wanted=wanted
    )


def run_frame(
    model: Model,
    frame: Frame,
    settings: PredictSettings,
    *,
    live: bool = False,
    region: Window | None = None,
) -> Iterator[tuple[Window, np.ndarray]]:
    """Run a model over a frame, or a region of it.

    Yields each tile's window in the frame, and its maps, activated (K, *window).
    """
    return _run_source(open_tile_runner(model, frame, settings, live=live), region)


def _run_source(
    source: TileRunner, region: Window | None = None
) -> Iterator[tuple[Window, np.ndarray]]:
    head = get_head(source.spec)
    for tile, raw in source.run([] if source.frame.blank else source.plan(region)):
        yield tile.write, head.activate(raw[(slice(None), *tile.inner)].numpy())


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
        float32 (K, Y, X), with T and Z behind K where there are any: foreground probability and
        relative distance of an instance head, class probabilities of a semantic one. A frame of one
        value only has maps of 0.

    Raises
    ------
    UnetError
        An input, setting or device that cannot be used.
    """
    stack, head = open_stack(source), get_head(model.spec)
    check_fit(stack, model)
    settings, _ = resolve_diameter(stack, model, settings or PredictSettings(survey=False))
    maps = np.zeros((len(head.names), *stack.labels_shape), np.float32)
    frames = (open_frame(stack, model, settings, i) for i in stack.indices(model.spec.ndim))
    sources = (open_tile_runner(model, frame, settings) for frame in frames)
    for source in batch_planes(sources, batch=settings.batch):
        for window, inner in _run_source(source):
            place: Any = (slice(None), *source.frame.index, *window)
            maps[place] = inner
    return maps
