"""Room in a panel: sections that fold away, and a panel that scrolls when its window is low."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QFrame,
    QPushButton,
    QScrollArea,
    QScrollBar,
    QVBoxLayout,
    QWidget,
)

from napari_unet.gui.widgets.settings_form import remember, remembered

_LOWEST = 160  # pixels: the least height of a panel that scrolls
_TURNED = (QAbstractSpinBox, QComboBox)  # what the wheel turns


class CollapsibleSection(QWidget):
    """A section that opens when its title is clicked; folded at first.

    Emits `toggled` with whether it is open now.

    Parameters
    ----------
    title
        What stands beside the arrow.
    content
        What is folded away.
    memory
        A name under which nothing else is remembered: in the next session the section is open if
        it was at the end of this one. Empty: it begins folded.
    """

    toggled = Signal(bool)

    def __init__(self, title: str, content: QWidget, memory: str = "") -> None:
        super().__init__()
        self._title, self._content, self._memory = title, content, memory
        self.button = QPushButton()
        self.button.setCheckable(True)
        self.button.setStyleSheet(
            "text-align: left; border: none; background: transparent; padding: 2px;"
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)
        layout.addWidget(content)
        self.button.toggled.connect(self._show)
        self._show(False)
        self.open(bool(memory) and remembered(memory).get("open") is True)
        self.toggled.connect(self._remember)

    @property
    def is_open(self) -> bool:
        """Whether the content is shown."""
        return bool(self.button.isChecked())

    def open(self, wanted: bool = True) -> None:
        """Open the section, or fold it."""
        self.button.setChecked(wanted)

    def _show(self, wanted: bool) -> None:
        # The arrow is part of the text: an icon would keep the colour of the theme it was made in.
        self.button.setText(f"{'▾' if wanted else '▸'} {self._title}")
        self._content.setVisible(wanted)
        self.toggled.emit(wanted)

    def _remember(self, is_open: bool) -> None:
        if self._memory:
            remember(self._memory, {"open": is_open})


class ScrollPanel(QScrollArea):
    """Shows a widget at its full width and scrolls it where there is no room for its height.

    The wheel scrolls: it turns the number or choice under the mouse only when that was clicked
    before.
    """

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self._content, self._bar = content, QScrollBar(Qt.Orientation.Vertical)
        self.setVerticalScrollBar(self._bar)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidgetResizable(True)
        self.setWidget(content)
        for kind in _TURNED:
            for box in content.findChildren(kind):
                box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                box.installEventFilter(self)

    def sizeHint(self) -> QSize:
        """Return the content's, with room for the bar."""
        return self._with_bar(self._content.sizeHint().expandedTo(self._content.minimumSize()))

    def minimumSizeHint(self) -> QSize:
        """Return the content's width, and a height at which scrolling still makes sense."""
        least = self._content.minimumSizeHint().expandedTo(self._content.minimumSize())
        return self._with_bar(least).boundedTo(QSize(10_000, _LOWEST))

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Keep the wheel from boxes without focus; follow the content when it gets wider."""
        kind = None if event is None else event.type()
        if event is not None and kind == QEvent.Type.Wheel:
            if isinstance(watched, _TURNED) and not watched.hasFocus():
                event.ignore()
                return True
        elif kind == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def _with_bar(self, size: QSize) -> QSize:
        return size + QSize(self._bar.sizeHint().width(), 0)
