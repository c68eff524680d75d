"""Fix one, fix all alike, in a real window with a real model and journal."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import tune_parts as parts
from discs import disc
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt

from napari_unet.core.alike.group_edits import GroupEdit
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.instances.label_edits import DELETE
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.gui.correct import alike_search
from napari_unet.gui.correct.alike_edit import AlikeOutcome, undo_files
from napari_unet.gui.correct.alike_scope import FILES
from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.correct.file_undo import FileReread, ShownFile, show_again
from napari_unet.gui.correct.layer_recording import Learner
from napari_unet.gui.layers.convert import layer_stack
from napari_unet.gui.layers.result_info import (
    ResultInfo,
    is_unedited,
    labels_checksum,
    update_info,
)
from napari_unet.gui.open_files import read_files, show_files

SHAPE = (96, 200)
SPECKS = {n: (12 + 36 * (n // 5), 20 + 40 * (n % 5)) for n in range(1, 10)}
CELLS = {10 + n: (30 + 36 * (n // 5), 20 + 40 * (n % 5)) for n in range(10)}


@pytest.fixture
def correct(viewer, threshold_model):
    """The Correct step over two planes of nine bright specks and of ten discs."""
    threshold_model("bright", 2)
    labels = np.zeros((2, *SHAPE), np.uint16)
    for plane in labels:
        for number, place in CELLS.items():
            plane[disc(SHAPE, place, 9)] = number
        for number, place in SPECKS.items():
            plane[disc(SHAPE, place, 3)] = number
    rng = np.random.default_rng(0)
    data = (labels > 0) * 0.8 + rng.normal(0, 0.02, labels.shape)
    data[np.isin(labels, list(SPECKS))] += 0.4
    image = viewer.add_image(data.astype(np.float32), name="im")
    viewer.add_labels(labels, name="cells")
    panel = parts.panel_of(viewer)
    panel.inputs.choose_model("bright")
    panel.open_step("Correct")
    assert panel.correct.labels.value is not None
    return panel.correct, image


def flat(specks: int) -> tuple[np.ndarray, np.ndarray]:
    """One plane of ten discs and so many specks, as an image and its labels."""
    labels = np.zeros(SHAPE, np.uint16)
    for number, place in CELLS.items():
        labels[disc(SHAPE, place, 9)] = number
    for number in range(1, specks + 1):
        labels[disc(SHAPE, SPECKS[number], 3)] = number
    data = (labels > 0) * 0.8 + np.random.default_rng(1).normal(0, 0.02, SHAPE)
    data[(labels > 0) & (labels < 10)] += 0.4
    return data.astype(np.float32), labels


def result_file(folder, name, specks):
    """Write an image and, into a folder of results, its labels."""
    data, labels = flat(specks)
    tifffile.imwrite(folder / f"{name}.tif", data)
    (folder / "segmented").mkdir(exist_ok=True)
    made_by = {"model": "bright", "model_hash": "0" * 64, "object_axes": "YX"}
    with create_output(folder / "segmented" / f"{name}.tif", SHAPE, "YX", np.uint16) as output:
        output.array[...] = labels
        output.finish(np.uint16, made_by)
    return labels


def key_of(viewer, letter):
    return next((what for key, what in viewer.keymap.items() if str(key) == letter), None)


def captions(strip):
    return [strip.item(row).text() for row in range(strip.count())]


def settle(section, qtbot):
    qtbot.waitUntil(lambda: section.job is None, timeout=60_000)


def test_what_is_done_to_one_is_done_to_all_as_one_step(viewer, correct, qtbot):
    section, image = correct
    layer, alike = section.labels.value, section.alike
    second, said = layer.data[1].copy(), len(notification_manager.records)
    for speck in (1, 2):
        where = np.nonzero(layer.data[0] == speck)
        layer.data_setitem((np.zeros(len(where[0]), int), *where), 0)
    viewer.dims.ndisplay = 3
    alike.search()
    assert "No slice is in view" in alike.status.text()
    viewer.dims.ndisplay = 2
    alike.slider.setValue(-7)  # as it was left: the search sets it anew
    key_of(viewer, "A")(viewer)
    settle(alike, qtbot)
    found = {alike.alike.items[place].labels[0] for place in alike.marked}
    assert found == set(range(3, 10))
    assert "7 of 17 objects are like the 2 deleted" in alike.status.text()
    alike._failed(InputError("It went wrong."))
    viewer.layers.remove(viewer.add_points(name="of another"))
    assert alike.status.text() == "It went wrong.", "no file was opened"
    kept, gone = 3, 4
    outlines = viewer.layers["alike"].data
    assert outlines[0][disc(SHAPE, SPECKS[kept], 3)].any() and not outlines[1].any()
    alike.alike.choose((0,), kept, alike.least)  # as a click on it does
    alike.alike.choose((0,), gone, 1.0)  # one that is not marked: in, whatever the slider says
    scores = alike.alike.scores
    alike._rank(alike.alike)
    qtbot.waitUntil(lambda: alike.alike.scores is not scores, timeout=10_000)
    alike.apply.click()
    qtbot.waitUntil(lambda: not (layer.data[0] == gone).any(), timeout=20_000)
    assert {kept, *CELLS} <= set(np.unique(layer.data[0]).tolist())
    assert not np.isin(layer.data[0], [1, 2, 4, 5]).any()
    assert np.array_equal(layer.data[1], second)
    assert "alike" not in viewer.layers
    recording = section.recording
    assert recording.wait(10)
    with JournalReader(find_journals(layer_stack(image))[0].path) as journal:
        sources = [edit.source for edit in journal.history()]
        assert sources == ["set", "set", "delete alike"]
        assert np.array_equal(journal.replay((0,)), layer.data[0])
    recording.undo()
    assert (layer.data[0] == gone).any() and not (layer.data[0] == 1).any()
    assert len(notification_manager.records) == said


def test_it_reaches_other_images_and_files_each_with_its_own_undo(viewer, correct, qtbot, tmp_path):
    section, _ = correct
    data, labels = flat(4)
    viewer.add_image(flat(5)[0], name="shown")
    other = viewer.add_image(data, name="other")
    section.tracker.watch(viewer.add_labels(labels.copy(), name="more"), other)
    before = {
        name: result_file(tmp_path, name, n) for name, n in (("a", 3), ("b", 2), ("c", 1), ("d", 5))
    }
    with Journal.begin(open_stack(tmp_path / "c.tif"), before["c"]) as journal:
        journal.confirm([10], ())  # of a file that was corrected, labels are never passed over
        edit = journal.edit(([0], [0]), [0], [99])
        journal.record(edit)
    panel = section.dock.widget()
    panel.open_step("Batch")
    panel.batch.add([tmp_path / f"{name}.tif" for name in "abcd"])
    panel.open_step("Correct")
    section.labels.value = layer = viewer.layers["cells"]
    for speck in (1, 2):
        where = np.nonzero(layer.data[0] == speck)
        layer.data_setitem((np.zeros(len(where[0]), int), *where), 0)
    alike = section.alike
    alike.scope.value = FILES
    alike.find_button.click()
    settle(alike, qtbot)
    names = [image.name for image in alike.alike.images]
    assert names == ["im", "other", "a.tif", "b.tif"], alike.status.text()
    assert "c.tif: c has corrections that are not in its file" in alike.status.text()
    assert "d.tif: it is open without these labels" in alike.status.text()
    counts = [alike.images.topLevelItem(n).text(1) for n in range(4)]
    assert counts == ["16 of 36", "4 of 14", "3 of 13", "2 of 12"]
    strip = alike.pictures
    assert captions(strip) == ["other\n4 of 14", "a.tif\n3 of 13", "b.tif\n2 of 12"]
    qtbot.waitUntil(lambda: len(strip._icons) == 3, timeout=10_000)
    strip.itemClicked.emit(strip.item(0))
    assert viewer.layers.selection.active is viewer.layers["more"]
    assert panel.inputs.image.value is other
    assert alike.apply.text() == "Apply to 25"
    strip.itemClicked.emit(strip.item(2))
    qtbot.waitUntil(lambda: "b bright" in viewer.layers, timeout=10_000)
    assert alike.apply.text() == "Apply to 23", "a file that is open is left out"
    assert "b.tif is open: Apply leaves it out." in alike.status.text()
    assert captions(strip)[2] == "b.tif\nopen"
    viewer.layers.remove("b bright")
    viewer.layers.remove("b")
    assert alike.apply.text() == "Apply to 25" and captions(strip)[2] == "b.tif\n2 of 12"
    alike.images.topLevelItem(3).setCheckState(0, Qt.CheckState.Unchecked)
    assert captions(strip) == ["other\n4 of 14", "a.tif\n3 of 13"]
    assert alike.apply.text() == "Apply to 23"
    section.labels.value = layer
    alike.apply.click()
    qtbot.waitUntil(lambda: "1 file changed" in alike.status.text(), timeout=60_000)
    more = viewer.layers["more"]
    qtbot.waitUntil(lambda: more.data[more.data > 0].min() == 10, timeout=10_000)
    targets = {name: tmp_path / "segmented" / f"{name}.tif" for name in "abc"}
    after = {name: read_labels(path) for name, path in targets.items()}
    assert np.array_equal(after["a"], np.where(before["a"] < 10, 0, before["a"]))
    assert all(np.array_equal(after[name], before[name]) for name in "bc")
    for stack in (layer_stack(other), open_stack(tmp_path / "a.tif")):
        with JournalReader(find_journals(stack)[0].path) as journal:
            assert [edit.source for edit in journal.history()] == ["delete alike"]
    alike._ended(alike._job, AlikeOutcome(), "failed")
    assert not alike.undo_button.isHidden(), "nothing was done since"
    section.tracker.recordings[more].undo()
    assert np.array_equal(more.data, labels)
    show_files(viewer, run_to_end(read_files(tmp_path / "a.tif", [targets["a"]])))
    again = viewer.layers["a bright"]
    assert np.array_equal(again.data, after["a"])
    alike.undo_button.click()
    qtbot.waitUntil(lambda: "1 file as before" in alike.status.text(), timeout=10_000)
    assert "1 layer read again" in alike.status.text()
    assert np.array_equal(again.data, before["a"])
    assert np.array_equal(read_labels(targets["a"]), before["a"])
    assert alike.undo_button.isHidden()


def test_without_a_correction_it_says_what_to_do(viewer, correct, qtbot):
    section, _ = correct
    section.alike.find_button.click()
    settle(section.alike, qtbot)
    assert "first" in section.alike.status.text()
    assert section.alike.alike is None


def test_what_is_painted_while_it_is_saved_stays(viewer, models, qtbot):
    viewer.add_image(np.zeros(SHAPE, np.float32), name="im")
    labels = np.zeros(SHAPE, np.uint16)
    labels[10:20, 10:20] = 1
    layer = viewer.add_labels(labels, name="cells")
    recording = get_edit_tracker(viewer).begin_recording(layer)
    where = np.nonzero(labels == 1)
    change = GroupEdit(DELETE, where, np.full(100, 1), np.zeros(100, int), done=1)
    recording.change(change, "delete alike")
    assert (layer.data == 1).sum() == 100  # the disk comes first
    layer.data_setitem((np.array([12, 12]), np.array([12, 40])), 7)
    qtbot.waitUntil(lambda: not (layer.data == 1).any(), timeout=10_000)
    assert (layer.data == 7).sum() == 2
    assert recording.wait(10)
    assert np.array_equal(recording.journal.replay(), layer.data)
    for _ in range(2):
        recording.undo()
        assert np.array_equal(recording.journal.replay(), layer.data)
    assert (layer.data == 1).sum() == 100


class _Open:
    """Stands for the recording of labels of another image that is open."""

    closed, pending, journal, data = False, 0, None, None

    def __init__(self, name):
        self.geometry = SimpleNamespace(stack=SimpleNamespace(name=name), array=lambda data: data)

    def wait(self, _):
        return True


def test_an_image_that_cannot_be_searched_does_not_stop_the_search(make_model, monkeypatch):
    def refuse(*_, **__):
        raise InputError("it has no such channel.")
        yield

    monkeypatch.setattr("napari_unet.nn.inference.object_features.describe_stack", refuse)
    others = [SimpleNamespace(recording=_Open("odd"), settings=None)]
    query = SimpleNamespace(recording=SimpleNamespace(learner=Learner()), others=others, files=())
    problems = []
    assert run_to_end(alike_search._others(query, make_model(), DELETE, problems)) == []
    assert problems == ["odd: it has no such channel."]


def test_an_undo_that_cannot_be_written_can_be_tried_again(tmp_path):
    class Full:
        source = tmp_path / "a.tif"

        def undo(self):
            raise OutputError("the disk is full.")

    files = [Full()]
    outcome = AlikeOutcome(left=[*files])
    run_to_end(undo_files(files, outcome))
    assert outcome.left == files and outcome.problems == ["a.tif: the disk is full."]


def test_another_edit_and_the_end_of_the_recording_are_noticed(viewer, models):
    viewer.add_image(np.zeros(SHAPE, np.float32), name="im")
    layer = viewer.add_labels(np.zeros(SHAPE, np.uint16), name="cells")
    recording = get_edit_tracker(viewer).begin_recording(layer)
    layer.data_setitem((np.array([12]), np.array([12])), 7)
    assert recording.wait(10)
    before = alike_search.journal_state(recording)
    recording.undo()
    layer.data_setitem((np.array([30]), np.array([30])), 7)
    assert recording.wait(10)
    assert recording.journal.undoable == 1 and not recording.journal.redoable, "as before"
    assert alike_search.journal_state(recording) != before
    before = alike_search.journal_state(recording)
    layer.data = np.ones(SHAPE, np.uint16)
    assert alike_search.journal_state(recording) != before


def test_what_is_painted_while_files_are_undone_stays():
    before = np.zeros((8, 12), np.uint16)
    after = before.copy()
    after[2:5, 3:9] = 1
    still, painted, edited = (Labels(before.copy()) for _ in range(3))
    for layer in (still, painted, edited):
        update_info(layer, checksum=labels_checksum(before))
    found = [
        FileReread.from_labels(ShownFile(x, x.data, "a.tif", np.asarray), x.data.copy(), after)
        for x in (still, painted, edited)
    ]
    assert found[0].window == (slice(2, 5), slice(3, 9))
    painted.data[2, 3] = 7
    tracker = SimpleNamespace(was_edited=lambda layer: layer is edited)
    assert show_again(tracker, found) == 1
    assert np.array_equal(still.data, after)
    assert is_unedited(still, ResultInfo.from_layer(still))
    assert painted.data[2, 3] == 7 and painted.data.sum() == 7 and not edited.data.any()
