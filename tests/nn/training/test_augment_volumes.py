"""Crops of volumes: planes move together, known ones stay known, nothing is mixed along z."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.core.training.samples import Samples
from napari_unet.nn.training.augment import CropPlan, make_batch, vary_intensity, warp_crop


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(12, 40, 40))
    labels = np.zeros(image.shape, np.uint16)
    labels[3:9, 8:20, 10:30] = 1
    known = np.zeros(labels.shape, bool)
    known[5] = True
    return Samples.from_labels([(image, labels)], [known], channels=1)


def plan(**changes):
    values = {
        "item": 0, "centre": (6.0, 19.5, 19.5), "angle": 0.0, "zoom": 1.0, "flip": False,
        "elastic": np.zeros((2, 4, 4), np.float32),
    }  # fmt: skip
    return CropPlan(**values | changes)


def test_the_identity_warp_copies(samples):
    item = samples.items[0]
    image, targets, known = warp_crop(item, plan(), 40, planes=12)
    assert np.allclose(image, item.image, atol=1e-4)
    assert np.allclose(targets, item.targets, atol=1e-4)
    assert np.array_equal(known[0].numpy() > 0, item.known)


def test_planes_are_turned_as_planes_alone_would_be(samples):
    item = samples.items[0]
    turned = warp_crop(item, plan(angle=0.7, zoom=1.3, flip=True), 40, planes=12)[0]
    flat = Samples.from_labels([(item.image[0, 4], item.labels[4])], channels=1).items[0]
    alone = warp_crop(flat, plan(centre=(19.5, 19.5), angle=0.7, zoom=1.3, flip=True), 40)[0]
    scale = np.polyfit(alone.flatten(), turned[:, 4].flatten(), 1)  # normalised by itself
    assert np.allclose(np.polyval(scale, alone), turned[:, 4], atol=1e-3)


def test_volumes_are_mirrored_along_z(samples):
    item = samples.items[0]
    straight = warp_crop(item, plan(centre=(5.0, 19.5, 19.5)), 40, planes=5)
    mirrored = warp_crop(item, plan(centre=(5.0, 19.5, 19.5), flip_z=True), 40, planes=5)
    for one, other in zip(straight, mirrored, strict=True):
        assert torch.allclose(one, other.flip(1), atol=1e-5)


@pytest.mark.parametrize("zoom_z", [0.4, 1.0, 2.5])
def test_the_known_plane_stays_known(samples, zoom_z):
    item = samples.items[0]
    for offset in (-2, 0, 1):
        moved = plan(centre=(5 + offset / zoom_z, 19.5, 19.5), zoom_z=zoom_z)
        known = warp_crop(item, moved, 40, planes=8)[2]
        assert known[0].amax((1, 2)).sum() >= 1


def test_batches_of_volumes_have_the_declared_shapes(samples):
    rng = np.random.default_rng(0)
    images, targets, known = make_batch(samples, [plan(), plan(zoom=0.5)], 24, rng, planes=6)
    assert images.shape == (2, 1, 6, 24, 24)
    assert targets.shape == (2, 2, 6, 24, 24)
    assert known.shape == (2, 2, 6, 24, 24)


def test_intensities_of_volumes_vary(samples):
    volume = torch.rand(3, 5, 16, 16)
    varied = [vary_intensity(volume.clone(), np.random.default_rng(seed)) for seed in range(40)]
    assert all(image.shape == volume.shape and torch.isfinite(image).all() for image in varied)
    assert sum(not torch.equal(image, volume) for image in varied) > 30
