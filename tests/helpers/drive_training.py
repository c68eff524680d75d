"""Train a tiny network in a folder, or resume it there, and report each step.

`test_checkpoint.py` runs it in processes of its own, and kills them.
"""

from __future__ import annotations

import numpy as np
import torch

from napari_unet.core.models.card import ModelCard
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.log import TrainLog
from napari_unet.core.training.samples import Samples
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint
from napari_unet.nn.training.held_out import Validator
from napari_unet.nn.training.loop import train
from napari_unet.nn.unet.net import UNet

SPEC = ModelSpec(in_channels=1, depth=1, width=4, dropout=0.2)
CHECKPOINT = "checkpoint.safetensors"


def squares():
    """One image of four squares, noisy."""
    labels = np.zeros((48, 48), np.uint16)
    for number, (y, x) in enumerate([(4, 4), (4, 28), (28, 4), (26, 26)], 1):
        labels[y : y + 14, x : x + 14] = number
    image = (labels > 0) + np.random.default_rng(0).normal(0, 0.1, labels.shape)
    return Samples.from_labels([(image, labels)], channels=1)


def go_on(folder, steps):
    """Yield the steps of a training that starts anew, or from the folder's checkpoint."""
    settings = TrainSettings(
        steps=steps, batch=2, crop=32, validate_every=5, log_every=2, average=0.7
    )
    samples = squares()
    torch.manual_seed(0)
    state = TrainState.start(UNet(SPEC), settings)
    if (folder / CHECKPOINT).exists():
        load_checkpoint(state, folder / CHECKPOINT)
    yield from train(
        state,
        samples,
        settings,
        validate=Validator(samples, ModelCard("squares", SPEC)),
        checkpoint=folder / CHECKPOINT,
        log=TrainLog(folder),
    )


def main(folder, steps, reports):
    for step in go_on(folder, steps):
        reports.send(step.done)
