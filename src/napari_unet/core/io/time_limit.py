"""A bound on how long a file may be read for before it is given up.

Libraries loop on some damaged or hostile files, such as a TIFF whose pages follow each other in a
circle. The bound grows with the file, so that none that is merely large is given up.
"""

from __future__ import annotations

import ctypes
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 8.0
"""How long any file may be read for."""
BYTES_PER_S = 10**6
"""A second more for so many bytes of the file."""
BUSY = 0.5
"""Share of that time in which the processor has to work: who waits for a disk does not loop."""


class _TimeIsUpError(BaseException):
    """Raised inside the reader; no Exception, which libraries catch and go on."""


@contextmanager
def time_limit(path: Path) -> Iterator[None]:
    """Give up a file whose reader, in the block, goes on for too long.

    Only a reader in Python can be stopped; how long a decoder in C works is bounded by the size
    that `size_claims` allows.

    Raises
    ------
    InputError
        The time is up.
    """
    watch = _Watch(SECONDS + path.stat().st_size / BYTES_PER_S)
    watch.start()
    try:
        try:
            yield
        finally:
            watch.end()
    except _TimeIsUpError:
        raise InputError(
            f"{path} was read for {watch.seconds:.0f} s without an end; it is damaged, copy or "
            "export it once more."
        ) from None


class _Watch(threading.Thread):
    """Raises `_TimeIsUpError` in the thread that made it when it has worked for too long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(name="time limit", daemon=True)
        self.seconds, self.reader = seconds, threading.get_ident()
        self._ended, self._lock = threading.Event(), threading.Lock()

    def run(self) -> None:
        begun, worked = time.monotonic(), time.process_time()
        wait = self.seconds
        while not self._ended.wait(wait):
            worked_s, took_s = time.process_time() - worked, time.monotonic() - begun
            if took_s < self.seconds or worked_s < BUSY * self.seconds:
                wait = self.seconds / 10
                continue
            with self._lock:  # not into what comes after the block
                if not self._ended.is_set():
                    reader, error = ctypes.c_ulong(self.reader), ctypes.py_object(_TimeIsUpError)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(reader, error)
            return

    def end(self) -> None:
        with self._lock:
            self._ended.set()
