"""A bound on how long a file may be read for before it is given up.

Libraries loop on some damaged or hostile files, such as a TIFF whose pages follow each other in a
circle. The bound grows with the file, so that none that is merely large is given up.
"""

from __future__ import annotations

import ctypes
import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 8.0
"""How long any file may be read for."""
BYTES_PER_S = 10**6
"""A second more for so many bytes of the file."""
BUSY = 0.5
"""Share of that time in which the processor has to work: who waits for a disk does not loop."""


class _TimeIsUpError(BaseException):
    """Raised inside the reader; no Exception, which libraries catch and go on."""


def seconds_for(path: Path) -> float:
    """Return how long a file may be read for."""
    return SECONDS + path.stat().st_size / BYTES_PER_S


def endless_error(path: Path, seconds: float) -> InputError:
    """Return the error of a file that was given up."""
    return InputError(
        f"{path} was read for {seconds:.0f} s without an end; it is damaged, copy or export it "
        "once more."
    )


@contextmanager
def time_limit(path: Path) -> Iterator[None]:
    """Give up a file whose reader, in the block, goes on for too long.

    Only a reader in Python can be stopped. Those in C are read in another process, see
    `reader_process`; how long a decoder in C works is bounded by the size that `size_claims`
    allows.

    Raises
    ------
    InputError
        The time is up.
    """
    reader, error = ctypes.c_ulong(threading.get_ident()), ctypes.py_object(_TimeIsUpError)
    watch = Watch(
        seconds_for(path),
        time.process_time,
        lambda: ctypes.pythonapi.PyThreadState_SetAsyncExc(reader, error),
    )
    watch.start()
    try:
        try:
            yield
        finally:
            watch.end()
    except _TimeIsUpError:
        raise endless_error(path, watch.seconds) from None


class Watch(threading.Thread):
    """Calls a function when a reader has worked for too long, unless it is ended before.

    Parameters
    ----------
    seconds
        How long it may work.
    worked
        Returns the seconds for which its processor has worked so far.
    give_up
        Stops it.
    patience
        Seconds after which it is stopped even if it only waits.
    """

    def __init__(
        self,
        seconds: float,
        worked: Callable[[], float],
        give_up: Callable[[], object],
        patience: float = math.inf,
    ) -> None:
        super().__init__(name="time limit", daemon=True)
        self.seconds, self.worked, self.give_up = seconds, worked, give_up
        self.patience, self.given_up = patience, False
        self._ended, self._lock = threading.Event(), threading.Lock()

    def run(self) -> None:
        """Wait for the end, or for too long."""
        begun, before = time.monotonic(), self.worked()
        wait = min(self.seconds, self.patience)
        while not self._ended.wait(wait):
            worked, took = self.worked() - before, time.monotonic() - begun
            busy = took >= self.seconds and worked >= BUSY * self.seconds
            if not busy and took < self.patience:
                wait = self.seconds / 10
                continue
            with self._lock:  # not into what comes after the block
                if not self._ended.is_set():
                    self.given_up = True
                    self.give_up()
            return

    def end(self) -> None:
        """End the watch; what it watches is not given up any more."""
        with self._lock:
            self._ended.set()
