"""The panel "Correct and fine-tune" in a real window: recording, restoring, mask and list."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.layers import Shapes
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_unet.core.annotations.edits import KNOWN, UNKNOWN
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.store import list_models
from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.correct.restore_row import describe_time
from napari_unet.gui.layers.convert import layer_stack
from napari_unet.gui.layers.result_info import RESULT_KEY, ResultInfo, is_unedited
from napari_unet.gui.panel import LEAST_WIDTH

SHAPE = (40, 60)
VALUES = np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)


def objects(shape=SHAPE):
    data = np.zeros(shape, np.uint16)
    data[..., 4:12, 4:12] = 1
    data[..., 20:30, 30:44] = 2
    return data


def segmented(viewer, image, data, **place):
    """Add labels as a run of Segment leaves them."""
    card = next(entry.card for entry in list_models() if entry.name == "cells")
    provenance = {"model": "cells", "model_hash": card.hash, "object_axes": "YX"}
    base = f"{image.name} cells"
    mark = {
        "base": base,
        "runs": [provenance],
        "passport": provenance,
        "image": str(image.unique_id),
    }
    return viewer.add_labels(data, name=base, metadata={RESULT_KEY: mark}, **place)


def stroke(layer, *points, label=7):
    layer.brush_size = 4
    with layer.block_history():
        for point in points:
            layer.paint(point, label)


def opened(make_napari_viewer, show=False):
    viewer = make_napari_viewer(show=show)
    _, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Correct and fine-tune")
    return viewer, panel.correct


@pytest.fixture
def window(make_napari_viewer, models):
    return opened(make_napari_viewer)


def saved(section, qtbot):
    qtbot.waitUntil(lambda: section.recording is not None and not section.recording.pending)


def marks(image):
    with JournalReader(find_journals(layer_stack(image))[0].path) as journal:
        return [(mark.meaning, mark.box) for mark in journal.marks()]


def drag(viewer, *points):
    """Drag the mouse over the canvas from one point of the data to the next."""
    canvas = viewer.window._qt_viewer.canvas.native
    camera, size = viewer.scene.camera, np.array(viewer.canvas.size)
    places = [(np.array(p) - camera.center[-2:]) * camera.zoom + size / 2 for p in points]
    pixels = [QPoint(round(x), round(y)) for y, x in places]
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    QTest.mousePress(canvas, left, none, pixels[0])
    for pixel in pixels[1:]:
        canvas._last_time = 0  # vispy leaves out moves that follow each other quickly
        _held_move(canvas, pixel)
    QTest.mouseRelease(canvas, left, none, pixels[-1])


def _held_move(canvas, pixel):
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    where = QPointF(pixel)
    event = QMouseEvent(QEvent.Type.MouseMove, where, QPointF(canvas.mapToGlobal(pixel)), left,
                        left, none)  # fmt: skip
    QApplication.sendEvent(canvas, event)


def test_a_stroke_of_the_mouse_is_saved_and_undone_by_the_key(make_napari_viewer, models, qtbot):
    viewer, section = opened(make_napari_viewer, show=True)
    image = viewer.add_image(VALUES, name="im", scale=(2, 2))
    layer = segmented(viewer, image, objects(), scale=(2, 2))
    qtbot.wait(50)
    viewer.reset_view()
    assert section.labels.value is layer
    before = layer.data.copy()
    layer.mode, layer.selected_label, layer.brush_size = "paint", 9, 3
    drag(viewer, (30, 30), (34, 40))
    painted = layer.data == 9
    assert set(range(15, 21)) <= set(np.nonzero(painted)[1].tolist())
    saved(section, qtbot)
    qtbot.waitUntil(lambda: section.status.text() == "1 correction saved.")
    assert section.recording.journal.history()[0].source == "paint"
    canvas = viewer.window._qt_viewer.canvas.native
    QTest.keyClick(canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(layer.data, before)
    qtbot.waitUntil(lambda: section.redo.isEnabled() and not section.undo.isEnabled())
    section.redo.click()
    assert np.array_equal(layer.data == 9, painted)


def click(viewer, *point):
    canvas = viewer.window._qt_viewer.canvas.native
    camera, size = viewer.scene.camera, np.array(viewer.canvas.size)
    y, x = (np.array(point) - camera.center[-2:]) * camera.zoom + size / 2
    canvas._last_time = 0
    place = QPoint(round(x), round(y))
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, place)


def test_a_polygon_is_saved_and_restored(make_napari_viewer, models, qtbot):
    viewer, section = opened(make_napari_viewer, show=True)
    image = viewer.add_image(VALUES, name="im", scale=(2, 2))
    layer = segmented(viewer, image, objects(), scale=(2, 2))
    qtbot.wait(50)
    viewer.reset_view()
    before = layer.data.copy()
    layer.mode, layer.selected_label = "polygon", 9
    for corner in ((30, 10), (30, 40), (60, 40), (60, 10)):
        click(viewer, *corner)
    canvas = viewer.window._qt_viewer.canvas.native
    QTest.keyClick(canvas, Qt.Key.Key_Return)
    painted = layer.data == 9
    assert painted[16:29, 6:19].all() and painted.sum() < 20 * 20
    saved(section, qtbot)
    journal = section.recording.journal
    assert [edit.source for edit in journal.history()] == ["polygon"]
    left = layer.data.copy()
    viewer.close()

    viewer, section = opened(make_napari_viewer)
    viewer.add_image(VALUES, name="im", scale=(2, 2))
    qtbot.waitUntil(lambda: section.restore_row.offer is not None)
    section.restore_row.button.click()
    qtbot.waitUntil(lambda: section.recording is not None)
    assert np.array_equal(section.labels.value.data, left)
    section.undo.click()
    assert np.array_equal(section.labels.value.data, before)


def test_two_windows_on_one_image_lose_nothing(make_napari_viewer, models, qtbot):
    """Each has labels of its own, and records them; both can be had again."""
    windows = [opened(make_napari_viewer) for _ in range(2)]
    left = []
    for number, (viewer, _) in enumerate(windows):
        layer = segmented(viewer, viewer.add_image(VALUES, name="im"), objects())
        stroke(layer, (30, 8 + 20 * number), label=7 + number)
        left.append(layer)
    stroke(left[0], (34, 8), label=7)
    for number, (_, section) in enumerate(windows):
        saved(section, qtbot)
        assert section.recording.journal.undoable == 2 - number
    places = find_journals(open_stack(VALUES))
    assert len({place.path for place in places}) == 2
    labels = []
    for place in places:
        with JournalReader(place.path) as journal:
            labels.append(journal.replay())
    for layer in left:
        assert any(np.array_equal(layer.data, other) for other in labels)
    undo = windows[1][1].undo
    qtbot.waitUntil(undo.isEnabled)
    undo.click()
    assert not (left[1].data == 8).any() and (left[0].data == 7).any()


def test_what_was_corrected_is_restored_in_another_window(make_napari_viewer, models, qtbot):
    viewer, section = opened(make_napari_viewer)
    image = viewer.add_image(VALUES, name="im", scale=(3, 2), translate=(5, 6))
    layer = segmented(viewer, image, objects(), scale=(3, 2), translate=(5, 6))
    stroke(layer, (30, 8))
    stroke(layer, (34, 8))
    section.mask_section.scribble_objects.click()
    stroke(section.recording.scribbles, (6, 6), label=2)
    saved(section, qtbot)
    left = layer.data.copy()
    viewer.close()

    viewer, section = opened(make_napari_viewer)
    assert section.restore_row.isHidden()
    image = viewer.add_image(VALUES, name="other name", scale=(3, 2), translate=(5, 6))
    qtbot.waitUntil(lambda: section.restore_row.offer is not None)
    now = datetime.datetime.now()
    text = section.restore_row.what.text()
    assert text.startswith("3 corrections of today, ") or now.hour == 0
    assert not section.restore_row.isHidden()
    assert section.minimumSizeHint().width() < LEAST_WIDTH, "nothing is cut in a narrow panel"
    section.restore_row.button.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == 3)
    layer = section.labels.value
    assert np.array_equal(layer.data, left) and layer.data.dtype == np.uint16
    assert layer.name == "other name cells" and layer.editable
    assert layer.scale.tolist() == [3, 2] and layer.translate.tolist() == [5, 6]
    assert layer.metadata[RESULT_KEY]["passport"]["model"] == "cells"
    assert not is_unedited(layer, ResultInfo.from_layer(layer))  # a new run leaves it alone
    assert section.model.value == "cells" and section.status.text() == "All 3 corrections saved."
    assert (section.recording.scribbles.data == 2).any()
    qtbot.waitUntil(lambda: section.restore_row.isHidden())
    section.undo.click()
    assert not section.recording.scribbles.data.any()
    section.undo.click()
    stroke(layer, (10, 50))
    saved(section, qtbot)
    (place,) = find_journals(open_stack(VALUES))
    with JournalReader(place.path) as journal:
        assert np.array_equal(journal.replay(), layer.data) and journal.undoable == 2


def test_nothing_is_offered_where_newer_labels_are_shown(make_napari_viewer, models, qtbot):
    viewer, section = opened(make_napari_viewer)
    layer = segmented(viewer, viewer.add_image(VALUES, name="im"), objects())
    stroke(layer, (30, 8))
    saved(section, qtbot)
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: section.restore_row.offer is not None)
    segmented(viewer, viewer.layers["im"], objects())
    qtbot.waitUntil(lambda: section.restore_row.offer is None)


def test_the_second_window_can_only_look(make_napari_viewer, models, qtbot):
    viewer, section = opened(make_napari_viewer)
    layer = segmented(viewer, viewer.add_image(VALUES, name="im"), objects())
    stroke(layer, (30, 8))
    saved(section, qtbot)
    second, other = opened(make_napari_viewer)
    second.add_image(VALUES, name="im")
    qtbot.waitUntil(lambda: other.restore_row.offer is not None)
    other.restore_row.restore()
    qtbot.waitUntil(lambda: len(second.layers) == 2)
    assert np.array_equal(other.labels.value.data, layer.data)
    assert not other.labels.value.editable
    assert other.status.text().startswith("Another window works on these corrections;")
    assert not other.undo.isEnabled() and not other.mask_section.checked.isEnabled()
    other.labels.value.data_setitem((np.array([0]), np.array([0])), 5)
    assert not other.recording.pending
    stroke(layer, (34, 8))
    saved(section, qtbot)


def test_a_checked_slice_a_box_and_their_layer(window, qtbot):
    viewer, section = window
    values = np.stack([VALUES, VALUES, VALUES])
    image = viewer.add_image(values, name="im")
    layer = segmented(viewer, image, objects(values.shape))
    viewer.dims.set_point(0, 1)
    section.mask_section.show_mask.setChecked(True)
    viewer.layers.selection.active = layer
    section.mask_section.checked.click()
    saved(section, qtbot)
    shown = viewer.layers["what is known"]
    qtbot.waitUntil(lambda: shown.data[1].all())
    assert not shown.data[0].any() and viewer.layers.selection.active == layer
    assert (
        section.mask_section.checked.isChecked()
        and section.mask_section.checked.text() == "This slice is checked ✓"
    )
    viewer.dims.set_point(0, 0)
    assert not section.mask_section.checked.isChecked()
    viewer.dims.set_point(0, 1)
    section.mask_section.check_slice()
    saved(section, qtbot)
    qtbot.waitUntil(lambda: not shown.data[1].any())
    section.mask_section.box.click()
    drawn = viewer.layers.selection.active
    assert isinstance(drawn, Shapes) and drawn.mode == "add_rectangle"
    drawn.add(np.array([[1, 9.6, 20], [1, 9.6, 30.4], [1, 15, 30.4], [1, 15, 20]]))
    qtbot.waitUntil(lambda: viewer.layers.selection.active == layer)
    saved(section, qtbot)
    qtbot.waitUntil(lambda: shown.data[1].sum() == 5 * 10)
    assert shown.data[1, 10:15, 20:30].all()
    assert [layer.name for layer in viewer.layers] == ["im", "im cells", "what is known"]
    whole = ((1, 2), (0, 40), (0, 60))
    assert marks(image) == [
        (KNOWN, whole), (UNKNOWN, whole), (KNOWN, ((1, 2), (10, 15), (20, 30)))
    ]  # fmt: skip
    section.mask_section.show_mask.setChecked(False)
    assert len(viewer.layers) == 2


def test_what_is_known_is_shown_once_and_goes_with_the_labels(window, qtbot):
    viewer, section = window
    viewer.add_image(VALUES, name="im")
    labels = [viewer.add_labels(objects(), name=name) for name in "ab"]
    section.labels.value = labels[0]
    section.mask_section.show_mask.setChecked(True)
    viewer.layers.remove(labels[0])
    assert [layer.name for layer in viewer.layers] == ["im", "b", "what is known"]
    viewer.layers.remove(labels[1])
    assert [layer.name for layer in viewer.layers] == ["im"]


def test_what_was_touched_and_scribbled_is_shown(window, qtbot):
    viewer, section = window
    layer = segmented(viewer, viewer.add_image(VALUES, name="im"), objects())
    section.mask_section.show_mask.setChecked(True)
    shown = viewer.layers["what is known"]
    stroke(layer, (8, 8), label=5)
    qtbot.waitUntil(lambda: shown.data[8, 8] == 1)
    assert shown.data[4, 4] == 1 and not shown.data[20:30, 30:44].any()
    section.mask_section.scribble_objects.click()
    scribbles = section.recording.scribbles
    assert viewer.layers.selection.active == scribbles and scribbles.mode == "paint"
    stroke(scribbles, (35, 50), label=scribbles.selected_label)
    qtbot.waitUntil(lambda: shown.data[35, 50] == 2)
    section.mask_section.scribble_background.click()
    stroke(scribbles, (2, 50), label=scribbles.selected_label)
    qtbot.waitUntil(lambda: shown.data[2, 50] == 1)
    section.touched.setChecked(False)
    qtbot.waitUntil(lambda: shown.data[8, 8] == 0)
    assert shown.data[2, 50] == 1
    viewer.layers.remove(scribbles)
    assert section.recording.scribbles is None
    section.undo.click()
    section.undo.click()
    section.undo.click()
    qtbot.waitUntil(lambda: layer.data[8, 8] == 1)


def test_an_object_is_accepted_as_it_is(window, qtbot):
    viewer, section = window
    layer = segmented(viewer, viewer.add_image(VALUES, name="im"), objects())
    section.mask_section.confirm_object((0, 0))
    assert section.recording is None
    section.mask_section.confirm_object((25, 35))
    saved(section, qtbot)
    (edit,) = section.recording.journal.history()
    assert edit.confirmed == (2,) and edit.source == "confirm"
    section.mask_section.show_mask.setChecked(True)
    shown = viewer.layers["what is known"]
    qtbot.waitUntil(lambda: shown.data[20:30, 30:44].all())
    assert not shown.data[4:12, 4:12].any()
    section.undo.click()
    qtbot.waitUntil(lambda: not shown.data.any())
    assert np.array_equal(layer.data, objects())


def test_labels_of_the_user_are_recorded_once_they_are_chosen(window, qtbot):
    viewer, section = window
    image = viewer.add_image(VALUES, name="im")
    viewer.add_image(np.zeros((5, 5)), name="too small")
    mine = viewer.add_labels(objects(), name="mine")
    stroke(mine, (30, 8))
    assert section.labels.value is None and section.tracker.recordings == {}
    section.labels.value = mine
    assert section.image.value is image
    assert section.status.text() == "Every stroke on these labels is recorded."
    section.model.value = "cells"
    stroke(mine, (34, 8))
    saved(section, qtbot)
    assert section.recording.journal.header.model == "cells"
    assert section.tracker.get_image(mine) is image


def test_an_image_that_is_opened_takes_no_labels_from_another(window, qtbot):
    viewer, section = window
    viewer.add_image(VALUES, name="im")
    mine = viewer.add_labels(objects(), name="mine")
    section.labels.value = mine
    other = viewer.add_image(255 - VALUES, name="opened later")
    assert section.image.value is other
    stroke(mine, (34, 8))
    saved(section, qtbot)
    assert section.recording.journal.header.name == "im"
    theirs = viewer.add_labels(objects(), name="of either")
    section.labels.value = theirs
    viewer.layers.selection.active = other
    assert section.labels.value is theirs and section.tracker.get_image(theirs) is other


def test_labels_follow_their_image_when_it_is_closed_and_opened_again(window, qtbot):
    viewer, section = window
    image = viewer.add_image(VALUES, name="im")
    mine = viewer.add_labels(objects(), name="mine")
    other = viewer.add_image(255 - VALUES, name="later")
    viewer.layers.move(viewer.layers.index(other), 0)
    section.labels.value, section.image.value = mine, other
    assert section.tracker.get_image(mine) is image, "wherever the other lies in the list"
    assert "labels are taken for those of 'im'; if they are of 'later'" in section.status.text()
    viewer.layers.remove(image)
    assert section.tracker.get_image(mine) is other and "taken" not in section.status.text()
    again = viewer.add_image(VALUES, name="im again")
    section.image.value = other
    section.image.value = again
    stroke(mine, (34, 8))
    saved(section, qtbot)
    assert section.recording.journal.header.name == "im again"


def test_labels_without_an_image_say_so_and_are_kept(window, qtbot):
    viewer, section = window
    mine = viewer.add_labels(objects(), name="mine")
    section.labels.value = mine
    stroke(mine, (34, 8))
    qtbot.waitUntil(lambda: not section.retry.isHidden())
    assert "The image of the labels 'mine' is not open" in section.status.text()
    section.retry.click()
    viewer.add_image(VALUES, name="im")
    qtbot.waitUntil(lambda: section.status.text() == "1 correction saved.")
    assert section.retry.isHidden()


def test_what_is_right_is_marked_where_the_user_looks(window, qtbot):
    viewer, section = window
    mask, said = section.mask_section, []
    section.tracker.changed.connect(lambda each: each.refused.connect(said.append))
    mine, other = (viewer.add_labels(objects((3, *SHAPE)), name=name) for name in ("a", "b"))
    section.labels.value = mine
    mask.check_slice()
    mask.confirm_object((1, 25, 35))
    assert section.recording.journal is None and not section.recording.pending
    image = viewer.add_image(np.stack([VALUES] * 3), name="im", axis_labels=("z", "y", "x"))
    viewer.dims.order = (1, 0, 2)
    mask.check_slice()
    mask.box.click()
    viewer.dims.set_point(1, 25)
    mask.confirm_object((2, 25, 35))  # a slice that the slider is not at
    viewer.dims.ndisplay = 3
    mask.checked.click()
    assert not mask.checked.isChecked(), "it was refused"
    assert len(viewer.layers) == 3 + mask.show_mask.isChecked()
    saved(section, qtbot)
    journal = section.recording.journal
    assert not journal.marks() and [edit.box[0] for edit in journal.history()] == [(2, 3)]
    assert sum("image of these labels is not open" in text for text in said) >= 2
    assert sum("No slice is in view" in text for text in said) >= 3
    viewer.dims.ndisplay, viewer.dims.order = 2, (0, 1, 2)
    mask.box.click()
    section.labels.value = other
    drawn = viewer.layers["checked boxes"]
    drawn.add(np.array([[0, 9.6, 20], [0, 9.6, 30.4], [0, 15, 30.4], [0, 15, 20]]))
    qtbot.waitUntil(lambda: viewer.layers.selection.active == mine)
    saved(section, qtbot)
    assert marks(image) == [(KNOWN, ((0, 1), (10, 15), (20, 30)))]
    assert section.tracker.recordings[mine].journal.marks()


def test_the_list_leaves_out_and_exports(window, qtbot, tmp_path):
    viewer, section = window
    listed = section.corrections
    section.list_section.open()
    empty = "Nothing was corrected for this model yet."
    assert listed.message.text() == "", "it was not read yet"
    qtbot.waitUntil(lambda: listed.message.text() == empty)
    image = viewer.add_image(VALUES, name="im")
    layer = segmented(viewer, image, objects())
    stroke(layer, (30, 8))
    saved(section, qtbot)
    with qtbot.waitSignal(section.changed, timeout=5000):
        listed.read()
    (row,) = listed.rows
    assert (row.name, row.objects) == ("im", 1)
    assert listed.list.item(0).text().startswith("im\n1 object, ")
    assert not listed.list.item(0).icon().isNull()
    listed.export_to(str(tmp_path / "out"), "stardist")
    qtbot.waitUntil(lambda: listed.message.text().startswith("Exported to"))
    (written,) = (tmp_path / "out" / "masks").iterdir()
    assert tifffile.imread(written).any()
    (tmp_path / "file").touch()
    with notification_manager:
        listed.export_to(str(tmp_path / "file" / "in"), "cellpose")
        qtbot.waitUntil(lambda: "file" in listed.message.text() and listed._export is None)
    listed.list.item(0).setSelected(True)
    with qtbot.waitSignal(section.changed, timeout=5000):
        listed.leave_out.click()
    assert listed.rows == []
    stroke(layer, (34, 50), label=8)
    saved(section, qtbot)
    with qtbot.waitSignal(section.changed, timeout=5000):
        listed.read()
    assert listed.rows[0].objects == 1


def test_strokes_are_recorded_though_only_segment_is_open(viewer, panel, qtbot):
    layer = segmented(viewer, viewer.add_image(VALUES, name="im"), objects())
    stroke(layer, (30, 8))
    recording = get_edit_tracker(viewer).recordings[layer]
    assert recording.wait(10) and recording.journal.undoable == 1


def test_times_in_words():
    now = datetime.datetime(2026, 3, 4, 9, 30)
    days = [now.replace(hour=7, minute=5) - datetime.timedelta(days=n) for n in (0, 1, 2)]
    words = [describe_time(day.timestamp(), now) for day in days]
    assert words == ["today, 07:05", "yesterday, 07:05", "2 March 2026, 07:05"]


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_all_that_was_saved_is_there_after_a_kill(make_napari_viewer, models, qtbot):
    command = [sys.executable, Path(__file__).parents[2] / "helpers/strokes_child.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        reports = [int(child.stdout.readline()) for _ in range(6)]
        os.kill(child.pid, signal.SIGKILL)
        reports += [int(line) for line in child.stdout if line.endswith("\n")]
    viewer, section = opened(make_napari_viewer)
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (3, 120, 140), np.uint8), name="im")
    qtbot.waitUntil(lambda: section.restore_row.offer is not None, timeout=10_000)
    assert section.restore_row.offer.corrections in (reports[-1], reports[-1] + 1)
    section.restore_row.restore()
    qtbot.waitUntil(lambda: section.recording is not None, timeout=10_000)
    assert section.recording.journal.undoable >= reports[-1]
    found = set(np.unique(section.labels.value.data)) - {0}
    assert max(found) >= reports[-1]
    for _ in range(section.recording.journal.undoable):
        section.undo.click()
    assert not section.labels.value.data.any()
