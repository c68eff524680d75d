"""A click head learns, goes on where it stopped, and is scored by the robot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lab.synthetic_images import SyntheticImageSource
from scipy import ndimage

import napari_unet as nu
from napari_unet.core.errors import InputError
from napari_unet.core.prompts.simulation import iou
from napari_unet.core.training.config import TrainConfig
from napari_unet.core.training.log import TrainLog, read_table
from napari_unet.core.training.samples import Samples
from napari_unet.nn.interactive.mask_predictor import InitialMask
from napari_unet.nn.interactive.session import ClickSession
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.click_samples import (
    REDRAW_RANGE,
    LabelledImages,
    TrainingView,
    draw_click_samples,
    make_view,
    redraw,
)
from napari_unet.nn.training.click_scores import (
    ClickScores,
    ClickTrial,
    ClickValidator,
    pick_objects,
    score_trials,
)
from napari_unet.nn.training.click_training import (
    click_loss,
    train_clicks,
)
from napari_unet.nn.unet.click_head import ClickHead

SETTINGS = TrainConfig(steps=12, batch=2, crop=32, learning_rate=5e-3, validate_every=6)


class Discs:
    """Pictures of three discs on a dark ground."""

    def draw(self, rng, channels, diameter):
        labels = np.zeros((1, 96, 96), np.uint16)
        y, x = np.ogrid[:96, :96]
        for number, cx in enumerate((18, 48, 78), 1):
            cy = rng.uniform(20, 76)
            labels[0, (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(5, 11) ** 2] = number
        image = (labels > 0) + rng.normal(0, 0.05, labels.shape)
        return np.repeat(image, channels, 0).astype(np.float32), labels


class Empty:
    """Pictures of nothing."""

    def draw(self, rng, channels, diameter):
        return np.zeros((channels, 64, 64), np.float32), np.zeros((1, 64, 64), np.uint16)


def begin(model, settings=SETTINGS):
    torch.manual_seed(0)
    return TrainState.start(ClickHead(model.spec), settings)


def drain(steps):
    losses = []
    try:
        while True:
            losses.append(next(steps).loss)
    except StopIteration:
        return losses


def test_the_loss_falls_and_the_trunk_stays(make_model):
    model = make_model()
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    settings = TrainConfig(steps=40, batch=4, crop=32, learning_rate=1e-2)
    state = begin(model, settings)
    losses = drain(train_clicks(state, model, [Discs()], settings))
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    assert all(torch.equal(value, before[name]) for name, value in model.net.state_dict().items())


def test_a_training_goes_on_where_it_stopped(make_model, tmp_path):
    model, sources = make_model(), [Discs(), Discs()]
    whole = begin(model)
    drain(train_clicks(whole, model, sources, SETTINGS))
    broken, checkpoint = begin(model), tmp_path / "checkpoint.safetensors"
    steps = train_clicks(
        broken, model, sources, SETTINGS, checkpoint=checkpoint, log=TrainLog(tmp_path)
    )
    for _ in range(8):  # the checkpoint is that of step 6
        next(steps)
    steps.close()
    resumed = begin(model)
    load_checkpoint(resumed, checkpoint)
    assert resumed.step == 6
    drain(train_clicks(resumed, model, sources, SETTINGS, log=TrainLog(tmp_path)))
    for name, value in resumed.net.state_dict().items():
        assert torch.equal(value, whole.net.state_dict()[name])
    assert [row["step"] for row in read_table(tmp_path / "log.csv")] == [6, 12]


def test_pictures_without_objects_are_refused(make_model):
    model = make_model()
    with pytest.raises(InputError, match="show no objects"):
        next(train_clicks(begin(model), model, [Empty()], SETTINGS))


@pytest.mark.parametrize("seed", range(4))
def test_windows_show_what_was_clicked(make_model, seed):
    rng = np.random.default_rng(seed)
    model = make_model(in_channels=3)
    views = [make_view(model, SyntheticImageSource(0), rng) for _ in range(2)]
    windows = draw_click_samples(
        views, TrainConfig(batch=6, crop=48), rng, InitialMask.from_model(model)
    )
    assert len(windows) == 6
    for window in windows:
        assert window.inputs.shape[1:] == window.target.shape == window.previous.shape
        assert window.inputs.shape[0] == 4 + 1 + 2
        assert window.target.max() > 0
        assert window.clicks or window.previous.any()
        if not window.previous.any() and window.truth.any():
            assert window.truth[window.clicks.clicks[0].pixel]


@pytest.mark.parametrize(("levels", "clicked"), [((1, 0, 0), True), ((0, 1, 0), False)])
def test_small_objects_are_clicked_on_where_they_are_seen_closest(
    make_model, monkeypatch, levels, clicked
):
    monkeypatch.setattr("napari_unet.nn.training.click_samples.LEVELS", levels)
    labels = np.zeros((1, 288, 288), np.int32)
    labels[0, 40:47, 50:56], labels[0, 120:180, 90:150] = 1, 2
    boxes = ndimage.find_objects(labels[0])
    view = TrainingView(
        torch.zeros(4 + 1 + 2, 288, 288), labels, [(0, 1, boxes[0]), (0, 2, boxes[1])]
    )
    rng, guess = np.random.default_rng(0), InitialMask.from_model(make_model())
    windows = draw_click_samples([view], TrainConfig(batch=12, crop=128), rng, guess)
    assert any(window.target.sum() < 100 for window in windows) == clicked


def test_outlines_are_drawn_anew_a_little_further_in_or_out():
    y, x = np.ogrid[:64, :64]
    disc = (y - 30) ** 2 + (x - 3) ** 2 < 10**2  # cut by the border
    line = np.zeros((64, 64), bool)
    line[40, 10:50] = True
    rng = np.random.default_rng(0)
    ratios = []
    for inside, box in (
        (disc, (slice(21, 40), slice(0, 13))),
        (line, (slice(40, 41), slice(10, 50))),
    ):
        for _ in range(60):
            drawn = redraw(inside, box, rng)
            assert drawn.any()
            assert drawn.shape == inside.shape
            if inside is disc:
                ratios.append(np.count_nonzero(drawn) / np.count_nonzero(disc))
    assert min(ratios) < 0.9
    assert max(ratios) > 1.1
    assert 1 + 4 * REDRAW_RANGE[0] < min(ratios)
    assert max(ratios) < 1 + 4 * REDRAW_RANGE[1]
    assert ratios.count(1.0) > 20


def test_labelled_images_are_zoomed_to_the_size_that_the_network_knows():
    labels = np.zeros((128, 128), np.uint16)
    labels[20:60, 30:70] = 1
    samples = Samples.from_labels([(labels * 1.0, labels)], channels=1)
    rng = np.random.default_rng(0)
    sizes = []
    for _ in range(40):
        _, layers = LabelledImages.from_samples(samples).draw(rng, 1, 22.0)
        sizes.append(np.sqrt(np.count_nonzero(layers)))
    assert 14 < np.median(sizes) < 30
    assert np.ptp(sizes) > 5


def test_the_loss_is_least_for_the_right_answer():
    target = torch.zeros(1, 8, 8)
    target[0, 2:5, 2:6] = 1
    answers = (40 * target - 20, 20 - 40 * target, 0 * target)
    right, wrong, unsure = (click_loss(answer, target)[0] for answer in answers)
    assert right < 0.01 < unsure < wrong


def test_the_robot_scores_a_session(clicking_model):
    y, x = np.ogrid[:60, :70]
    labels = np.zeros((60, 70), np.uint8)
    for number, cx in enumerate((20, 50), 1):
        labels[(y - 30) ** 2 + (x - cx) ** 2 < 64] = number
    model = clicking_model()
    session = ClickSession(model, (labels > 0).astype(np.float32))
    objects = list(pick_objects(labels, 5, np.random.default_rng(0)))
    assert len(objects) == 2
    trials = [ClickTrial(session, truth, "discs") for truth in objects]
    scores = score_trials(trials, 4)["discs"]
    assert scores.ious.shape == (2, 4)
    assert scores.after(1) > 0.95
    assert scores.number_of_clicks(0.9) == 1
    assert scores.number_of_clicks(1.1) == 4
    found = ClickValidator(trials, 5)(model.click)
    assert next(iter(found)) == "IoU"
    assert found["IoU1 discs"] == pytest.approx(scores.after(1))
    assert found["NoC85 discs"] == 1


def test_iou_after_clicks():
    scores = ClickScores(np.array([[0.5, 0.9, 0.8], [0.2, 0.3, 0.4]]))
    assert scores.after(2) == pytest.approx(0.6)
    assert scores.number_of_clicks(0.85) == pytest.approx((2 + 3) / 2)


def test_a_trained_head_answers_clicks(make_model, tmp_path):
    """From training to a model on disk to a click: the parts fit together."""
    import dataclasses

    model = make_model()
    settings = TrainConfig(steps=60, batch=4, crop=32, learning_rate=1e-2, average=0.9)
    state = begin(model, settings)
    drain(train_clicks(state, model, [Discs()], settings))
    trained = dataclasses.replace(model, click=state.best_net())
    loaded = nu.load_model(nu.save_model(trained, tmp_path / "clicks"))
    image, layers = Discs().draw(np.random.default_rng(9), 1, None)
    truth = layers[0] == 2
    at = np.argwhere(truth).mean(0)
    session = nu.ClickSession(loaded, image[0])
    assert iou(session.add(nu.Click(tuple(at))), truth) > 0.5
