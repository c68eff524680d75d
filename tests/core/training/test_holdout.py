"""What judges a training was never part of it, whatever is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_unet.core.instances.heads import SemanticHead
from napari_unet.core.training.holdout import count_known, hold_out
from napari_unet.core.training.samples import Samples


def grid(height=160, width=240, step=24, edge=14):
    """Squares on a grid; every pixel of the image has a value of its own."""
    labels = np.zeros((height, width), np.uint16)
    for y in range(5, height - edge, step):
        for x in range(5, width - edge, step):
            labels[y : y + edge, x : x + edge] = labels.max() + 1
    return np.arange(height * width, dtype=float).reshape(height, width), labels


def pixels(samples):
    return {value for item in samples.items for value in item.image[0].ravel().tolist()}


def known_objects(samples):
    return sum(count_known(item, samples) for item in samples.items)


@pytest.mark.parametrize("shape", [(160, 240), (240, 160)])
def test_one_image_is_parted_with_no_pixel_on_both_sides(shape):
    samples = Samples.from_labels([grid(*shape)], channels=1)
    split = hold_out(samples, 0.2)
    assert split.validation
    assert not split.reason
    assert not pixels(split.training) & pixels(split.validation)
    assert 0.1 < known_objects(split.validation) / known_objects(samples) < 0.4


def test_between_the_parts_lies_a_gap_as_wide_as_an_object():
    samples = Samples.from_labels([grid()], channels=1)
    split = hold_out(samples, 0.2)
    widths = [part.items[0].labels.shape[1] for part in (split.training, split.validation)]
    assert 240 - sum(widths) >= samples.items[0].diameter - 1


def test_an_object_that_the_cut_went_through_is_not_asked_for():
    image, labels = grid()
    labels[60:66, 20:230] = 500  # as long as the image
    split = hold_out(Samples.from_labels([(image, labels)], channels=1), 0.2)
    held, learned = split.validation.items[0], split.training.items[0]
    assert 500 in learned.known_labels
    assert 500 not in held.known_labels
    assert not np.intersect1d(held.known_labels, learned.known_labels)[1:].size


def test_of_many_images_whole_ones_are_held_out():
    pairs = [grid(96, 96 + 8 * n) for n in range(10)]
    samples = Samples.from_labels(pairs, channels=1)
    split = hold_out(samples, 0.2)
    widths = [
        {item.labels.shape[1] for item in part.items} for part in (split.training, split.validation)
    ]
    assert not widths[0] & widths[1]
    assert len(split.training.items) + len(split.validation.items) == 10
    assert 2 <= len(split.validation.items) <= 4
    again = hold_out(samples, 0.2)
    assert [i.labels.shape for i in again.validation.items] == [
        i.labels.shape for i in split.validation.items
    ]


@pytest.mark.parametrize("word", ["sources", "groups"])
def test_frames_of_one_image_stay_together(word):
    pairs = [grid(96, 96 + 8 * n) for n in range(12)]
    names = [f"stack {n // 2}" for n in range(12)]
    samples = Samples.from_labels(pairs, channels=1, **{word: names})
    split = hold_out(samples, 0.3)
    held = {item.source or item.group for item in split.validation.items}
    assert held
    assert not held & {item.source or item.group for item in split.training.items}


def test_frames_of_one_image_are_cut_at_the_same_place():
    image, labels = grid()
    half = labels.copy()
    half[:, :100] = 0  # cut on its own, this plane would be cut elsewhere
    samples = Samples.from_labels([(image, labels), (image, half)], sources=["a"] * 2, channels=1)
    split = hold_out(samples, 0.2)
    assert len({item.labels.shape for item in split.validation.items}) == 1
    assert not pixels(split.training) & pixels(split.validation)


def test_a_single_object_is_not_parted_and_that_is_said():
    image, labels = grid()
    split = hold_out(Samples.from_labels([(image, np.uint16(labels == 3))], channels=1), 0.2)
    assert split.validation is None
    assert "With 1 known object" in split.reason


def test_objects_that_lie_too_close_are_not_parted():
    image, labels = grid(48, 72)
    split = hold_out(Samples.from_labels([(image, labels)], channels=1), 0.2)
    assert split.validation is None
    assert "too close" in split.reason


def test_a_share_of_nothing_holds_out_nothing():
    split = hold_out(Samples.from_labels([grid()], channels=1), 0)
    assert split.validation is None
    assert split.reason


def test_only_what_is_known_counts():
    image, labels = grid()
    known = np.zeros(labels.shape, bool)
    known[:50, :28] = True
    split = hold_out(Samples.from_labels([(image, labels)], [known], channels=1), 0.2)
    assert split.validation is None
    assert "nothing can be held out" in split.reason


def test_windows_of_one_image_are_cut_at_the_same_place_of_the_image():
    """Two windows overlap by their context: what is held out of one is not learned in the other."""
    image, labels = grid(120, 400)
    whole = Samples.from_labels([(image, labels)], channels=1).items[0]
    parts = [slice(0, 240), slice(160, 400)]
    items = [
        replace(
            whole,
            image=whole.image[:, :, part],
            labels=whole.labels[:, part],
            targets=whole.targets[:, :, part],
            known=whole.known[:, part],
            source="a",
            origin=(0, part.start),
        )
        for part in parts
    ]
    samples = Samples(items, Samples().head)
    split = hold_out(samples, 0.5)
    assert not pixels(split.training) & pixels(split.validation)
    assert known_objects(split.validation) > 10


def test_volumes_are_parted_in_the_plane():
    _, labels = grid(60, 160)
    volume = np.repeat(labels[None], 12, 0)
    values = np.arange(volume.size, dtype=float).reshape(volume.shape)
    samples = Samples.from_labels([(values, volume)], channels=1)
    split = hold_out(samples, 0.2)
    assert not pixels(split.training) & pixels(split.validation)
    assert split.validation.items[0].labels.shape[0] == 12


def test_classes_are_parted_by_their_known_pixels():
    image, labels = grid()
    classes = np.uint8(labels > 0)
    samples = Samples.from_labels([(image, classes)], head=SemanticHead(2), channels=1)
    split = hold_out(samples, 0.2)
    assert not pixels(split.training) & pixels(split.validation)


@pytest.mark.parametrize("place", range(4))
def test_an_image_with_most_of_the_objects_is_learned_from(place):
    """Wherever it comes: three others, of two objects each, are enough to judge by."""
    image, labels = grid()
    few = np.where(labels < 3, labels, 0)
    pairs = [(image, labels if number == place else few) for number in range(4)]
    split = hold_out(Samples.from_labels(pairs, channels=1), 0.2)
    assert known_objects(split.training) >= labels.max()
    assert known_objects(split.validation) >= 2
