"""Scribbles that segment at once, and a model that learns while it is corrected."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import psutil
import pytest
import tune_parts as parts
from discs import disc_image

from napari_unet.core.annotations.edits import TAKEN_OVER
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.label_diff import LabelDiff
from napari_unet.core.models.store import list_models
from napari_unet.core.prompts.scribbles import BACKGROUND, OBJECT
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.training.run_state import training_folder
from napari_unet.gui.correct.drawing import SCRIBBLE_LAYER
from napari_unet.gui.jobs.job import get_device_queue
from napari_unet.gui.layers.label_geometry import get_label_geometry
from napari_unet.gui.layers.overlay_layer import is_overlay
from napari_unet.gui.layers.result_info import RESULT_KEY, ResultInfo, is_unedited
from napari_unet.gui.live import activity
from napari_unet.gui.live import scribbles as scribbles_module
from napari_unet.gui.live import section as section_module
from napari_unet.gui.live import work as work_module
from napari_unet.gui.live.footer import describe_round
from napari_unet.gui.live.view import LARGEST, middle_of


@pytest.fixture
def panel(viewer, home, monkeypatch):
    monkeypatch.setattr(activity, "QUIET_S", 0.0)
    monkeypatch.setattr(section_module, "on_battery", lambda: False)
    monkeypatch.setattr(work_module, "STEPS_A_ROUND", 1)
    parts.tiny_model()
    panel = parts.panel_of(viewer)
    panel.inputs.choose_model("tiny")
    return panel


def test_two_strokes_on_an_image_without_labels_find_all_objects(viewer, panel, qtbot):
    image, labels = disc_image(20, 128)
    viewer.add_image(image.astype(np.float32), name="any")
    section = panel.scribbles
    section.objects.click()
    drawn = viewer.layers[SCRIBBLE_LAYER]
    assert drawn.mode == "paint"
    assert drawn.selected_label == OBJECT
    row = np.flatnonzero(labels[16])
    drawn.data_setitem((np.full(len(row), 16), row), OBJECT)
    qtbot.waitUntil(lambda: "on the background" in section.status.text(), timeout=60_000)
    section.background.click()
    gap = np.flatnonzero(labels[32] == 0)
    drawn.data_setitem((np.full(len(gap), 32), gap), BACKGROUND)
    qtbot.waitUntil(lambda: section.found is not None, timeout=60_000)
    shown = section.shown.layer
    assert is_overlay(shown), "it is no result that could be measured or corrected"
    count = len(np.unique(labels)) - 1
    assert abs(int(shown.data.max()) - count) <= 2
    recording = panel.correct.recording
    qtbot.waitUntil(lambda: not recording.pending)
    assert recording.journal.undoable == 2, "the scribbles are in the journal"
    found = shown.data > 0
    panel.correct.undo.click()
    qtbot.waitUntil(lambda: section.found is None, timeout=10_000)
    assert "on the background" in section.status.text(), "its scribble was taken back"
    panel.correct.redo.click()
    qtbot.waitUntil(lambda: section.found is not None, timeout=10_000)
    shown = section.shown.layer
    section.keep.click()
    qtbot.waitUntil(lambda: "any by scribbles" in viewer.layers, timeout=10_000)
    kept = panel.correct.labels.value
    assert kept.name == "any by scribbles"
    assert is_unedited(kept, ResultInfo.from_layer(kept))
    assert np.array_equal(kept.data > 0, found)
    assert shown not in viewer.layers
    assert panel.correct.tracker.watches(kept)


def test_an_image_is_looked_at_once_however_many_strokes_come_meanwhile(
    viewer, panel, qtbot, monkeypatch
):
    from napari_unet.nn.interactive import scribbles

    go_on, looks, look = threading.Event(), [], scribbles.feature_steps

    def slow(*arguments):
        looks.append(arguments)
        while not go_on.wait(0.01):
            yield
        return (yield from look(*arguments))

    monkeypatch.setattr(scribbles, "feature_steps", slow)
    image, labels = disc_image(20, 128)
    viewer.add_image(image.astype(np.float32), name="any")
    section = panel.scribbles
    section.objects.click()
    drawn = viewer.layers[SCRIBBLE_LAYER]
    row, gap = np.flatnonzero(labels[16]), np.flatnonzero(labels[32] == 0)
    drawn.data_setitem((np.full(len(row), 16), row), OBJECT)
    qtbot.waitUntil(lambda: len(looks) == 1, timeout=60_000)
    drawn.data_setitem((np.full(len(gap), 32), gap), BACKGROUND)
    qtbot.waitUntil(lambda: not section._delay.isActive())
    go_on.set()
    qtbot.waitUntil(lambda: section.found is not None, timeout=60_000)
    assert len(looks) == 1


def test_scribbles_that_are_kept_may_go_on_or_be_discarded_meanwhile(viewer, panel, qtbot):
    image, labels = disc_image(20, 128)
    viewer.add_image(image.astype(np.float32), name="any")
    section = panel.scribbles
    section.objects.click()
    drawn = viewer.layers[SCRIBBLE_LAYER]
    rows = np.flatnonzero(labels[16]), np.flatnonzero(labels[32] == 0)
    for row, columns, kind in zip((16, 32), rows, (OBJECT, BACKGROUND), strict=True):
        drawn.data_setitem((np.full(len(columns), row), columns), kind)
    qtbot.waitUntil(lambda: section.found is not None, timeout=60_000)
    first = section.found
    section.keep.click()
    section.found = newer = (*first[:-1], first[-1].copy())  # another stroke, before it is kept
    qtbot.waitUntil(lambda: "any by scribbles" in viewer.layers, timeout=10_000)
    assert section.found is newer, "what was scribbled since then is still there"
    section.keep.click()
    section.discard.click()
    qtbot.waitUntil(section.keep.isEnabled, timeout=10_000)
    assert [layer.name for layer in viewer.layers if "by scribbles" in layer.name] == [
        "any by scribbles"
    ]


def test_an_undo_or_another_slice_takes_nothing_that_is_kept(viewer, panel, qtbot, monkeypatch):
    image, labels = disc_image(20, 128)
    viewer.add_image(np.stack([image.astype(np.float32)] * 2), name="any")
    viewer.dims.set_point(0, 0)
    section, go_on, keep_steps = panel.scribbles, threading.Event(), scribbles_module._keep_steps

    def slow(*arguments):
        while not go_on.wait(0.01):
            yield
        return (yield from keep_steps(*arguments))

    monkeypatch.setattr(scribbles_module, "_keep_steps", slow)
    section.objects.click()
    row, gap = np.flatnonzero(labels[16]), np.flatnonzero(labels[32] == 0)

    def draw(z, y, columns, kind):
        where = (np.full(len(columns), z), np.full(len(columns), y), columns)
        viewer.layers[SCRIBBLE_LAYER].data_setitem(where, kind)

    draw(0, 16, row, OBJECT)
    draw(0, 32, gap, BACKGROUND)
    qtbot.waitUntil(lambda: section.found is not None, timeout=60_000)
    first = section.found
    viewer.dims.set_point(0, 1)
    draw(1, 16, row, OBJECT)
    qtbot.waitUntil(lambda: "on the background" in section.status.text(), timeout=10_000)
    assert section.found is first, "it is of another slice"
    section.keep.click()
    assert panel.correct.recording.wait(10)
    panel.correct.recording.undo()
    panel.correct.recording.undo()
    qtbot.waitUntil(lambda: section.found is None, timeout=10_000)
    go_on.set()
    qtbot.waitUntil(lambda: "any by scribbles" in viewer.layers, timeout=10_000)


def result(viewer):
    """Add an image, and labels as a run of the tiny model leaves them: one disc was missed."""
    data, labels = parts.discs()
    image = viewer.add_image(data, name="im")
    card = next(entry.card for entry in list_models() if entry.name == "tiny")
    provenance = {"model": "tiny", "model_hash": card.hash, "object_axes": "YX"}
    mark = {"base": "im tiny", "runs": [provenance], "passport": provenance}
    mark["image"] = str(image.unique_id)
    missed = labels == 1
    given = np.where(missed, 0, labels).astype(np.uint16)
    return viewer.add_labels(given, name="im tiny", metadata={RESULT_KEY: mark}), missed


def test_it_learns_between_corrections_and_is_kept_or_leaves_no_trace(viewer, panel, qtbot):
    viewer.add_image(parts.discs(seed=1)[0][:48, :72], name="another")
    layer, missed = result(viewer)
    live = panel.live
    live.switch.setChecked(True)
    qtbot.waitUntil(lambda: "no corrections to learn from" in live.status.text(), timeout=60_000)
    assert not live.keep.isEnabled()
    layer.data_setitem(np.nonzero(missed), 1)
    panel.correct.mask_section.check_slice()
    after = layer.data.copy()
    qtbot.waitUntil(lambda: "learned" in live.status.text(), timeout=60_000)
    live.pause.click()
    qtbot.waitUntil(lambda: live.job is None)
    assert "would change here" in live.status.text()
    assert live.shown.layer in viewer.layers
    assert not live.shown.layer.data.any(), "all of the slice is checked: nothing is to change"
    np.testing.assert_array_equal(layer.data, after)
    live.others.start.click()
    qtbot.waitUntil(lambda: not live.others.running, timeout=60_000)
    assert live.others.strip.count() == 1 and "Of 1 image" in live.others.status.text()
    live.discard.click()
    assert live.others.strip.count() == 0
    assert live.work is None
    assert live.shown.layer is None
    assert not any(x.name.endswith("learned") for x in viewer.layers)
    assert {entry.name for entry in list_models()} >= {"tiny"}
    assert not any(entry.name.startswith("tiny-") for entry in list_models())
    assert not list(training_folder("").glob("*"))

    assert not live.switch.isChecked(), "it would learn the same again"
    assert live.footer.isHidden()

    live.switch.setChecked(True)
    qtbot.waitUntil(lambda: live.work is not None and live.work.looked, timeout=60_000)
    learned = live.work
    parts.tiny_model("other")
    panel.inputs.choose_model("other")
    assert live.work is None
    assert "What 'tiny' learned is there" in live.status.text()
    assert live.shown.layer is None
    panel.inputs.choose_model("tiny")
    assert live.work is learned
    qtbot.waitUntil(live.keep.isEnabled)
    live.keep.click()
    qtbot.waitUntil(lambda: not live._saving, timeout=60_000)
    text = live.status.text()
    kept = [entry.name for entry in list_models() if entry.name.startswith("tiny-")]
    assert kept == (["tiny-tuned"] if "Kept as" in text else []), text
    assert panel.inputs.model.value == (kept[0] if kept else "tiny")
    if kept:
        live.tick()
        assert live.job is None, "it knows all of that already"


def test_what_is_shown_goes_with_its_image_and_is_as_large_as_the_view(viewer, panel):
    image = viewer.add_image(
        np.zeros((3, 400, 300), np.float32), name="im", scale=(5, 2, 2), translate=(0, 7, 9),
        rotate=30, axis_labels=("z", "y", "x"),
    )  # fmt: skip
    geometry = get_label_geometry(image)
    window = (slice(100, 160), slice(30, 50))
    codes = np.ones((60, 20), np.uint8)
    shown = panel.live.shown
    shown.show(image, geometry.placement, (1,), window, codes)
    layer = shown.layer
    assert layer.data.shape == (1, 60, 20)
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), image.data_to_world((1, 100, 30)))
    shown.show(image, geometry.placement, (2,), (slice(7, 67), slice(0, 20)), codes)
    assert shown.layer is layer
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), image.data_to_world((2, 7, 0)))
    shown.hide()
    viewer.dims.ndisplay = 3
    viewer.layers.selection.clear()
    viewer.mouse_over_canvas = True  # and the mouse was not moved in this view yet
    shown.show(image, geometry.placement, (1,), window, codes)
    layer = shown.layer
    assert len(layer.features) and viewer.layers.selection.active is image
    viewer.layers.remove(image)
    assert layer not in viewer.layers


def test_labels_that_are_removed_while_it_looks_at_them_are_no_error(viewer, panel):
    layer, missed = result(viewer)
    layer.data_setitem(np.nonzero(missed), 1)
    recording = panel.correct.recording
    viewer.layers.remove(layer)
    assert recording.closed
    panel.live._failed(recording, InputError("the journal is damaged (it was closed)"))
    assert "damaged" not in panel.live.status.text()


def test_what_would_change_is_taken_over_as_one_step(viewer, panel, qtbot):
    layer, missed = result(viewer)
    live = panel.live
    layer.data_setitem(np.nonzero(missed), 1)
    before = layer.data.copy()
    live.switch.setChecked(True)
    qtbot.waitUntil(lambda: "would change here" in live.status.text(), timeout=60_000)
    live.pause.click()
    qtbot.waitUntil(lambda: live.job is None)
    assert not live.take.isHidden(), "an untrained model finds none of the discs"
    recording, seen = panel.correct.recording, live._seen
    learner = recording.learner
    recording.learner = replace(learner, head="semantic")
    assert live._find_place() is None, "objects are never put among classes"
    recording.learner = learner
    live.take.click()
    qtbot.waitUntil(lambda: "as one step" in live.status.text(), timeout=10_000)
    assert recording.wait(10)
    qtbot.waitUntil(lambda: not np.array_equal(layer.data, before))
    assert (layer.data[missed] == 1).all(), "the object that was corrected stays"
    with JournalReader(find_journals()[0].path) as journal:
        assert [edit.source for edit in journal.history()] == ["set", TAKEN_OVER]
        assert np.array_equal(journal.replay(), layer.data)
    assert live.shown.layer is None and live.take.isHidden()
    recording.undo()
    np.testing.assert_array_equal(layer.data, before)
    panel.correct.labels.value = viewer.add_labels(0 * before, name="others")
    live._seen = seen
    live.take_over()
    assert "That was of 'im tiny'" in live.status.text(), "others are being corrected now"


def test_it_never_learns_while_the_mouse_is_down_nor_in_the_way_of_others(viewer, panel, qtbot):
    result(viewer)
    live = panel.live
    live.switch.setChecked(True)
    live._timer.stop()
    assert live.ready
    live._activity._pressed(True)
    assert not live.ready
    live._activity._pressed(False)
    assert live.ready
    queue = get_device_queue("auto")
    queue.running = object()
    assert not live.ready
    queue.running = None
    live.pause.click()
    assert not live.ready


@pytest.mark.parametrize(("plugged", "battery"), [(False, True), (True, False), (None, False)])
def test_it_rests_on_battery(monkeypatch, plugged, battery):
    state = type("Battery", (), {"power_plugged": plugged})
    monkeypatch.setattr(psutil, "sensors_battery", lambda: state, raising=False)
    assert activity.on_battery() is battery


def test_it_says_what_it_finds_by_itself_and_what_would_change():
    found = work_module.Round(4, 1)
    assert "nothing of the labels is in view" in describe_round(found)
    codes = np.zeros((2, 2), np.uint8)
    found = work_module.Round(4, 1, LabelDiff(0, 0, 0, 5, codes), corrected=3, right=2)
    text = describe_round(found)
    assert text.startswith("4 corrected objects learned; it finds 2 of the 3 in view by itself")
    assert "Nothing else would change" in text
    found = work_module.Round(1, 1, LabelDiff(1, 0, 1, 5, codes))
    assert "2 other objects would change here" in describe_round(found)


@pytest.mark.parametrize(
    ("view", "taught", "objects", "used"),
    [(20.0, 30.0, 9, 20.0), (20.0, 50.0, 9, None), (20.0, 50.0, 1, 20.0), (None, 30.0, 9, None)],
)
def test_the_view_is_predicted_as_its_labels_were(view, taught, objects, used):
    training = {"taught_diameter": {"px": taught}, "objects": objects}
    settings = PredictSettings()
    part = work_module.ViewedPart(None, (), (), np.zeros((2, 2)), None, settings, diameter=view)
    assert work_module.choose_view_settings(part, training).diameter == used
    own = PredictSettings(diameter=9.0)
    part = work_module.ViewedPart(None, (), (), np.zeros((2, 2)), None, own, diameter=view)
    assert work_module.choose_view_settings(part, training).diameter == 9.0


def test_objects_that_were_corrected_are_left_out_of_what_would_change():
    labels = np.zeros((20, 40), np.uint16)
    labels[2:8, 2:8], labels[2:8, 20:26] = 1, 2
    known = np.zeros(labels.shape, bool)
    known[:, :10] = True
    left = work_module.without_known(labels, known)
    assert set(np.unique(left)) == {0, 2}
    assert labels.max() == 2
    assert (labels == 1).any(), "the labels themselves are not touched"


def test_of_a_large_image_in_view_the_middle_is_predicted_anew():
    whole, small = (slice(0, 5), slice(0, 20_000), slice(100, 20_100)), (slice(3, 40), slice(0, 9))
    planes, rows, columns = middle_of(whole)
    assert planes == slice(0, 5)
    assert (rows.start, columns.start) == (10_000 - LARGEST // 2, 10_100 - LARGEST // 2)
    assert rows.stop - rows.start == columns.stop - columns.start == LARGEST
    assert middle_of(small) == small
    assert middle_of((slice(0, 20_000), slice(7, 9)))[1] == slice(7, 9)
