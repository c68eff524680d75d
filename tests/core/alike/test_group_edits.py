"""The same edit of many objects is one change, and leaves out what it cannot do."""

from __future__ import annotations

import numpy as np
import pytest
from discs import disc

from napari_unet.core.alike.descriptors import Candidate, join_masks, object_masks
from napari_unet.core.alike.group_edits import ACCEPT, RESHAPE, edit_all
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT
from napari_unet.core.instances.mask import ObjectMask
from napari_unet.core.progress import run_to_end

SHAPE = (60, 80)


def stack():
    """Two planes: clumps of two discs (5, 6), a round object (1) in each, two that touch (8, 9)."""
    labels = np.zeros((2, *SHAPE), np.uint16)
    for plane, clump in zip(labels, (5, 6), strict=True):
        plane[disc(SHAPE, (20, 20), 9) | disc(SHAPE, (20, 36), 9)] = clump
        plane[disc(SHAPE, (45, 20), 9)] = 1
        plane[40:50, 50:60], plane[40:50, 60:70] = 8, 9
    return labels


def items(labels, *groups):
    found = []
    for z, *ids in groups:
        masks = object_masks(labels[z])
        found.append(Candidate((z,), tuple(ids), join_masks([masks[label] for label in ids])))
    return found


def changed(labels, kind, objects, **how):
    edit = run_to_end(edit_all(labels, objects, kind, **how))
    assert np.array_equal(labels[edit.where], edit.before)
    after = labels.copy()
    after[edit.where] = edit.after
    return edit, after


def test_deleting_takes_the_object_in_its_frame_alone():
    labels = stack()
    edit, after = changed(labels, DELETE, items(labels, (0, 1), (1, 6)))
    assert (edit.done, edit.left_out) == (2, 0)
    assert not (after[0] == 1).any()
    assert not (after[1] == 6).any()
    assert (after[1] == 1).sum() == (labels[1] == 1).sum()


def test_splits_get_ids_of_their_own_and_round_objects_stay():
    labels = stack()
    edit, after = changed(labels, SPLIT, items(labels, (0, 5), (1, 6), (1, 1)))
    assert (edit.done, edit.left_out) == (2, 1)
    for plane, clump, fresh in zip(after, (5, 6), (10, 11), strict=True):
        sizes = [np.count_nonzero(plane == label) for label in (clump, fresh)]
        assert min(sizes) > 0.4 * sum(sizes)
    assert np.array_equal(after[1] == 1, labels[1] == 1)


def test_pairs_are_merged_once_in_chains_too():
    labels = stack()
    labels[0, 40:50, 70:75] = 3
    edit, after = changed(labels, MERGE, items(labels, (0, 8, 9), (0, 9, 3), (1, 8, 9)))
    assert edit.done == 3
    assert (after[0, 40:50, 50:75] == after[0, 45, 55]).all()
    assert (after[1, 40:50, 50:70] == 8).all()


def test_a_new_shape_takes_no_pixels_of_others():
    labels = stack()
    wide = ObjectMask((slice(38, 52), slice(45, 66)), np.ones((14, 21), bool))
    masks = {8: wide}
    edit, after = changed(
        labels, RESHAPE, items(labels, (0, 8), (0, 1)), reshape=lambda c: masks.get(c.labels[0])
    )
    assert (edit.done, edit.left_out) == (1, 1)
    assert (after[0, 38:52, 45:60] == 8).all()
    assert np.array_equal(after[0] == 9, labels[0] == 9)


def test_accepting_changes_no_pixel_and_names_each_plane():
    labels = stack()
    edit, after = changed(labels, ACCEPT, items(labels, (0, 1), (1, 6)))
    assert np.array_equal(after, labels)
    assert edit.accepted == ((1, 0), (6, 1))


@pytest.mark.parametrize("kind", [DELETE, SPLIT, MERGE, ACCEPT, RESHAPE])
def test_nothing_to_do_is_an_empty_change(kind):
    edit, _ = changed(stack(), kind, [])
    assert edit.done == 0
    assert len(edit.before) == 0


def test_splits_never_take_an_id_that_is_in_use():
    labels = stack().astype(np.uint8)
    labels[0, :4, :4], labels[0, :4, 10:14] = 255, 3  # full to the top, and 2, 4, 7 are free
    _, after = changed(labels, SPLIT, items(labels, (0, 5), (1, 6)))
    assert set(np.unique(after)) - set(np.unique(labels)) == {2, 4}
