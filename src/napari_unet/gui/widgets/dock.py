"""The panel in its dock, which may be closed while work goes on, and the steps of the panel."""

from __future__ import annotations

import contextlib
import functools
import gc
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize, QTimer, Signal
from qtpy.QtWidgets import QDockWidget, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtGui import QResizeEvent

_closing_panels: set[QWidget] = set()
"""Panels whose dock was closed, until their work has ended: napari drops its reference to a panel
whose dock is closed, and it would be deleted while its work goes on."""


class DockPanel(QWidget):
    """A panel whose work is cancelled when its dock is closed: nobody could stop it any more.

    Qt has no event for that: a widget is only told that its parent changed.

    Emits `docked` with the main window when it has come into one.

    Parameters
    ----------
    cancel
        Called when the dock is closed, not merely hidden. A panel that has work to end then says
        so by `at_work`, and calls `leave` at its end.

    Attributes
    ----------
    content
        What the panel shows goes into this widget.
    """

    docked = Signal(object)

    def __init__(self, cancel: Callable[[], object]) -> None:
        super().__init__()
        self._cancel_work = cancel
        self._docked = False
        self._closing = QTimer(self)
        self._closing.setSingleShot(True)
        self._closing.timeout.connect(self._check_dock)
        self.content = QWidget(self)
        self._hints = (QSize(), QSize())  # of the content, as the window was told them

    def sizeHint(self) -> QSize:
        """Return that of the content."""
        return self.content.sizeHint()

    def minimumSizeHint(self) -> QSize:
        """Return that of the content."""
        return self.content.minimumSizeHint()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Give all room to the content."""
        super().resizeEvent(event)
        self.content.setGeometry(self.rect())

    def event(self, event: QEvent | None) -> bool:
        """Have the window laid out anew only where the content wants another size than before.

        With a layout in between, Qt would do so for each text that changes in the panel, and draw
        napari's window once more.
        """
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            hints = (self.content.sizeHint(), self.content.minimumSizeHint())
            if hints != self._hints:
                self._hints = hints
                self.updateGeometry()
        return super().event(event)

    def changeEvent(self, event: QEvent | None) -> None:
        """Look for the dock once Qt has finished moving the panel."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange:
            self._closing.start()
            if self.dock is not None:
                self._docked = True
            elif self._docked:
                _closing_panels.add(self)

    @property
    def dock(self) -> QDockWidget | None:
        """The dock that holds the panel; None without one."""
        return find_dock(self)

    @property
    def at_work(self) -> bool:
        """Whether the panel has to outlive its dock."""
        return False

    def leave(self) -> None:
        """Delete the panel, if its dock is closed and its work has ended."""
        if self in _closing_panels and not self.at_work:
            # Later, because a signal of one of its own widgets may have led here.
            QTimer.singleShot(0, functools.partial(_delete, self))

    def _check_dock(self) -> None:
        dock = self.dock
        if dock is not None:
            self._docked = True
            _closing_panels.discard(self)
            self.docked.emit(dock.parentWidget())
        elif self._docked:
            self._cancel_work()
        self.leave()


def _delete(panel: DockPanel) -> None:
    """Delete a panel whose dock was closed, unless it has come into another one meanwhile.

    Not left to Python's garbage collector: that deletes Qt's objects in any order, and crashes.
    """
    if panel not in _closing_panels:
        return
    _closing_panels.discard(panel)
    with contextlib.suppress(RuntimeError):  # Qt has deleted it already, with its window
        if panel.dock is None:
            panel.destroyed.connect(_collect)
            panel.deleteLater()


def _collect() -> None:
    """Let go of the objects of a panel that was deleted, before an event of napari reaches them."""
    QTimer.singleShot(0, gc.collect)


def find_dock(widget: QWidget) -> QDockWidget | None:
    """Return the dock that a widget is in; None without one."""
    parent = widget.parentWidget()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    return parent


class Step(QWidget):
    """One step of the panel, and its footer, which stands below it and never scrolls.

    Emits `state_changed` when the footer may have to be shown or hidden; `requested` when the
    user asks for the step from elsewhere, by a key; `ended` when work may have ended that the panel
    had to outlive its dock for.

    Attributes
    ----------
    footer
        Its main button, progress and results. It is shown while the step is open or `busy`.
    """

    state_changed = Signal()
    requested = Signal()
    ended = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.footer = QWidget()
        self.is_open = False

    @property
    def dock(self) -> QDockWidget | None:
        """The dock that the panel is in; None without one."""
        return find_dock(self)

    @property
    def busy(self) -> bool:
        """Whether something goes on, or waits for the user's decision."""
        return False

    @property
    def at_work(self) -> bool:
        """Whether the step has to outlive the panel's dock."""
        return False

    def open_step(self, wanted: bool) -> None:
        """Take in that the step was opened, or left for another one."""
        self.is_open = wanted
        self.show_footer()

    def show_footer(self) -> None:
        """Show the footer, or what of it is needed."""
        self.footer.setVisible(self.is_open or self.busy)

    def cancel_all(self) -> None:
        """Stop all work: the dock was closed."""

    def dock_hidden(self) -> None:
        """Take in that the dock was hidden, or closed."""

    def dock_shown(self) -> None:
        """Take in that the dock is shown, for the first time or again."""
