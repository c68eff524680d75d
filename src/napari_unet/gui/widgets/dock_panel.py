"""Panels that notice when their dock is closed: Qt tells a widget only that its parent changed.

napari lets go of a panel whose dock is closed, and it would be gone before its work has ended.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QTimer, Signal
from qtpy.QtWidgets import QDockWidget, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable


_leaving: set[QWidget] = set()
"""Panels whose dock was closed, until their work has ended."""


class DockPanel(QWidget):
    """A panel whose work ends with its dock: nobody could stop it any more.

    Emits `docked` with the main window when it has come into one.

    Parameters
    ----------
    cancel
        Called when the dock is gone, not merely hidden. What ends later is `at_work` until then,
        and calls `leave`.
    """

    docked = Signal(object)

    def __init__(self, cancel: Callable[[], object]) -> None:
        super().__init__()
        self._cancel_work = cancel
        self._docked = False
        self._closing = QTimer(self)
        self._closing.setSingleShot(True)
        self._closing.timeout.connect(self._look_for_dock)

    def changeEvent(self, event: QEvent | None) -> None:
        """Look for the dock once Qt has finished moving the panel."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange:
            self._closing.start()
            if self._docked and self.dock is None:
                _leaving.add(self)

    @property
    def dock(self) -> QDockWidget | None:
        """The dock that it is in."""
        return _dock_of(self)

    @property
    def at_work(self) -> bool:
        """Whether there is something that the panel has to stay for."""
        return False

    def leave(self) -> None:
        """Go after the dock, if that is gone and there is nothing to stay for."""
        if self in _leaving and not self.at_work:
            # Not now: it may be a signal of its own parts that leads here.
            QTimer.singleShot(0, functools.partial(_leaving.discard, self))

    def _look_for_dock(self) -> None:
        dock = self.dock
        if dock is not None:
            self._docked = True
            self.docked.emit(dock.parentWidget())
        elif self._docked:
            self._cancel_work()
        self.leave()


def _dock_of(widget: QWidget) -> QDockWidget | None:
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent
