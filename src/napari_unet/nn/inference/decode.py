"""From a frame's raw maps to labels in the output array, tile by tile; the watershed on a GPU.

`find_basins_on_device` is `core.instances.watershed.find_basins` in torch, with the same answer.
Steepest ascent with pointer jumping (as path compression in Bieniek and Moga 2000, An efficient
watershed algorithm based on connected components) visits the pixels in no order, so each of its
steps is one operation over the whole tile. Only ids and tables of basins come to the host. All
comparisons are those of integers and of float32 values that were not computed here. Therefore the
same maps give the same basins, to the bit, on every device.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.core.errors import ModelError
from napari_unet.core.instances.heads import ImageHead, InstanceHead, get_head
from napari_unet.core.instances.tile_merger import BlockSummary, TileMerger, summarise
from napari_unet.core.instances.watershed import (
    Basins,
    find_basins,
    forward_steps,
    frame_indices,
    inner_faces,
    padded_window,
)
from napari_unet.nn.inference.device_memory import is_out_of_memory
from napari_unet.nn.inference.remote import BASINS, CLASSES, Wanted

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unet.core.settings.tasks import DecodeSettings, PredictSettings
    from napari_unet.core.tiles import Tile, Window
    from napari_unet.nn.inference.launched_tiles import Computed
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
        Whether `add` returns labels to show while the frame is not finished.

    Attributes
    ----------
    on_device
        Whether `add` takes raw maps where the network runs, and finds the basins there.
    """

    def __init__(self, model: Model, settings: DecodeSettings, out: Any, preview: bool) -> None:
        self.out, self.on_device = out, decodes_on(model.device)
        self._settings, self._cut = settings, InstanceHead.raw_threshold(settings.threshold)
        # A stream of its own: decoding does not queue behind the network's next tiles, which the
        # device has been given already.
        cuda = model.device.type == "cuda"
        self._stream = torch.cuda.Stream(model.device, priority=-1) if cuda else None  # type: ignore[no-untyped-call]
        self._preview, self._shown = preview, 0
        self.start((), ())

    @property
    def wanted(self) -> Wanted:
        """What `add` needs of a tile that a server computes."""
        return Wanted(BASINS, self._settings.threshold)

    def start(self, index: tuple[int, ...], size: tuple[int, ...]) -> None:
        """Begin the frame of that position and size."""
        self._index, self._size = index, size
        self._merger = TileMerger(self._settings)
        self._written: list[Window] = []

    def add(self, tile: Tile, raw: Computed) -> np.ndarray | None:
        """Write a tile from its raw maps (K, *outer); return what to show of it, if anything.

        Instead of maps it takes their basins.
        """
        basins = raw if isinstance(raw, Basins) else self.find(tile, raw)
        self.out[(*self._index, *tile.write)] = self._merger.add(basins)
        self._written.append(tile.write)
        if not self._preview:
            return None
        # The objects of this tile alone, with ids that follow those of the tiles before.
        alone = TileMerger(replace(self._settings, min_size=0))
        alone.add(basins)
        table = alone.finish()
        first, self._shown = self._shown, self._shown + int(table.max())
        table = np.where(table, (table + np.uint32(first % PREVIEW_IDS) - 1) % PREVIEW_IDS + 1, 0)
        return np.asarray(table.astype(np.uint16)[basins.ids])

    def find(self, tile: Tile, raw: Computed) -> Basins:
        """Find a tile's basins where its raw maps are; on the host if the device lacks memory."""
        assert isinstance(raw, torch.Tensor)
        if self.on_device:
            try:
                with torch.cuda.stream(self._stream):
                    return find_basins_on_device(raw[0] > self._cut, raw[1], tile, self._size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
        maps = raw.cpu().numpy()
        return find_basins(maps[0] > self._cut, maps[1], tile, self._size)

    def summarise(self, block: Window) -> tuple[np.ndarray, BlockSummary]:
        """Return each provisional id's basin in a block, and the summary of the block's basins."""
        return summarise(self._merger.all_basins(), block, self._size)

    def finish(self) -> int:
        """Turn the frame's provisional ids into labels; return the number of objects."""
        table = self._merger.finish()
        for window in self._written:
            place = (*self._index, *window)
            self.out[place] = table[np.asarray(self.out[place])]
        return int(table.max())


class SemanticDecoder:
    """Writes each pixel's most probable class."""

    on_device, wanted = False, Wanted(CLASSES)

    def __init__(self, out: Any, preview: bool) -> None:
        self.out, self._preview = out, preview
        self.start((), ())

    def start(self, index: tuple[int, ...], size: tuple[int, ...]) -> None:
        """Begin the frame of that position and size."""
        self._index, self._found = index, set[int]()

    def add(self, tile: Tile, raw: Computed) -> np.ndarray | None:
        """Write a tile from its raw maps (K, *outer); return what to show of it, if anything.

        Instead of maps it takes the classes of its written window.
        """
        classes = raw if isinstance(raw, np.ndarray) else self.find(tile, raw)
        self.out[(*self._index, *tile.write)] = classes
        self._found.update(np.unique(classes).tolist())
        return classes.astype(np.uint16) if self._preview else None

    @staticmethod
    def find(tile: Tile, raw: Computed) -> np.ndarray:
        """Find the classes of a tile's written window, uint32."""
        assert isinstance(raw, torch.Tensor)
        classes: np.ndarray = raw[(slice(None), *tile.inner)].cpu().numpy().argmax(0)
        return classes.astype(np.uint32)

    def finish(self) -> int:
        """Return the number of classes found, background not counted."""
        return len(self._found - {0})


def decodes_on(device: torch.device) -> bool:
    """Return whether basins are found on a device itself.

    Not on a processor, where numpy is faster (benchmarks/decoding.py), and not with MPS, which
    lacks some of the operations on 64-bit integers.
    """
    return device.type == "cuda"


def open_decoder(
    model: Model, settings: PredictSettings, out: Any, *, preview: bool
) -> InstanceDecoder | SemanticDecoder:
    """Return the decoder of a model's maps; the user's settings come before the card's."""
    if isinstance(get_head(model.spec), ImageHead):
        raise ModelError(
            f"The model {model.name!r} gives images, not labels; its maps are what `predict` gives."
        )
    if model.spec.head == "semantic":
        return SemanticDecoder(out, preview)
    return InstanceDecoder(model, decode_settings(model, settings), out, preview)


def decode_settings(model: Model, settings: PredictSettings) -> DecodeSettings:
    """Return how maps become objects; the user's settings come before the card's."""
    return model.decoding.updated(
        threshold=settings.threshold, merge=settings.merge, min_size=settings.min_size
    )


@torch.inference_mode()
def find_basins_on_device(
    foreground: Tensor, height: Tensor, tile: Tile, shape: tuple[int, ...]
) -> Basins:
    """Divide the foreground of one tile into basins.

    Parameters
    ----------
    foreground
        bool, the tile's outer window, which reaches one pixel beyond the written one wherever the
        frame does.
    height
        float32 of the same shape, on the same device: what the pixels climb.
    tile
        Where the window lies.
    shape
        Size of the frame.

    Returns
    -------
    Basins
        In host memory; every field as `find_basins` of core gives it.
    """
    level = _padded_level(foreground, height, tile)
    there = level > -torch.inf
    ends = _ascend(_steepest(level), there)
    ids, peaks, sizes = _count(ends, there)
    first, second, heights = _passes(level, there, ends)
    on_face = torch.zeros_like(there)
    for face in inner_faces(tile, shape):
        on_face[face] = there[face]
    faces = on_face.flatten().nonzero()[:, 0]
    one, other, names, border, border_names = (
        frame_indices(places.cpu().numpy(), tuple(level.shape), tile, shape)
        for places in (first, second, peaks, faces, ends[faces])
    )
    return Basins(
        ids=ids.cpu().numpy().view(np.uint32),
        names=names,
        peaks=level.flatten()[peaks].cpu().numpy(),
        sizes=sizes.cpu().numpy(),
        passes=np.stack([one, other], 1),
        heights=heights.cpu().numpy(),
        border=border,
        border_names=border_names,
    )


def _padded_level(foreground: Tensor, height: Tensor, tile: Tile) -> Tensor:
    """Return the height of the tile's window and one pixel around it; background is -infinity."""
    shape, known = padded_window(tile)
    level = height.new_full(shape, -torch.inf)
    level[known] = torch.where(foreground & height.isfinite(), height, -torch.inf)
    level += 0  # -0 becomes 0: heights that are equal have equal bits
    return level


def _steepest(level: Tensor) -> Tensor:
    """Return which neighbour of each inner pixel is highest, as a flat index in `level`.

    Height and place are packed into one integer, so that one maximum along each axis finds both.
    Of equals it is the last in raster order: a strict order, by which plateaus have one peak.
    """
    bits = level.view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers in the order of the floats
    packed = bits.to(torch.int64) << 32
    packed |= torch.arange(level.numel(), device=level.device).view(level.shape)
    for axis in range(level.ndim):
        count = packed.shape[axis] - 2
        before, middle, after = (packed.narrow(axis, start, count) for start in range(3))
        packed = torch.maximum(before, middle)
        torch.maximum(packed, after, out=packed)
    return packed & 0xFFFFFFFF


def _ascend(steepest: Tensor, there: Tensor) -> Tensor:
    """Return where the ascent of each pixel of the padded tile ends, as flat indices.

    Outside the tile nothing climbs, nor on background: such a pixel ends in itself.
    """
    ends = torch.arange(there.numel(), device=there.device)
    inner = (slice(1, -1),) * there.ndim
    own = ends.view(there.shape)[inner]
    own.copy_(torch.where(there[inner], steepest, own))
    while True:  # pointer jumping: each round doubles the distance looked ahead
        ahead = ends[ends]
        if torch.equal(ahead, ends):
            return ends
        ends = ahead


def _count(ends: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each own pixel's basin, int32 from 1, and each basin's peak and number of pixels."""
    inner = (slice(1, -1),) * there.ndim
    own = ends.view(there.shape)[inner]
    climbing = own[there[inner]]
    number = torch.zeros_like(ends, dtype=torch.int32)
    number[climbing] = 1
    peaks = number.nonzero()[:, 0]
    number[peaks] = torch.arange(1, len(peaks) + 1, dtype=torch.int32, device=ends.device)
    sizes = torch.bincount(number[climbing], minlength=len(peaks) + 1)[1:]
    return number[own], peaks, sizes  # background ends in itself, which is no peak


def _passes(level: Tensor, there: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of touching basins, by their ends, and the highest pass of each pair.

    Only steps forward in raster order are taken from the tile's own pixels: over all tiles every
    pair of neighbouring pixels is seen exactly once.
    """
    inner = (slice(1, -1),) * level.ndim
    here = torch.zeros_like(there)
    here[inner] = there[inner]
    steps = forward_steps(tuple(level.shape))
    here, there, level = here.flatten(), there.flatten(), level.flatten()
    codes, heights = [], []
    for step in steps:
        apart = ends[:-step] != ends[step:]
        apart &= here[:-step]
        apart &= there[step:]
        at = apart.nonzero()[:, 0]
        one, other = ends[at], ends[at + step]
        codes.append(torch.minimum(one, other) << 32 | torch.maximum(one, other))
        heights.append(torch.minimum(level[at], level[at + step]))
    code, height = _highest(torch.cat(codes), torch.cat(heights))
    return code >> 32, code & 0xFFFFFFFF, height


def _highest(codes: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
    """Keep each code once, in order, with its greatest height.

    Sorted by height and then, keeping that order, by code: the last of equal codes is the highest.
    """
    heights, order = heights.sort()
    codes, again = codes[order].sort(stable=True)
    last = torch.ones_like(codes, dtype=torch.bool)
    last[:-1] = codes[1:] != codes[:-1]
    return codes[last], heights[again][last]
