"""The trunk's features of an image, cached: a click need not wait for what Segment has computed.

They are kept in cells on a grid of the network's pixels, in 16 bits, and the least recently used
are dropped when there are too many.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_unet.core.image.frames import Resampling
from napari_unet.core.settings.tasks import ClickSettings
from napari_unet.core.tiles import plan_tiles, relative_window, tile_halo
from napari_unet.nn.inference.model_input import open_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index, Tile, Window
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.inference.runner import Runner

CELL = {2: 64, 3: 32}
"""Edge length of a cell, in network pixels, where the pooling grid allows."""
TILE = {2: 8, 3: 3}
"""Edge length of the tiles in which missing features are computed, in cells."""
MEGABYTES = ClickSettings.cache
"""How much is kept, unless the user sets otherwise."""
LARGEST = 65504.0
"""The largest float16; features beyond it would become infinite."""

FRAMES = 16
"""Frames of a stack whose percentiles are remembered."""

Corner = tuple[int, ...]
"""Where a cell begins, in network pixels."""


class FeatureCache:
    """The features of one image, for any frames, scales and models.

    Whoever changes the image's pixels clears it; another image has another cache. Threads may share
    it.

    Parameters
    ----------
    megabytes
        How much is kept, at most.
    """

    def __init__(self, megabytes: float = MEGABYTES) -> None:
        self.limit = int(megabytes * 1e6)
        self.bytes = 0
        self._cells: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> Tensor | None:
        """Return a cell, which counts as used; None if it is not there."""
        with self._lock:
            if key in self._cells:
                self._cells.move_to_end(key)
            return self._cells.get(key)

    def put(self, key: tuple[object, ...], cell: Tensor) -> None:
        """Keep a cell, and drop the least recently used beyond the limit; never this one."""
        with self._lock:
            old = self._cells.pop(key, None)
            self.bytes -= old.nbytes if old is not None else 0
            self._cells[key] = cell
            self.bytes += cell.nbytes
            self._trim()

    def resize(self, megabytes: float) -> None:
        """Keep at most so much from now on."""
        with self._lock:
            self.limit = int(megabytes * 1e6)
            self._trim()

    def _trim(self) -> None:
        while self.bytes > self.limit and len(self._cells) > 1:
            self.bytes -= self._cells.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._cells.clear()
            self.bytes = 0


@dataclass(frozen=True)
class FrameFeatures:
    """The features of one frame for one model: the trunk's and, last, the image's channel mean.

    Attributes
    ----------
    runner, spec
        The network.
    frame
        What it sees.
    cache
        Where cells are kept.
    """

    runner: Runner
    spec: ModelSpec
    frame: Frame
    cache: FeatureCache

    @property
    def cell(self) -> Corner:
        """Size of a cell: whole pooling windows."""
        return tuple(-(-CELL[self.spec.ndim] // step) * step for step in self.spec.stride)

    def read(self, window: Window) -> Tensor:
        """Return a window, float16 (width + 1, *window), on the device; compute what is missing.

        Parameters
        ----------
        window
            Inside the frame, in network pixels.
        """
        # Cells are held here until they are put together: a small cache may drop them meanwhile.
        cells = {corner: self.cache.get(self._key(corner)) for corner in self._corners(window)}
        if missing := [corner for corner, cell in cells.items() if cell is None]:
            for tile in self._tiles(missing):
                cells |= self._compute(tile)
        return self._joined({c: cell for c, cell in cells.items() if cell is not None}, window)

    def read_distances(self, window: Window) -> np.ndarray | None:
        """Return the predicted relative distance to the objects' borders, 0 on background.

        Parameters
        ----------
        window
            In the stack's pixels; what is missing of the features is computed.

        Returns
        -------
        np.ndarray or None
            float32, of the window's shape; None for a model of classes, which predicts none.
        """
        if self.spec.head != "instance":
            return None
        pairs = zip(self.frame.shape, self.frame.size, strict=True)
        zooms = [Resampling(m, n) for m, n in pairs]
        needed = tuple(z.needs(w.start, w.stop) for z, w in zip(zooms, window, strict=True))
        with torch.inference_mode():
            raw = self.runner.read(self.read(needed)[None, :-1])[0]
            distances = torch.where(raw[0] > 0, raw[1], 0).clamp(min=0).cpu().numpy()
        for axis, (zoom, part) in enumerate(zip(zooms, window, strict=True)):
            distances = zoom.apply(distances, axis, part.start, part.stop)
        return np.asarray(distances, np.float32)

    def has(self, window: Window) -> bool:
        """Return whether `read` would have to compute nothing."""
        keys = map(self._key, self._corners(window))
        return all(self.cache.get(key) is not None for key in keys)

    def keep(self, tile: Tile, features: Tensor, image: Tensor) -> None:
        """Take in what the network computed for a tile: the cells that lie in its exact part.

        Parameters
        ----------
        tile
            In network pixels.
        features, image
            (width, *outer) and (C, *outer).
        """
        self._cut(tile, features, image)

    def _compute(self, tile: Tile) -> dict[Corner, Tensor | None]:
        image = torch.from_numpy(self.frame.read(tile.read))[None]
        features = self.runner.trunk(image, tile.crop)
        return self._cut(tile, features[0], image[0][(slice(None), *tile.crop)])

    def _cut(self, tile: Tile, features: Tensor, image: Tensor) -> dict[Corner, Tensor | None]:
        """Cut the cells that a tile covers out of its features, and keep them.

        They keep the number format and the order of the memory, channels last, of the features:
        to change either here, for all of an image, would take a fifth of the network's time.
        """
        grey = image.mean(0, keepdim=True).to(features)
        half = features.dtype if features.element_size() == 2 else torch.float16
        made: dict[Corner, Tensor | None] = {}
        for corner in self._corners(tile.outer):
            window = self._window(corner)
            inside = zip(window, tile.outer, strict=True)
            if all(w.start >= o.start and w.stop <= o.stop for w, o in inside):
                place = (slice(None), *relative_window(window, tile.outer))
                shape = (*(w.stop - w.start for w in window), len(features) + 1)
                cell = features.new_empty(shape, dtype=half).movedim(-1, 0)
                for part, source in ((cell[:-1], features[place]), (cell[-1:], grey[place])):
                    part.copy_(source if source.dtype == half else _limited(source))
                self.cache.put(self._key(corner), cell)
                made[corner] = cell
        return made

    def _tiles(self, corners: list[Corner]) -> Iterator[Tile]:
        """Cover cells with tiles that the network can run, each of a few whole cells."""
        ndim, frame = self.spec.ndim, self.frame
        edges = [TILE[ndim] * edge for edge in self.cell]
        first = [min(axis) for axis in zip(*corners, strict=True)]
        halo, grid = tile_halo(self.spec), self.spec.stride
        enough = [n + step for n, step in zip(frame.shape, grid, strict=True)]
        blocks: dict[Corner, list[Window]] = {}
        for corner in corners:
            each = zip(corner, first, edges, strict=True)
            block = tuple((at - start) // edge for at, start, edge in each)
            blocks.setdefault(block, []).append(self._window(corner))
        for windows in blocks.values():
            region = tuple(
                slice(min(w.start for w in axis), max(w.stop for w in axis))
                for axis in zip(*windows, strict=True)
            )
            yield plan_tiles(frame.shape, enough, halo, grid, region=region)[0]

    def _corners(self, window: Window) -> Iterator[Corner]:
        """List the cells that a window touches, in raster order."""
        return itertools.product(
            *(
                range(w.start // edge * edge, w.stop, edge)
                for w, edge in zip(window, self.cell, strict=True)
            )
        )

    def _window(self, corner: Corner) -> Window:
        return tuple(
            slice(start, min(start + edge, size))
            for start, edge, size in zip(corner, self.cell, self.frame.shape, strict=True)
        )

    def _key(self, corner: Corner) -> tuple[object, ...]:
        frame = self.frame
        scale = (*frame.normaliser.low.tolist(), *frame.normaliser.high.tolist())
        network = (self.runner.net, frame.index, frame.channels, frame.shape)
        return (*network, *scale, *corner)

    def _joined(self, cells: dict[Corner, Tensor], window: Window) -> Tensor:
        """Put the parts of cells that lie in a window together."""
        first = next(iter(cells.values()))
        shape = (len(first), *(w.stop - w.start for w in window))
        whole = first.new_empty(shape, dtype=torch.float16)
        for corner, cell in cells.items():
            held = self._window(corner)
            pairs = zip(window, held, strict=True)
            both = tuple(slice(max(w.start, h.start), min(w.stop, h.stop)) for w, h in pairs)
            source = cell[(slice(None), *relative_window(both, held))]
            whole[(slice(None), *relative_window(both, window))] = source
        return _limited(whole)


class StackFeatures:
    """The features of a stack's frames for one model. Threads may share it.

    Parameters
    ----------
    stack, model, settings
        The image, the model and how it is run; resolved, with a diameter in pixels.
    cache
        Features of the image.
    """

    def __init__(
        self, stack: Stack, model: Model, settings: PredictSettings, cache: FeatureCache
    ) -> None:
        self._stack, self._model, self._settings, self._cache = stack, model, settings, cache
        self._frames: OrderedDict[Index, FrameFeatures] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, index: Index) -> FrameFeatures:
        """Return the features of a frame; its percentiles are measured when it is first asked for.

        The frames used last are remembered.
        """
        with self._lock:
            found = self._frames.get(index)
            if found is None:
                found = self._frames[index] = self._open(index)
            self._frames.move_to_end(index)
            while len(self._frames) > FRAMES:
                self._frames.popitem(last=False)
            return found

    def _open(self, index: Index) -> FrameFeatures:
        model, settings = self._model, self._settings
        frame = open_frame(self._stack, model, settings, index)
        runner = model.runner(model.choose_precision(settings.precision))
        return FrameFeatures(runner, model.spec, frame, self._cache)


def _limited(features: Tensor) -> Tensor:
    """Return features within the range of float16."""
    return features.clamp(-LARGEST, LARGEST)
