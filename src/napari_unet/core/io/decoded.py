"""Compressed TIFFs as lazy arrays: strips and tiles are decoded on demand, behind a cache."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any

import numpy as np
import tifffile
import zarr
from zarr.storage import WrapperStore

from napari_unet.core.io.chunks import Lazy
from napari_unet.core.io.tiff import quiet

CACHE_BYTES = 256 * 2**20
"""Decoded strips or tiles that one compressed file keeps in memory, at most."""


class _CachedStore(WrapperStore[Any]):
    """Keeps the chunks read last, up to `CACHE_BYTES`; at least one."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        if byte_range is not None:
            return await super().get(key, prototype, byte_range)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        chunk = await super().get(key, prototype, byte_range)
        if chunk is not None and key not in self._kept:
            self._kept[key] = chunk
            self._bytes += len(chunk)
            while self._bytes > CACHE_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return chunk


class DecodedPages(Lazy):
    """A TIFF series whose strips or tiles are decoded when they are read."""

    def __init__(self, file: tifffile.TiffFile, series: int) -> None:
        self.path, self.series = file.filehandle.path, series
        self._close = weakref.finalize(self, file.close)
        store = _CachedStore(file.series[series].aszarr(level=0))
        self._array = zarr.open_array(store, mode="r")  # tifffile: format 2 or 3
        self.shape, self.dtype, self.ndim = self._array.shape, self._array.dtype, self._array.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        with quiet():
            return np.asarray(self._array[key])

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.series)


def _reopen(path: str, series: int) -> DecodedPages:
    with quiet():
        return DecodedPages(tifffile.TiffFile(path), series)
