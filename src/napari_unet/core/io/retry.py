"""Data of which a part may be unreadable: one kind of error for whatever lies below."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.chunk_cache import spans_of

if TYPE_CHECKING:
    from napari_unet.core.io.stack import Stack

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
            spans, drop = spans_of(key, self.shape)
            blank: np.ndarray = np.zeros([len(span) for span in spans], self.dtype)[drop]
            return blank
        lines = str(last).strip().splitlines()
        reason = lines[0][:160] if lines else type(last).__name__
        raise UnreadableError(f"the data cannot be read ({reason}).") from last


def with_retries(stack: Stack, lenient: bool = False) -> Stack:
    """Return a stack whose data are a `RetryingArray`; its path, is dropped."""
    return replace(stack, data=RetryingArray(stack.data, lenient), path=None)
