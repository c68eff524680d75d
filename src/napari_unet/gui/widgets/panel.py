"""What the panel is made of: rows and columns, scrolling, sections that fold, text that wraps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QPoint, QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QBoxLayout,
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QScrollBar,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolTip,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from qtpy.QtGui import QResizeEvent

Margins = tuple[int, int, int, int]
_NO_MARGINS: Margins = (0, 0, 0, 0)
_MIN_HEIGHT = 80  # pixels: a panel that scrolls still shows two rows of its form
_WHEEL_WIDGETS = (QAbstractSpinBox, QComboBox)  # the wheel changes their value
_LEAST_LETTERS, _LEAST_BOX = 4, 48  # a box may be so narrow, in letters and in pixels
_ELIDES = "napari-unet elides"
_COMBO_STYLE = "QComboBox { padding: 3px 2px 3px 6px; } QComboBox::drop-down { width: 18px; }"
"""napari's own leaves half of a narrow box empty."""
_BREAK = "\u200b"  # zero-width space: Qt may break the line here


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
        make_narrow(content)
        for kind in _WHEEL_WIDGETS:
            for box in content.findChildren(kind):
                box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                box.installEventFilter(self)
        self._opened: CollapsibleSection | None = None
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self._show_opened)
        for section in content.findChildren(CollapsibleSection):
            section.toggled.connect(self._section_toggled)

    def _section_toggled(self, opened: bool) -> None:
        """Scroll to what is opened, once it has its height: it may lie below what is in view."""
        section = self.sender()
        if opened and isinstance(section, CollapsibleSection) and section.isVisible():
            self._opened = section
            self._later.start()

    def _show_opened(self) -> None:
        section, self._opened = self._opened, None
        if section is not None:
            top = section.mapTo(self._content, QPoint()).y()
            below = top + section.height() - self._view_height()
            # As far down as its end, but never past its title.
            self._bar.setValue(min(top, max(self._bar.value(), below)))

    def _view_height(self) -> int:
        view = self.viewport()
        return 0 if view is None else view.height()

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
            self._keep_height()
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the content as high as its wrapped texts need at this width."""
        super().resizeEvent(event)
        self._keep_height()

    def _keep_height(self) -> None:
        """Keep the content from being squeezed: Qt forgets here that texts wrap."""
        view, layout = self.viewport(), self._content.layout()
        if view is None or layout is None:
            return
        wraps = layout.hasHeightForWidth()
        needed = layout.minimumHeightForWidth(view.width()) if wraps else 0
        if needed != self._content.minimumHeight():
            self._content.setMinimumHeight(needed)

    def _with_bar(self, size: QSize) -> QSize:
        return size + QSize(self._bar.sizeHint().width(), 0)


def make_narrow(content: QWidget) -> None:
    """Let the boxes in a widget be narrower than what they show; a combo box elides its text."""
    for box in content.findChildren(QComboBox):
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(_LEAST_LETTERS)
        box.setStyleSheet(_COMBO_STYLE)
        box.setMinimumWidth(_LEAST_BOX)
        box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        if box.property(_ELIDES) is None:
            box.setProperty(_ELIDES, True)
            box.installEventFilter(_ComboEliding(box))
    for field in (*content.findChildren(QAbstractSpinBox), *content.findChildren(QLineEdit)):
        field.setMinimumWidth(_LEAST_BOX)


class _ComboEliding(QObject):
    """Paints a combo box with the middle of a long text left out; its tooltip has all of it.

    Qt cuts the text at the edge of the box, where the names of layers differ.
    """

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Paint the box, or show its tooltip."""
        if event is None or not isinstance(watched, QComboBox):
            return False
        if event.type() == QEvent.Type.Paint:
            _paint_elided(watched)
            return True
        if event.type() == QEvent.Type.ToolTip and (position := getattr(event, "globalPos", None)):
            text = watched.currentText()
            room = watched.width() - 2 * watched.height()  # what is left beside the arrow
            if watched.fontMetrics().horizontalAdvance(text) > room:
                QToolTip.showText(position(), "\n".join(filter(None, (text, watched.toolTip()))))
                return True
        return False


def _paint_elided(box: QComboBox) -> None:
    option = QStyleOptionComboBox()
    box.initStyleOption(option)
    painter = QStylePainter(box)
    painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
    style = box.style()
    if style is not None:
        field = style.subControlRect(
            QStyle.ComplexControl.CC_ComboBox,
            option,
            QStyle.SubControl.SC_ComboBoxEditField,
            box,
        )
        middle = Qt.TextElideMode.ElideMiddle
        option.currentText = box.fontMetrics().elidedText(
            option.currentText, middle, field.width() - 4
        )
    painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
    painter.end()


def ignore_double_clicks(button: QPushButton) -> None:
    """Take a double click for one: its second press would be of what the first has made of it."""
    button.installEventFilter(_DoubleClickFilter(button))


class _DoubleClickFilter(QObject):
    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Drop the second press of a double click."""
        return event is not None and event.type() == QEvent.Type.MouseButtonDblClick


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
        self.setMinimumWidth(120)  # a QLabel's would be that of its longest word
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show a text."""
        text = text or ""
        for mark in "" if "<" in text else "/\\_-":  # not inside the marks of rich text
            text = text.replace(mark, mark + _BREAK)
        super().setText(text)
        self.setVisible(bool(text))
        if self.isVisible():
            _lay_out_holders(self)

    def clear(self) -> None:
        """Show nothing."""
        self.setText("")

    def text(self) -> str:
        """Return the text as it was given."""
        return super().text().replace(_BREAK, "")


def _lay_out_holders(widget: QWidget) -> None:
    """Lay out at once what holds a widget that has changed.

    Left to Qt, it is done layout by layout, and the whole window is drawn each time: with software
    OpenGL that takes 16 ms.
    """
    holder = widget.parentWidget()
    while holder is not None and (layout := holder.layout()) is not None:
        layout.activate()
        holder = holder.parentWidget()
