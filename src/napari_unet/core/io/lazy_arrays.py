"""Chunked arrays behind a cache: what one window computed, the next need not compute again.

A dask array computes a whole chunk for every pixel asked of it, and a Zarr array decodes it. Where
a chunk is a whole plane, reading that plane tile by tile would take one pass over it a tile.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import OrderedDict
from typing import Any

import numpy as np

from napari_unet.core.errors import InputError, UnetError

CACHE_BYTES = 2**28
"""Chunks that one array keeps in memory, at most; a single larger one is kept all the same."""

LARGE = 2**22
"""Chunks of fewer bytes than this are read as they are, unless dask has to compute them."""


class LazyArray:
    """Lets numpy take an array whole that otherwise is read by basic slices."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, key: Any) -> np.ndarray:
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[(slice(None),) * len(self.shape)], dtype)


def ranges_from_index(key: Any, shape: tuple[int, ...]) -> tuple[list[range], tuple[Any, ...]]:
    """Turn a basic index into one range an axis, and the index that drops single numbers' axes."""
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
    """Put an array whose chunks are dear behind a cache; return any other as it is."""
    chunks = getattr(data, "chunks", None)
    if not isinstance(chunks, tuple) or len(chunks) != len(data.shape):
        return data
    if all(isinstance(size, int) for size in chunks):
        if math.prod(chunks) * data.dtype.itemsize < LARGE:
            return data
        edges = [[*range(0, n, c), n] for n, c in zip(data.shape, chunks, strict=True)]
    else:
        edges = [[0, *itertools.accumulate(sizes)] for sizes in chunks]
    return ChunkCache(data, edges)


class ChunkCache(LazyArray):
    """An array that is read by whole chunks, the last of which are kept.

    Parameters
    ----------
    data
        Array with basic slicing.
    edges
        Where chunks begin, and the last one ends, along each axis.
    """

    def __init__(self, data: Any, edges: list[list[int]]) -> None:
        self.data, self.edges = data, edges
        self.shape, self.dtype, self.ndim = tuple(data.shape), data.dtype, len(data.shape)
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
        for place in itertools.product(*touched):
            chunk = self._chunk(place)
            there, here = [], []
            for span, edges, n in zip(spans, self.edges, place, strict=True):
                start, stop = max(span.start, edges[n]), min(span.stop, edges[n + 1])
                there.append(slice(start - span.start, stop - span.start))
                here.append(slice(start - edges[n], stop - edges[n]))
            out[tuple(there)] = chunk[tuple(here)]
        result: np.ndarray = out[drop]
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data, self.edges)

    def _chunk(self, place: tuple[int, ...]) -> np.ndarray:
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        window = tuple(
            slice(edges[n], edges[n + 1]) for edges, n in zip(self.edges, place, strict=True)
        )
        chunk = np.asarray(self.data[window])
        with self._lock:
            self._kept[place] = chunk
            total = sum(kept.nbytes for kept in self._kept.values())
            while total > CACHE_BYTES and len(self._kept) > 1:
                total -= self._kept.popitem(last=False)[1].nbytes
        return chunk


TRIES = 3
"""How often a read is tried: networks have moments of weakness."""

PAUSE = 0.2
"""Seconds before the second try; doubled before each further one."""

DAMAGE = (ValueError, RuntimeError, TypeError, LookupError, EOFError)
"""What decoders raise on damaged data: waiting mends nothing."""


class UnreadableError(InputError):
    """A part of an image that cannot be read; the rest may be all right."""


class RetryingArray:
    """An array that is read with a few tries, and whose failures are all `UnreadableError`s.

    A try is waited with where the store may be away for a moment. It is not where the data are
    damaged, nor once a read has failed for good, until the next that succeeds: a store that is gone
    would take that time for each of thousands of windows.

    Parameters
    ----------
    data
        Array with basic slicing.
    lenient
        Whether what cannot be read is taken for zeros instead: for a look, not for a result.
    """

    def __init__(self, data: Any, lenient: bool = False) -> None:
        self.data, self.lenient = data, lenient
        self.shape, self.dtype, self.ndim = tuple(data.shape), data.dtype, len(data.shape)
        self._gone = False

    def __getitem__(self, key: Any) -> np.ndarray:
        for attempt in range(TRIES):
            try:
                values = np.asarray(self.data[key])
                self._gone = False
                return values
            except (MemoryError, UnetError):
                raise
            except Exception as error:  # what a store raises is its own affair
                last = error
                damaged = isinstance(error, DAMAGE)
                if attempt + 1 < TRIES and not damaged and not self._gone:
                    time.sleep(PAUSE * 2**attempt)
        self._gone = not damaged
        if self.lenient:
            spans, drop = ranges_from_index(key, self.shape)
            blank: np.ndarray = np.zeros([len(span) for span in spans], self.dtype)[drop]
            return blank
        lines = str(last).strip().splitlines()
        reason = lines[0][:160] if lines else type(last).__name__
        raise UnreadableError(f"the data cannot be read ({reason}).") from last
