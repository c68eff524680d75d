"""A model learns what was corrected, keeps what it could do, and says which of the two it did."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from discs import disc_labels
from scipy import ndimage

import napari_unet as nu
from napari_unet.core.errors import DeviceError, DivergedError, InputError
from napari_unet.core.instances.heads import SemanticHead
from napari_unet.core.models.folder import read_rehearsal
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training import config as config_module
from napari_unet.core.training.model_comparison import get_rounds
from napari_unet.core.training.rehearsal import (
    GROUP,
    choose_rehearsal_crops,
    pack_rehearsal,
    unpack_rehearsal,
)
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import load_model, save_model
from napari_unet.nn.training import calibrate as calibrate_module
from napari_unet.nn.training import loop as train_module
from napari_unet.nn.training.finetune import Tuning, fine_tune
from napari_unet.nn.training.head_transfer import fresh_model, transfer_head
from napari_unet.nn.training.held_out import HeldOutEvaluation, SeenAgain

FEW = TrainSettings(steps=6, batch=2, crop=32, learning_rate=1e-3)


def discs(bright=True, size=(96, 200), radius=7, seed=0):
    """Discs on a grid, bright on dark or dark on bright."""
    rng = np.random.default_rng(seed)
    labels = disc_labels(rng, size, radius)
    image = ndimage.gaussian_filter((labels > 0) == bright, 1.0, output=float)
    return image + rng.normal(0, 0.03, size), labels


@pytest.fixture(scope="module")
def samples():
    return Samples.from_labels([discs()], channels=1)


@pytest.fixture
def model(make_model):
    return make_model(card={"training": {"working_diameter_px": 14.0}, "hash": "abc"})


def drain(steps):
    """Return all records and the answer."""
    seen = []
    return seen, run_to_end(steps, seen.append)


def same(first, second):
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_a_tuned_model_is_a_child_of_its_parent(model, samples):
    seen, tuned = drain(fine_tune(model, samples, FEW))
    assert seen[0].what == "preparing"
    assert [step.done for step in seen if step.what == "training"] == [1, 2, 3, 4, 5, 6]
    assert not same(tuned.net, model.net)
    card = tuned.card
    assert card.parent == "abc"
    assert card.training["objects"] == len(np.unique(samples.items[0].labels)) - 1
    assert card.training["data_hash"].startswith("sha256:")
    assert card.training["working_diameter_px"] == 14
    assert card.metrics["tuning"]["verdict"] in ("better", "worse", "not measurable")
    assert 0 <= card.metrics["tuning"]["before"] <= 1
    assert 0 <= card.metrics["tuning"]["taught_after"] <= 1
    assert 0 <= card.metrics["bfloat16_dice"] <= 1
    assert [found.objects for found in get_rounds(card.training)] == [0, card.training["objects"]]


def test_a_child_knows_the_size_that_it_was_taught_and_keeps_objects_as_small(make_model):
    large = {"training": {"working_diameter_px": 14.0}, "decode": {"min_size": 120, "merge": 0.2}}
    model = make_model(card={**large, "hash": "abc"})
    image, labels = discs()
    stack = nu.open_stack(image, axes="YX", voxel_size_um=(1.0, 0.5, 0.5))
    samples = Samples.from_labels([(stack, labels)], channels=1)
    _, tuned = drain(fine_tune(model, samples, FEW))
    taught = tuned.card.training["taught_diameter"]
    assert taught["px"] == pytest.approx(14, abs=0.4)
    assert taught["um"] == pytest.approx(7, abs=0.2)
    area = np.pi * 7**2
    assert tuned.card.decode["min_size"] == pytest.approx(area / 2, rel=0.1)
    assert tuned.card.decode["merge"] == 0.2


def test_the_model_itself_is_left_as_it_is(model, samples):
    before = {name: value.clone() for name, value in model.net.state_dict().items()}
    drain(fine_tune(model, samples, FEW))
    assert all(torch.equal(value, before[name]) for name, value in model.net.state_dict().items())


def test_the_statistics_of_norms_are_frozen(model, samples):
    _, tuned = drain(fine_tune(model, samples, FEW))
    before, after = model.net.state_dict(), tuned.net.state_dict()
    for name in before:
        if "running" in name:
            assert torch.equal(before[name], after[name]), name


def test_from_scratch_norms_are_trained_first_and_frozen_last(samples):
    new = fresh_model(ModelSpec(in_channels=1, depth=1, width=4), device="cpu")
    tuning = Tuning(new, samples, replace(FEW, steps=10))
    statistics = []
    for step in tuning.steps():
        if step.what == "training":
            state = tuning.state.net.state_dict()
            statistics.append(state["encoder.0.units.0.norm.running_mean"].clone())
    moves = [not torch.equal(a, b) for a, b in pairwise(statistics)]
    assert moves == [True] * 6 + [False] * 3
    assert tuning.judgement.before is None
    assert "from scratch" in tuning.judgement.reason
    assert tuning.best().card.parent is None
    assert tuning.best().diameter == pytest.approx(14, abs=1)


@pytest.mark.parametrize(
    ("what", "moved"),
    [
        ("nothing", {"encoder", "bottleneck", "ups", "decoder", "head"}),
        ("encoder", {"ups", "decoder", "head"}),
        ("all but the head", {"head"}),
    ],
)
def test_what_is_frozen_does_not_move(model, samples, what, moved):
    _, tuned = drain(fine_tune(model, samples, replace(FEW, freeze=what)))
    after = tuned.net.state_dict()
    changed = {
        name.partition(".")[0]
        for name, value in model.net.state_dict().items()
        if not torch.equal(value, after[name])
    }
    assert changed == moved


def test_cancel_keeps_the_best_so_far(model, samples):
    tuning = Tuning(model, samples, replace(FEW, steps=100, validate_every=2))
    steps = tuning.steps()
    for step in steps:
        if step.done == 5:
            break
    steps.close()
    best = tuning.best()
    assert not same(best.net, model.net)
    assert best.card.training["steps"] == 5
    assert tuning.judgement.after is not None
    image, _ = discs()
    assert nu.segment(image, best).shape == image.shape


def test_a_single_object_is_learned_without_validation(model):
    image, labels = discs()
    one = Samples.from_labels([(image, np.uint16(labels == 5))], channels=1)
    tuning = Tuning(model, one, FEW)
    seen, tuned = drain(tuning.steps())
    assert not any(step.validation for step in seen)
    assert tuning.judgement.verdict == "not measurable"
    assert "With 1 known object" in tuned.card.metrics["tuning"]["reason"]
    assert tuned.card.training.get("rounds") is None


def test_tuning_makes_it_better_and_says_so(samples):
    """A model of bright discs learns dark ones, and with a replay keeps the bright ones."""
    spec = ModelSpec(in_channels=1, depth=1, width=8)
    settings = TrainSettings(steps=90, batch=4, crop=48, learning_rate=1e-2, validate_every=30)
    _, base = drain(fine_tune(fresh_model(spec, device="cpu"), samples, settings))
    dark = Samples.from_labels([discs(False, seed=n) for n in range(2)], channels=1)
    tuning = Tuning(replace(base, card=base.card.replace(hash="base")), dark, settings)
    _, tuned = drain(tuning.steps())
    assert tuning.judgement.verdict == "better"
    image, labels = discs(False, seed=9)
    assert nu.evaluate(nu.segment(image, tuned), labels).ap[0] > 0.6


def stored(model, samples, name="base"):
    """Put a model with a replay into the store."""
    save_model(model, name, replay=pack_rehearsal(choose_rehearsal_crops(samples, 14.0, 8, 64)))
    return load_model(name, "cpu")


def test_the_replay_is_mixed_in_and_scored(model, samples):
    many = Samples.from_labels([discs(seed=n) for n in range(8)], channels=1)
    base = stored(model, many)
    tuning = Tuning(base, samples, replace(FEW, replay=0.4))
    training, weights = tuning.data.mix(tuning.config.replay)
    replayed = np.array([item.group == GROUP for item in training.items])
    assert weights[replayed].sum() == pytest.approx(0.4)
    assert weights.sum() == pytest.approx(1)
    scored = [item for item in tuning.evaluation.held.items if item.group == GROUP]
    assert len(scored) + replayed.sum() == 8
    trained_on = {item.labels.tobytes() for item in training.items}
    assert not any(item.labels.tobytes() in trained_on for item in scored)
    drain(tuning.steps())
    assert tuning.judgement.replay_before is not None
    assert "what it learned before" in str(tuning.judgement)


def test_what_was_forgotten_comes_back_on_the_way_back(model, samples, monkeypatch):
    """The stand-in for the score on the replay falls with the way that the weights have gone."""
    base = stored(model, Samples.from_labels([discs(seed=n) for n in range(8)], channels=1))
    tuning = Tuning(base, samples, FEW)

    def way(net):
        pairs = zip(net.parameters(), base.net.parameters(), strict=True)
        return float(torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm())

    def scores(self, net):
        yield
        gone = way(net) / max(way(tuning.state.best_net()), 1e-9)
        return {"AP50": float("nan"), "AP50 replay": 0.95 - 0.24 * min(gone, 1.0)}

    monkeypatch.setattr(HeldOutEvaluation, "scores", scores)
    _, tuned = drain(tuning.steps())
    assert way(tuned.net) == pytest.approx(0.25 * way(tuning.state.best_net()), rel=1e-3)
    assert tuning.judgement.keep
    assert tuning.judgement.replay_after == pytest.approx(0.89)


def test_one_that_finds_next_to_nothing_any_more_goes_a_part_of_the_way_back(
    model, samples, monkeypatch
):
    """The stand-in for what is found vanishes with the way that the weights have gone."""
    tuning = Tuning(model, samples, FEW)

    def gone(net):
        pairs = zip(net.parameters(), model.net.parameters(), strict=True)
        return sum(float((a - b).detach().abs().sum()) for a, b in pairs)

    def scores(self, net):
        yield
        return {"AP50": float("nan"), "AP50 replay": 0.9}

    def look_again(self, net):
        yield
        share = gone(net) / max(gone(tuning.state.best_net()), 1e-9)
        return SeenAgain(0.5 + 0.3 * share, objects=8, labelled=20, found=20 if share < 0.7 else 0)

    monkeypatch.setattr(HeldOutEvaluation, "scores", scores)
    monkeypatch.setattr(HeldOutEvaluation, "look_again", look_again)
    _, tuned = drain(tuning.steps())
    assert gone(tuned.net) == pytest.approx(0.5 * gone(tuning.state.best_net()), rel=1e-3)
    assert tuning.judgement.keep and tuning.judgement.taught_after == pytest.approx(0.65)


def test_a_few_touched_objects_do_not_choose_the_threshold(make_model, monkeypatch):
    """Beside them it is unknown what a lower threshold would find falsely."""
    chosen = {"threshold": 0.3, "merge": 0.2, "min_size": 5}

    def calibrated(model, held):
        yield
        return chosen

    monkeypatch.setattr(calibrate_module, "_calibrated", calibrated)
    model = make_model(card={"training": {"working_diameter_px": 14.0}})
    image, labels = discs(size=(240, 440))
    touched = ndimage.binary_dilation(labels > 0, iterations=2)
    for known, decode in ((touched, model.card.decode), (None, chosen)):
        _, tuned = drain(
            fine_tune(model, Samples.from_labels([(image, labels)], [known], channels=1), FEW)
        )
        assert tuned.card.decode == decode


def test_a_child_is_stored_with_what_it_keeps(model, samples):
    card = model.card.replace(licence="CC0-1.0 (weights and training data: discs)")
    card = card.replace(training={**card.training, "sources": {"discs": "CC0"}})
    many = Samples.from_labels([discs(seed=n) for n in range(8)], channels=1)
    base = stored(replace(model, card=card), many)
    tuning = Tuning(base, samples, FEW)
    drain(tuning.steps())
    folder = tuning.save("child")
    child = load_model("child", "cpu")
    assert child.card.parent == base.card.hash
    assert len(unpack_rehearsal(read_rehearsal(folder))) == 8 + 1
    assert child.card.training["sources"] == {"discs": "CC0"}
    assert child.card.licence == "CC0-1.0 (weights of base, which it was tuned from)"
    assert (folder / "thumbnail.png").is_file()
    grandchild = Tuning(child, samples, FEW)
    drain(grandchild.steps())
    assert len(grandchild.best().card.training["rounds"]) == 3
    assert grandchild.best().card.licence == child.card.licence
    assert "rounds" not in transfer_head(child, 2).card.training  # they count something else


def test_what_is_held_out_is_not_rehearsed_by_the_next_model(model):
    pairs = [discs(seed=n) for n in range(8)]
    many = Samples.from_labels(pairs, sources=[f"image {n}" for n in range(8)], channels=1)
    tuning = Tuning(model, many, FEW)
    crops = unpack_rehearsal(tuning.data.pack_rehearsal(14.0))
    assert len(crops) == len(tuning.split.training.items) < 8


def test_a_training_is_resumed_where_it_was_killed(model, samples, tmp_path):
    settings = replace(FEW, steps=9, validate_every=3)
    _, whole = drain(Tuning(model, samples, settings, folder=tmp_path / "whole").steps())
    killed = Tuning(model, samples, settings, folder=tmp_path / "run").steps()
    for step in killed:
        if step.what == "training" and step.done == 5:
            break
    killed.close()
    tuning = Tuning(model, samples, settings, folder=tmp_path / "run", resume=True)
    assert tuning.state.step == 3
    _, resumed = drain(tuning.steps())
    assert same(whole.net, resumed.net)
    assert resumed.card.metrics["tuning"] == whole.card.metrics["tuning"]


# ---------------------------------------------------------------------------------------- heads


def test_a_new_head_on_the_old_trunk(model):
    image, labels = discs()
    classes = np.uint8(labels > 0) + np.uint8(labels > 10)
    new = transfer_head(model, 3)
    assert (new.spec.head, new.spec.classes) == ("semantic", 3)
    assert same(new.net.encoder, model.net.encoder)
    assert same(new.net.decoder, model.net.decoder)
    three = Samples.from_labels([(image, classes)], head=SemanticHead(3), channels=1)
    seen, tuned = drain(fine_tune(new, three, FEW))
    assert [s.validation for s in seen if s.validation]
    assert tuned.card.metrics["tuning"]["metric"] == "IoU"
    assert tuned.card.parent == "abc"
    assert set(np.unique(nu.segment(image, tuned))) <= {0, 1, 2}


# --------------------------------------------------------------------------------------- volumes


def balls():
    z, y, x = np.mgrid[:12, :40, :40]
    labels = np.zeros(z.shape, np.uint16)
    for number, (cy, cx) in enumerate([(10, 10), (10, 30), (30, 12), (28, 31)], 1):
        labels[((z - 6) / 0.6) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 64] = number
    return ndimage.gaussian_filter((labels > 0) * 1.0, 1), labels


@pytest.mark.parametrize("ratio", [None, 2.0])
def test_a_tuned_model_keeps_to_how_its_diameters_are_measured(make_model, ratio):
    image, labels = balls()
    stack = nu.open_stack(image, axes="ZYX", voxel_size_um=(3.0, 1.0, 1.0))
    known = {"voxel_ratio": ratio} if ratio else {}
    card = {"training": {"working_diameter_px": 12.0, **known}, "hash": "abc"}
    tuning = Tuning(make_model(ndim=3, depth=1, card=card), samples_of(stack, labels), FEW)
    taught = tuning.best().card.training
    assert taught.get("voxel_ratio") == (3.0 if ratio else None)
    assert taught["diameter_px"]["q50"] == pytest.approx(np.cbrt(3.0 if ratio else 1) * 12.8, abs=1)


def samples_of(stack, labels):
    return Samples.from_labels([(stack, labels)], channels=1)


@pytest.mark.parametrize("planes", [None, (6,), (3, 6, 9)])
def test_volumes_are_learned_from_all_planes_or_from_few(planes):
    image, labels = balls()
    known = None
    if planes:
        known = np.zeros(labels.shape, bool)
        known[list(planes)] = True
    samples = Samples.from_labels([(image, labels)], [known], channels=1)
    spec = ModelSpec(ndim=3, in_channels=1, depth=1, width=4)
    settings = TrainSettings(steps=40, crop=32, batch=2, learning_rate=1e-2, plain=1.0)
    seen, tuned = drain(fine_tune(fresh_model(spec, device="cpu"), samples, settings))
    losses = [step.loss for step in seen if step.what == "training"]
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])
    assert nu.segment(image, tuned).shape == labels.shape


# --------------------------------------------------------------------------- budget, memory, faults


def test_without_a_budget_it_takes_minutes_by_device(model, samples):
    assert Tuning(model, samples).config.minutes == 3
    config = Tuning(model, samples, TrainSettings(epochs=2, batch=2, crop=32)).config
    known = samples.items[0].known.size * 0.7  # a part is held out
    assert config.minutes is None
    assert config.steps == pytest.approx(2 * known / (2 * 32**2), rel=0.2)


def test_slow_scores_before_the_training_leave_time_for_it(model, samples, monkeypatch):
    def slow(exam, net):
        time.sleep(0.7)
        yield
        return {"AP50": 0.5, "AP50 corrections": 0.5}

    monkeypatch.setattr(HeldOutEvaluation, "scores", slow)
    tuning = Tuning(model, samples, replace(FEW, steps=None, minutes=0.01))
    run_to_end(tuning.steps())
    assert tuning.state.step and not same(tuning.best().net, model.net)


def test_minutes_end_a_tuning(model, samples):
    seen, _ = drain(fine_tune(model, samples, replace(FEW, steps=None, minutes=0.02)))
    assert seen[-1].done > 1
    assert any(step.what == "validating" for step in seen)


def test_out_of_memory_halves_the_batch(model, samples, monkeypatch):
    sizes = []
    learn = train_module._learn

    def small(state, config, images, *rest):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return learn(state, config, images, *rest)

    monkeypatch.setattr(train_module, "_learn", small)
    drain(fine_tune(model, samples, replace(FEW, steps=2, batch=8)))
    assert sizes == [8, 4, 2, 2]


def test_not_even_one_crop_fits(model, samples, monkeypatch):
    def never(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(train_module, "_learn", never)
    with pytest.raises(DeviceError, match="does not hold one crop of 32 pixels"):
        drain(fine_tune(model, samples, FEW))


def test_a_loss_that_is_no_number_stops_with_the_best_so_far(model, samples, monkeypatch):
    head_loss = train_module.head_loss

    def spoilt(*arguments):
        loss, terms = head_loss(*arguments)
        return (loss * np.nan if tuning.state.step == 4 else loss), terms

    monkeypatch.setattr(train_module, "head_loss", spoilt)
    tuning = Tuning(model, samples, replace(FEW, validate_every=2))
    with pytest.raises(DivergedError, match=r"after step 4; what was best before is kept"):
        drain(tuning.steps())
    best = tuning.best().net.state_dict()
    assert all(torch.isfinite(value).all() for value in best.values() if value.is_floating_point())
    assert tuning.judgement.after is not None


def unknown(samples):
    item = samples.items[0]
    return Samples([replace(item, known=np.zeros_like(item.known))], samples.head)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda samples: Samples([], samples.head), "no corrections yet"),
        (unknown, "Nothing is known"),
        (lambda samples: Samples.from_labels([discs()], channels=3), "2D with 3 channels"),
    ],
)
def test_faults_are_said(model, samples, wrong, text):
    with pytest.raises(InputError, match=text):
        Tuning(model, wrong(samples), FEW)


def test_no_object_is_said(model):
    image, labels = discs()
    with pytest.raises(InputError, match="no object in what is known"):
        Tuning(model, Samples.from_labels([(image, 0 * labels)], channels=1), FEW)


def test_false_objects_alone_can_be_unlearned_with_a_replay(model, samples):
    """Where the user erased all there was, background is what is to be learned."""
    image, labels = discs()
    tuning = Tuning(
        stored(model, samples), Samples.from_labels([(image, 0 * labels)], channels=1), FEW
    )
    drain(tuning.steps())
    assert tuning.state.step == 6


def test_a_class_without_example_is_said(model):
    image, labels = discs()
    two = Samples.from_labels([(image, np.uint8(labels > 0))], head=SemanticHead(3), channels=1)
    with pytest.raises(InputError, match="Class 2 has no example"):
        Tuning(transfer_head(model, 3), two, FEW)


def test_slow_steps_take_fewer_crops(model, samples, monkeypatch):
    monkeypatch.setattr(config_module, "MAX_STEP_S", 1e-9)
    tuning = Tuning(model, samples, TrainSettings(minutes=0.02, crop=32))
    assert tuning.config.batch == 4
    sizes = []
    draw = train_module._draw_batch
    monkeypatch.setattr(
        train_module, "_draw_batch", lambda s, d, r, w: sizes.append(r.batch) or draw(s, d, r, w)
    )
    drain(tuning.steps())
    assert sizes[0] == 4
    assert sizes[-1] == 2
