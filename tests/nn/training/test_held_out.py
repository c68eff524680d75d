"""Scores in training: what they mean, and that a known answer gets the score it deserves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_unet.core.instances.heads import SemanticHead
from napari_unet.core.models.card import ModelCard
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.training.samples import Samples
from napari_unet.nn.training.held_out import SeenAgain, Validator
from napari_unet.nn.unet.net import UNet

DISCS = ModelSpec(in_channels=1, depth=1, width=4)
CLASSES = ModelSpec(in_channels=1, depth=1, width=4, head="semantic", classes=3)


def discs(count=3):
    y, x = np.mgrid[:64, :64]
    labels = np.zeros((64, 64), np.uint16)
    for number, (cy, cx) in enumerate([(14, 16), (20, 46), (46, 30)][:count], 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 9**2] = number
    return labels


class Oracle(UNet):
    """A real network whose answer is replaced by one that was made from the targets."""

    def __init__(self, spec, answers):
        super().__init__(spec)
        self.answers = answers

    def forward(self, x):
        return torch.from_numpy(self.answers[x.shape[2:]])[None]


def raw_of(sample):
    """The raw answer of a network that is right everywhere."""
    targets = sample.targets.copy()
    targets[0] = 20 * targets[0] - 10
    return targets


@pytest.fixture
def samples():
    """Two groups of one image each, of different shapes."""
    pairs = [(discs() * 1.0, discs()), (discs()[:, :60] * 1.0, discs()[:, :60])]
    return Samples.from_labels(pairs, groups=["dark", "bright"], channels=1)


def answers(samples):
    return {sample.labels.shape: raw_of(sample) for sample in samples.items}


def card(spec, **entries):
    return ModelCard("in training", spec, **entries)


def test_ap50_is_the_mean_of_the_groups(samples):
    validate = Validator(samples, card(DISCS))
    right = answers(samples)
    scores = validate(Oracle(DISCS, right))
    assert scores == {"AP50": 1, "AP50 bright": 1, "AP50 dark": 1}
    right[64, 64][:, :32, 32:] = -10  # one of three discs is missed
    scores = validate(Oracle(DISCS, right))
    assert next(iter(scores)) == "AP50"
    assert scores["AP50"] == pytest.approx((2 / 3 + 1) / 2)


def test_one_group_needs_no_names(samples):
    alone = Samples(samples.items[:1])
    assert list(Validator(alone, card(DISCS))(Oracle(DISCS, answers(samples)))) == ["AP50"]


def test_objects_are_decoded_as_the_card_says(samples):
    validate = Validator(samples, card(DISCS, decode={"min_size": 1000}))
    assert validate(Oracle(DISCS, answers(samples)))["AP50"] == 0


def test_what_is_not_known_is_not_found():
    """The network finds three discs where the lower half was not looked at and has no labels."""
    known = np.zeros((64, 64), bool)
    known[:32] = True
    partly = Samples.from_labels([(discs() * 1.0, discs(2))], known=[known], channels=1)
    full = Samples.from_labels([(discs() * 1.0, discs())], channels=1)
    scores = Validator(partly, card(DISCS))(Oracle(DISCS, answers(full)))
    assert scores["AP50"] == 1


def bands():
    return np.repeat([0, 1, 2], 20)[None].repeat(60, 0).astype(np.uint8)


def class_samples(known=None):
    return Samples.from_labels(
        [(bands() * 1.0, bands())], known=[known], head=SemanticHead(3), channels=1
    )


def class_answer(labels):
    return {labels.shape: 10 * SemanticHead(3).targets(labels)}


def test_iou_is_that_of_the_classes():
    validate = Validator(class_samples(), card(CLASSES))
    assert validate(Oracle(CLASSES, class_answer(bands())))["IoU"] == 1
    shifted = bands()
    shifted[:, 15:20] = 1  # a quarter of class 0 is taken for class 1
    scores = validate(Oracle(CLASSES, class_answer(shifted)))
    expected = {"IoU background": 0.75, "IoU class 1": 0.8, "IoU class 2": 1.0}
    assert scores == pytest.approx({"IoU": np.mean([*expected.values()]), **expected})
    assert next(iter(scores)) == "IoU"


def test_unknown_pixels_and_absent_classes_do_not_count():
    known = np.ones((60, 60), bool)
    known[:, 15:20] = known[:, 40:] = False
    shifted = bands()
    shifted[:, 15:20] = shifted[:, 40:] = 1
    scores = Validator(class_samples(known), card(CLASSES))(Oracle(CLASSES, class_answer(shifted)))
    assert scores == {"IoU": 1, "IoU background": 1, "IoU class 1": 1}


def test_a_real_network_is_scored_where_it_stands(samples):
    torch.manual_seed(0)
    net = UNet(DISCS).eval()
    image = ndimage.gaussian_filter(discs() * 1.0, 1)
    scores = Validator(Samples.from_labels([(image, discs())], channels=1), card(DISCS))(net)
    assert 0 <= scores["AP50"] <= 1
    assert not net.training


def test_what_is_found_in_known_and_unknown_parts_is_counted(samples):
    """Of two images one object is known, each; the network finds all that are labelled."""
    part = Samples([replace(i, known=i.labels == 1) for i in samples.items], samples.head)
    net = Oracle(DISCS, answers(samples))
    seen = run_to_end(Validator(part, card(DISCS, decode={"min_size": 20})).look(net))
    assert seen == SeenAgain(1.0, objects=2, labelled=6, found=6, right=2)
