"""Sections that collapse, panels that scroll, text that wraps; no window is needed."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QEvent, QObject, QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDockWidget,
    QLabel,
    QMainWindow,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_unet.gui.widgets.button_rows import ButtonRows, split_rows
from napari_unet.gui.widgets.dock import DockPanel
from napari_unet.gui.widgets.panel import CollapsibleSection, ScrollPanel, WrappedLabel, vbox


@pytest.fixture
def content(qtbot):
    """A number, a choice, and a fold with much in it."""
    inside = QWidget()
    layout = QVBoxLayout(inside)
    box, choice, long = QSpinBox(), QComboBox(), QLabel("line\n" * 60)
    choice.addItems(["a", "b", "c"])
    fold = CollapsibleSection("More", long)
    for widget in (box, choice, fold):
        layout.addWidget(widget)
    return inside, box, choice, fold


def wheel(widget: QWidget) -> bool:
    """Turn the wheel over a widget; return whether it took the event, or left it to its parent."""
    at = QPointF(widget.rect().center())
    event = QWheelEvent(
        at, QPointF(widget.mapToGlobal(at.toPoint())), QPoint(), QPoint(0, -120),
        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase,
        False,
    )  # fmt: skip
    QApplication.sendEvent(widget, event)
    return bool(event.isAccepted())


def test_a_fold_opens_and_closes(qtbot):
    text = QLabel("inside")
    fold = CollapsibleSection("More", text)
    qtbot.addWidget(fold)
    fold.show()
    told = []
    fold.toggled.connect(told.append)
    assert not fold.is_open and not text.isVisible() and fold.button.text() == "▸ More"
    fold.button.click()
    assert fold.is_open and text.isVisible() and fold.button.text() == "▾ More"
    text.setText("many\nmore\nlines")
    qtbot.waitUntil(lambda: text.height() >= text.sizeHint().height())
    fold.open(False)
    assert not text.isVisible() and told == [True, False]


def test_a_low_panel_scrolls(qtbot, content):
    inside, *_, fold = content
    area = ScrollPanel(inside)
    qtbot.addWidget(area)
    area.resize(area.minimumSizeHint().width(), 200)
    area.show()
    qtbot.waitExposed(area)
    assert not area.verticalScrollBar().isVisible()
    fold.open()
    qtbot.waitUntil(area.verticalScrollBar().isVisible)
    assert inside.height() > 600 and area.height() == 200
    assert inside.width() >= inside.minimumSizeHint().width(), "nothing is cut off at the side"
    assert not area.horizontalScrollBar().isVisible()


def test_what_is_opened_comes_into_view_and_texts_that_wrap_are_whole(qtbot):
    inside = QWidget()
    layout = QVBoxLayout(inside)
    text = WrappedLabel("word " * 80)
    fold = CollapsibleSection("More", text)
    for widget in (*(QPushButton("x") for _ in range(7)), fold):
        layout.addWidget(widget)
    area = ScrollPanel(inside)
    qtbot.addWidget(area)
    area.resize(200, 260)
    area.show()
    qtbot.waitExposed(area)
    assert area.verticalScrollBar().value() == 0
    fold.button.click()
    qtbot.waitUntil(lambda: area.verticalScrollBar().value() > 0)
    assert fold.button.mapTo(area, QPoint()).y() >= 0, "the title stays in view"
    assert text.height() >= text.heightForWidth(text.width()) > 200
    buttons = inside.findChildren(QPushButton)
    assert all(button.height() >= button.minimumSizeHint().height() for button in buttons)


def test_buttons_fill_few_rows(qtbot):
    assert split_rows([10] * 7, 1000) == [7]
    assert split_rows([10] * 7, 45) == [4, 3]
    assert split_rows([10] * 7, 30) == [3, 2, 2]
    assert split_rows([50, 10, 10], 30) == [1, 1, 1]
    buttons = [QPushButton(f"button {number}") for number in range(4)]
    rows = ButtonRows(buttons)
    qtbot.addWidget(rows)
    rows.resize(1000, 30)
    rows.show()
    assert len({button.y() for button in buttons}) == 1
    rows.resize(200, 60)
    qtbot.waitUntil(lambda: buttons[0].y() == buttons[1].y() < buttons[2].y() == buttons[3].y())
    assert buttons[3].geometry().right() >= 197 and rows.minimumSizeHint().width() < 40


def test_a_width_that_was_asked_for_is_kept_beside_the_bar(qtbot, content):
    inside, *_, fold = content
    inside.setMinimumWidth(inside.minimumSizeHint().width() + 100)
    area = ScrollPanel(inside)
    qtbot.addWidget(area)
    area.resize(area.minimumSizeHint().width(), 200)
    area.show()
    fold.open()
    qtbot.waitUntil(area.verticalScrollBar().isVisible)
    assert inside.width() <= area.viewport().width(), "nothing lies under the bar"
    assert area.sizeHint().width() >= area.minimumSizeHint().width()


def test_the_wheel_scrolls_and_changes_nothing(qtbot, content):
    inside, box, choice, fold = content
    area = ScrollPanel(inside)
    qtbot.addWidget(area)
    area.resize(300, 200)
    area.show()
    qtbot.waitExposed(area)
    fold.open()
    qtbot.waitUntil(area.verticalScrollBar().isVisible)
    area.setFocus()
    box.setValue(5)
    for widget in (box, choice):
        assert not widget.hasFocus()
        assert not wheel(widget)
    assert box.value() == 5 and choice.currentIndex() == 0
    assert wheel(area.viewport()) and area.verticalScrollBar().value() > 0


def test_a_box_with_focus_takes_the_wheel(qtbot, content):
    inside, box, *_ = content
    area = ScrollPanel(inside)
    qtbot.addWidget(area)
    area.show()
    area.activateWindow()
    box.setValue(5)
    box.setFocus()
    qtbot.waitUntil(box.hasFocus)
    assert wheel(box)
    assert box.value() == 4


def test_a_long_path_does_not_widen_the_panel(qtbot):
    label = WrappedLabel()
    qtbot.addWidget(label)
    assert label.isHidden()
    text = "Exported to /home/" + "a_long-name/" * 30 + "."
    label.setText(text)
    assert label.text() == text
    assert not label.isHidden()
    assert label.minimumWidth() == 120
    assert label.heightForWidth(200) > 3 * label.fontMetrics().height()
    label.clear()
    assert label.text() == "" and label.isHidden()


class Asked(QObject):
    """Counts how often a widget is asked to be laid out or drawn anew."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__()
        self.kinds = []
        widget.installEventFilter(self)

    def eventFilter(self, _, event):
        if event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.UpdateRequest):
            self.kinds.append(event.type())
        return False


def test_a_text_in_the_panel_is_drawn_once_and_does_not_lay_out_the_window(qtbot):
    window, panel, label = QMainWindow(), DockPanel(lambda: None), WrappedLabel("100 px, 1 click")
    qtbot.addWidget(window)
    footer = QWidget()
    vbox(label, owner=footer)
    vbox(QPushButton("Run"), footer, owner=panel.content)
    dock = QDockWidget("panel")
    dock.setWidget(panel)
    window.setCentralWidget(QLabel("image"))
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    window.resize(500, 300)
    window.show()
    qtbot.waitExposed(window)
    qtbot.wait(50)
    asked = Asked(window)
    label.setText("200 px, 2 clicks")
    qtbot.wait(50)
    assert asked.kinds == [QEvent.Type.UpdateRequest]
    height = label.height()
    label.setText("many lines<br>" * 40)
    qtbot.wait(50)
    assert QEvent.Type.LayoutRequest in asked.kinds, "it needs more room than there was"
    assert label.height() > height and panel.content.size() == panel.size()
    assert panel.height() >= label.heightForWidth(label.width())
