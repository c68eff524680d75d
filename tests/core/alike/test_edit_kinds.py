"""What the user did to an object is read from the edit, however it was done."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.alike.edit_kinds import recognise
from napari_unet.core.alike.group_edits import ACCEPT, RESHAPE
from napari_unet.core.annotations.edits import Edit
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT

ALL, LEFT = np.s_[1, 10:20, 10:30], np.s_[1, 10:20, 10:20]


def labels():
    values = np.zeros((3, 40, 50), np.uint16)
    values[ALL] = 4
    values[1, 10:20, 30:35] = 7
    return values


def done(place, new):
    """Paint a value over a place that has one; return the edit and the labels after it."""
    after = labels()
    where = tuple(axis.ravel() for axis in np.mgrid[place[0] : place[0] + 1, place[1], place[2]])
    old = after[where]
    after[where] = new
    return Edit.from_pixels(after.shape, where, old, new), after


@pytest.mark.parametrize(
    ("place", "new", "kind", "ids"),
    [
        (ALL, 0, DELETE, (4,)),
        (LEFT, 9, SPLIT, (4,)),
        (np.s_[1, 10:20, 19:21], 0, SPLIT, (4,)),
        (np.s_[1, 10:20, 30:35], 4, MERGE, (4, 7)),
        (np.s_[1, 10:20, 26:30], 0, RESHAPE, (4,)),
        (np.s_[1, 20:24, 10:30], 4, RESHAPE, (4,)),
    ],
)
def test_edits_are_recognised(place, new, kind, ids):
    edit, after = done(place, new)
    found = recognise(edit, after, 2)
    assert (found.kind, found.item.labels, found.item.index) == (kind, ids, (1,))
    assert np.array_equal(found.before, labels()[1])
    assert found.item.mask.area == np.isin(labels()[1], ids).sum()


def test_a_new_object_is_no_example():
    edit, after = done(np.s_[1, 30:35, 30:35], 12)
    assert recognise(edit, after, 2) is None


def test_an_accepted_object_is_one():
    nothing = np.zeros((0, 4), np.int64)
    box = ((1, 2), (0, 40), (0, 50))
    edit = Edit(labels().shape, nothing, "confirm", confirmed=(7,), box=box)
    found = recognise(edit, labels(), 2)
    assert (found.kind, found.item.labels) == (ACCEPT, (7,))
