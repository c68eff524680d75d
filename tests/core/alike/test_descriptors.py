"""Descriptors say what a person sees, whatever the brightness of the image."""

from __future__ import annotations

import numpy as np
import pytest
from discs import disc

from napari_unet.core.alike.descriptors import (
    NAMES,
    describe_objects,
    find_pass,
    join_masks,
    object_masks,
    touching_pairs,
)


def scene():
    """Three discs alike, a speck and a pair that touches; labels with gaps between the ids."""
    labels = np.zeros((90, 100), np.int32)
    for number, place in {3: (20, 20), 7: (20, 60), 9: (70, 20)}.items():
        labels[disc(labels.shape, place, 9)] = number
    labels[disc(labels.shape, (50, 50), 2)] = 20
    labels[disc(labels.shape, (70, 60), 9)] = 30
    labels[disc(labels.shape, (70, 76), 9) & (labels == 0)] = 31
    return labels


def column(values, name):
    return values[:, NAMES.index(name)]


def test_masks_are_those_of_each_label():
    labels = scene()
    masks = object_masks(labels)
    assert list(masks) == [3, 7, 9, 20, 30, 31]
    for label, mask in masks.items():
        assert np.array_equal(mask.within((slice(0, 90), slice(0, 100))), labels == label)
    assert object_masks(np.zeros((4, 5), int)) == {}
    assert list(object_masks(np.ones((4, 5), int))) == [1]


def test_pairs_that_touch_are_listed_once():
    assert touching_pairs(scene()) == [(30, 31)]


def test_brightness_does_not_depend_on_the_images_levels():
    labels, rng = scene(), np.random.default_rng(0)
    image = (labels > 0) + rng.normal(0, 0.02, labels.shape)
    image[labels == 7] += 0.8
    masks = list(object_masks(labels).values())
    one = describe_objects(masks, labels, image[None])
    assert column(one, "brightness").argmax() == 1
    assert column(one, "log_size").argmin() == 3
    dark_on_bright = describe_objects(masks, labels, 3 - 0.5 * image[None])
    assert np.allclose(one, dark_on_bright, atol=1e-6)


def test_volumes_are_described_by_the_same_columns():
    z, y, x = np.indices((12, 30, 40))
    labels = 1 * ((z - 6) ** 2 + (y - 15) ** 2 + (x - 10) ** 2 < 25)
    labels[(z - 6) ** 2 + (y - 15) ** 2 + (x - 30) ** 2 < 25] = 2
    values = describe_objects(list(object_masks(labels).values()), labels, labels[None] * 1.0)
    assert values.shape == (2, len(NAMES))
    assert np.isfinite(values).all()
    assert np.allclose(column(values, "log_elongation"), 0, atol=0.02)


@pytest.mark.parametrize("ids", [(30,), (30, 31)])
def test_two_peaks_are_found_in_a_pair_alone(ids):
    from scipy import ndimage

    masks = object_masks(scene())
    inside = np.pad(join_masks([masks[label] for label in ids]).inside, 1)
    found = find_pass(ndimage.distance_transform_edt(inside), inside)
    if len(ids) == 1:
        assert found is None
    else:
        one, other = sorted(found.peaks, key=lambda place: place[1])
        assert abs(other[1] - one[1] - 16) <= 4
        assert found.depth > 0.1
