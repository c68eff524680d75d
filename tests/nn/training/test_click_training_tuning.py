"""A tuned model answers clicks as well as before, or better: its click head follows the trunk."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_unet.core.instances.heads import SemanticHead
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import load_model, save_model
from napari_unet.nn.training import click_samples as pictures
from napari_unet.nn.training import click_training as tuning
from napari_unet.nn.training.click_scores import (
    Clicked,
    ClickValidator,
    alternating,
    make_trials,
)
from napari_unet.nn.training.finetune import Tuning
from napari_unet.nn.unet.click_head import ClickHead

FEW = TrainSettings(steps=40, batch=2, crop=32, learning_rate=1e-3)


@pytest.fixture(scope="module")
def discs():
    rng = np.random.default_rng(0)
    labels = np.zeros((128, 240), np.uint16)
    y, x = np.mgrid[:128, :240]
    for cy in range(16, 120, 24):
        for cx in range(16, 230, 24):
            at = (cy + rng.uniform(-3, 3), cx + rng.uniform(-3, 3))
            labels[(y - at[0]) ** 2 + (x - at[1]) ** 2 < 64] = labels.max() + 1
    image = ndimage.gaussian_filter((labels > 0) * 1.0, 1) + rng.normal(0, 0.05, labels.shape)
    return image, labels


@pytest.fixture
def model(make_model):
    model = make_model(card={"training": {"working_diameter_px": 16.0}, "hash": "abc"})
    torch.manual_seed(1)
    return replace(model, click=ClickHead(model.spec).eval())


def tuned(model, samples, **changes):
    seen = []
    tuning_ = Tuning(model, samples, replace(FEW, **changes))
    return run_to_end(tuning_.steps(), seen.append), [step.what for step in seen]


def same(one, other):
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def scored(monkeypatch, *scores):
    """Let heads score as told, the one before first."""
    left = list(scores)

    def steps(self, head, seconds=math.inf):
        yield Clicked(1, 0.1)
        return {"IoU": left.pop(0)}, 1

    monkeypatch.setattr(ClickValidator, "steps", steps)


def test_the_click_head_learns_on_the_tuned_trunk_and_is_stored(model, discs, monkeypatch, home):
    scored(monkeypatch, 0.5, 0.6)
    before = {name: value.clone() for name, value in model.click.state_dict().items()}
    child, seen = tuned(model, Samples.from_labels([discs], channels=1))
    assert "teaching clicks" in seen
    assert not same(child.click, model.click)
    assert all(torch.equal(v, before[name]) for name, v in model.click.state_dict().items())
    assert child.card.click["training"]["steps"] == round(tuning.CLICK_SHARE * 40)
    assert child.card.click["metrics"] == {"IoU": 0.6}
    save_model(child, "child")
    stored = load_model("child", "cpu")
    assert stored.click is not None
    assert stored.card.click["metrics"] == {"IoU": 0.6}


def test_a_head_that_became_worse_is_not_kept(model, discs, monkeypatch):
    scored(monkeypatch, 0.6, 0.5)
    child, seen = tuned(model, Samples.from_labels([discs], channels=1))
    assert "teaching clicks" in seen
    assert same(child.click, model.click)


def test_how_long_the_teaching_of_clicks_takes_is_said_on_the_way(model, discs):
    steps = []
    tuning_ = Tuning(model, Samples.from_labels([discs], channels=1), replace(FEW, minutes=0.02))
    run_to_end(tuning_.steps(), steps.append)
    teaching = [step for step in steps if step.what == "teaching clicks"]
    done = [step.done for step in teaching]
    assert all(step.total == 100 for step in teaching) and done[-1] == 100
    known = [step.seconds_left for step in teaching if math.isfinite(step.seconds_left)]
    assert len(known) > 5 and known[-1] == 0 < known[0]


def test_a_head_is_scored_on_as_many_objects_as_time_allows(model, discs):
    samples = Samples.from_labels([discs] * 2, groups=["a", "b"], channels=1)
    trials = alternating(make_trials(model, samples, 3))
    assert [trial.group for trial in trials] == ["a", "b"] * 3
    scores, done = run_to_end(ClickValidator(trials, 5).steps(model.click, seconds=0))
    assert done == 2 and {"IoU1 a", "IoU1 b"} <= set(scores)
    assert run_to_end(ClickValidator(trials, 5).steps(model.click))[1] == 6
    assert run_to_end(ClickValidator([], 5).steps(model.click)) == ({}, 0)


def test_objects_too_small_to_click_on_teach_nothing(model, discs, monkeypatch):
    monkeypatch.setattr(pictures, "SMALLEST", 10_000)
    child, _ = tuned(model, Samples.from_labels([discs], channels=1), steps=8)
    assert same(child.click, model.click)


def test_only_known_objects_are_clicked_on(model, discs, monkeypatch):
    image, labels = discs
    known = np.zeros(labels.shape, bool)
    known[:, :120] = True
    clicked = []
    real = tuning.LabelledImages.from_samples

    def noted(samples):
        clicked.extend(samples.items)
        return real(samples)

    monkeypatch.setattr(tuning.LabelledImages, "from_samples", noted)
    tuned(model, Samples.from_labels([(image, labels)], [known], channels=1), steps=8)
    assert clicked
    assert not any((item.labels[~item.known] > 0).any() for item in clicked)


def test_without_a_head_or_objects_there_is_nothing_to_teach(make_model, model, discs):
    samples = Samples.from_labels([discs], channels=1)
    assert tuning.can_learn_clicks(model, samples)
    assert not tuning.can_learn_clicks(make_model(), samples)
    image, labels = discs
    classes = Samples.from_labels(
        [(image, (labels > 0).astype(np.uint8))], head=SemanticHead(2), channels=1
    )
    assert not tuning.can_learn_clicks(model, classes)


def test_a_share_of_the_minutes_is_left_for_the_clicks(model, discs):
    samples = Samples.from_labels([discs], channels=1)
    with_head = Tuning(model, samples, TrainSettings(minutes=2))
    without = Tuning(replace(model, click=None), samples, TrainSettings(minutes=2))
    assert with_head._trunk_config().minutes == pytest.approx(2 * (1 - tuning.CLICK_SHARE))
    assert without._trunk_config().minutes == 2
