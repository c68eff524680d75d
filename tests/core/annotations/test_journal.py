"""Journals: what was painted comes back, whatever was undone, restarted, killed or torn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_unet.core.annotations import header as base
from napari_unet.core.annotations.append_log import JournalWarning
from napari_unet.core.annotations.edits import DROPPED, KNOWN, SCRIBBLES, UNKNOWN, Edit, RegionMark
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.annotations.mask import read_annotation_mask
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.stack import open_stack

SHAPES = {"YX": (12, 17), "ZYX": (4, 9, 11), "TYX": (4, 9, 11), "TZYX": (2, 3, 7, 8)}


def image(axes="YX", seed=0):
    shape = SHAPES[axes]
    values = np.random.default_rng(seed).integers(0, 255, shape, np.uint8)
    return open_stack(values, axes)


def first_labels(axes="YX", dtype=np.uint16):
    labels = np.zeros(SHAPES[axes], dtype)
    labels[..., 2:5, 3:7] = 1
    labels[..., 5:6, 1:4] = 2
    return labels


def painted(journal, labels, where, new, **how):
    """Paint as the window does: the array first, then its journal."""
    old = labels[where].copy()
    labels[where] = new
    edit = journal.edit(where, old, new, labels=labels, **how)
    journal.record(edit)
    return edit


def restored(journal):
    out = np.zeros(journal.header.shape, journal.dtype)
    for index, frame in journal.replay_all():
        out[index] = frame
    return out


def replayed(path):
    with JournalReader(path) as journal:
        return journal.replay()


def test_a_stroke_is_restored_by_who_opens_the_image_again():
    stack, labels = image(), first_labels()
    with Journal.begin(stack, labels, model="nuclei", model_hash="ab") as journal:
        painted(journal, labels, np.nonzero(labels == 2), 9, source="fill")
    (place,) = find_journals(image())
    assert (place.header.model, place.header.model_hash, place.header.name) == (
        "nuclei",
        "ab",
        "image",
    )
    with Journal.open(place.path, image()) as journal:
        assert np.array_equal(restored(journal), labels)
        assert journal.replay().dtype == np.uint16
        assert journal.frames() == [()]
        assert journal.undoable == 1


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "by touch"])
@pytest.mark.parametrize(
    ("axes", "ndim"), [("YX", 2), ("ZYX", 2), ("ZYX", 3), ("TYX", 2), ("TZYX", 3)]
)
def test_replay_is_what_was_painted(axes, ndim, whole, data, monkeypatch):
    monkeypatch.setattr("napari_unet.core.annotations.header.WHOLE_BYTES", 2**20 if whole else 0)
    labels = first_labels(axes)
    before = labels.copy()
    done, undone = [], []
    journal = Journal.begin(image(axes), labels, ndim=ndim)
    try:
        for _ in range(data.draw(st.integers(1, 12))):
            what = data.draw(st.sampled_from(["paint", "paint", "undo", "redo", "restart"]))
            if what == "paint":
                count = data.draw(st.integers(0, 30))
                rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
                where = tuple(rng.integers(0, n, count) for n in labels.shape)
                state = labels.copy()
                painted(journal, labels, where, data.draw(st.integers(0, 3)))
                if not np.array_equal(state, labels):
                    done.append(state)
                    undone.clear()
            elif what == "restart":
                journal.close()
                journal = Journal.open(journal.path)
            else:
                source, target = (done, undone) if what == "undo" else (undone, done)
                step = getattr(journal, what)()
                assert (step is None) == (not source)
                if step is not None:
                    target.append(labels.copy())
                    labels[step.where] = step.values
                    assert np.array_equal(labels, source.pop())
            touched = restored(journal)
            for index in np.ndindex(*journal.header.leading):
                if journal.holds(index).any():
                    assert np.array_equal(touched[index], labels[index])
                    assert np.array_equal(journal.replay(index), labels[index])
                else:
                    assert np.array_equal(labels[index], before[index])
            assert (journal.undoable, journal.redoable) == (len(done), len(undone))
    finally:
        journal.close()


def test_undo_and_redo_go_across_frames_and_restarts():
    labels = first_labels("TYX")
    with Journal.begin(image("TYX"), labels) as journal:
        for frame in (3, 0, 2):
            painted(journal, labels, (np.array([frame]), np.array([1]), np.array([1])), 7)
    with Journal.open(journal.path) as journal:
        step = journal.undo()
        assert [w.tolist() for w in step.where] == [[2], [1], [1]]
        assert step.values.tolist() == [0]
        assert journal.undo().where[0].tolist() == [0]
    with Journal.open(journal.path) as journal:
        assert journal.frames() == [(3,)]
        again = journal.redo()
        assert (again.where[0].tolist(), again.values.tolist()) == ([0], [7])
        assert journal.replay((0,))[1, 1] == 7
        assert journal.replay((2,))[1, 1] == 0


def test_a_new_stroke_ends_what_can_be_redone():
    labels = first_labels()
    with Journal.begin(image(), labels) as journal:
        painted(journal, labels, np.nonzero(labels == 1), 5)
        journal.undo()
        painted(journal, labels, np.nonzero(labels == 2), 6)
        assert journal.redo() is None


def test_a_journal_cut_at_any_byte_restores_every_whole_stroke():
    labels = first_labels()
    states, ends = [labels.copy()], []
    with Journal.begin(image(), labels) as journal:
        ends.append(journal.path.stat().st_size)
        for number in range(2):
            painted(journal, labels, (np.arange(number, number + 3), np.arange(3)), number + 3)
            states.append(labels.copy())
            ends.append(journal.path.stat().st_size)
    data = journal.path.read_bytes()
    for size in range(ends[0], len(data)):
        journal.path.write_bytes(data[:size])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JournalWarning)
            with Journal.open(journal.path) as torn:
                assert np.array_equal(torn.replay(), states[sum(e <= size for e in ends) - 1])
                torn.undo()


def test_an_edit_of_many_objects_is_written_whole_or_not_at_all():
    labels, stack = first_labels("TYX"), image("TYX")
    before = labels.copy()
    with Journal.begin(stack, labels) as journal:
        start = journal.path.stat().st_size
        where = np.nonzero(labels == 1)
        edit = journal.plan(where, 1, 0, labels=labels, accepted=[(2, 0), (2, 3)])
        assert np.array_equal(labels, before)
        journal.record(edit)
        assert (journal.undoable, edit.ids) == (1, (1, 2))
    data = journal.path.read_bytes()
    after = np.where(before == 1, 0, before)
    for size in range(start, len(data) + 1, 7):
        journal.path.write_bytes(data[:size])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JournalWarning)
            with Journal.open(journal.path) as torn:
                expected = after if torn.undoable else before
                assert np.array_equal(torn.replay(), expected)
    journal.path.write_bytes(data)
    with Journal.open(journal.path) as whole:
        known = [read_annotation_mask(whole, (t,)).known for t in range(4)]
        assert [mask[5, 2] for mask in known] == [True, False, False, True]
        step = whole.undo()
        after[step.where] = step.values
        assert np.array_equal(after, before)


def test_a_moved_image_has_its_journal_and_a_changed_one_has_none(tmp_path):
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    tifffile.imwrite(tmp_path / "a.tif", values)
    labels = np.zeros((20, 30), np.uint8)
    with Journal.begin(open_stack(tmp_path / "a.tif"), labels) as journal:
        painted(journal, labels, (np.array([1]), np.array([2])), 3)
    (tmp_path / "a.tif").rename(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "a.tif", values + 1)
    assert find_journals(open_stack(tmp_path / "a.tif")) == []
    moved = open_stack(tmp_path / "b.tif")
    (place,) = find_journals(moved)
    assert place.header.path == str(tmp_path / "a.tif")
    Journal.open(place.path, moved).close()
    with JournalReader(place.path) as journal:
        assert journal.header.path == str(tmp_path / "b.tif")
    with pytest.raises(InputError, match="another image"):
        Journal.open(place.path, open_stack(tmp_path / "a.tif"))


def test_two_writers_are_told_and_a_reader_is_not_disturbed():
    labels = first_labels()
    with Journal.begin(image(), labels) as journal:
        painted(journal, labels, np.nonzero(labels == 1), 5)
        with pytest.raises(InputError, match="open in another window"):
            Journal.open(journal.path)
        with JournalReader(journal.path) as reader:
            assert np.array_equal(reader.replay(), labels)


def test_scribbles_are_undone_with_the_rest_and_leave_the_labels_alone():
    labels, scribbles = first_labels(), np.zeros((12, 17), np.uint8)
    with Journal.begin(image(), labels) as journal:
        painted(journal, labels, np.nonzero(labels == 1), 5)
        painted(journal, scribbles, (np.array([3, 3]), np.array([4, 5])), 2, canvas=SCRIBBLES)
        assert np.array_equal(journal.replay(), labels)
        assert np.array_equal(journal.replay(canvas=SCRIBBLES), scribbles)
        assert journal.undo().edit.canvas == SCRIBBLES
        assert not journal.replay(canvas=SCRIBBLES).any()


def test_marks_and_confirmed_objects_are_in_the_history_in_order():
    labels = first_labels("ZYX")
    with Journal.begin(image("ZYX"), labels) as journal:
        journal.mark(KNOWN, (1,))
        journal.confirm([2], (1,))
        painted(journal, labels, (np.array([1]), np.array([0]), np.array([0])), 8)
        journal.mark(UNKNOWN, (1,), (slice(0, 4), slice(2, 5)))
        journal.mark(DROPPED, (3,))
    with Journal.open(journal.path) as journal:
        assert journal.frames() == [(1,), (3,)]
        mark, confirmed, edit, unmark = journal.history((1,))
        assert (mark.meaning, mark.box) == (KNOWN, ((1, 2), (0, 9), (0, 11)))
        assert (confirmed.ids, confirmed.pixels) == ((2,), 0)
        assert (edit.ids, edit.pixels, edit.box) == ((8,), 1, ((1, 2), (0, 1), (0, 1)))
        assert (unmark.meaning, unmark.box) == (UNKNOWN, ((1, 2), (0, 4), (2, 5)))
        assert journal.undo().edit.ids == (8,)
        assert len(journal.undo().values) == 0
        assert all(isinstance(event, RegionMark) for event in journal.history((1,)))
        with pytest.raises(InputError, match="not in labels of shape"):
            journal.mark(KNOWN, (4,))


def test_labels_beyond_the_first_type_are_kept():
    labels = first_labels(dtype=np.uint8).astype(np.uint32)
    with Journal.begin(image(), labels.astype(np.uint8)) as journal:
        painted(journal, labels, np.nonzero(labels == 1), 70000)
        assert journal.replay().dtype == np.uint32
        assert np.array_equal(journal.replay(), labels)


def test_of_a_huge_volume_only_planes_around_the_edit_are_kept(monkeypatch):
    monkeypatch.setattr("napari_unet.core.annotations.header.WHOLE_BYTES", 0)
    monkeypatch.setattr(base, "REACH", 1)
    labels = first_labels("ZYX")
    with Journal.begin(image("ZYX"), labels, ndim=3) as journal:
        assert not journal.holds().any()
        with pytest.raises(InputError, match="give labels="):
            journal.edit((np.array([3]), np.array([0]), np.array([0])), 0, 4)
        painted(journal, labels, (np.array([3]), np.array([0]), np.array([0])), 4)
        assert journal.holds().tolist() == [False, False, True, True]
        assert np.array_equal(journal.replay()[2:], labels[2:])
        assert not journal.replay()[:2].any()


def test_labels_that_do_not_fit_the_image_are_refused():
    with pytest.raises(InputError, match="give integers of shape"):
        Journal.begin(image(), np.zeros((5, 5), int))
    with pytest.raises(InputError, match="give integers of shape"):
        Journal.begin(image(), np.zeros(SHAPES["YX"]))
    with pytest.raises(InputError, match="negative"):
        Journal.begin(image(), np.full(SHAPES["YX"], -1))
    assert find_journals(image()) == []


def test_an_edit_takes_pixels_in_any_order_and_more_than_once():
    where = (np.array([2, 0, 2, 1]), np.array([1, 3, 1, 0]))
    edit = Edit.from_pixels((4, 5), where, old=[1, 2, 9, 3], new=[9, 2, 4, 0])
    assert edit.flat().tolist() == [5, 11]
    assert edit.values(after=False).tolist() == [3, 1]
    assert edit.values().tolist() == [0, 4]
    assert edit.ids == (1, 3, 4)
    assert edit.box == ((1, 3), (0, 2))


@pytest.mark.parametrize(("where", "new"), [(([4], [0]), 1), (([0], [-1]), 1), (([0], [0]), -1)])
def test_edits_outside_the_labels_or_negative_are_refused(where, new):
    with pytest.raises(InputError, match=r"does not fit|negative"):
        Edit.from_pixels((4, 5), where, 0, new)


@contextmanager
def full_disk(path, room=0):
    """Let no file grow longer than this one is, for a while."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("room", [0, 30])
def test_on_a_full_disk_nothing_is_lost_and_the_edit_can_be_recorded_later(tmp_path, room):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((12, 17), np.uint8))
    labels = first_labels()
    with Journal.begin(open_stack(tmp_path / "a.tif"), labels) as journal:
        painted(journal, labels, np.nonzero(labels == 1), 5)
        saved = labels.copy()
        where = (np.arange(9), np.arange(9))
        old = labels[where]
        labels[where] = 3
        edit = journal.edit(where, old, 3)
        with full_disk(journal.path, room):
            with pytest.raises(OutputError, match="make room on the disk"):
                journal.record(edit)
            with pytest.raises(OutputError, match="make room on the disk"):
                journal.undo()
            assert (journal.undoable, journal.redoable) == (1, 0)
            assert np.array_equal(replayed(journal.path), saved)
        journal.record(edit)
        assert journal.undoable == 2
    assert np.array_equal(replayed(journal.path), labels)


def test_a_journal_that_cannot_be_begun_leaves_nothing(tmp_path):
    (tmp_path / "small").write_bytes(b"0")
    with full_disk(tmp_path / "small"), pytest.raises(OutputError, match="cannot be written"):
        Journal.begin(image(), first_labels())
    assert find_journals(image()) == []


def test_an_image_that_could_not_be_kept_does_not_cost_the_edit(tmp_path):
    rng = np.random.default_rng(0)
    stack = open_stack(rng.integers(0, 2**16, (300, 300), np.uint16), "YX")
    labels = np.zeros((300, 300), np.uint8)
    with Journal.begin(stack, labels) as journal:
        with full_disk(journal.path, 2000), pytest.warns(JournalWarning, match="save it as a file"):
            painted(journal, labels, (np.arange(9), np.arange(9)), 4)
        assert np.array_equal(journal.replay(), labels)


def test_strokes_may_be_recorded_from_several_threads():
    labels = np.zeros(SHAPES["ZYX"], np.uint16)
    with Journal.begin(image("ZYX"), labels) as journal:

        def paint(plane):
            for row in range(9):
                where = (np.full(11, plane), np.full(11, row), np.arange(11))
                journal.record(journal.edit(where, 0, plane + 1))
                journal.replay((plane,))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(paint, range(4)))
        assert journal.undoable == 36
    expected = np.broadcast_to(np.arange(1, 5)[:, None, None], labels.shape)
    assert np.array_equal(replayed(journal.path), expected)


def test_what_a_kill_left_of_a_beginning_is_swept_after_a_day():
    with Journal.begin(image(), first_labels()) as journal:
        folder = journal.path.parent
    old, new = folder / ".a.journal.0.partial", folder / ".b.journal.0.partial"
    for path in (old, new):
        path.write_bytes(b"0")
    os.utime(old, (0, 0))
    Journal.begin(image(), first_labels()).close()
    assert new.exists()
    assert not old.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="kills with SIGKILL")
def test_no_stroke_that_was_reported_as_saved_is_lost_by_a_kill(tmp_path):
    benchmark = Path(__file__).parents[3] / "benchmarks" / "journal.py"
    found = tmp_path / "found.json"
    command = [sys.executable, benchmark, "--strokes", "0", "--kills", "25", "--json", found]
    subprocess.run(command, check=True, capture_output=True)
    kills = json.loads(found.read_text())["kills"]
    assert kills["lost"] == 0
    assert kills["saved"] > 0
