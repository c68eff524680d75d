"""How a thread calls the window: many rings before the window answers are one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, Signal

if TYPE_CHECKING:
    from collections.abc import Callable


class Bell(QObject):
    """Has something called in the window's thread, once for all rings since the last time.

    Made in the window's thread.

    Parameters
    ----------
    answer
        What is called.
    """

    _rang = Signal()

    def __init__(self, answer: Callable[[], object]) -> None:
        super().__init__()
        self._on_answer = answer
        self._rung = False
        connect: Any = self._rang.connect  # PyQt's stub leaves out the second argument
        connect(self._answer, Qt.ConnectionType.QueuedConnection)

    def ring(self) -> None:
        """Ask for an answer; returns at once, from any thread."""
        if self._rung:
            return
        self._rung = True
        with contextlib.suppress(RuntimeError):  # Qt has gone down before the thread
            self._rang.emit()

    def _answer(self) -> None:
        self._rung = False  # first: what comes from now on asks for another answer
        self._on_answer()
