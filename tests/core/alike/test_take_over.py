"""What a model finds now is taken over: objects, their ids, and never what the user decided."""

from __future__ import annotations

import numpy as np

from napari_unet.core.alike.edit_kinds import recognise
from napari_unet.core.alike.take_over import take_over, without_cut, without_known
from napari_unet.core.annotations.edits import TAKEN_OVER
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.mask import read_annotation_mask
from napari_unet.core.io.stack import open_stack

SHAPE = (40, 120)
WHOLE = tuple(slice(0, n) for n in SHAPE)


def squares(**ids: int) -> np.ndarray:
    """Squares of 10 pixels in places a to j; capital letters are 3 pixels larger."""
    labels = np.zeros(SHAPE, np.uint16)
    for place, label in ids.items():
        number = "abcdefghij".index(place.lower())
        y, x = 2 + 20 * (number // 5), 2 + 24 * (number % 5)
        size = 10 + 3 * place.isupper()
        labels[y : y + size, x : x + size] = label
    return labels


def applied(labels, edit):
    after = labels.copy()
    assert np.array_equal(after[edit.where], edit.before)
    after[edit.where] = edit.after
    return after


def test_objects_come_go_and_grow_but_those_of_the_user():
    labels, found = squares(a=1, b=2, c=3, d=4), squares(A=7, c=8, D=2, e=9, f=5)
    known = squares(d=1, f=1) > 0  # one object was corrected, one was deleted
    edit = take_over(labels, found, known, (), WHOLE)
    after = applied(labels, edit)
    assert (edit.kind, edit.done, edit.left_out) == (TAKEN_OVER, 3, 0)
    assert np.array_equal(after, squares(A=1, c=3, d=4, e=5)), "1 grew, 2 went, 5 came"
    assert without_known(labels, known).max() == 3 and labels.max() == 4


def test_what_the_edge_of_the_view_cuts_stays_whole():
    labels, found = squares(a=1, b=2), squares(A=1, f=2, g=3)
    window = (slice(0, 40), slice(5, 60))  # cuts what is at a and f
    edit = take_over(labels, found[window], np.zeros((40, 55), bool), (), window)
    assert np.array_equal(applied(labels, edit), squares(a=1, g=3))
    assert (edit.done, edit.left_out) == (2, 2)


def test_an_object_stays_if_what_replaces_it_cannot_be_drawn():
    labels, found = squares(b=1), np.zeros(SHAPE, np.uint32)
    found[2:40, 26:34] = 1  # a larger one, cut by the edge of the view
    window = (slice(0, 30), slice(0, 120))
    edit = take_over(labels, found[window], np.zeros((30, 120), bool), (), window)
    assert len(edit.after) == 0 and edit.left_out == 2


def test_of_a_stack_one_plane_changes_and_classes_are_taken_pixel_by_pixel():
    labels = np.stack([squares(a=1), squares(a=1)])
    edit = take_over(labels, squares(b=1), np.zeros(SHAPE, bool), (1,), WHOLE)
    assert np.array_equal(applied(labels, edit), np.stack([squares(a=1), squares(b=2)]))
    known = squares(a=1) > 0
    edit = take_over(labels[0], squares(b=2), known, (), WHOLE, classes=True)
    assert np.array_equal(applied(labels[0], edit), squares(a=1, b=2)) and edit.done == 100


def test_nothing_is_learned_from_it_also_with_an_id_that_was_deleted():
    labels = squares(a=1, b=2)
    stack = open_stack(np.zeros(SHAPE, np.float32))
    with Journal.begin(stack, labels) as journal:
        gone = np.nonzero(labels == 2)
        journal.record(journal.edit(gone, np.full(100, 2), np.zeros(100, int)))
        labels[gone] = 0
        before = read_annotation_mask(journal).known
        edit = take_over(labels, squares(a=1, e=9), before, (), WHOLE)
        assert set(edit.after) == {2}
        taken = journal.plan(edit.where, edit.before, edit.after, source=TAKEN_OVER)
        journal.record(taken)
        after = applied(labels, edit)
        assert np.array_equal(journal.replay(), after)
        assert np.array_equal(read_annotation_mask(journal).known, before)
        assert recognise(taken, after, 2) is None


def test_what_the_window_cuts_and_what_meets_it_is_not_compared():
    old, new = np.zeros((20, 40), np.uint16), np.zeros((20, 40), np.uint16)
    old[0:4, 2:8], old[8:12, 30:40], old[8:12, 10:20] = 1, 2, 3
    new[0:4, 2:8], new[8:12, 30:38], new[8:12, 10:20] = 5, 6, 7
    window = (slice(0, 20), slice(0, 40))
    before, after = without_cut(old, new, window, (20, 90))
    assert set(np.unique(before)) == {0, 1, 3}
    assert set(np.unique(after)) == {0, 5, 7}
    before, after = without_cut(old, new, window, (20, 40))
    assert np.array_equal(before, old) and np.array_equal(after, new)
