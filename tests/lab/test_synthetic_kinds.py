"""Scenes of one layer follow from their seed, whatever they show."""

from __future__ import annotations

import numpy as np
import pytest
from lab.synthetic_images import SMALLEST
from lab.synthetic_kinds import OBJECT_KINDS, make_object_scene
from scipy import ndimage


@pytest.mark.parametrize("kind", OBJECT_KINDS)
def test_objects_hang_together_and_are_large_enough(kind):
    found = 0
    for seed in range(4):
        scene = make_object_scene([seed, 1], 128, kind)
        assert scene.kind == kind
        assert scene.layers.shape == (1, 128, 128)
        assert scene.image.shape[:2] == (128, 128)
        assert scene.image.dtype == np.float32 and np.isfinite(scene.image).all()
        labels = scene.layers[0]
        for number in range(1, labels.max() + 1):
            assert ndimage.label(labels == number)[1] == 1
            assert np.count_nonzero(labels == number) >= SMALLEST
        found += labels.max()
    assert found > 4


def test_a_seed_gives_one_scene():
    first, again, other = (make_object_scene(seed, 96) for seed in (3, 3, 4))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.layers, again.layers)
    assert other.image.shape != first.image.shape or not np.array_equal(other.image, first.image)


def test_a_ring_and_what_it_encloses_are_one_object():
    """The middle of a ring may look like the background, and belongs to the object all the same."""
    for seed in range(3):
        labels = make_object_scene([seed, 2], 128, "rings").layers[0]
        for number in range(1, labels.max() + 1):
            own = np.pad(labels == number, 1)
            holes = ndimage.binary_fill_holes(own) & ~own
            # A hole is another object that lies inside, never background.
            assert (np.pad(labels, 1)[holes] > 0).all()
