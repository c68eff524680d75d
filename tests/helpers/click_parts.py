"""A window with the Click panel, a hand at its mouse and keys, and the discs that it clicks on."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.gui.layers.convert import layer_stack

SHAPE = (120, 130)
DISCS = {1: (30, 30), 2: (30, 90), 3: (80, 60)}
LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton
NONE, CTRL = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier
ENTER, ESCAPE = Qt.Key.Key_Return, Qt.Key.Key_Escape


def disc(number, radius=10, shape=SHAPE):
    (cy, cx), (y, x) = DISCS[number], np.ogrid[: shape[0], : shape[1]]
    return (y - cy) ** 2 + (x - cx) ** 2 < radius**2


def picture():
    return np.any([disc(number) for number in DISCS], axis=0).astype(np.float32)


def iou(mask, truth):
    return np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth)


class Window:
    """A viewer with the panel open, and what a user does in it, in coordinates of the world."""

    def __init__(self, viewer, qtbot, image=None, **place):
        self.viewer, self.qtbot = viewer, qtbot
        self.panel = viewer.window.add_plugin_dock_widget("napari-unet", "Click")[1].click
        self.panel.model.value = "clicker"
        self.mode = self.panel.mode
        self.image = None if image is None else viewer.add_image(image, name="im", **place)
        self.canvas = viewer.window._qt_viewer.canvas.native
        self.home()

    def home(self):
        self.qtbot.wait(50)
        self.viewer.reset_view()

    @property
    def labels(self):
        return self.mode.target.layer

    @property
    def status(self):
        return self.panel.status.text()

    @property
    def preview(self):
        return self.viewer.layers["click"].data

    def start(self):
        self.panel.toggle_button.click()
        self.qtbot.waitUntil(lambda: self.mode.worker.session is not None, timeout=20_000)
        self.settle()
        return self

    def settle(self):
        self.qtbot.waitUntil(lambda: not self.mode.worker.busy, timeout=20_000)

    def click(self, y, x, held=NONE, button=LEFT):
        QTest.mouseClick(self.canvas, button, held, self.pixel(y, x))
        self.settle()

    def drag(self, *places, held=NONE):
        pixels = [self.pixel(*place) for place in places]
        QTest.mousePress(self.canvas, LEFT, held, pixels[0])
        for pixel in pixels[1:]:
            self._move(pixel, LEFT, held)
            self.qtbot.wait(15)  # napari, too, leaves out moves
        QTest.mouseRelease(self.canvas, LEFT, held, pixels[-1])
        self.settle()

    def move(self, y, x, held=NONE):
        self._move(self.pixel(y, x), Qt.MouseButton.NoButton, held)

    def key(self, key, held=NONE):
        self.key_on_canvas(key, held)
        self.settle()

    def key_on_canvas(self, key, held=NONE):
        QTest.keyClick(self.canvas, key, held)

    def undo(self):
        self.key(Qt.Key.Key_Z, CTRL)

    def redo(self):
        self.key(Qt.Key.Key_Z, CTRL | SHIFT)

    def history(self):
        """Return the edits that are in force in the journal of the image."""
        recording = self.panel.tracker.recordings[self.labels]
        assert recording.wait(10)
        with JournalReader(find_journals(layer_stack(self.image))[0].path) as journal:
            return journal.history()

    def pixel(self, y, x):
        camera, size = self.viewer.scene.camera, np.array(self.viewer.canvas.size)
        py, px = (np.array((y, x)) - camera.center[-2:]) * camera.zoom + size / 2
        return QPoint(round(px), round(py))

    def _move(self, pixel, button, held):
        self.canvas._last_time = 0  # vispy leaves out moves that follow each other quickly
        event = QMouseEvent(
            QEvent.Type.MouseMove, QPointF(pixel), QPointF(self.canvas.mapToGlobal(pixel)),
            Qt.MouseButton.NoButton, button, held,
        )  # fmt: skip
        QApplication.sendEvent(self.canvas, event)
