"""A pixel is the same in every window that holds it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import resize

from napari_unet.core.image.frames import Frame, Resampling
from napari_unet.core.io.stack import open_stack

IMAGE = np.random.default_rng(0).integers(0, 4000, (45, 61)).astype(np.uint16)


@pytest.mark.parametrize("scale", [1.0, 0.37, 2.3])
def test_windows_agree_with_the_whole(scale):
    frame = Frame.from_stack(open_stack(IMAGE), (), 2, (0,), scale=scale)
    whole = frame.read((slice(0, frame.shape[0]), slice(0, frame.shape[1])))
    window = (slice(3, 11), slice(5, 17))
    assert np.array_equal(frame.read(window), whole[(slice(None), *window)])


def test_beyond_the_far_end_lies_the_mirror_image():
    frame = Frame.from_stack(open_stack(IMAGE), (), 2, (0, 0, 0))
    read = frame.read((slice(0, 48), slice(0, 64)))
    assert read.shape == (3, 48, 64)
    assert np.array_equal(read[:, 45:], read[:, 44:41:-1])


def test_one_pixel_is_repeated():
    frame = Frame.from_stack(open_stack(np.array([[7]], np.uint8)), (), 2, (0,))
    assert frame.read((slice(0, 16), slice(0, 16))).shape == (1, 16, 16)


@given(source=st.integers(12, 60), target=st.integers(6, 60))  # the filter clears the borders
def test_a_ramp_stays_a_ramp(source, target):
    zoom = Resampling(source, target)
    ramp = (np.arange(source, dtype=np.float32) + 0.5) / source
    there = zoom.apply(ramp, 0, 0, target)
    inner = slice(target // 3, target - target // 3)
    assert np.abs(there - (np.arange(target) + 0.5) / target)[inner].max(initial=0) < 0.51 / source


def test_shrinking_does_not_alias():
    stripes = np.tile([0, 1], 128).astype(np.float32)
    there = Resampling(256, 64).apply(stripes, 0, 0, 64)
    assert np.abs(there - 0.5).max() < 0.1


def test_enlarging_is_what_scikit_image_does():
    image = IMAGE.astype(np.float32)
    zoom = Resampling(45, 90)
    ours = zoom.apply(image, 0, 0, 90)
    theirs = resize(image, (90, 61), order=1, mode="edge", preserve_range=True)
    assert np.allclose(ours, theirs, atol=0.1)


@given(source=st.integers(1, 50), target=st.integers(1, 50), data=st.data())
def test_a_window_needs_only_what_it_says(source, target, data):
    start = data.draw(st.integers(0, target - 1))
    stop = data.draw(st.integers(start + 1, target))
    zoom, values = Resampling(source, target), np.random.default_rng(0).random(source)
    part = zoom.apply(values[zoom.needs(start, stop)], 0, start, stop)
    assert np.array_equal(part, zoom.apply(values, 0, 0, target)[start:stop])


def test_maps_come_back_to_the_stack():
    frame = Frame.from_stack(open_stack(IMAGE), (), 2, (0,), scale=0.5)
    window = (slice(10, 20), slice(30, 61))
    maps = np.random.default_rng(1).random((2, *frame.shape), dtype=np.float32)
    part = maps[(slice(None), *frame.in_network(window))]
    whole = frame.to_stack(maps, (slice(0, 45), slice(0, 61)))
    assert np.array_equal(frame.to_stack(part, window), whole[(slice(None), *window)])
