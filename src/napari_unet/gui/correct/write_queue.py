"""Writing beside the window: one thread, one thing after the other, nothing dropped.

What cannot be written stays first in the queue, and what came after it waits: the next `put`, or
`go_on`, tries again.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_unet.gui.jobs.job import MainThreadNotifier

if TYPE_CHECKING:
    from collections.abc import Callable

LAST_CHANCE_S = 10.0
"""How long the end of the program waits for what is still to be written."""


class WriteQueue(QObject):
    """Does pieces of writing in the order in which they are given.

    Emits `changed`, in the window's thread, when something was written or could not be. Made and
    used in the window's thread; its own thread lives while there is something to write.

    Attributes
    ----------
    error
        Why the first piece could not be written; None if nothing is wrong.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self._pieces: deque[Callable[[], None]] = deque()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._bell = MainThreadNotifier(self.changed.emit)
        _queues.add(self)

    @property
    def pending(self) -> int:
        """How many pieces are still to be written."""
        return len(self._pieces)

    def put(self, write: Callable[[], None]) -> None:
        """Write this after all that was given before; returns at once.

        Parameters
        ----------
        write
            Called in the queue's thread. What it raises is kept as `error`, and it is called again
            later: it must have done nothing then.
        """
        self._pieces.append(write)
        self.go_on()

    def go_on(self) -> None:
        """Write what is pending, if that is not under way already."""
        with self._guard:
            if self._thread is not None or not self._pieces:
                return
            self._thread = threading.Thread(
                target=self._work, name="napari-unet journal", daemon=True
            )
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until all is written or cannot be; return whether all is written."""
        self.go_on()
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return not self._pieces

    def _work(self) -> None:
        error: Exception | None = None
        while (write := self._next(error)) is not None:
            try:
                write()
            except Exception as raised:
                error = raised
            else:
                self._pieces.popleft()
                self.error = None
            del write
            self._bell.notify()
        self._bell.notify()

    def _next(self, error: Exception | None) -> Callable[[], None] | None:
        """Return what to write; None, and the thread ends, if there is nothing or it failed."""
        with self._guard:
            if error is None and self._pieces:
                return self._pieces[0]
            self.error = error
            self._thread = None
            return None


_queues: weakref.WeakSet[WriteQueue] = weakref.WeakSet()


@atexit.register
def write_all() -> None:
    """Write what is pending in any queue, as far as it can be written."""
    for queue in list(_queues):
        queue.wait(LAST_CHANCE_S)
