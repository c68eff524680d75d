"""The Click panel in a real window: clicks, keys and boxes, and the labels that come of them."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_unet.core.journal.begin import find_journals
from napari_unet.core.journal.view import JournalView
from napari_unet.gui.layers import layer_stack
from napari_unet.nn.model import save_model

SHAPE = (120, 130)
DISCS = {1: (30, 30), 2: (30, 90), 3: (80, 60)}
LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton
NONE, CTRL = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier


def disc(number, shape=SHAPE, radius=10):
    (cy, cx), (y, x) = DISCS[number], np.ogrid[: shape[0], : shape[1]]
    return (y - cy) ** 2 + (x - cx) ** 2 < radius**2


def picture():
    return np.any([disc(number) for number in DISCS], axis=0).astype(np.float32)


def iou(mask, truth):
    return np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)


class Hand:
    """A user: what the mouse and the keys do on the canvas, in coordinates of the world."""

    def __init__(self, viewer, qtbot):
        self.viewer, self.qtbot = viewer, qtbot
        self.canvas = viewer.window._qt_viewer.canvas.native

    def pixel(self, y, x):
        camera, size = self.viewer.scene.camera, np.array(self.viewer.canvas.size)
        py, px = (np.array((y, x)) - camera.center[-2:]) * camera.zoom + size / 2
        return QPoint(round(px), round(py))

    def click(self, y, x, held=NONE, button=LEFT):
        QTest.mouseClick(self.canvas, button, held, self.pixel(y, x))

    def drag(self, *places, held=NONE):
        pixels = [self.pixel(*place) for place in places]
        QTest.mousePress(self.canvas, LEFT, held, pixels[0])
        for pixel in pixels[1:]:
            self._move(pixel, LEFT, held)
        QTest.mouseRelease(self.canvas, LEFT, held, pixels[-1])

    def move(self, y, x, held=NONE):
        self._move(self.pixel(y, x), Qt.MouseButton.NoButton, held)

    def key(self, key, held=NONE):
        QTest.keyClick(self.canvas, key, held)

    def _move(self, pixel, button, held):
        self.canvas._last_time = 0  # vispy leaves out moves that follow each other quickly
        event = QMouseEvent(
            QEvent.Type.MouseMove, QPointF(pixel), QPointF(self.canvas.mapToGlobal(pixel)),
            Qt.MouseButton.NoButton, button, held,
        )  # fmt: skip
        QApplication.sendEvent(self.canvas, event)


@pytest.fixture
def clicker(clicking_model, home):
    """A model with a click head in the store."""
    model = clicking_model(name="clicker")
    save_model(model, "clicker")
    return model


class Window:
    """A viewer with the panel open."""

    def __init__(self, viewer, qtbot, image=None, **place):
        self.viewer, self.qtbot = viewer, qtbot
        _, self.panel = viewer.window.add_plugin_dock_widget("napari-unet", "Click")
        if image is not None:
            self.image = viewer.add_image(image, name="im", **place)
        self.hand = Hand(viewer, qtbot)
        qtbot.wait(50)
        viewer.reset_view()

    @property
    def mode(self):
        return self.panel.mode

    @property
    def labels(self):
        return self.mode.target.layer

    def start(self):
        self.panel.toggle_button.click()
        self.qtbot.waitUntil(lambda: self.mode.work.session is not None)
        self.settle()
        return self

    def settle(self):
        self.qtbot.waitUntil(lambda: not self.mode.work.busy)


@pytest.fixture
def window(make_napari_viewer, clicker, qtbot):
    def opened(image=None, **place):
        return Window(make_napari_viewer(show=True), qtbot, image, **place)

    return opened


def test_from_a_click_to_an_object_in_the_labels_and_back(window):
    w = window(picture(), scale=(2, 3), translate=(7, -5)).start()
    hand, labels = w.hand, w.labels
    assert labels.name == "im clicks" and not labels.data.any()
    at = lambda y, x: (7 + 2 * y, -5 + 3 * x)  # noqa: E731
    hand.click(*at(28, 33))
    w.settle()
    assert w.mode.shown is not None
    assert "New object" in w.panel.status.text()
    hand.key(Qt.Key.Key_Return)
    w.settle()
    assert iou(labels.data == 1, disc(1)) > 0.9
    hand.key(Qt.Key.Key_Z, CTRL)
    w.settle()
    assert not labels.data.any()
    hand.key(Qt.Key.Key_Z, CTRL | SHIFT)
    w.settle()
    assert iou(labels.data == 1, disc(1)) > 0.9
