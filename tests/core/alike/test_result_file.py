"""Labels in a file are edited by way of a journal: whole or not at all, and undone."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_unet.core.alike import result_file
from napari_unet.core.alike.group_edits import GroupEdit
from napari_unet.core.alike.result_file import ResultFile
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.instances.label_edits import DELETE
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.provenance import read_provenance
from napari_unet.core.io.stack import open_stack
from napari_unet.nn.inference.model import save_model

SHAPE = (30, 40)
PROVENANCE = {"model": "m", "model_hash": "1" * 64, "object_axes": "YX", "settings": {}}


@pytest.fixture
def files(tmp_path):
    """An image, and its labels as a run leaves them."""
    labels = np.zeros(SHAPE, np.uint16)
    labels[2:10, 2:10], labels[15:25, 20:30] = 1, 2
    source, target = tmp_path / "a.tif", tmp_path / "out" / "a.tif"
    tifffile.imwrite(source, (labels > 0).astype(np.float32))
    target.parent.mkdir()
    with create_output(target, SHAPE, "YX", np.uint16) as output:
        output.array[...] = labels
        output.finish(np.uint16, PROVENANCE)
    return source, target, labels


def deletion(labels, label) -> GroupEdit:
    where = np.nonzero(labels == label)
    gone = np.full(len(where[0]), label)
    return GroupEdit(DELETE, where, gone, 0 * gone, done=1)


def test_an_edit_is_one_entry_of_the_journal_and_undone_in_both(files):
    source, target, labels = files
    file, _, values = ResultFile.read(source, target)
    assert np.array_equal(values, labels) and file.ndim == 2 and file.journal is None
    file = file.change(deletion(labels, 1), "delete alike")
    after = np.where(labels == 1, 0, labels)
    assert np.array_equal(read_labels(target), after)
    assert read_provenance(target) == PROVENANCE
    (found,) = find_journals(open_stack(source))
    with JournalReader(found.path) as journal:
        assert [edit.source for edit in journal.history()] == ["delete alike"]
        assert (journal.header.model, journal.header.path) == ("m", str(source))
        assert np.array_equal(journal.replay(), after)
    again, _, values = ResultFile.read(source, target)
    assert again.journal == found.path, "it goes on with the journal that holds the file's labels"
    file = again.change(deletion(values, 2), "delete alike")
    assert not read_labels(target).any() and len(find_journals()) == 1
    file = file.undo()
    assert np.array_equal(read_labels(target), after)
    file.undo()
    assert np.array_equal(read_labels(target), labels)
    assert [path.name for path in target.parent.iterdir()] == ["a.tif"]


def test_a_disk_that_is_full_leaves_both_as_they_were(files, monkeypatch):
    source, target, labels = files
    file, *_ = ResultFile.read(source, target)
    before = target.read_bytes()

    def full(*_, **__):
        raise OutputError("the disk is full")

    monkeypatch.setattr(result_file, "create_output", full)
    with pytest.raises(OutputError):
        file.change(deletion(labels, 1), "delete alike")
    assert target.read_bytes() == before
    with JournalReader(find_journals()[0].path) as journal:
        assert np.array_equal(journal.replay(), labels) and journal.undoable == 0
    assert ResultFile.read(source, target)[0].journal is None


def test_corrections_that_are_not_in_the_file_are_never_passed_over(files):
    source, target, labels = files
    file, *_ = ResultFile.read(source, target)
    with Journal.begin(open_stack(source), labels) as journal:
        edit = deletion(labels, 2)
        journal.record(journal.plan(edit.where, edit.before, edit.after))
    with pytest.raises(InputError, match="not in its file"):
        file.change(deletion(labels, 1), "delete alike")
    assert np.array_equal(read_labels(target), labels)


def test_a_file_that_was_changed_or_is_no_result_is_left_alone(files):
    source, target, labels = files
    file, *_ = ResultFile.read(source, target)
    with create_output(target, SHAPE, "YX", np.uint16, overwrite=True) as output:
        output.array[...] = labels + 1
        output.finish(np.uint16, PROVENANCE)
    with pytest.raises(InputError, match="changed meanwhile"):
        file.change(deletion(labels, 1), "delete alike")
    tifffile.imwrite(target, labels)
    with pytest.raises(InputError):
        ResultFile.read(source, target)


def test_labels_of_classes_are_known_as_such(files, make_model, home):
    source, target, labels = files
    save_model(make_model(name="m", head="semantic", classes=3), "m")
    made_by = {**PROVENANCE, "model_hash": ""}
    with create_output(target, SHAPE, "YX", np.uint16, overwrite=True) as output:
        output.array[...] = labels
        output.finish(np.uint16, made_by)
    file, *_ = ResultFile.read(source, target)
    assert file.head == "semantic"
    file.change(deletion(labels, 1), "delete alike")
    with JournalReader(find_journals()[0].path) as journal:
        assert journal.header.head == "semantic"
