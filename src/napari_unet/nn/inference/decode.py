"""From a frame's raw maps to labels in the output array, one tile after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.core.instances import watershed as on_host
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.instances.tile_merger import (
    BlockSummary,
    DecodeSettings,
    TileMerger,
    summarise,
)
from napari_unet.nn.inference import watershed as on_device
from napari_unet.nn.inference.memory import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unet.core.instances.watershed import Basins
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.inference.model import Model

PREVIEW_IDS = 65535
"""Ids of preview labels, which are uint16, start again from 1 beyond this."""


class InstanceDecoder:
    """Writes tiles as provisional ids, and the finished frame as objects.

    Parameters
    ----------
    model
        Whose head made the maps.
    settings
        How maps become objects.
    out
        The output array, uint32; indexed by the frame's position and a window in it.
    preview
        Whether `add` returns labels to show.

    Attributes
    ----------
    on_device
        Whether `add` wants raw maps where the network runs, and finds the basins there.
    """

    def __init__(self, model: Model, settings: DecodeSettings, out: Any, preview: bool) -> None:
        self.out, self.on_device = out, decodes_on(model.device)
        self._settings, self._cut = settings, InstanceHead.raw_threshold(settings.threshold)
        # Not behind the network's next tiles, which the device has been given already.
        cuda = model.device.type == "cuda"
        self._stream = torch.cuda.Stream(model.device, priority=-1) if cuda else None  # type: ignore[no-untyped-call]
        self._preview, self._shown = preview, 0
        self.start((), ())

    def start(self, index: tuple[int, ...], size: tuple[int, ...]) -> None:
        """Begin the frame of that position and size."""
        self._index, self._size = index, size
        self._joiner = TileMerger(self._settings)
        self._written: list[Window] = []

    def add(self, tile: Tile, raw: Tensor) -> np.ndarray | None:
        """Write a tile from its raw maps (K, *outer); return what to show of it, if anything."""
        basins = self._find(tile, raw)
        self.out[(*self._index, *tile.write)] = self._joiner.add(basins)
        self._written.append(tile.write)
        if not self._preview:
            return None
        # What this tile alone can tell apart, with ids that follow those of the tiles before.
        alone = TileMerger(replace(self._settings, min_size=0))
        alone.add(basins)
        table = alone.finish()
        first, self._shown = self._shown, self._shown + int(table.max())
        table = np.where(table, (table + np.uint32(first % PREVIEW_IDS) - 1) % PREVIEW_IDS + 1, 0)
        return np.asarray(table.astype(np.uint16)[basins.ids])

    def _find(self, tile: Tile, raw: Tensor) -> Basins:
        """Find a tile's basins where its raw maps are; on the host if the device lacks memory."""
        if self.on_device:
            try:
                with torch.cuda.stream(self._stream):
                    return on_device.find_basins(raw[0] > self._cut, raw[1], tile, self._size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
        maps = raw.cpu().numpy()
        return on_host.find_basins(maps[0] > self._cut, maps[1], tile, self._size)

    def pieces(self, block: Window) -> tuple[np.ndarray, BlockSummary]:
        """Sum up the tiles of a block: each provisional id's basin in it, and the basins."""
        return summarise(self._joiner.all_basins(), block, self._size)

    def finish(self) -> int:
        """Turn the frame's provisional ids into labels; return the number of objects."""
        table = self._joiner.finish()
        for window in self._written:
            place = (*self._index, *window)
            self.out[place] = table[np.asarray(self.out[place])]
        return int(table.max())


class SemanticDecoder:
    """Writes each pixel's most probable class."""

    on_device = False

    def __init__(self, out: Any, preview: bool) -> None:
        self.out, self._preview = out, preview
        self.start((), ())

    def start(self, index: tuple[int, ...], size: tuple[int, ...]) -> None:
        """Begin the frame of that position and size."""
        self._index, self._found = index, set[int]()

    def add(self, tile: Tile, raw: Tensor) -> np.ndarray | None:
        """Write a tile from its raw maps (K, *outer); return what to show of it, if anything."""
        classes = raw[(slice(None), *tile.inner)].numpy().argmax(0).astype(np.uint32)
        self.out[(*self._index, *tile.write)] = classes
        self._found.update(np.unique(classes).tolist())
        return classes.astype(np.uint16) if self._preview else None

    def finish(self) -> int:
        """Return the number of classes found, background not counted."""
        return len(self._found - {0})


def decodes_on(device: torch.device) -> bool:
    """Tell whether objects are best told apart where the network runs.

    Not on a processor, where numpy is the faster of two equals, and not with MPS, which lacks some
    of the operations on 64-bit integers.
    """
    return device.type == "cuda"


def decoder_for(
    model: Model, settings: PredictSettings, out: Any, *, preview: bool
) -> InstanceDecoder | SemanticDecoder:
    """Return what turns a model's maps into labels; the user's settings come before the card's."""
    if model.spec.head == "semantic":
        return SemanticDecoder(out, preview)
    return InstanceDecoder(model, decode_settings(model, settings), out, preview)


def decode_settings(model: Model, settings: PredictSettings) -> DecodeSettings:
    """Return how maps become objects; the user's settings come before the card's."""
    return model.decoding.updated(
        threshold=settings.threshold, merge=settings.merge, min_size=settings.min_size
    )
