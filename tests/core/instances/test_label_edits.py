"""Objects are put into labels, taken out, divided and joined; every change can be taken back."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_unet.core.errors import InputError
from napari_unet.core.instances.label_edits import (
    check_writable,
    merge_objects,
    new_label,
    place_object,
    remove_object,
    split_object,
)
from napari_unet.core.instances.mask import ObjectMask, find_object


def scene(dtype=np.uint16):
    """Two discs that make one object, 5, a square 7 beside it, and another part of 7 far away."""
    y, x = np.ogrid[:60, :90]
    labels = np.zeros((60, 90), dtype)
    for cx in (15, 31):
        labels[(y - 30) ** 2 + (x - cx) ** 2 < 100] = 5
    labels[25:35, 45:55] = 7
    labels[2:5, 80:85] = 7
    return labels


def mask(rows, columns):
    return ObjectMask(
        (slice(*rows), slice(*columns)), np.ones((rows[1] - rows[0], columns[1] - columns[0]), bool)
    )


def test_an_object_is_found_whole_however_far_it_reaches():
    labels = np.zeros((300, 400), np.uint8)
    labels[10:290, 200:203] = 3
    labels[10:13, 50:203] = 3
    label, found = find_object(labels, (150, 201))
    assert label == 3
    assert found.area == np.count_nonzero(labels)
    assert found.window == (slice(10, 290), slice(50, 203))


def test_parts_of_an_id_that_lie_apart_are_apart():
    assert find_object(scene(), (30, 50))[1].area == 100


@pytest.mark.parametrize(("place", "message"), [((0, 0), "no object"), ((60, 0), "outside")])
def test_where_there_is_no_object(place, message):
    with pytest.raises(InputError, match=message):
        find_object(scene(), place)


def test_a_mask_is_seen_in_other_windows():
    seen = mask((2, 5), (3, 9)).within((slice(4, 8), slice(0, 5)))
    assert np.argwhere(seen).tolist() == [[0, 3], [0, 4]]
    assert not mask((2, 5), (3, 9)).within((slice(5, 8), slice(0, 5))).any()


def test_an_object_is_placed_beside_others_and_taken_back():
    labels = scene()
    before = labels.copy()
    change = place_object(labels, {(): mask((30, 40), (50, 60))}, 8)
    change.apply(labels)
    assert np.count_nonzero(labels == 8) == 100 - 25
    assert np.array_equal(labels == 7, before == 7)
    where, old, new = change.pixels()
    assert np.array_equal(labels[where], new)
    assert np.array_equal(before[where], old)
    change.undo(labels)
    assert np.array_equal(labels, before)


def test_others_are_overwritten_if_that_is_wanted():
    labels = scene()
    place_object(labels, {(): mask((30, 40), (50, 60))}, 8, overwrite=True).apply(labels)
    assert np.count_nonzero(labels == 8) == 100


def test_a_refined_object_leaves_nothing_of_itself_behind():
    labels = scene()
    label, old = find_object(labels, (30, 50))
    new = {(): mask((28, 32), (44, 50))}
    place_object(labels, new, label, replaced={(): old}).apply(labels)
    assert np.count_nonzero(labels == 7) == 4 * 6 + 3 * 5


def test_an_object_of_several_planes_leaves_those_between_alone():
    labels = np.zeros((5, 20, 20), np.uint32)
    labels[2] = 9
    masks = {(1,): mask((3, 6), (3, 6)), (3,): mask((4, 9), (2, 6))}
    change = place_object(labels, masks, 10)
    change.apply(labels)
    assert [np.count_nonzero(plane == 10) for plane in labels] == [0, 9, 0, 20, 0]
    assert (labels[2] == 9).all()
    change.undo(labels)
    assert not (labels == 10).any()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "no pixels"),
        ({(): mask((5, 5), (5, 5))}, "no pixels"),
        ({(): mask((26, 30), (46, 50))}, "belong to others"),
    ],
)
def test_nothing_is_placed(masks, message):
    with pytest.raises(InputError, match=message):
        place_object(scene(), masks, 8)


def test_undo_keeps_what_others_did_meanwhile():
    labels = scene()
    change = remove_object(labels, (30, 50))
    change.apply(labels)
    assert not labels[30, 50] and labels[3, 82] == 7
    labels[20, 20] = 99
    change.undo(labels)
    assert labels[30, 50] == 7
    assert labels[20, 20] == 99


def test_an_object_is_split_at_its_waist():
    labels = scene()
    change = split_object(labels, (30, 12), (30, 36))
    change.apply(labels)
    assert change.label == labels[30, 36] == 8
    assert labels[30, 12] == 5
    border = np.flatnonzero(labels[30] == 8).min()
    assert 22 <= border <= 24


def test_an_object_is_split_between_the_peaks():
    labels = scene()
    distance = np.zeros(labels.shape)
    distance[:, :18] = 1
    distance[:, 20:] = 1
    split_object(labels, (30, 8), (30, 36), distance_map=lambda window: distance[window]).apply(
        labels
    )
    assert 18 <= np.flatnonzero(labels[30] == 8).min() <= 20


@pytest.mark.parametrize("seen", [0, 1])
def test_a_distance_map_without_two_peaks_leaves_the_split_to_the_neck(seen):
    """What the model does not see, or only a part of it, was drawn by hand."""
    labels = scene()
    distance = np.zeros(labels.shape)
    distance[:, :18] = seen
    split_object(labels, (30, 12), (30, 36), distance_map=lambda window: distance[window]).apply(
        labels
    )
    assert 22 <= np.flatnonzero(labels[30] == 8).min() <= 24


@pytest.mark.parametrize("second", [(30, 12), (30, 50), (0, 0), (59, 89)])
def test_what_cannot_be_split(second):
    with pytest.raises(InputError, match="do not divide one object"):
        split_object(scene(), (30, 12), second)


def test_two_objects_become_one():
    labels = scene()
    change = merge_objects(labels, (30, 12), (30, 50))
    change.apply(labels)
    assert labels[30, 50] == labels[30, 12] == 5
    assert labels[3, 82] == 7
    with pytest.raises(InputError, match="one object already"):
        merge_objects(labels, (30, 12), (30, 50))


def test_planes_of_a_volume_are_edited_alone():
    labels = np.stack([scene(), scene()])
    remove_object(labels, (30, 50), (1,)).apply(labels)
    assert labels[0, 30, 50] == 7
    assert labels[1, 30, 50] == 0


def test_ids_run_out():
    assert new_label(scene()) == 8
    labels = scene(np.uint8)
    labels[0, 0] = 255
    assert new_label(labels) == 1  # the least that is free: masks of 0 and 255 are usual
    labels.flat[:255] = np.arange(1, 256)
    labels[40, 40] = 255
    with pytest.raises(InputError, match="uint8, and all of its 255 ids are taken"):
        new_label(labels)
    assert new_label(labels.astype(np.uint16)) == 256
    stack = np.zeros((2, 3, 4), np.int8)
    stack[0, 0, 0], stack[1, 0, :2], stack[1, 1, 1] = 127, (1, 2), -5
    assert new_label(stack) == 3


def test_labels_that_cannot_be_written_to():
    labels = scene()
    check_writable(labels)
    labels.flags.writeable = False
    with pytest.raises(InputError, match="can only be read"):
        check_writable(labels)
    with pytest.raises(InputError, match="can only be read"):
        check_writable(zarr.open_array(zarr.create_array({}, data=scene()).store, mode="r"))
