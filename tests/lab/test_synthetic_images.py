"""Scenes follow from their seed, and their labels say what is in the picture."""

from __future__ import annotations

import numpy as np
import pytest
from lab.synthetic_images import KINDS, SMALLEST, make_synthetic_image, normalise
from scipy import ndimage


def test_a_seed_gives_one_scene():
    first, again, other = (make_synthetic_image(seed, 96) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.layers, again.layers)
    assert other.image.shape != first.image.shape or not np.array_equal(other.image, first.image)


@pytest.mark.parametrize("kind", KINDS)
def test_objects_hang_together_and_are_large_enough(kind):
    found = 0
    for seed in range(4):
        scene = make_synthetic_image([seed, 1], 128, kind)
        assert scene.kind == kind
        assert scene.layers.shape[1:] == scene.image.shape[:2] == (128, 128)
        assert scene.image.dtype == np.float32 and np.isfinite(scene.image).all()
        for layer in scene.layers:
            for number in range(1, layer.max() + 1):
                assert ndimage.label(layer == number)[1] == 1
                assert np.count_nonzero(layer == number) >= SMALLEST
            found += layer.max()
    assert found > 8


def test_what_is_nested_lies_in_the_layer_below():
    scenes = [make_synthetic_image(seed, 128, "cells") for seed in range(6)]
    nested = [scene for scene in scenes if len(scene.layers) == 2 and scene.layers[1].any()]
    assert nested
    for scene in nested:
        below, above = scene.layers
        for number in range(1, above.max() + 1):
            around = np.unique(below[above == number])
            assert len(around[around > 0]) <= 1


def test_objects_can_be_told_from_what_is_around_them():
    """In most scenes an object's pixels differ from its surroundings in mean or in spread."""
    clear = []
    for seed in range(20):
        scene = make_synthetic_image(seed, 128, "blobs")
        image = scene.image.mean(-1) if scene.image.ndim == 3 else scene.image
        inside = scene.layers[0] > 0
        near = ndimage.binary_dilation(inside, iterations=6) & ~inside
        if inside.any() and near.any():
            gap = abs(np.median(image[inside]) - np.median(image[near]))
            clear.append(gap / image.std())
    assert np.median(clear) > 0.5


def test_colours_stay_colours():
    picture = np.zeros((20, 30, 3), np.float32)
    picture[..., 0] = np.arange(30)
    assert normalise(picture, 3).shape == (3, 20, 30)
    assert np.ptp(normalise(picture, 3)[1]) == 0
    assert np.ptp(normalise(picture[..., 0], 3)[1]) > 0
