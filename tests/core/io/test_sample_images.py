"""Synthetic images: the same each time, with objects in them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.io.sample_images import blobs


@pytest.mark.parametrize("shape", [(64, 80), (1, 1), (8, 40, 32)])
def test_blobs_are_the_same_each_time(shape):
    image = blobs(shape, seed=3)
    assert image.shape == shape
    assert image.dtype == np.uint16
    assert np.array_equal(image, blobs(shape, seed=3))


def test_blobs_are_bright_on_a_dark_ground():
    image = blobs((200, 200))
    assert 0.1 < (image > 300).mean() < 0.7
    assert not np.array_equal(image, blobs((200, 200), seed=1))
