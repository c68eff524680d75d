"""Training learns, is seeded, and goes on after a kill as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import ndimage

from napari_unet.core.errors import InputError, ModelError, OutputError
from napari_unet.core.instances.heads import SemanticHead
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import DecodeSettings, TrainSettings
from napari_unet.core.training.log import TrainLog, read_table
from napari_unet.core.training.samples import Samples
from napari_unet.nn.training import loop as train_module
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.loop import rate_factor, train
from napari_unet.nn.unet.layers import LAYOUT
from napari_unet.nn.unet.net import UNet

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


def start(settings=SETTINGS, seed=0, spec=SPEC):
    """Begin with a network whose weights lie in the memory as those of a tuning do."""
    torch.manual_seed(seed)
    net = UNet(spec).to(memory_format=LAYOUT[spec.ndim])
    return TrainState.start(net, settings)


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
    found = decode_instances(maps, DecodeSettings(merge=0.4, min_size=40))
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


def test_the_rate_rises_and_falls():
    rates = [rate_factor(d, 0.1) for d in np.linspace(0, 1, 101)]
    assert rates[0] < 0.02
    assert max(rates) == pytest.approx(1, abs=0.01) == rates[10]
    assert rates[-1] == pytest.approx(0, abs=1e-3)
    assert (np.diff(rates[10:]) <= 0).all()


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


def weights_of(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_best_weights_are_kept(samples, tmp_path):
    """Of the scores .5, .9, .2 the second is the best; only the first name counts."""
    settings = replace(SETTINGS, steps=9)
    scores, seen = iter([0.5, 0.9, 0.2]), []

    def validate(net):
        seen.append(weights_of(net))
        return {"AP50": next(scores), "other": -len(seen)}

    state = start(settings)
    assert state.best_score is None
    assert same(weights_of(state.best_net()), state.average)
    run(state, samples, settings, validate=validate, checkpoint=tmp_path / "state")
    assert state.best_score == 0.9
    assert same(weights_of(state.best_net()), seen[1])
    assert not same(weights_of(state.best_net()), state.average)
    assert same(weights_of(state.averaged_net()), state.average)
    assert not state.best_net().training
    resumed = start(settings, seed=3)
    load_checkpoint(resumed, tmp_path / "state")
    assert resumed.best_score == 0.9
    assert same(weights_of(resumed.best_net()), seen[1])


def test_scores_that_are_no_numbers_are_not_the_best(samples):
    scores = iter([0.1, float("nan")])
    state = start()
    run(state, samples, validate=lambda net: {"IoU": next(scores)})
    assert state.best_score == 0.1
    state = start()
    run(state, samples, validate=lambda net: {"IoU": float("nan")})
    assert state.best is state.best_score is None


def test_without_validation_the_last_weights_are_the_best(samples, tmp_path):
    state = start()
    run(state, samples, checkpoint=tmp_path / "state")
    assert state.best_score is None
    assert same(weights_of(state.best_net()), state.average)
    resumed = start(seed=3)
    load_checkpoint(resumed, tmp_path / "state")
    assert resumed.best is None


def test_the_log_tells_what_the_steps_told(samples, tmp_path):
    settings = replace(SETTINGS, log_every=2)
    steps = run(start(), samples, settings, log=TrainLog(tmp_path), validate=lambda net: {"x": 1})
    rows = read_table(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == [2, 3, 4, 6]
    assert [row.get("val_x") for row in rows] == [None, 1, None, 1]
    assert rows[0]["loss"] == pytest.approx((steps[0].loss + steps[1].loss) / 2, rel=1e-5)
    assert rows[1]["loss"] == pytest.approx(steps[2].loss, rel=1e-5)
    for row, step in zip(rows, [steps[1], steps[2], steps[3], steps[5]], strict=True):
        terms = sum(row[f"loss_{name}"] for name in ("entropy", "dice", "distance"))
        assert row["loss"] == pytest.approx(terms, rel=1e-4)
        assert row["learning_rate"] == pytest.approx(step.learning_rate, rel=1e-5)
    assert (tmp_path / "curve.png").exists()


def test_a_log_that_cannot_be_written_is_said(samples, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="choose another place"):
        run(start(), samples, log=TrainLog(tmp_path / "file" / "run"))
    with pytest.raises(OutputError, match="choose another place"):
        run(start(), samples, checkpoint=tmp_path / "file" / "state")


def test_samples_of_another_head_are_said(samples):
    spec = replace(SPEC, head="semantic", classes=2)
    with pytest.raises(InputError, match="classes=2"):
        run(start(spec=spec), samples)


def test_classes_are_learned(samples):
    """A semantic head tells bright from dark in a few steps; focusing does not keep it from it."""
    spec = replace(SPEC, head="semantic", classes=2)
    labels = (samples.items[0].labels > 0).astype(np.uint8)
    pairs = [(samples.items[0].image[0], labels)]
    classes = Samples.from_labels(pairs, head=SemanticHead(2), channels=1)
    settings = TrainSettings(
        steps=60, batch=4, crop=48, learning_rate=1e-2, average=0.9, plain=1.0, focal=1.0
    )
    state = start(settings, spec=spec)
    run(state, classes, settings)
    with torch.inference_mode():
        raw = state.averaged_net()(torch.from_numpy(classes.items[0].image)[None])[0]
    assert np.mean(raw.argmax(0).numpy() == labels) > 0.95


def test_focusing_changes_the_steps(samples):
    plain, focused = start(), start()
    first = run(plain, samples)[0].loss
    assert run(focused, samples, replace(SETTINGS, focal=2.0))[0].loss < 0.9 * first


@pytest.mark.parametrize(("fast", "wanted"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_where_it_is_fast(samples, monkeypatch, fast, wanted):
    monkeypatch.setattr(train_module, "has_fast_bfloat16", lambda device: fast)
    assert formats_in_training(samples, monkeypatch, SETTINGS) == {wanted}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_number_format_that_was_asked_for_is_used(samples, monkeypatch, precision):
    settings = replace(SETTINGS, precision=precision)
    assert formats_in_training(samples, monkeypatch, settings) == {getattr(torch, precision)}


def formats_in_training(samples, monkeypatch, settings):
    """Train; the formats of the network's answers. The loss and the weights stay float32."""
    answers, losses = set(), set()
    head_loss = train_module.head_loss

    def watched(spec, raw, *rest):
        losses.add(raw.dtype)
        return head_loss(spec, raw, *rest)

    monkeypatch.setattr(train_module, "head_loss", watched)
    state = start(settings)
    state.net.head.register_forward_hook(lambda module, inputs, out: answers.add(out.dtype))
    run(state, samples, settings)
    assert losses == {torch.float32}
    assert {value.dtype for value in state.net.parameters()} == {torch.float32}
    return answers


def test_bfloat16_takes_nearly_the_same_steps(samples):
    exact, short = (replace(SETTINGS, precision=name) for name in ("float32", "bfloat16"))
    losses = [
        [step.loss for step in run(start(), samples, settings)] for settings in (exact, short)
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_checkpoint_of_before_the_best_was_kept_is_resumed(samples, tmp_path):
    """Checkpoints of earlier versions have no best weights and no best score."""
    state = start()
    run(state, samples, checkpoint=tmp_path / "state")
    with safe_open(tmp_path / "state", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        notes = json.loads(file.metadata()["state"])
    del notes["best_score"]
    save_file(tensors, tmp_path / "old", metadata={"state": json.dumps(notes)})
    resumed = start(seed=3)
    load_checkpoint(resumed, tmp_path / "old")
    assert resumed.step == 6
    assert same(resumed.average, state.average)
