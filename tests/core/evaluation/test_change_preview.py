"""The picture of what another model changes in an image, where it changes most."""

from __future__ import annotations

import numpy as np

from napari_unet.core.evaluation.change_preview import (
    CHANGED,
    GAINED,
    OLD,
    PART,
    PICTURE,
    choose_part,
    preview_changes,
)
from napari_unet.core.io.stack import open_stack


def has(picture, colour) -> bool:
    return bool((picture == colour).all(-1).any())


def boxes(shape, places):
    labels = np.zeros(shape, np.uint32)
    for number, (y, x, size) in enumerate(places, 1):
        labels[..., y : y + size, x : x + size] = number
    return labels


def test_old_and_new_outlines_are_drawn_where_most_changes():
    shape = (120, 400)
    before = boxes(shape, [(10, 10, 12), (50, 300, 12), (80, 300, 12)])
    after = boxes(shape, [(10, 10, 12), (50, 300, 16), (20, 320, 12)])
    stack = open_stack(np.zeros(shape, np.float32))
    whole = tuple(slice(0, n) for n in shape)
    found = preview_changes(stack, (), whole, before, after)
    assert (found.gained, found.lost, found.changed, found.same) == (1, 1, 1, 1)
    assert found.changes == 3 and found.share == 0.75
    assert found.picture.shape == (PICTURE, PICTURE, 3)
    assert all(has(found.picture, colour) for colour in (OLD, GAINED, CHANGED))
    assert found.centre[1] > 280, "the object that stays is not what is shown"
    assert found.extent < 100
    same = preview_changes(stack, (), whole, before, before)
    assert same.changes == 0 and not has(same.picture, OLD)
    sure, unsure = (
        preview_changes(stack, (), whole, before, after, uncertainty=np.full(shape, doubt))
        for doubt in (0.0, 0.6)
    )
    assert unsure.doubt == 0.6 and unsure.urgency > 5 * sure.urgency > same.urgency == 0


def test_of_a_volume_the_plane_is_shown_and_of_classes_the_pixels_count():
    shape = (5, 60, 60)
    before = np.zeros(shape, np.uint32)
    after = before.copy()
    after[3, 20:30, 20:30] = 1
    stack = open_stack(np.zeros((2, *shape), np.float32), "TZYX")
    whole = tuple(slice(0, n) for n in shape)
    found = preview_changes(stack, (1,), whole, before, after)
    assert found.index == (1,) and found.centre[0] == 3 and found.gained == 1
    found = preview_changes(stack, (1, 3), whole[1:], before[3], after[3], classes=True)
    assert (found.gained, found.what) == (100, "pixels") and has(found.picture, CHANGED)


def test_of_a_large_image_the_part_with_most_contrast_stands_for_it():
    data = np.zeros((3, 2000, 1500), np.float32)
    data[1, 1500:1900:2, 1200:1400] = 1
    stack = open_stack(data, "TYX")
    index, (rows, columns) = choose_part(stack, 2)
    assert index == (1,)
    assert (rows.stop - rows.start, columns.stop - columns.start) == PART[2]
    assert rows.stop == 2000 and columns.stop == 1500
    assert choose_part(open_stack(np.zeros((40, 30))), 2) == ((), (slice(0, 40), slice(0, 30)))
