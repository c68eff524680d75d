"""Edits in the real viewer, their records in the journal, and undo."""

from __future__ import annotations

import errno
import os
import threading

import numpy as np
import pytest
import tifffile
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.notifications import notification_manager

from napari_unet.core.annotations.edits import KNOWN
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.io.stack import open_stack
from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.layers.image_settings import update_image_settings
from napari_unet.gui.layers.key_bindings import REDO_KEY, UNDO_KEY
from napari_unet.gui.layers.result_info import RESULT_KEY

PROVENANCE = {"model": "cells", "model_hash": "ab", "object_axes": "YX"}


def result(viewer, image, data, **geometry):
    """Add a layer as Segment leaves it."""
    mark = {"base": f"{image.name} cells", "runs": [PROVENANCE], "passport": PROVENANCE}
    return viewer.add_labels(
        data,
        name=f"{image.name} cells",
        metadata={RESULT_KEY: {**mark, "image": str(image.unique_id)}},
        **geometry,
    )  # fmt: skip


def objects(shape):
    data = np.zeros(shape, np.uint16)
    data[..., 4:9, 4:9] = 1
    data[..., 12:18, 10:20] = 2
    return data


@pytest.fixture
def tracker(viewer):
    return get_edit_tracker(viewer)


@pytest.fixture(autouse=True)
def all_is_written():
    yield
    writers = [t for t in threading.enumerate() if t.name == "napari-unet journal"]
    for thread in writers:
        thread.join(10)
    assert not any(thread.is_alive() for thread in writers)


def scene(viewer, shape=(30, 40), axes="YX"):
    values = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    image = viewer.add_image(values, name="im")
    layer = result(viewer, image, objects(shape))
    return layer, open_stack(values, axes)


def stroke(layer, *points, label=7, size=4):
    layer.brush_size = size
    with layer.block_history():
        for point in points:
            layer.paint(point, label)


def press(layer, key):
    layer.keymap[coerce_keybinding(key)](layer)


def written(stack):
    """Labels as the image's latest journal has them."""
    place = find_journals(stack)[0]
    with JournalReader(place.path) as journal:
        out = np.zeros(journal.header.shape, journal.dtype)
        for index, frame in journal.replay_all():
            out[index] = frame
        return out


def test_strokes_fills_erasing_and_programs_are_on_the_disk(viewer, tracker):
    layer, stack = scene(viewer)
    stroke(layer, (20, 20), (20, 24), (22, 28))
    layer.fill((5, 5), 9)
    layer.mode = "erase"
    stroke(layer, (14, 12), label=0)
    layer.data_setitem((np.array([0, 1]), np.array([0, 0])), np.array([3, 4]))
    recording = tracker.begin_recording(layer)
    assert recording.wait(10)
    assert recording.describe() == "All 4 corrections saved."
    assert np.array_equal(written(stack), layer.data)
    about = recording.journal.header
    assert (about.model, about.model_hash, about.ndim, about.name) == ("cells", "ab", 2, "im")
    assert [edit.source for edit in recording.journal.history()] == [
        "pan_zoom", "pan_zoom", "erase", "set",
    ]  # fmt: skip


def test_nothing_is_recorded_of_other_layers_and_of_live_tiles(viewer, tracker):
    layer, stack = scene(viewer)
    viewer.add_image(np.zeros((30, 40)), name="second")  # of which they may be as well
    other = viewer.add_labels(objects((30, 40)), name="mine")
    stroke(other, (20, 20))
    layer.data[0:5] = 3
    layer.refresh()
    assert tracker.recordings == {} and find_journals(stack) == []
    tracker.watch(other, viewer.layers["im"])
    stroke(other, (24, 20))
    assert tracker.recordings[other].wait(10)
    assert np.array_equal(written(stack), other.data)


def test_undo_and_redo_go_across_slices_and_bring_them_into_view(viewer, tracker):
    layer, stack = scene(viewer, (5, 30, 40), "ZYX")
    states = [layer.data.copy()]
    for z in (3, 0, 4):
        viewer.dims.set_point(0, z)
        stroke(layer, (z, 20, 20))
        states.append(layer.data.copy())
    viewer.dims.set_point(0, 1)
    for state, z in zip(states[-2::-1], (4, 0, 3), strict=True):
        press(layer, UNDO_KEY)
        assert np.array_equal(layer.data, state)
        assert viewer.dims.current_step[0] == z
    assert tracker.recordings[layer].describe() == "All is saved."
    press(layer, UNDO_KEY)
    assert tracker.recordings[layer].describe() == "There is nothing to undo."
    for state in states[1:]:
        press(layer, REDO_KEY)
        assert np.array_equal(layer.data, state)
    assert np.array_equal(written(stack), layer.data)


def test_an_undo_right_after_a_stroke_waits_for_it(viewer, tracker, qtbot, monkeypatch):
    layer, stack = scene(viewer)
    before, let = layer.data.copy(), threading.Event()
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (let.wait(10), sync(handle)))
    stroke(layer, (20, 20))
    press(layer, UNDO_KEY)
    assert tracker.recordings[layer].describe() == "Saving …"
    assert not np.array_equal(layer.data, before)
    let.set()
    qtbot.waitUntil(lambda: np.array_equal(layer.data, before))
    assert np.array_equal(written(stack), before)


def test_axes_in_another_order_and_a_scaled_layer(viewer, tracker):
    values = np.zeros((30, 4, 2, 40), np.uint8)  # Y T Z X
    labels_ = ("y", "t", "z", "x")
    image = viewer.add_image(values, name="im", axis_labels=labels_, scale=(2, 1, 3, 2))
    data = np.zeros(values.shape, np.uint16)
    layer = result(viewer, image, data, scale=(2, 1, 3, 2), translate=(5, 0, 0, 1))
    layer.data_setitem(tuple(np.array([n]) for n in (7, 3, 1, 9)), 5)
    recording = tracker.recordings[layer]
    assert recording.wait(10)
    (edit,) = recording.journal.history((3, 1))
    assert edit.box == ((3, 4), (1, 2), (7, 8), (9, 10))
    press(layer, UNDO_KEY)
    assert not layer.data.any()
    press(layer, REDO_KEY)
    assert layer.data[7, 3, 1, 9] == 5


def test_of_large_labels_the_planes_that_were_worked_on_are_kept(viewer, tracker, monkeypatch):
    monkeypatch.setattr("napari_unet.core.annotations.header.WHOLE_BYTES", 0)
    layer, stack = scene(viewer, (4, 30, 40), "ZYX")
    before = layer.data.copy()
    stroke(layer, (1, 20, 20), (1, 22, 22))
    stroke(layer, (1, 21, 21), label=8)
    stroke(layer, (2, 21, 21), label=9)
    recording = tracker.recordings[layer]
    assert recording.wait(10)
    found = written(stack)
    assert np.array_equal(found[1:3], layer.data[1:3]) and not found[0].any()
    for _ in range(3):
        press(layer, UNDO_KEY)
    assert np.array_equal(layer.data, before)
    assert np.array_equal(written(stack)[1:3], before[1:3])


def test_data_that_are_replaced_begin_a_new_journal(viewer, tracker):
    layer, stack = scene(viewer)
    stroke(layer, (20, 20))
    first = tracker.recordings[layer]
    layer.data = objects((30, 40)) * 3
    assert layer not in tracker.recordings and first.wait(10)  # the latest journal comes first
    layer.undo()
    assert np.array_equal(layer.data, objects((30, 40)) * 3)  # napari has forgotten the stroke
    stroke(layer, (25, 5), label=8)
    assert tracker.recordings[layer].wait(10)
    assert len(find_journals(stack)) == 2
    assert np.array_equal(written(stack), layer.data)


def test_a_run_that_writes_into_the_layer_ends_its_record(viewer, tracker):
    layer, stack = scene(viewer)
    stroke(layer, (20, 20))
    first = tracker.recordings[layer]
    assert first.wait(10)
    layer.metadata[RESULT_KEY]["running"] = True
    layer.editable = False
    assert layer not in tracker.recordings
    layer.data[:] = 4
    layer.metadata[RESULT_KEY].pop("running")
    layer.editable = True
    stroke(layer, (20, 20))
    assert tracker.recordings[layer].wait(10) and first.wait(10)
    assert np.array_equal(written(stack), layer.data)


def test_a_renamed_layer_goes_on_and_a_removed_one_lets_others_write(viewer, tracker):
    layer, stack = scene(viewer)
    stroke(layer, (20, 20))
    layer.name = "other"
    stroke(layer, (25, 20))
    recording = tracker.recordings[layer]
    viewer.layers.remove(layer)
    assert recording.wait(10)
    assert tracker.recordings == {}
    with Journal.open(find_journals(stack)[0].path) as journal:
        assert journal.undoable == 2


def test_a_full_disk_is_said_and_nothing_is_lost(viewer, tracker, qtbot, monkeypatch):
    layer, stack = scene(viewer)
    stroke(layer, (20, 20))
    recording = tracker.recordings[layer]
    assert recording.wait(10)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, notification_manager:
        notification_manager.records.clear()
        patch.setattr(os, "fsync", full)
        stroke(layer, (24, 20))
        stroke(layer, (26, 20))
        qtbot.waitUntil(lambda: recording.failed)
        assert recording.describe().startswith("Not saved yet, but kept: 2 changes. ")
        assert "No space left on device; make room" in recording.describe()
        qtbot.waitUntil(lambda: len(notification_manager.records) > 0)
        (note,) = notification_manager.records
        assert "No space left on device" in str(note.message)
        before = layer.data.copy()
        for times in (2, 3):  # pressed again, it says so again
            press(layer, UNDO_KEY)
            assert np.array_equal(layer.data, before)
            assert len(notification_manager.records) == times
            said = str(notification_manager.records[-1].message)
            assert "Nothing can be undone before all is saved. " in said
            assert "kept: 2 changes. " in said and "No space left on device; make room" in said
    tracker.retry()
    assert recording.wait(10)
    assert recording.describe() == "All 3 corrections saved."
    assert np.array_equal(written(stack), layer.data)


def test_what_a_removed_layer_still_has_to_save_is_counted_right(
    viewer, tracker, qtbot, monkeypatch
):
    layer, stack = scene(viewer)
    stroke(layer, (20, 20))
    recording = tracker.recordings[layer]
    assert recording.wait(10)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, notification_manager:
        patch.setattr(os, "fsync", full)
        stroke(layer, (24, 20))
        viewer.layers.remove(layer)
        qtbot.waitUntil(lambda: recording.failed)
        assert tracker.unsaved == [recording]
        assert recording.describe().startswith("Not saved yet, but kept: 1 change. ")
    tracker.retry()
    assert recording.wait(10)
    assert np.array_equal(written(stack), layer.data)


def test_strokes_wait_for_the_image(viewer, tracker, qtbot):
    layer, stack = scene(viewer)
    image = viewer.layers["im"]
    viewer.layers.remove(image)
    stroke(layer, (20, 20))
    recording = tracker.recordings[layer]
    qtbot.waitUntil(lambda: recording.failed)
    assert "The image of the labels 'im cells' is not open" in recording.describe()
    viewer.add_layer(image)
    assert recording.wait(10)
    assert np.array_equal(written(stack), layer.data)


def test_a_journal_stays_with_its_image(viewer, tracker):
    layer, _ = scene(viewer)
    image = tracker.get_image(layer)
    stroke(layer, (20, 20))
    recording = tracker.recordings[layer]
    assert recording.wait(10)
    tracker.watch(layer, viewer.add_image(image.data + 1, name="clicked on"))
    assert tracker.get_image(layer) is image and recording.geometry.stack.name == "im"


def test_a_journal_has_the_model_and_the_channel_chosen_when_it_begins(viewer, tracker):
    image = viewer.add_image(np.ones((2, 30, 40), np.uint8), name="im")
    update_image_settings(image, axes="CYX")
    layer = viewer.add_labels(objects((30, 40)), name="mine")
    recording = tracker.begin_recording(layer)
    tracker.model = "cells"
    update_image_settings(image, channel=1)
    stroke(layer, (20, 20))
    assert recording.wait(10)
    assert (recording.journal.header.model, recording.journal.header.channel) == ("cells", 1)


def test_an_image_in_a_file_is_known_by_its_path(viewer, tracker, tmp_path):
    values = np.random.default_rng(1).integers(0, 255, (30, 40), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values)
    (image,) = viewer.open(tmp_path / "a.tif", plugin="napari")
    layer = result(viewer, image, objects((30, 40)))
    recording = tracker.begin_recording(layer)
    recording.mark(KNOWN, ())
    assert recording.wait(10)
    assert recording.journal.header.path == str(tmp_path / "a.tif")
