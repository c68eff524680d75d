"""From a paint event to the disk: the pixels that changed, and the queue that writes them.

The queue has a thread of its own and drops nothing. What cannot be written stays first, and what
came after it waits: the next `put`, or `start`, tries again. Where the disk was full, or could not
be written to, it is tried again by itself.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet.core.errors import OutputError
from napari_unet.gui.jobs.job import MainThreadNotifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

EXIT_WAIT_S = 10.0
"""How long the end of the program waits for each queue: a server may answer late, or never."""
RETRY_MS, LONGEST_RETRY_MS = 4_000, 64_000
"""After an error of the disk it is tried again so soon, then after twice the time, and so on."""


class ChangedPixels(NamedTuple):
    """Pixels that changed: index arrays, one an axis, and the values before and after."""

    where: tuple[np.ndarray, ...]
    old: np.ndarray
    new: np.ndarray


def get_changed_pixels(atoms: Iterable[Any], shape: Sequence[int]) -> ChangedPixels:
    """Return the pixels that a paint event changed; those of several dabs come more than once.

    napari's history has two kinds of atoms. One of painting has a box, a mask in it (None: all of
    it) and the values before; one of `data_setitem` has index arrays and the values before and
    after. A stroke of the brush is a list of atoms, one a dab; a fill or polygon is a single one.

    Parameters
    ----------
    atoms
        The value of the layer's `paint` event.
    shape
        Of the layer's data; the indices are along its axes.
    """
    parts = [
        _from_painting(atom) if hasattr(atom, "slice_key") else _from_setting(atom, shape)
        for atom in atoms
    ]
    if not parts:
        return ChangedPixels(
            (np.zeros(0, np.int64),) * len(shape), np.zeros(0, int), np.zeros(0, int)
        )
    where = tuple(
        np.concatenate([part.where[axis] for part in parts]) for axis in range(len(shape))
    )
    old, new = (np.concatenate([part[side] for part in parts]) for side in (1, 2))
    return ChangedPixels(where, old, new)


def get_source(atoms: Iterable[Any], mode: str) -> str:
    """Return the source of an edit: the layer's mode, or "set" for `data_setitem`."""
    return mode if all(hasattr(atom, "slice_key") for atom in atoms) else "set"


def _from_painting(atom: Any) -> ChangedPixels:
    corner = [span.start for span in atom.slice_key]
    if atom.mask is None:
        where = np.indices(atom.old_values.shape).reshape(len(corner), -1)
    else:
        where = np.asarray(np.nonzero(atom.mask))
    old = np.ravel(atom.old_values)
    moved = tuple(axis + start for axis, start in zip(where, corner, strict=True))
    return ChangedPixels(moved, old, np.full(old.shape, atom.new_value, np.int64))


def _from_setting(atom: Any, shape: Sequence[int]) -> ChangedPixels:
    indices, old, new = atom
    flat = [np.ravel(np.asarray(axis)) for axis in indices]
    where = tuple(
        np.where(axis < 0, axis + size, axis) for axis, size in zip(flat, shape, strict=True)
    )
    old = np.ravel(old)
    return ChangedPixels(where, old, np.broadcast_to(np.ravel(new), old.shape).astype(np.int64))


class WriteQueue(QObject):
    """Calls functions that write, in the order in which they are given.

    Emits `changed`, in the window's thread, when something was written or could not be. Made and
    used in the window's thread; its own thread lives while there is something to write.

    Attributes
    ----------
    error
        Why the first one failed; None if nothing is wrong.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self._writes: deque[Callable[[], None]] = deque()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._notifier = MainThreadNotifier(self._respond)
        self._retry = QTimer(self)
        self._retry.setSingleShot(True)
        self._retry.timeout.connect(self.start)
        self._retry_ms = RETRY_MS
        _queues.add(self)

    @property
    def pending(self) -> int:
        """How many functions are still to be called."""
        return len(self._writes)

    def put(self, write: Callable[[], None]) -> None:
        """Call a function after all earlier ones; returns at once.

        Parameters
        ----------
        write
            Called in the queue's thread. What it raises is kept as `error`, and it is called again
            later, so it must be all or nothing.
        """
        self._writes.append(write)
        self.start()

    def start(self) -> None:
        """Start to write what is pending, unless that is running already."""
        with self._guard:
            if self._thread is not None or not self._writes:
                return
            self._thread = threading.Thread(
                target=self._work, name="napari-unet journal", daemon=True
            )
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until all is written, or has failed; return whether all is written."""
        self.start()
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return not self._writes

    def _respond(self) -> None:
        """Say that something happened, and plan to try again, in the window's thread."""
        if self.error is None:
            self._retry_ms = RETRY_MS
            self._retry.stop()
        elif isinstance(self.error, OutputError | OSError) and not self._retry.isActive():
            self._retry.start(self._retry_ms)
            self._retry_ms = min(2 * self._retry_ms, LONGEST_RETRY_MS)
        self.changed.emit()

    def _work(self) -> None:
        error: Exception | None = None
        while (write := self._next(error)) is not None:
            try:
                write()
            except Exception as raised:  # stays in the queue, and is shown to the user
                error = raised
            else:
                self._writes.popleft()
                self.error = None
            del write
            self._notifier.notify()
        self._notifier.notify()

    def _next(self, error: Exception | None) -> Callable[[], None] | None:
        """Return the next function; None, and the thread ends, if all is written or one failed."""
        with self._guard:
            if error is None and self._writes:
                return self._writes[0]
            self.error = error
            self._thread = None
            return None


_queues: weakref.WeakSet[WriteQueue] = weakref.WeakSet()


@atexit.register
def write_all() -> None:
    """Write what is pending in all queues, as far as possible."""
    for queue in list(_queues):
        queue.wait(EXIT_WAIT_S)
