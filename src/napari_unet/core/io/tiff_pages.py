"""The pixels of a TIFF file as lazy arrays: pages mapped into memory, or decoded piece by piece.

Uncompressed pages are mapped into memory for the length of one read only, so that the pages of a
huge file do not pile up in the resident set. All others are decoded strip by strip (tile by tile)
through tifffile's Zarr store, behind a bounded cache, since neighbouring windows need the same
strips again.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import WrapperStore

from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index
from napari_unet.core.io.picture_headers import claimed_values, unwrap_lerc
from napari_unet.core.io.size_claims import ALWAYS
from napari_unet.core.io.tiff_checks import CheckedTiff, cut_short, silence_tifffile

if TYPE_CHECKING:
    from collections.abc import Callable

_LERC = 34887
"""The number of a compression whose pieces may be compressed once more."""
_NO_PICTURES = frozenset((1, 2, 3, 4, 5, 8, 32771, 32773, 32946, 34925, 50000))
"""Numbers of compressions whose pieces may begin with the bytes of any picture, and are none."""
CACHE_BYTES = 256 * 2**20
"""Decoded strips or tiles that one compressed file keeps in memory, at most."""


def map_pages(path: Path, series: Any) -> MappedPages | None:
    """Return the series as mapped pages, or None when its pages have to be decoded."""
    keyframe = series.keyframe
    if series.transform is not None or not keyframe.is_memmappable:
        return None
    dtype = series.dtype.newbyteorder(keyframe.parent.byteorder)
    if series.dataoffset is not None:
        page = (keyframe.parent.filehandle.path, series.dataoffset)
        return MappedPages([page], (), series.shape, dtype)
    count = len(series.pages)
    leading = series.shape[: len(series.shape) - len(keyframe.shape)]
    if series.shape != leading + keyframe.shape or math.prod(leading) != count:
        return None
    pages = [
        None
        if page is None or not page.dataoffsets or not page.dataoffsets[0]
        else (page.parent.filehandle.path, page.dataoffsets[0])
        for page in series.pages
    ]
    ends = {
        page.parent: page.dataoffsets[0]
        for page in series.pages
        if page is not None and page.dataoffsets
    }
    for parent, offset in ends.items():  # of the last page in each file
        if offset + math.prod(keyframe.shape) * dtype.itemsize > parent.filehandle.size:
            raise cut_short(path)
    return MappedPages(pages, leading, keyframe.shape, dtype)


class MappedPages(LazyArray):
    """Uncompressed pages of one or more TIFF files as one lazy array.

    Parameters
    ----------
    pages
        File and offset in bytes of each page, in the order of the leading axes; None is a page
        that the file leaves out, which reads as zeros.
    leading, page_shape
        Shape of the axes that count pages, and of one page.
    dtype
        Type of the values, in the file's byte order.
    """

    def __init__(
        self,
        pages: list[tuple[str, int] | None],
        leading: tuple[int, ...],
        page_shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        super().__init__(leading + page_shape, dtype)
        self.pages, self.leading, self.page_shape = pages, leading, page_shape

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        out = np.zeros([len(span) for span in spans], self.dtype)
        count = len(self.leading)
        window = tuple(
            slice(s.start, None if s.stop < 0 else s.stop, s.step) for s in spans[count:]
        )
        for steps in itertools.product(*(enumerate(span) for span in spans[:count])):
            position = tuple(p for _, p in steps)
            page = self.pages[int(np.ravel_multi_index(position, self.leading)) if count else 0]
            if page is not None and out.size:
                path, offset = page
                mapped = np.memmap(path, self.dtype, "r", offset, self.page_shape)
                out[tuple(n for n, _ in steps)] = mapped[window]
        result: np.ndarray = out[drop]
        return result


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


def _decode(
    decode: Callable[..., Any],
    lerc: bool,
    largest: int,
    data: bytes | None,
    index: int,
    **options: Any,
) -> Any:
    """Decode a strip or tile, but none that claims more values than its page can have in one."""
    if data is not None:
        if lerc:
            data = unwrap_lerc(data, 8 * largest)
        values = max(claimed_values(data), claimed_values(options.get("jpegheader") or b""))
        if values > largest:
            raise ValueError(f"a piece of {largest:,} values at most claims {values:,}")
    return decode(data, index, **options)


class DecodedPages(LazyArray):
    """A TIFF series whose strips or tiles are decoded when they are read."""

    def __init__(self, file: CheckedTiff, series: int) -> None:
        self.path, self.series = file.filehandle.path, series
        page = file.series[series].keyframe
        lerc, largest = int(page.compression) == _LERC, max(ALWAYS, math.prod(page.chunks))
        if int(page.compression) not in _NO_PICTURES:
            page.decode = partial(_decode, page.decode, lerc, largest)
        self._close = weakref.finalize(self, file.close)
        store = _CachedStore(file.series[series].aszarr(level=0))
        self._array = zarr.open_array(store, mode="r")  # of format 2 or 3, by tifffile's version
        super().__init__(self._array.shape, self._array.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        with silence_tifffile():
            return np.asarray(self._array[key])

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.series)


def _reopen(path: str, series: int) -> DecodedPages:
    with silence_tifffile():
        return DecodedPages(CheckedTiff(Path(path)), series)
