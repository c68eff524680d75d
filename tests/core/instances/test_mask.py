"""Objects of labels, numbered."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.instances.mask import number_objects


@pytest.mark.parametrize(
    "labels", [[[0, 7, 7], [2**32 - 1, 0, 7]], [[5, 3], [3, 9]], [[0, 0]], np.zeros((0, 4))]
)
def test_objects_are_numbered_in_the_order_of_their_ids(labels):
    labels = np.asarray(labels, np.uint32)
    ids, numbers = number_objects(labels)
    assert ids.dtype == np.uint32 and ids.tolist() == sorted(set(labels[labels > 0].tolist()))
    assert numbers.shape == labels.shape and ((numbers == 0) == (labels == 0)).all()
    assert (ids[numbers[labels > 0] - 1] == labels[labels > 0]).all()
