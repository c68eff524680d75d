"""Tiles given to the network, together, and their raw maps on the way back.

They may be of one frame or of several. A GPU or a server goes on in the background, and the tiles
are `PendingTile`s meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch

from napari_unet.core.image.frames import Resampling
from napari_unet.core.tiles import relative_window
from napari_unet.nn.inference.remote import WANT_MAPS, RemoteRunner, Wanted
from napari_unet.nn.remote.connection import PendingAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.instances.watershed import Basins
    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.inference.embeddings import FrameFeatures
    from napari_unet.nn.inference.runner import Runner

Computed: TypeAlias = "Tensor | Basins | np.ndarray"
"""Raw maps (K, *outer) of a tile; from a server also what decoding makes of them: see `Wanted`."""


class PendingTile(NamedTuple):
    """A tile that was sent to the device; its raw maps (K, *outer) are complete once `ready`."""

    tile: Tile
    raw: Tensor | PendingAnswer
    ready: torch.cuda.Event | None = None


class Piece(NamedTuple):
    """A tile of a frame, and all that it takes to launch it.

    Attributes
    ----------
    frame
        What it is a tile of.
    tile
        In the stack's pixels.
    part
        What the network computes for it, in the network's pixels.
    features
        Where the trunk's features are kept for clicks, if they are.
    """

    frame: Frame
    tile: Tile
    part: Tile
    features: FrameFeatures | None = None


def launch_tiles(
    runner: Runner,
    pieces: Sequence[Piece],
    *,
    on_device: bool = False,
    wanted: Wanted = WANT_MAPS,
) -> list[PendingTile]:
    """Run tiles through the network; a GPU goes on in the background.

    Parameters
    ----------
    pieces
        Tiles whose parts read equal shapes; all of them with features to keep, or none.
    on_device
        Whether raw maps stay where the network runs; otherwise they come to the host.
    wanted
        What comes of a tile where a server runs the network.
    """
    tiles = [piece.tile for piece in pieces]
    if isinstance(runner, RemoteRunner):
        sent = [runner.send(p.frame, p.part, p.tile, wanted) for p in pieces]
        return [PendingTile(*pair) for pair in zip(tiles, sent, strict=True)]
    crops = _raw_maps(runner, pieces)
    if on_device:
        pairs = zip(crops, pieces, strict=True)
        crops = [to_stack(p.frame, c, p.tile.outer) if p.frame.rescaled else c for c, p in pairs]
    if crops[0].device.type != "cuda":
        return [PendingTile(tile, crop) for tile, crop in zip(tiles, crops, strict=True)]
    if not on_device:
        # The copies are queued at once: fetching them does not wait for what is sent next.
        hosts = [torch.empty(crop.shape, pin_memory=True) for crop in crops]
        copies = zip(hosts, crops, strict=True)
        crops = [host.copy_(crop, non_blocking=True) for host, crop in copies]
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
    ready.record(torch.cuda.current_stream(runner.device))
    return [PendingTile(tile, crop, ready) for tile, crop in zip(tiles, crops, strict=True)]


def _raw_maps(runner: Runner, pieces: Sequence[Piece]) -> list[Tensor]:
    """Return the raw maps of tiles, (K, *outer); keep their features where there is a cache."""
    images = torch.from_numpy(np.stack([piece.frame.read(piece.part.read) for piece in pieces]))
    # What go through the network together have one core: what any of them needs.
    core = tuple(
        slice(min(w.start for w in axis), max(w.stop for w in axis))
        for axis in zip(*(piece.part.crop for piece in pieces), strict=True)
    )
    places = [(slice(None), *relative_window(piece.part.crop, core)) for piece in pieces]
    if not any(piece.features for piece in pieces):
        raw = runner(images, core)
    else:
        seen = runner.trunk(images, core)
        for piece, one, image, place in zip(pieces, seen, images, places, strict=True):
            if piece.features:
                crop = image[(slice(None), *piece.part.crop)]
                piece.features.keep(piece.part, one[place], crop)
        raw = runner(images, core, seen)
    return [maps[place] for maps, place in zip(raw, places, strict=True)]


def cancel(running: Iterable[PendingTile]) -> None:
    """Tell a server not to compute what it was sent."""
    for pending in running:
        if isinstance(pending.raw, PendingAnswer):
            pending.raw.cancel()


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
