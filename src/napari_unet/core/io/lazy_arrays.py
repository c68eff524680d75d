"""Arrays that are read by slices: their base, a cache of chunks, and reads with several tries."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import OrderedDict
from typing import Any

import numpy as np

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.files import first_line

CACHE_BYTES = 2**28
"""Chunks that one array keeps in memory, at most; a single larger one is kept all the same."""
SMALL_CHUNK = 2**22
"""Zarr chunks of fewer bytes than this are not cached: they decode faster than they pile up."""
TRIES = 3
"""How often a read is tried: network storage fails now and then."""
PAUSE = 0.2
"""Seconds before the second try; doubled before each further one."""
DAMAGE = (ValueError, RuntimeError, TypeError, LookupError, EOFError, SystemError)
"""What decoders raise on damaged data, for which a second try is of no use."""


class UnreadableError(InputError):
    """A part of an image that cannot be read; the rest may be all right."""


class LazyArray:
    """Base of arrays that are read by basic slices; numpy takes them whole as well."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype, self.ndim = shape, dtype, len(shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[(slice(None),) * self.ndim], dtype)


def ranges_from_index(key: Any, shape: tuple[int, ...]) -> tuple[list[range], tuple[Any, ...]]:
    """Return a range for each axis of a basic index, and an index that drops its integers' axes."""
    key = key if isinstance(key, tuple) else (key,)
    at = key.index(Ellipsis) if Ellipsis in key else len(key)
    before, after = key[:at], key[at + 1 :]
    key = before + (slice(None),) * (len(shape) - len(before + after)) + after
    spans, drop = [], []
    for item, size in zip(key, shape, strict=True):
        span = range(size)[item]
        spans.append(range(span, span + 1) if isinstance(span, int) else span)
        drop.append(0 if isinstance(span, int) else slice(None))
    return spans, tuple(drop)


def cache_chunks(data: Any) -> Any:
    """Return an array behind a `ChunkCache` if its chunks are costly to read, else as it is.

    Those are the chunks of dask, which are computed, and large ones of Zarr, which are decoded.
    """
    chunks = getattr(data, "chunks", None)
    if not isinstance(chunks, tuple) or len(chunks) != len(data.shape):
        return data
    if all(isinstance(size, int) for size in chunks):
        if math.prod(chunks) * data.dtype.itemsize < SMALL_CHUNK:
            return data
        edges = [[*range(0, n, c), n] for n, c in zip(data.shape, chunks, strict=True)]
    else:
        edges = [[0, *itertools.accumulate(sizes)] for sizes in chunks]
    return ChunkCache(data, edges)


class ChunkCache(LazyArray):
    """An array that is read by whole chunks, of which the last are kept in memory.

    dask computes a whole chunk for every pixel that is asked for, and Zarr decodes it. Where a
    chunk is a whole plane, a plane that is read tile by tile would be computed once for each tile.

    Parameters
    ----------
    data
        Array with basic slicing.
    edges
        Where chunks begin along each axis, and where the last one ends.
    """

    def __init__(self, data: Any, edges: list[list[int]]) -> None:
        super().__init__(tuple(data.shape), data.dtype)
        self.data, self.edges = data, edges
        self._kept: OrderedDict[tuple[int, ...], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        if any(span.step != 1 for span in spans):
            return np.asarray(self.data[key])
        out = np.empty([len(span) for span in spans], self.dtype)
        touched = [
            [n for n in range(len(edges) - 1) if edges[n] < span.stop and span.start < edges[n + 1]]
            for span, edges in zip(spans, self.edges, strict=True)
        ]
        for number in itertools.product(*touched):
            chunk = self._chunk(number)
            there, here = [], []
            for span, edges, n in zip(spans, self.edges, number, strict=True):
                start, stop = max(span.start, edges[n]), min(span.stop, edges[n + 1])
                there.append(slice(start - span.start, stop - span.start))
                here.append(slice(start - edges[n], stop - edges[n]))
            out[tuple(there)] = chunk[tuple(here)]
        result: np.ndarray = out[drop]
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data, self.edges)

    def _chunk(self, number: tuple[int, ...]) -> np.ndarray:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        window = tuple(
            slice(edges[n], edges[n + 1]) for edges, n in zip(self.edges, number, strict=True)
        )
        # Read without the lock, or one slow chunk would keep all threads waiting.
        chunk = np.asarray(self.data[window])
        with self._lock:
            self._kept[number] = chunk
            total = sum(kept.nbytes for kept in self._kept.values())
            while total > CACHE_BYTES and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1].nbytes
        return chunk


class RetryingArray(LazyArray):
    """An array that tries each read several times, and raises `UnreadableError` if all fail.

    It pauses before the next try, since network storage may be away for a moment; not if the data
    are damaged, nor from a read that failed for good until one succeeds: a store that is gone would
    cost the pauses for each of thousands of windows.

    Parameters
    ----------
    data
        Array with basic slicing.
    lenient
        Whether zeros are returned for what cannot be read: for a preview, not for a result.
    """

    def __init__(self, data: Any, lenient: bool = False) -> None:
        super().__init__(tuple(data.shape), data.dtype)
        self.data, self.lenient = data, lenient
        self._gone = False

    def __getitem__(self, key: Any) -> np.ndarray:
        for attempt in range(TRIES):
            try:
                values = np.asarray(self.data[key])
                self._gone = False
                return values
            except (MemoryError, UnetError):
                raise
            except Exception as error:  # stores share no base class of errors
                last = error
                damaged = isinstance(error, DAMAGE)
                if attempt + 1 < TRIES and not damaged and not self._gone:
                    time.sleep(PAUSE * 2**attempt)
        self._gone = not damaged
        if self.lenient:
            spans, drop = ranges_from_index(key, self.shape)
            blank: np.ndarray = np.zeros([len(span) for span in spans], self.dtype)[drop]
            return blank
        raise UnreadableError(f"the data cannot be read ({first_line(last)}).") from last
