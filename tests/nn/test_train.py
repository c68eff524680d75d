"""Training learns, is seeded, and goes on after a kill as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_unet.core.objects import DecodeSettings, separate
from napari_unet.core.samples import CropPlan, Samples, draw_crop
from napari_unet.core.spec import ModelError, ModelSpec, TrainSettings
from napari_unet.nn.augment import make_batch, vary_intensity, warp_crop
from napari_unet.nn.losses import head_loss
from napari_unet.nn.net import UNet
from napari_unet.nn.train import TrainState, load_checkpoint, rate_factor, train

SPEC = ModelSpec(in_channels=1, depth=2, width=8)
SETTINGS = TrainSettings(steps=6, batch=2, crop=32, validate_every=3, average=0.5)


@pytest.fixture(scope="module")
def samples():
    y, x = np.mgrid[:80, :80]
    labels = np.zeros((80, 80), np.uint16)
    for number, (cy, cx) in enumerate([(20, 20), (25, 55), (58, 40)], 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 11**2] = number
    image = ndimage.gaussian_filter((labels > 0) * 1.0, 1)
    return Samples.from_labels([(image, labels)], channels=1)


def start(settings=SETTINGS, seed=0):
    torch.manual_seed(seed)
    return TrainState.start(UNet(SPEC), settings)


def run(state, samples, settings=SETTINGS, **options):
    return list(train(state, samples, settings, **options))


def test_three_discs_are_learned(samples):
    settings = TrainSettings(
        steps=240, batch=4, crop=48, learning_rate=1e-2, average=0.9, plain=1.0
    )
    state = start(settings)
    steps = run(state, samples, settings)
    assert np.mean([s.loss for s in steps[-9:]]) < 0.6 * np.mean([s.loss for s in steps[:9]])
    item = samples.items[0]
    with torch.inference_mode():
        raw = state.averaged_net()(torch.from_numpy(item.image)[None])[0]
    maps = np.stack([torch.sigmoid(raw[0]).numpy(), raw[1].numpy()])
    found = separate(maps, DecodeSettings(merge=0.4, min_size=40))
    assert found.max() == 3
    overlap = np.sum((found > 0) & (item.labels > 0)) / np.sum((found > 0) | (item.labels > 0))
    assert overlap > 0.7


def test_the_same_seed_gives_the_same_weights(samples):
    first, second, other = start(), start(), start(seed=1)
    for state in (first, second, other):
        run(state, samples)
    for name, value in first.average.items():
        assert torch.equal(value, second.average[name]), name
    assert not torch.equal(first.net.head.weight, other.net.head.weight)


def test_resuming_gives_the_weights_of_an_uninterrupted_run(samples, tmp_path):
    whole = start()
    run(whole, samples)
    checkpoint = tmp_path / "checkpoint.safetensors"
    killed = train(start(), samples, SETTINGS, checkpoint=checkpoint)
    for _ in range(4):  # a checkpoint lies at step 3; the fourth step is lost
        next(killed)
    killed.close()
    resumed = start(seed=9)
    load_checkpoint(resumed, checkpoint)
    assert resumed.step == 3
    run(resumed, samples)
    assert resumed.step == whole.step
    for name, value in whole.average.items():
        assert torch.equal(value, resumed.average[name]), name


def test_a_damaged_checkpoint_is_said(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="start again without it"):
        load_checkpoint(start(), path)


def test_reports_count_down_and_carry_validation(samples, tmp_path):
    steps = run(start(), samples, validate=lambda net: {"ap50": float(net.training)})
    assert [s.done for s in steps] == [1, 2, 3, 4, 5, 6]
    assert [s.validation for s in steps] == [None, None, {"ap50": 0.0}] * 2
    assert steps[-1].seconds_left == 0
    assert list(tmp_path.iterdir()) == []


def test_minutes_end_the_training(samples):
    settings = TrainSettings(minutes=0.01, batch=1, crop=16)
    state = start(settings)
    run(state, samples, settings)
    assert 0.6 <= state.seconds < 30


def test_frozen_statistics_stay_as_they_are(samples):
    frozen = replace(SETTINGS, freeze_norm=True)
    state, moving = start(frozen), start()
    before = {k: v.clone() for k, v in state.net.state_dict().items()}
    run(state, samples, frozen)
    run(moving, samples)
    for name, value in state.net.state_dict().items():
        if "running" in name:
            assert torch.equal(value, before[name])
            assert not torch.equal(moving.net.state_dict()[name], before[name])
        elif name.endswith("conv.weight"):
            assert not torch.equal(value, before[name])


def test_plain_crops_hold_pixels_of_the_image(samples):
    rng = np.random.default_rng(0)
    known = set(np.round(samples.items[0].image.ravel(), 3).tolist())
    for _ in range(5):
        crop = draw_crop(samples, samples.weights(), rng, plain=1.0)
        image, _, _ = warp_crop(samples.items[0], crop, 32)
        assert set(np.round(image.numpy().ravel(), 3).tolist()) <= known


def test_the_rate_rises_and_falls():
    rates = [rate_factor(d, 0.1) for d in np.linspace(0, 1, 101)]
    assert rates[0] < 0.02
    assert max(rates) == pytest.approx(1, abs=0.01) == rates[10]
    assert rates[-1] == pytest.approx(0, abs=1e-3)
    assert (np.diff(rates[10:]) <= 0).all()


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
    assert known.shape == (2, 1, 48, 48)


def test_intensities_vary_but_stay_finite():
    image = torch.rand(3, 20, 20)
    seen = [vary_intensity(image, np.random.default_rng(s)) for s in range(60)]
    assert all(torch.isfinite(s).all() for s in seen)
    assert max((s - image).abs().max() for s in seen) > 0.5


@pytest.mark.parametrize("head", ["instance", "semantic"])
def test_unknown_pixels_weigh_nothing(head):
    spec = ModelSpec(head=head, classes=2)
    targets = torch.zeros(1, 2, 8, 8)
    targets[:, 0] = 1
    known = torch.zeros(1, 1, 8, 8)
    known[..., :4] = 1
    raw = torch.zeros(1, 2, 8, 8, requires_grad=True)
    wrong = targets.clone()
    wrong[..., 4:] = 0.5
    assert head_loss(spec, raw, targets, known) == head_loss(spec, raw, wrong, known)
    head_loss(spec, raw, targets, known).backward()
    assert raw.grad[..., :4].abs().sum() > 0
    assert raw.grad[..., 4:].abs().sum() == 0


def test_nothing_known_is_no_loss():
    raw = torch.zeros(1, 2, 4, 4, requires_grad=True)
    loss = head_loss(ModelSpec(), raw, torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_a_resumed_average_stays_where_the_network_is(samples, tmp_path):
    """A GPU's average must not come back in host memory, nor hold the file open on Windows."""
    for _ in train(state := start(), samples, SETTINGS, checkpoint=tmp_path / "state"):
        pass
    again = start()
    kept = {name: value.data_ptr() for name, value in again.average.items()}
    load_checkpoint(again, tmp_path / "state")
    assert {name: value.data_ptr() for name, value in again.average.items()} == kept
    for name, value in state.average.items():
        assert torch.equal(value, again.average[name])
