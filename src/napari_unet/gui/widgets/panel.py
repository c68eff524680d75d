"""What the panels are made of: their dock, a section that folds, wrapped text, rows and columns."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QBoxLayout,
    QComboBox,
    QDockWidget,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QPushButton,
    QScrollArea,
    QScrollBar,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Margins = tuple[int, int, int, int]
_NO_MARGINS: Margins = (0, 0, 0, 0)
_MIN_HEIGHT = 160  # pixels: a panel that scrolls still shows a few rows of its form
_WHEEL_WIDGETS = (QAbstractSpinBox, QComboBox)  # the wheel changes their value
_BREAK = "\u200b"  # zero-width space: Qt may break the line here

_closing_panels: set[QWidget] = set()
"""Panels whose dock was closed, until their work has ended: napari drops its reference to a panel
whose dock is closed, and it would be deleted while its work goes on."""


def vbox(
    *parts: QWidget | QLayout, margins: Margins = _NO_MARGINS, owner: QWidget | None = None
) -> QVBoxLayout:
    """Lay out widgets and layouts below each other, in `owner` if it is given."""
    layout = QVBoxLayout() if owner is None else QVBoxLayout(owner)
    _fill(layout, parts, margins)
    return layout


def hbox(
    *parts: QWidget | QLayout,
    margins: Margins = _NO_MARGINS,
    owner: QWidget | None = None,
    stretch: int = 0,
) -> QHBoxLayout:
    """Lay out widgets and layouts side by side; with `stretch`, they share the width."""
    layout = QHBoxLayout() if owner is None else QHBoxLayout(owner)
    _fill(layout, parts, margins)
    for index in range(layout.count()):
        layout.setStretch(index, stretch)
    return layout


def _fill(layout: QBoxLayout, parts: tuple[QWidget | QLayout, ...], margins: Margins) -> None:
    layout.setContentsMargins(*margins)
    for part in parts:
        if isinstance(part, QLayout):
            layout.addLayout(part)
        else:
            layout.addWidget(part)


class DockPanel(QWidget):
    """A panel whose work is cancelled when its dock is closed: nobody could stop it any more.

    Qt has no event for that: a widget is only told that its parent changed.

    Emits `docked` with the main window when it has come into one.

    Parameters
    ----------
    cancel
        Called when the dock is closed, not merely hidden. A panel that has work to end then says
        so by `at_work`, and calls `leave` at its end.
    """

    docked = Signal(object)

    def __init__(self, cancel: Callable[[], object]) -> None:
        super().__init__()
        self._cancel_work = cancel
        self._docked = False
        self._closing = QTimer(self)
        self._closing.setSingleShot(True)
        self._closing.timeout.connect(self._check_dock)

    def changeEvent(self, event: QEvent | None) -> None:
        """Look for the dock once Qt has finished moving the panel."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange:
            self._closing.start()
            if self._docked and self.dock is None:
                _closing_panels.add(self)

    @property
    def dock(self) -> QDockWidget | None:
        """The dock that holds the panel; None without one."""
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QDockWidget):
            parent = parent.parentWidget()
        return parent

    @property
    def at_work(self) -> bool:
        """Whether the panel has to outlive its dock."""
        return False

    def leave(self) -> None:
        """Let the panel be deleted, if its dock is closed and its work has ended."""
        if self in _closing_panels and not self.at_work:
            # Later, because a signal of one of its own widgets may have led here.
            QTimer.singleShot(0, functools.partial(_closing_panels.discard, self))

    def _check_dock(self) -> None:
        dock = self.dock
        if dock is not None:
            self._docked = True
            self.docked.emit(dock.parentWidget())
        elif self._docked:
            self._cancel_work()
        self.leave()


class ScrollPanel(QScrollArea):
    """Shows a widget at its full width, and scrolls it where there is no room for its height.

    The wheel scrolls: it changes the number or choice under the mouse only if that has the focus.
    """

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self._content, self._bar = content, QScrollBar(Qt.Orientation.Vertical)
        self.setVerticalScrollBar(self._bar)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidgetResizable(True)
        self.setWidget(content)
        for kind in _WHEEL_WIDGETS:
            for box in content.findChildren(kind):
                box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                box.installEventFilter(self)

    def sizeHint(self) -> QSize:
        """Return the content's size, with room for the scroll bar."""
        return self._with_bar(self._content.sizeHint().expandedTo(self._content.minimumSize()))

    def minimumSizeHint(self) -> QSize:
        """Return the content's width, and a height at which scrolling still makes sense."""
        minimum = self._content.minimumSizeHint().expandedTo(self._content.minimumSize())
        return self._with_bar(minimum).boundedTo(QSize(10_000, _MIN_HEIGHT))

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Keep the wheel from boxes without focus; follow the content when it gets wider."""
        kind = None if event is None else event.type()
        if event is not None and kind == QEvent.Type.Wheel:
            if isinstance(watched, _WHEEL_WIDGETS) and not watched.hasFocus():
                event.ignore()
                return True
        elif kind == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def _with_bar(self, size: QSize) -> QSize:
        return size + QSize(self._bar.sizeHint().width(), 0)


class CollapsibleSection(QWidget):
    """A section that opens when its title is clicked; collapsed at first.

    Emits `toggled` with whether it is open now.

    Parameters
    ----------
    title
        Stands beside the arrow.
    content
        Shown while the section is open.
    """

    # Not superqt's QCollapsible: it fixes the height when it opens, so that content which grows
    # later is cut off, its collapsed widgets still take the focus by Tab, and its icons keep the
    # colour of the theme they were drawn in.

    toggled = Signal(bool)

    def __init__(self, title: str, content: QWidget) -> None:
        super().__init__()
        self._title, self._content = title, content
        self.button = QPushButton()
        self.button.setCheckable(True)
        self.button.setStyleSheet(
            "text-align: left; border: none; background: transparent; padding: 2px;"
        )
        vbox(self.button, content, owner=self)
        self.button.toggled.connect(self._show)
        self._show(False)

    @property
    def is_open(self) -> bool:
        """Whether the content is shown."""
        return bool(self.button.isChecked())

    def open(self, wanted: bool = True) -> None:
        """Open the section, or collapse it."""
        self.button.setChecked(wanted)

    def _show(self, wanted: bool) -> None:
        # The arrow is part of the text: an icon would keep the colour of the theme it was made in.
        self.button.setText(f"{'▾' if wanted else '▸'} {self._title}")
        self._content.setVisible(wanted)
        self.toggled.emit(wanted)


class WrappedLabel(QLabel):
    """Shows text in as many lines as the panel's width asks for; hidden without text.

    A long path in it does not make the panel wider, as it would in a QLabel: Qt wraps at spaces
    only.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setMinimumWidth(180)  # a QLabel's would be that of its longest word
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show a text."""
        text = text or ""
        for mark in "/\\_-":
            text = text.replace(mark, mark + _BREAK)
        super().setText(text)
        self.setVisible(bool(text))

    def clear(self) -> None:
        """Show nothing."""
        self.setText("")

    def text(self) -> str:
        """Return the text as it was given."""
        return super().text().replace(_BREAK, "")
