"""Crops: image and targets move together, and every variation of the list really occurs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_unet.core.instances.heads import SemanticHead
from napari_unet.core.training.samples import Samples
from napari_unet.nn.training.augment import (
    DIAMETERS,
    CropPlan,
    _smooth,
    draw_crop,
    make_batch,
    vary_intensity,
    warp_crop,
)

DRAWS = 300


@pytest.fixture(scope="module")
def samples():
    y, x = np.mgrid[:80, :80]
    labels = np.zeros((80, 80), np.uint16)
    for number, (cy, cx) in enumerate([(20, 20), (25, 55), (58, 40)], 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 11**2] = number
    image = ndimage.gaussian_filter((labels > 0) * 1.0, 1)
    return Samples.from_labels([(image, labels)], channels=1)


def plan(**changes):
    values = {
        "item": 0, "centre": (39.5, 39.5), "angle": 0.0, "zoom": 1.0, "flip": False,
        "elastic": np.zeros((2, 4, 4), np.float32),
    }  # fmt: skip
    return CropPlan(**values | changes)


def test_the_identity_warp_copies(samples):
    item = samples.items[0]
    image, targets, known = warp_crop(item, plan(), 80)
    assert np.allclose(image, item.image, atol=1e-4)
    assert np.allclose(targets, item.targets, atol=1e-4)
    assert known.all()


def test_image_and_targets_warp_together(samples):
    turned = warp_crop(samples.items[0], plan(angle=np.pi / 2), 80)
    item = samples.items[0]
    assert np.allclose(turned[0], np.rot90(item.image, 1, (1, 2)), atol=1e-3) or np.allclose(
        turned[0], np.rot90(item.image, -1, (1, 2)), atol=1e-3
    )
    image, targets, _ = warp_crop(samples.items[0], plan(angle=0.7, zoom=1.6, flip=True), 80)
    inside = targets[0] > 0
    assert image[0][inside].mean() > 3 * image[0][~inside].mean()


def test_beyond_the_image_lies_its_mirror_image(samples):
    image, targets, _ = warp_crop(samples.items[0], plan(centre=(0.0, 0.0)), 64)
    assert np.allclose(image[:, :31], image.flip(1)[:, 1:32], atol=0.2)
    assert torch.isfinite(targets).all()


def test_batches_have_the_declared_shapes(samples):
    rng = np.random.default_rng(0)
    images, targets, known = make_batch(samples, [plan(), plan(zoom=0.5)], 48, rng)
    assert images.shape == (2, 1, 48, 48)
    assert targets.shape == (2, 2, 48, 48)
    assert known.shape == (2, 2, 48, 48)


def test_a_pixel_between_classes_is_of_one_class(samples):
    """Three bands: interpolated, a pixel on the border of 0 and 2 must not become 1, or two."""
    labels = np.repeat([0, 2, 1], 20)[None].repeat(60, 0)
    bands = Samples.from_labels([(labels * 1.0, labels)], head=SemanticHead(3), channels=1)
    crops = [plan(centre=(30, 30), angle=a, zoom=z) for a, z in [(0.3, 1.3), (1.1, 0.7), (2, 2)]]
    _, targets, _ = make_batch(bands, crops, 24, np.random.default_rng(0))
    assert set(targets.unique().tolist()) == {0, 1}
    assert (targets.sum(1) == 1).all()
    labels = np.repeat([0, 2], 30)[None].repeat(60, 0)
    bands = Samples.from_labels([(labels * 1.0, labels)], head=SemanticHead(3), channels=1)
    _, targets, _ = make_batch(bands, crops, 24, np.random.default_rng(0))
    assert targets[:, 1].sum() == 0
    assert targets[:, 0].sum() > 0 < targets[:, 2].sum()


@pytest.fixture(scope="module")
def plans(samples):
    rng = np.random.default_rng(1)
    return [draw_crop(samples, samples.weights(), rng) for _ in range(DRAWS)]


def test_crops_are_mirrored(plans, samples):
    assert 0.35 < np.mean([plan.flip for plan in plans]) < 0.65
    item = samples.items[0]
    assert torch.allclose(
        warp_crop(item, plan(flip=True), 80)[0], warp_crop(item, plan(), 80)[0].flip(2), atol=1e-4
    )


def test_crops_are_turned_by_any_angle(plans):
    angles = np.array([plan.angle for plan in plans])
    counts, _ = np.histogram(angles, 12, (0, 2 * np.pi))
    assert counts.min() > 5
    assert np.mean(np.abs((angles + 0.01) % (np.pi / 2) - 0.01) < 0.02) < 0.1


def test_crops_are_scaled_from_a_half_to_twice(plans):
    zooms = np.array([plan.zoom for plan in plans])
    assert zooms.min() == pytest.approx(0.5, abs=0.05)
    assert zooms.max() == pytest.approx(2, abs=0.2)
    assert 0.2 < np.mean(zooms < 0.99) < 0.4
    assert 0.2 < np.mean(zooms > 1.01) < 0.4


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_a_scaled_crop_shows_scaled_objects(samples, zoom):
    item = samples.items[0]
    _, targets, _ = warp_crop(item, plan(zoom=zoom, centre=(20, 20)), int(26 * zoom))
    _, same, _ = warp_crop(item, plan(centre=(20, 20)), 26)
    assert targets[0].sum().item() == pytest.approx(same[0].sum().item() * zoom**2, rel=0.2)


def test_scaling_keeps_objects_within_what_networks_are_for():
    labels = np.zeros((300, 300), np.uint16)
    labels[50:230, 50:230] = 1  # 203 pixels across
    large = Samples.from_labels([(labels * 1.0, labels)], channels=1)
    rng = np.random.default_rng(0)
    zooms = [draw_crop(large, large.weights(), rng).zoom for _ in range(50)]
    assert max(zooms) * large.items[0].diameter <= DIAMETERS[1] * 1.001


def test_classes_have_no_size_to_keep():
    """Labels of a semantic head are classes: one that fills the image is no large object."""
    labels = np.zeros((300, 300), np.uint16)
    labels[50:230, 50:230] = 1
    classes = Samples.from_labels([(labels * 1.0, labels)], head=SemanticHead(2), channels=1)
    rng = np.random.default_rng(0)
    zooms = [draw_crop(classes, classes.weights(), rng).zoom for _ in range(50)]
    assert min(zooms) > 0.49
    assert max(zooms) > 1.5


def test_crops_are_bent(plans, samples):
    bends = np.array([np.abs(plan.elastic).max() for plan in plans])
    assert 0.2 < np.mean(bends > 0.5) < 0.4
    assert bends.max() > 6
    item = samples.items[0]
    bent = plan(elastic=np.random.default_rng(0).normal(0, 4, (2, 4, 4)).astype(np.float32))
    image, targets, _ = warp_crop(item, bent, 80)
    assert np.abs(image.numpy() - item.image).max() > 0.3
    assert image[0][targets[0] > 0].mean() > 3 * image[0][targets[0] == 0].mean()


def test_crops_are_cut_around_objects_and_everywhere():
    """One object lies in a corner of a large image; one crop in five is cut anywhere."""
    labels = np.zeros((400, 400), np.uint16)
    labels[8:32, 8:32] = 1
    corner = Samples.from_labels([(labels * 1.0, labels)], channels=1)
    rng = np.random.default_rng(0)
    drawn = [draw_crop(corner, corner.weights(), rng).centre for _ in range(DRAWS)]
    centres = np.array(drawn)
    far = centres[(centres > 150).any(1)]
    assert 0.1 < len(far) / DRAWS < 0.27
    assert np.histogram2d(*centres.T, 2, [(0, 400), (0, 400)])[0].min() > 3
    assert len(np.unique(centres, axis=0)) == DRAWS


def test_drawing_is_seeded_and_stays_in_the_known_part():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[:120, :120]
    labels = np.zeros((120, 120), np.uint16)
    for number, (cy, cx) in enumerate(rng.uniform(9, 111, (6, 2)), 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 9**2] = number
    image = (labels > 0) * 100.0 + rng.normal(0, 5, labels.shape)
    known = np.zeros(labels.shape, bool)
    known[:60] = True
    samples = Samples.from_labels([(image, labels)], known=[known])
    weights = samples.weights()
    plans = [draw_crop(samples, weights, np.random.default_rng(s)) for s in range(200)]
    again = draw_crop(samples, weights, np.random.default_rng(7))
    assert (plans[7].centre, plans[7].zoom) == (again.centre, again.zoom)
    assert 0.25 <= min(p.zoom for p in plans) < 0.8 < 1.3 < max(p.zoom for p in plans) <= 3.6
    assert np.mean([p.centre[0] < 70 for p in plans]) > 0.75


def constant(value, channels=1):
    return torch.full((channels, 48, 48), float(value))


def stairs(levels=(0.0, 0.5, 1.0)):
    """Three flat bands of 16 columns, (1, 48, 48)."""
    return torch.tensor(levels).repeat_interleave(16).expand(1, 48, 48).clone()


def varied(image):
    """Vary an image with many seeds, each a draw of its own."""
    return [vary_intensity(image.clone(), np.random.default_rng(seed)) for seed in range(DRAWS)]


def share(found, low, high):
    """How often something was found, of all draws, lies in a range."""
    assert low < len(list(found)) / DRAWS < high


def flat(image):
    """The levels of `stairs` after point operations alone; None if something else happened."""
    bands = image[0].reshape(48, 3, 16)
    same = (bands - bands[:1, :, :1]).abs().max() < 1e-5
    return bands[0, :, 0].tolist() if same else None


def roughness(image):
    """Noise is what differs from pixel to pixel: the middle size of second differences."""
    return image.diff(n=2, dim=-1).abs().median().item()


def test_noise_occurs():
    share((i for i in varied(constant(0.5)) if roughness(i) > 0.005), 0.25, 0.45)


def test_uneven_light_occurs():
    quiet = [image for image in varied(constant(0.5)) if roughness(image) < 0.001]
    uneven = [image for image in quiet if image.max() - image.min() > 0.05]
    assert 0.15 < len(uneven) / len(quiet) < 0.35


def test_inversion_occurs():
    """Nothing else turns dark into light: every other operation keeps the order of grey values."""
    share((i for i in varied(stairs()) if i[0, :, :8].mean() > i[0, :, -8:].mean()), 0.15, 0.35)


def test_contrast_and_brightness_occur():
    """Levels 0 and 1 are fixed points of gamma and exchanged by inversion."""
    levels = [found for image in varied(stairs()) if (found := flat(image))]
    spans = np.array([abs(high - low) for low, _, high in levels])
    assert len(levels) > 0.2 * DRAWS
    assert 0.3 < np.mean(np.abs(spans - 1) > 0.01) < 0.7
    assert spans.min() < 0.75
    assert spans.max() > 1.15
    shifts = [min(low, high) for low, _, high in levels]
    assert min(shifts) < -0.1
    assert max(shifts) > 0.1


def test_gamma_occurs():
    """The middle level leaves the middle; contrast alone would keep it there."""
    levels = [found for image in varied(stairs()) if (found := flat(image))]
    middles = np.array([(mid - low) / (high - low) for low, mid, high in levels])
    assert 0.3 < np.mean(np.abs(middles - 0.5) > 0.01) < 0.7
    assert middles.min() < 0.35
    assert middles.max() > 0.65


def test_gamma_leaves_outliers_in_their_place():
    bright = stairs((0.2, 0.8, 2.5))
    for image in varied(bright):
        if levels := flat(image):
            steps = np.diff(levels)
            assert steps[0] * steps[1] > 0


def test_blur_occurs():
    """Edges are soft although the bands' middles are flat."""
    soft = []
    for image in varied(stairs()):
        bands = image[0].reshape(48, 3, 16)
        middles = bands[:, :, 7:9]
        if (middles - middles[:1, :, :1]).abs().max() < 1e-5:
            soft.append(flat(image) is None)
    assert len(soft) > 0.3 * DRAWS
    assert 0.1 < np.mean(soft) < 0.3


def test_channels_are_mixed():
    """What only one channel shows appears in another."""
    image = torch.cat([stairs(), constant(0.5), constant(0.5)])
    mixed = [(i[1:, :, :8].mean((1, 2)) - i[1:, :, -8:].mean((1, 2))).abs() for i in varied(image)]
    clear = [difference.max() for difference in mixed if difference.max() > 0.3]
    share(clear, 0.1, 0.3)  # permuted; merely blended more often


def test_intensities_stay_finite():
    image = torch.rand(3, 20, 20)
    seen = varied(image)
    assert all(torch.isfinite(s).all() for s in seen)
    assert max((s - image).abs().max() for s in seen) > 0.5


def test_crops_as_they_will_be_predicted_are_not_varied(samples):
    rng = np.random.default_rng(0)
    known = set(np.round(samples.items[0].image.ravel(), 3).tolist())
    for _ in range(5):
        crop = draw_crop(samples, samples.weights(), rng, plain=1.0)
        images, _, _ = make_batch(samples, [crop], 32, rng)
        assert set(np.round(images.numpy().ravel(), 3).tolist()) <= known


def test_what_is_sketched_is_known_of_the_foreground_alone(samples):
    item = samples.items[0]
    sketch = item.labels == 1
    drawn = dataclasses.replace(item, known=~sketch, scribbled=sketch)
    _, _, known = warp_crop(drawn, plan(), 80)
    assert known[0].all()
    assert np.array_equal(known[1], ~sketch)


def test_background_weighs_as_its_sample_says(samples):
    item = samples.items[0]
    known = ndimage.binary_dilation(item.labels > 0, iterations=3)
    sparse = dataclasses.replace(item, known=known, background_weight=2.5)
    _, targets, weights = warp_crop(sparse, plan(), 80)
    background = (targets[0] == 0).numpy() & known
    assert set(np.unique(weights)) == {0, 1, 2.5}
    assert np.array_equal(weights[0] == 2.5, background)
    assert np.array_equal(weights[0] == 0, ~known)


def test_what_is_equal_is_warped_once_and_as_before(samples):
    """Grey images in three channels and known masks without a gap are not resampled again."""
    item = samples.items[0]
    grey = dataclasses.replace(item, image=np.repeat(item.image, 3, 0))
    other = np.concatenate([item.image, item.image, 1 - item.image])
    coloured = dataclasses.replace(item, image=other)
    gap = item.known.copy()
    gap[-1, -1] = False
    partly = dataclasses.replace(coloured, known=gap)
    assert grey.is_grey
    assert not coloured.is_grey
    assert coloured.all_known
    assert not partly.all_known
    for changes in (
        {},
        {"angle": 0.7, "zoom": 0.6, "centre": (20.0, 30.0)},
        {"centre": (2.0, 3.0)},
    ):
        first, second, third = (
            warp_crop(sample, plan(**changes), 48) for sample in (grey, coloured, partly)
        )
        assert first[0].shape == (3, 48, 48)
        assert torch.equal(first[0][0], second[0][0])
        assert torch.equal(first[0][2], first[0][0])
        assert torch.equal(second[0], third[0])
        for a, b, c in zip(first[1:], second[1:], third[1:], strict=True):
            assert torch.equal(a, b)
            assert a.shape == c.shape
        assert second[2].all()


def test_images_are_shrunk_with_the_filter_of_prediction():
    rng = np.random.default_rng(0)
    for shape, sigma in [
        ((2, 31, 40), 0.7),
        ((3, 5, 9), 1.5),
        ((1, 4, 8, 8), 0.3),
        ((1, 9, 9), 0.1),
    ]:
        image = rng.random(shape, np.float32)
        wanted = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3, axes=(-2, -1))
        assert np.allclose(_smooth(torch.from_numpy(image), sigma), wanted, atol=1e-6)
