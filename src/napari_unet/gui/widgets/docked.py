"""Panels that notice when their dock is closed: Qt tells a widget only that its parent changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QDockWidget, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable


class DockedPanel(QWidget):
    """A panel whose work ends with its dock: nobody could stop it any more.

    Parameters
    ----------
    cancel
        Called when the dock is gone, not merely hidden.
    """

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

    def _look_for_dock(self) -> None:
        if _dock_of(self) is not None:
            self._docked = True
        elif self._docked:
            self._cancel_work()


def _dock_of(widget: QWidget) -> QDockWidget | None:
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent
