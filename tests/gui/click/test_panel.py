"""The Click panel in a real window: clicks, keys and boxes, and the resulting labels."""

from __future__ import annotations

from collections import Counter

import numpy as np
from click_parts import CTRL, ENTER, ESCAPE, LEFT, NONE, RIGHT, SHIFT, disc, iou, picture
from qtpy.QtCore import QEvent, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.annotations.mask import read_annotation_mask
from napari_unet.gui.layers.convert import layer_stack
from napari_unet.gui.model_events import get_model_events
from napari_unet.nn.inference.model import save_model


def test_a_click_becomes_an_object_of_scaled_and_shifted_labels_and_is_taken_back(window):
    w = window(picture(), scale=(2, 3), translate=(7, -5)).start()
    labels = w.labels
    assert labels.name == "im clicks" and labels.data.dtype == np.uint16 and not labels.data.any()
    w.click(7 + 2 * 28, -5 + 3 * 33)
    assert w.status.startswith("New object: ") and "1 click." in w.status
    assert iou(w.preview > 0, disc(1)) > 0.9
    w.key(ENTER)
    assert iou(labels.data == 1, disc(1)) > 0.9
    assert w.status == "Object 1 added." and not w.preview.any()
    w.undo()
    assert not labels.data.any()
    w.redo()
    assert iou(labels.data == 1, disc(1)) > 0.9
    w.panel.toggle_button.click()
    assert not w.mode.on and "click" not in w.viewer.layers
    assert w.viewer.layers.selection.active is labels


def test_a_click_draws_its_part_of_the_overlay_once_and_refreshes_no_layer(window):
    w = window(picture()).start()
    counts, sizes = Counter(), []
    overlay = w.viewer.layers["click"]
    overlay.events.labels_update.connect(lambda event: sizes.append(event.data.size))
    for layer in w.viewer.layers:
        for kind in ("set_data", "thumbnail"):
            layer.events[kind].connect(lambda event: counts.update([event.type]))
    texts = []
    w.mode.changed.connect(lambda: texts.append(w.status))
    for number, place in enumerate(((30, 30), (30, 38)), 1):
        w.click(*place)
        assert len(sizes) == number and sizes[-1] < 30 * 30 and not counts
        assert len(texts) <= 3 * number
    assert len(set(texts)) <= 4, "each text is drawn by drawing the whole window"


def test_ctrl_click_takes_away_and_ctrl_z_takes_back_one_click(window):
    w = window(picture()).start()
    w.click(30, 30)
    whole = w.preview > 0
    for away in (lambda: w.click(30, 38, held=CTRL), lambda: w.click(30, 38, button=RIGHT)):
        away()
        assert np.count_nonzero(w.mode.worker.session.mask) < np.count_nonzero(whole)
        w.undo()
        assert np.array_equal(w.preview > 0, whole)
    w.panel.take_away.click()
    w.click(30, 38)
    less = w.mode.worker.session.mask
    assert not less[30, 38]
    w.undo()
    w.redo()
    assert np.array_equal(w.mode.worker.session.mask, less)
    w.panel.add.click()
    w.undo()
    w.undo()
    assert w.mode.shown is None
    w.undo()
    assert w.status == "There is nothing to undo."
    w.click(30, 30)
    w.key(ESCAPE)
    assert w.mode.shown is None and not w.preview.any() and not w.labels.data.any()


def test_a_click_on_another_object_keeps_the_first(window):
    w = window(picture()).start()
    w.click(30, 30)
    w.click(30, 90)
    assert iou(w.labels.data == 1, disc(1)) > 0.9
    assert iou(w.mode.worker.session.mask, disc(2)) > 0.9
    assert "Object 1 added." in w.status
    w.click(80, 60, held=SHIFT)  # joined to the second, though it lies apart
    w.key(ENTER)
    assert iou(w.labels.data == 2, disc(2) | disc(3)) > 0.9
    assert w.labels.data.max() == 2


def test_an_object_that_is_there_is_refined_and_keeps_its_id(window):
    w = window(picture())
    data = np.zeros((120, 130), np.uint16)
    data[20:30, 20:34] = 4
    data[25:35, 86:95] = 7
    labels = w.viewer.add_labels(data, name="mine")
    w.start()
    assert w.labels is labels and w.viewer.layers.selection.active.name == "click"
    w.click(25, 25)
    assert w.status.startswith("Object 4: 140 px.")
    w.click(34, 30)
    w.click(30, 90)  # on another object of the labels
    assert iou(labels.data == 4, disc(1)) > 0.8
    assert w.status.startswith("Object 7: 90 px.")
    w.key(ESCAPE)
    assert set(np.unique(labels.data)) == {0, 4, 7}
    assert [edit.source for edit in w.history()] == ["refine"]


def test_dragging_moves_the_view_and_shift_dragging_draws_a_box(window, qtbot):
    w = window(picture()).start()
    camera = w.viewer.scene.camera
    before = np.array(camera.center)
    w.drag((60, 60), (65, 70), (70, 80))
    qtbot.waitUntil(lambda: np.abs(np.array(camera.center) - before).max() > 5)
    assert w.mode.shown is None
    before = np.array(w.viewer.scene.camera.center)
    w.drag((18, 18), (30, 30), (42, 42), held=SHIFT)
    assert np.array_equal(w.viewer.scene.camera.center, before)
    assert iou(w.mode.worker.session.mask, disc(1)) > 0.8
    assert not w.mode.shown.clicks.clicks
    w.click(30, 30)
    w.key(ENTER)
    assert iou(w.labels.data == 1, disc(1)) > 0.9
    w.drag((74, 60), (80, 60), (86, 60), held=CTRL | SHIFT)
    assert np.array_equal(w.viewer.scene.camera.center, before)
    assert iou(w.mode.worker.session.mask, disc(3)) > 0.9
    assert 1 < len(w.mode.shown.clicks) <= 6, "a stroke along the object"


def test_the_mask_under_the_cursor_is_shown_unless_that_is_off(window, qtbot):
    w = window(picture()).start()
    w.move(31, 31)
    qtbot.waitUntil(lambda: iou(w.preview > 0, disc(1)) > 0.9)
    w.move(30, 92)
    qtbot.waitUntil(lambda: iou(w.preview > 0, disc(2)) > 0.9)
    assert w.mode.shown is None and not w.labels.data.any()
    w.click(30, 92)
    w.move(30, 98, held=CTRL)
    qtbot.waitUntil(lambda: 3 in w.preview)  # what would be lost
    w.move(30, 30)
    qtbot.waitUntil(lambda: iou(w.preview > 0, disc(1) | disc(2)) > 0.9)
    w.key(ESCAPE)
    w.panel.settings.settings["hover"].widget.value = False
    assert not w.preview.any()
    w.move(31, 31)
    qtbot.wait(150)
    assert not w.preview.any()


def test_split_merge_and_delete_are_one_entry_and_one_undo_each(window):
    w = window(picture())
    data = np.zeros((120, 130), np.uint16)
    data[20:40, 20:40] = data[20:40, 50:70] = 3
    data[28:32, 40:50] = 3  # two squares and a bridge
    data[80:90, 80:90] = 5
    labels = w.viewer.add_labels(data.copy(), name="mine")
    w.start()
    w.key(Qt.Key.Key_S)
    assert "part" in w.status and w.panel.edits["split"].isChecked()
    w.click(25, 25)
    w.click(35, 65)
    assert w.status == "Split; the new part is object 6."
    assert labels.data[25, 25] == 3 and (labels.data[20:40, 50:70] == 6).all()
    split = labels.data.copy()
    w.key(Qt.Key.Key_M)
    w.click(85, 85)
    w.click(35, 65)
    assert labels.data[35, 65] == 5 and 6 not in labels.data
    merged = labels.data.copy()
    w.move(85, 85)
    w.key(Qt.Key.Key_D)
    assert labels.data[85, 85] == 0 and labels.data[35, 65] == 5
    assert [edit.source for edit in w.history()] == ["split", "merge", "delete"]
    for earlier in (merged, split, data):
        w.undo()
        assert np.array_equal(labels.data, earlier)
    w.redo()
    assert np.array_equal(labels.data, split)
    w.key(Qt.Key.Key_M)
    w.key(ESCAPE)
    assert w.mode.edits.edit is None
    w.key(Qt.Key.Key_S)
    w.click(25, 25)
    w.click(85, 85)
    assert "do not divide one object" in w.status
    assert np.array_equal(labels.data, split)


def test_clicks_are_in_the_journal_teach_the_model_and_come_back(window, qtbot, make_napari_viewer):
    w = window(picture()).start()
    w.click(28, 33)
    w.click(30, 42, held=CTRL)
    w.key(ENTER)
    w.click(30, 90)
    w.key(ENTER)
    w.click(80, 60)
    w.panel.toggle_button.click()  # what is at hand is kept
    qtbot.waitUntil(lambda: not w.mode.on)
    left = next(x for x in w.viewer.layers if x.name == "im clicks")
    assert w.panel.tracker.recordings[left].wait(10)
    data = left.data.copy()
    assert data.max() == 3
    with JournalReader(find_journals(layer_stack(w.image))[0].path) as journal:
        about, edits, known = journal.header, journal.history(), read_annotation_mask(journal).known
    assert (about.model, about.ndim, about.head) == ("clicker", 2, "instance")
    assert [edit.source for edit in edits] == ["click"] * 3
    signs = [[sign for _, sign in edit.clicks] for edit in edits]
    assert signs == [[True, False], [True], [True]]
    assert np.allclose(edits[0].clicks[0][0], (28, 33), atol=1)
    assert known[data > 0].all() and not known.all()
    image = w.image.data
    w.viewer.close()
    viewer = make_napari_viewer()
    _, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Correct and fine-tune")
    viewer.add_image(image, name="other")
    qtbot.waitUntil(lambda: panel.correct.restore_row.offer is not None)
    panel.correct.restore_row.button.click()
    qtbot.waitUntil(lambda: panel.correct.labels.value is not None)
    assert np.array_equal(panel.correct.labels.value.data, data)


def test_redo_leaves_the_object_at_hand_alone(window):
    w = window(picture()).start()
    w.click(30, 30)
    w.key(ENTER)
    w.undo()
    w.click(30, 90)
    w.redo()
    assert w.status.endswith("There is nothing to redo.")
    assert iou(w.mode.worker.session.mask, disc(2)) > 0.9 and not w.labels.data.any()
    w.key(ESCAPE)
    w.redo()
    assert w.mode.shown is None and iou(w.labels.data == 1, disc(1)) > 0.9


def test_clicks_that_follow_each_other_quickly_are_those_of_their_button(window):
    w = window(picture()).start()
    w.click(30, 30)
    for button, held in (
        (Qt.MouseButton.MiddleButton, NONE),
        (LEFT, Qt.KeyboardModifier.AltModifier),
    ):
        QTest.mouseDClick(w.canvas, button, held, w.pixel(30, 24))
    w.settle()
    assert len(w.mode.shown.clicks) == 1
    QTest.mouseDClick(w.canvas, RIGHT, NONE, w.pixel(30, 38))
    w.settle()
    assert [click.positive for click in w.mode.shown.clicks.clicks] == [True, False]


def test_an_object_that_loses_all_its_pixels_keeps_its_place_in_the_labels(window):
    w = window(picture())
    data = np.zeros((120, 130), np.uint16)
    data[29:32, 29:32] = 4
    labels = w.viewer.add_labels(data.copy(), name="mine")
    w.start()
    w.click(30, 30)
    w.key(ENTER)
    assert w.status == "Object 4 stays as it was."
    w.click(30, 30, held=CTRL)
    assert w.status.startswith("Nothing is left of object 4") and w.mode.shown is None
    w.undo()
    assert w.status.startswith("Object 4: 9 px")
    w.redo()
    w.click(30, 90)
    w.key(ENTER)
    assert iou(labels.data == 5, disc(2)) > 0.9
    assert np.array_equal(labels.data == 4, data == 4)
    w.drag((5, 50), (8, 55), (12, 62), held=SHIFT)
    assert w.status.startswith("Nothing that is free was found in the box")
    w.click(80, 60, held=CTRL)
    assert "first click must be on the object" in w.status
    w.click(80, 60)
    assert iou(w.mode.worker.session.mask, disc(3)) > 0.9


def test_what_is_clicked_while_the_model_is_loaded_comes_next(window, qtbot):
    w = window(picture())
    w.panel.toggle_button.click()
    QTest.mouseClick(w.canvas, LEFT, NONE, w.pixel(30, 30))
    assert w.mode.worker.session is None
    w.settle()
    assert iou(w.mode.worker.session.mask, disc(1)) > 0.9
    QTest.mouseClick(w.canvas, LEFT, NONE, w.pixel(30, 90))
    labels = w.labels
    w.panel.toggle_button.click()  # before the answer
    qtbot.waitUntil(lambda: not w.mode.on)
    assert iou(labels.data == 1, disc(1)) > 0.9 and iou(labels.data == 2, disc(2)) > 0.9
    w.panel.toggle_button.click()
    assert w.mode.on and w.mode.worker.session is None
    w.panel.toggle_button.click()
    assert not w.mode.on


def test_the_preview_goes_with_the_cursor(window, qtbot):
    w = window(picture()).start()
    w.viewer.mouse_over_canvas = True
    w.move(31, 31)
    qtbot.waitUntil(w.preview.any)
    w.click(30, 30)
    w.move(30, 92)
    qtbot.waitUntil(lambda: iou(w.preview > 0, disc(1) | disc(2)) > 0.9)
    QApplication.sendEvent(w.canvas, QEvent(QEvent.Type.Leave))
    assert w.viewer.mouse_over_canvas is False
    assert iou(w.preview > 0, disc(1)) > 0.9


def test_a_model_that_was_tuned_meanwhile_answers_the_next_time(window, clicking_model):
    w = window(picture()).start()
    save_model(clicking_model(name="tuned"), "tuned")
    get_model_events().changed.emit()
    get_model_events().chosen.emit("tuned")
    assert w.panel.model.value == "tuned" and w.mode.worker.session.model.name == "clicker"
    assert w.status == "tuned will answer when Click is turned off and on again."
    w.panel.toggle_button.click()
    w.settle()
    assert w.panel.model.value == "tuned"
    w.start()
    assert w.mode.worker.session.model.name == "tuned"


def test_an_object_is_kept_in_labels_that_are_hidden_and_were_never_drawn(window):
    w = window(picture())
    labels = w.viewer.add_labels(np.zeros((120, 130), np.uint16), name="mine", visible=False)
    w.start()
    assert w.labels is labels
    w.click(30, 30)
    w.key(ENTER)
    assert w.status == "Object 1 added." and iou(labels.data == 1, disc(1)) > 0.9
    w.undo()
    assert not labels.data.any()
