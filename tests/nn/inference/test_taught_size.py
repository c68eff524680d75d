"""The size that a tuned model was taught, and how it is used on new images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from discs import disc_image

from napari_unet.core.io.stack import open_stack
from napari_unet.nn.inference.diameter_estimation import estimate_diameter
from napari_unet.nn.inference.model import load_model
from napari_unet.nn.inference.taught_size import TaughtSize, taught_size


@pytest.fixture(scope="module")
def nuclei():
    return load_model("nuclei", "cpu")


def taught(model, **size):
    """Return the model as if it had been taught a size."""
    training = {**model.card.training, "taught_diameter": size}
    return replace(model, card=model.card.replace(training=training))


def test_a_tuned_model_knows_the_size_that_it_was_taught(nuclei):
    plain, half = (open_stack(np.ones((8, 8)), voxel_size_um=v) for v in (None, (1, 0.5, 0.5)))
    tuned = taught(nuclei, px=30.0, um=12.0, spread=0.3, seen=1.2)
    assert taught_size(nuclei, plain) is None
    assert taught_size(tuned, plain) == TaughtSize(30.0, 0.3, 1.2)
    assert taught_size(tuned, half).diameter == 24


def test_what_is_seen_moves_the_taught_size_the_more_the_more_is_found():
    kind = TaughtSize(20.0, spread=0.4)
    assert kind.of_image(0.0, 0) == 20
    few, many = kind.of_image(28, 2), kind.of_image(28, 50)
    assert 20 < few < many < 28
    alike = TaughtSize(20.0, spread=0.1)
    assert alike.of_image(22, 50) < kind.of_image(22, 50), "images that were all alike are believed"
    assert alike.of_image(60, 50) > 50, "but this one has another magnification"
    assert alike.penalty(28) > kind.penalty(28) > kind.penalty(20) == 0
    assert kind.penalty(10) == pytest.approx(kind.penalty(40))


def test_images_of_another_magnification_are_taken_at_their_own_size(nuclei):
    image = open_stack(disc_image(20, 256, seed=1)[0])
    assert 20 < estimate_diameter(image, taught(nuclei, px=26.0)) < 24
    large = open_stack(disc_image(60, 400, seed=1)[0])
    assert estimate_diameter(large, taught(nuclei, px=22.0)) == pytest.approx(60, rel=0.3)
    near, sure = (taught(nuclei, px=23.0, spread=spread) for spread in (0.5, 0.05))
    assert estimate_diameter(image, near) < estimate_diameter(image, sure) < 23
    assert estimate_diameter(image, taught(nuclei, px=200.0)) == pytest.approx(20, rel=0.3)


def test_where_nothing_is_seen_the_taught_size_is_taken(nuclei):
    ramp = open_stack(np.mgrid[:12, :12][0].astype(np.float32))
    assert estimate_diameter(ramp, nuclei) != 80
    assert estimate_diameter(ramp, taught(nuclei, px=80.0)) == 80
