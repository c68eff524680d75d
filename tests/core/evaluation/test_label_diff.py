"""What a tuned model finds otherwise than its parent."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.comparison import inside_code, outline_code
from napari_unet.core.evaluation.label_diff import CHANGE_KINDS, diff_classes, diff_objects


def boxes(**sizes: int) -> np.ndarray:
    """Squares in places a, b, c and d, of these sizes."""
    labels = np.zeros((12, 48), np.uint16)
    for label, (place, size) in enumerate(sizes.items(), 1):
        left = 12 * "abcd".index(place)
        labels[1 : 1 + size, left : left + size] = label
    return labels


def test_objects_are_gained_lost_changed_and_the_same():
    before, after = boxes(a=8, b=8, c=10), boxes(d=6, c=10, b=7)
    changes = diff_objects(before, after)
    assert (changes.gained, changes.lost, changes.changed, changes.same) == (1, 1, 1, 1)
    assert not changes.none and changes.what == "objects"
    codes = changes.codes
    assert codes[4, 38] == inside_code("gained", CHANGE_KINDS)
    assert codes[1, 0] == outline_code("lost", CHANGE_KINDS)
    assert codes[4, 15] == inside_code("changed", CHANGE_KINDS)
    assert not codes[:, 24:36].any()


def test_renamed_objects_are_the_same():
    before = boxes(a=5, b=5)
    changes = diff_objects(before, np.where(before > 0, 9 - before, 0))
    assert changes.none and changes.same == 2 and not changes.codes.any()
    nothing = diff_objects(before * 0, before * 0)
    assert nothing.none and nothing.same == 0


def test_a_volume_has_rims_in_its_planes():
    before = np.zeros((3, 12, 48), np.uint16)
    after = np.stack([boxes(a=6)] * 3)
    codes = diff_objects(before, after).codes
    assert codes[0, 3, 3] == codes[1, 3, 3] == inside_code("gained", CHANGE_KINDS)
    assert codes[1, 1, 1] == outline_code("gained", CHANGE_KINDS)


def test_classes_are_counted_by_pixels():
    before, after = np.array([[0, 1, 1, 2, 2]]), np.array([[1, 0, 2, 2, 2]])
    changes = diff_classes(before, after)
    assert (changes.gained, changes.lost, changes.changed, changes.same) == (1, 1, 1, 2)
    assert changes.what == "pixels"


def test_labellings_of_two_images_cannot_be_compared():
    with pytest.raises(InputError, match="shape"):
        diff_objects(boxes(a=2), boxes(a=2)[1:])
