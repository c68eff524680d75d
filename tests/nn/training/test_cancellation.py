"""Work that takes long gives signs of life, and can be stopped."""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from napari_unet.core.instances.heads import get_head
from napari_unet.core.models.card import ModelCard
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.training.samples import Samples
from napari_unet.nn.training import cancellation as heartbeat
from napari_unet.nn.training.cancellation import CancelledError, StopHook, run_cancellable
from napari_unet.nn.training.held_out import Validator
from napari_unet.nn.unet.net import UNet


@pytest.fixture(autouse=True)
def quick_heart(monkeypatch):
    monkeypatch.setattr(heartbeat, "REPORT_EVERY_S", 0.02)


def beats() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "napari-unet beat"]


def drain(steps):
    seen = []
    result = run_to_end(steps, seen.append)
    return len(seen), result


def test_it_beats_while_the_work_goes_on():
    go = threading.Event()
    steps = run_cancellable(lambda: go.wait(10) and "done")
    for _ in range(3):
        next(steps)
    go.set()
    assert drain(steps)[1] == "done"
    assert drain(run_cancellable(lambda: 7)) == (0, 7) and not beats()


def test_errors_are_raised_where_it_is_waited_for():
    def broken():
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        drain(run_cancellable(broken))


class Slow(nn.Module):
    """A layer that takes its time and counts how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.ran = 0

    def forward(self, x):
        self.ran += 1
        time.sleep(0.02)
        return x


def test_closing_it_stops_the_network_between_two_layers():
    layer = Slow()
    net = nn.Sequential(*[layer] * 150)
    stop_hook = StopHook(net)
    steps = run_cancellable(partial(net, torch.zeros(1)), stop_hook)
    next(steps)
    began = time.perf_counter()
    steps.close()
    assert time.perf_counter() - began < 2 and layer.ran < 100 and not beats()
    assert not stop_hook.cancelled.is_set()
    assert net(torch.ones(1)) == 1, "the network works again"


def test_a_stopped_network_raises():
    net = nn.Sequential(nn.ReLU())
    stop_hook = StopHook(net)
    stop_hook.cancelled.set()
    with pytest.raises(CancelledError):
        net(torch.zeros(1))


@pytest.mark.parametrize("head", ["instance", "semantic"])
def test_a_long_validation_beats(monkeypatch, head):
    """One sample whose maps take longer than two beats."""
    spec = ModelSpec(in_channels=1, depth=1, width=2, head=head, classes=2)
    labels = np.zeros((32, 32), np.uint8)
    labels[8:16, 8:16] = 1
    image = labels * 100.0 + np.arange(32)
    samples = Samples.from_labels([(image, labels)], channels=1, head=get_head(spec))
    plain, calls = Validator._maps, []

    def slow(self, model, sample):
        calls.append(sample)
        time.sleep(0.2)
        return plain(self, model, sample)

    monkeypatch.setattr(Validator, "_maps", slow)
    validator = Validator(samples, ModelCard("tiny", spec))
    net = UNet(spec).eval()
    count, scores = drain(validator.steps(net))
    assert len(calls) == 1 and count >= 4
    monkeypatch.setattr(Validator, "_maps", plain)
    assert validator(net) == pytest.approx(scores, nan_ok=True)
