"""Click mode when its panel is closed or hidden, and when its labels get other data."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from click_parts import ENTER, Window, disc, iou, picture
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt

from napari_unet.gui.layers.result_info import RESULT_KEY


def keys(viewer):
    return [str(key) for key in viewer.keymap]


@pytest.mark.parametrize("how", ["closed", "hidden"])
def test_with_its_panel_click_mode_ends_and_the_object_at_hand_is_kept(window, qtbot, how):
    w = window(picture()).start()
    viewer, labels = w.viewer, w.labels
    w.click(30, 30)
    dock = w.panel.dock
    if how == "hidden":
        dock.hide()
    else:
        w.panel = w.mode = None  # napari, too, lets go of the panel
        viewer.window.remove_dock_widget(dock)
        del dock
        gc.collect()
    qtbot.waitUntil(lambda: "click" not in viewer.layers)
    assert iou(labels.data == 1, disc(1)) > 0.9
    assert viewer.layers.selection.active is labels and viewer.mouse_double_click_callbacks
    assert "C" not in keys(viewer) and "C" not in keys(w.image)
    w.key_on_canvas(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert not labels.data.any()  # the record goes on without the panel
    w.key_on_canvas(Qt.Key.Key_C)
    assert "click" not in viewer.layers

    if how == "hidden":
        dock.show()
    else:
        w = Window(viewer, qtbot)
        w.image = viewer.layers["im"]
    w.start()
    w.click(30, 90)
    w.key(ENTER)
    assert iou(labels.data == 1, disc(2)) > 0.9
    assert [edit.source for edit in w.history()] == ["click"]
    w.key(Qt.Key.Key_C)
    qtbot.waitUntil(lambda: not w.mode.on)


def test_with_its_panel_click_mode_ends_though_the_object_cannot_be_kept(window, qtbot):
    w = window(picture()).start()
    labels = w.labels
    w.click(30, 30)
    labels.metadata[RESULT_KEY]["running"] = True
    w.panel.dock.hide()
    qtbot.waitUntil(lambda: not w.mode.on)
    assert "Segment is writing" in notification_manager.records[-1].message
    assert "click" not in w.viewer.layers and not labels.data.any()


def test_a_panel_that_is_made_to_float_keeps_click_mode_on(window, qtbot):
    w = window(picture()).start()
    w.click(30, 30)
    for floating in (True, False):
        w.panel.dock.setFloating(floating)
        qtbot.wait(100)
        assert w.mode.on and w.mode.shown is not None


def test_esc_after_the_panel_was_closed_ends_click_mode(window, qtbot):
    w = window(picture()).start()
    w.click(30, 30)
    w.mode.stop(force=True)
    w.mode.drop()
    qtbot.waitUntil(lambda: not w.mode.on)
    assert "click" not in w.viewer.layers


def test_a_panel_behind_another_one_keeps_click_mode_on(window):
    w = window(picture()).start()
    w.viewer.window.add_plugin_dock_widget("napari-unet", "Measure", tabify=True)
    w.qtbot.wait(50)
    assert w.mode.on
    w.click(30, 30)
    w.key(ENTER)
    assert iou(w.labels.data == 1, disc(1)) > 0.9


def test_labels_that_are_full_are_converted_and_clicked_into_on(window):
    w = window(picture())
    data = np.zeros((120, 130), np.uint8)
    data.flat[:255] = np.arange(1, 256)
    labels = w.viewer.add_labels(data, name="full")
    w.start()
    w.click(30, 30)
    w.key(ENTER)
    assert "all of its 255 ids are taken" in w.status and w.mode.shown is not None
    labels.data = labels.data.astype(np.uint16)
    assert w.mode.on and w.status.startswith("New object")
    w.key(ENTER)
    assert iou(labels.data == 256, disc(1)) > 0.9
    w.undo()
    assert labels.data.max() == 255
    labels.data = np.zeros((60, 60), np.uint16)
    assert not w.mode.on and "other data" in w.status and "(120, 130)" in w.status


def test_labels_converted_while_the_model_is_loaded_are_clicked_into(window, qtbot):
    w = window(picture())
    labels = w.viewer.add_labels(np.zeros((120, 130), np.uint8), name="mine")
    w.panel.toggle_button.click()
    assert w.mode.worker.session is None
    labels.data = labels.data.astype(np.uint16)
    w.settle()
    w.click(30, 30)
    w.key(ENTER)
    assert w.mode.worker.session.labels is labels.data
    assert iou(labels.data == 1, disc(1)) > 0.9
