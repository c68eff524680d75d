"""Diameters of objects, and how certain each is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.core.image.diameters import peak_heights


@pytest.mark.parametrize("shape", [(40, 30), (6, 20, 15)])
def test_the_peak_of_each_object_is_at_most_1(shape):
    rng = np.random.default_rng(0)
    labels = ndimage.label(rng.random(shape) > 0.7)[0].astype(np.uint32)
    labels[labels % 3 == 1] = 0  # names with gaps, as after an edit
    labels[labels == 3] = 4_000_000_000
    height = rng.uniform(0.2, 1.1, shape).astype(np.float32)
    names = np.unique(labels)[1:]
    wanted = [min(1, height[labels == name].max()) for name in names]
    np.testing.assert_array_equal(peak_heights(labels, height), np.float32(wanted))
    assert len(peak_heights(np.zeros(shape, np.uint32), height)) == 0
