"""Objects of labels, numbered."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.instances.mask import count_pixels, number_objects


@pytest.mark.parametrize(
    "labels", [[[0, 7, 7], [2**32 - 1, 0, 7]], [[5, 3], [3, 9]], [[0, 0]], np.zeros((0, 4))]
)
def test_objects_are_numbered_in_the_order_of_their_ids(labels):
    labels = np.asarray(labels, np.uint32)
    ids, numbers = number_objects(labels)
    assert ids.dtype == np.uint32 and ids.tolist() == sorted(set(labels[labels > 0].tolist()))
    assert numbers.shape == labels.shape and ((numbers == 0) == (labels == 0)).all()
    assert (ids[numbers[labels > 0] - 1] == labels[labels > 0]).all()


@pytest.mark.parametrize("values", [[0, 3, 3, 7], [70_000, 1, 1], [-1, 2, 0], [4, 4], []])
def test_pixels_are_counted_as_by_unique(values):
    labels = np.array(values, np.int32)
    for found, wanted in zip(
        count_pixels(labels), np.unique(labels, return_counts=True), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    assert count_pixels(labels)[0].dtype == labels.dtype
