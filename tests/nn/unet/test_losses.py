"""Losses: their terms add up, unknown pixels weigh nothing, and focusing does what it says."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.unet.losses import dice_loss, head_loss

INSTANCE, SEMANTIC = ModelSpec(), ModelSpec(head="semantic", classes=3)


@pytest.fixture(params=[INSTANCE, SEMANTIC], ids=["instance", "semantic"])
def spec(request):
    return request.param


def example(spec, size=(2, 8, 8)):
    """Random raw maps, targets such as the head makes, and everything known."""
    random = torch.Generator().manual_seed(0)
    count, *plane = size
    if spec.head == "semantic":
        classes = torch.randint(3, size, generator=random)
        targets = F.one_hot(classes, 3).movedim(-1, 1).float()
    else:
        foreground = (torch.rand((count, 1, *plane), generator=random) > 0.5).float()
        targets = torch.cat(
            [foreground, foreground * torch.rand(foreground.shape, generator=random)], 1
        )
    raw = torch.randn(targets.shape, generator=random)
    return raw.requires_grad_(), targets, torch.ones(count, 1, *plane)


def test_the_terms_add_up_to_the_loss(spec):
    loss, terms = head_loss(spec, *example(spec))
    names = {"entropy", "dice"} | ({"distance"} if spec is INSTANCE else set())
    assert set(terms) == names
    assert all(term > 0 for term in terms.values())
    assert loss.item() == pytest.approx(sum(term.item() for term in terms.values()))


def test_the_instance_loss_is_the_published_recipe():
    raw, targets, known = example(INSTANCE)
    inside = targets[:, :1]
    entropy = F.binary_cross_entropy_with_logits(raw[:, :1], inside)
    error = F.smooth_l1_loss(raw[:, 1:], targets[:, 1:], reduction="none", beta=0.1)
    distance = ((1 + 2 * inside) * error).mean()
    dice = dice_loss(raw[:, :1].sigmoid(), inside, known)
    loss, _ = head_loss(INSTANCE, raw, targets, known)
    assert loss.item() == pytest.approx((entropy + 0.5 * dice + 2 * distance).item(), rel=1e-6)


def test_the_semantic_loss_is_entropy_and_the_classes_mean_dice():
    raw, targets, known = example(SEMANTIC)
    entropy = F.cross_entropy(raw, targets.argmax(1))
    share = raw.softmax(1)
    dice = [dice_loss(share[:, k], targets[:, k], known[:, 0]) for k in range(3)]
    loss, terms = head_loss(SEMANTIC, raw, targets, known)
    assert terms["entropy"].item() == pytest.approx(entropy.item(), rel=1e-5)
    assert loss.item() == pytest.approx((entropy + 0.5 * sum(dice) / 3).item(), rel=1e-5)


def test_dice_of_overlap():
    half = torch.zeros(1, 1, 4, 4)
    half[..., :2] = 1
    known = torch.ones(1, 1, 4, 4)
    assert dice_loss(half, half, known).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(half, 1 - half, known).item() == pytest.approx(1 - 1 / 17)
    assert dice_loss(torch.ones_like(half), half, known).item() == pytest.approx(1 - 17 / 25)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focusing_weighs_each_pixel_by_its_doubt(spec, gamma):
    """One pixel: the entropy -log p becomes -(1 - p)^gamma log p (Lin et al. 2017)."""
    size = (1, 1, 1)
    raw, targets, known = example(spec, size)
    plain = head_loss(spec, raw, targets, known)[1]
    focused = head_loss(spec, raw, targets, known, gamma)[1]
    entropy = plain["entropy"].item()
    expected = (1 - math.exp(-entropy)) ** gamma * entropy
    assert focused["entropy"].item() == pytest.approx(expected, rel=1e-5)
    assert {k: v.item() for k, v in focused.items() if k != "entropy"} == {
        k: v.item() for k, v in plain.items() if k != "entropy"
    }


def test_focusing_on_sure_pixels_keeps_gradients_finite(spec):
    _, targets, known = example(spec)
    raw = (200 * (targets - 0.5)).requires_grad_()
    loss, _ = head_loss(spec, raw, targets, known, 0.5)
    loss.backward()
    assert torch.isfinite(raw.grad).all()


@pytest.mark.parametrize("focal", [0.0, 2.0])
def test_unknown_pixels_weigh_nothing(spec, focal):
    raw, targets, known = example(spec)
    known[..., 4:] = 0
    wrong = targets.clone()
    wrong[..., 4:] = 0.5
    loss, _ = head_loss(spec, raw, targets, known, focal)
    assert torch.equal(loss, head_loss(spec, raw, wrong, known, focal)[0])
    loss.backward()
    assert raw.grad[..., :4].abs().sum() > 0
    assert raw.grad[..., 4:].abs().sum() == 0


def test_nothing_known_is_no_loss(spec):
    raw, targets, known = example(spec)
    loss, _ = head_loss(spec, raw, targets, 0 * known)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(raw.grad).all()


def test_a_sketch_teaches_the_foreground_and_not_the_distance():
    raw, targets, known = example(INSTANCE)
    scribbled = torch.cat([known, known], 1)
    scribbled[:, 1, :, :4] = 0
    loss, _ = head_loss(INSTANCE, raw, targets, scribbled)
    loss.backward()
    assert raw.grad[:, 0].count_nonzero() == raw.grad[:, 0].numel()
    assert raw.grad[:, 1, :, :4].count_nonzero() == 0
    assert raw.grad[:, 1, :, 4:].count_nonzero() > 0
