"""The training loop: batch, forward, backward, clip, step, average; one screen, top to bottom."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_unet.core.samples import Samples, draw_crop
from napari_unet.core.spec import ModelError, TrainSettings, TrainStep

from .augment import make_batch
from .losses import head_loss
from .net import UNet

if TYPE_CHECKING:
    from pathlib import Path

Validate = Callable[[UNet], dict[str, float]]


@dataclass
class TrainState:
    """Everything that a training needs to go on where it stopped.

    All randomness follows from the seed and the step, so no generator's state is kept.
    """

    net: UNet
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, net: UNet, settings: TrainSettings) -> TrainState:
        """Begin a training of `net`, which is trained in place."""
        decayed = [p for p in net.parameters() if p.ndim > 1]
        plain = [p for p in net.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
        )
        average = {name: value.detach().clone() for name, value in net.state_dict().items()}
        return cls(net, average, optimizer)

    def averaged_net(self) -> UNet:
        """Return a copy of the network with the averaged weights, in evaluation mode."""
        net = UNet(self.net.spec)
        net.load_state_dict(self.average)
        return net.eval()


def train(
    state: TrainState,
    samples: Samples,
    settings: TrainSettings,
    *,
    validate: Validate | None = None,
    checkpoint: Path | None = None,
) -> Generator[TrainStep, None, TrainState]:
    """Train a 2D network, yielding after every step.

    Parameters
    ----------
    state
        A fresh `TrainState.start`, or one that `load_checkpoint` brought up to date.
    samples
        The training set.
    settings
        Budget, rates and seed.
    validate
        Called with the averaged network every ``settings.validate_every`` steps; its scores are
        yielded and kept in the history.
    checkpoint
        A file that is rewritten, whole or not at all, at every validation.

    Returns
    -------
    TrainState
        The state after the last step.
    """
    weights = samples.weights()
    began = time.perf_counter() - state.seconds
    device = next(state.net.parameters()).device
    while (done := share_done(state, settings)) < 1:
        rng = np.random.default_rng([settings.seed, state.step])
        torch.manual_seed(int(rng.integers(2**31)))  # dropout
        plans = [
            draw_crop(samples, weights, rng, plain=settings.plain, diameter=settings.diameter)
            for _ in range(settings.batch)
        ]
        batch = make_batch(samples, plans, settings.crop, rng)
        images, targets, known = (part.to(device) for part in batch)

        for group in state.optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_factor(done, settings.warm_up)
        _train_mode(state.net, freeze_norm=settings.freeze_norm)
        raw = state.net(images.contiguous(memory_format=torch.channels_last))
        loss = head_loss(state.net.spec, raw, targets, known)
        state.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.net.parameters(), settings.clip)
        state.optimizer.step()
        _update_average(state, settings.average)

        state.step += 1
        state.seconds = time.perf_counter() - began
        scores = None
        if state.step % settings.validate_every == 0 or share_done(state, settings) >= 1:
            scores = validate(state.averaged_net()) if validate else None
            state.history.append({"step": state.step, "loss": loss.item(), **(scores or {})})
            if checkpoint:
                save_checkpoint(state, checkpoint)
        yield _report(state, settings, loss.item(), scores)
    return state


def _train_mode(net: UNet, *, freeze_norm: bool) -> None:
    """Prepare for a step; frozen BatchNorm normalises as it will when the network is used."""
    net.train()
    if freeze_norm:
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.eval()


def share_done(state: TrainState, settings: TrainSettings) -> float:
    """Return how much of the budget is spent, 0 to 1: of the minutes if given, else the steps."""
    if settings.minutes is not None:
        return state.seconds / (60 * settings.minutes)
    return state.step / settings.steps


def rate_factor(done: float, warm_up: float) -> float:
    """Return the learning rate's share of its highest: linear warm-up, then half a cosine to 0."""
    if done < warm_up:
        return (done + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm_up) / (1 - warm_up))))


def _update_average(state: TrainState, decay: float) -> None:
    """Move the averaged weights towards the network's; young averages follow faster."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    for name, value in state.net.state_dict().items():
        if value.dtype.is_floating_point:
            state.average[name].lerp_(value.detach(), 1 - decay)
        else:
            state.average[name].copy_(value)


def _report(
    state: TrainState, settings: TrainSettings, loss: float, scores: dict[str, float] | None
) -> TrainStep:
    done = share_done(state, settings)
    return TrainStep(
        done=state.step,
        total=settings.steps if settings.minutes is None else math.ceil(state.step / done),
        what="training",
        loss=loss,
        learning_rate=state.optimizer.param_groups[0]["lr"],
        seconds_left=state.seconds / done * (1 - min(done, 1.0)),
        validation=scores,
    )


def save_checkpoint(state: TrainState, path: Path) -> None:
    """Write network, average, optimizer and counters into one safetensors file, atomically."""
    tensors = {f"net/{k}": v for k, v in state.net.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in state.average.items()}
    for number, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{slot}": value for slot, value in slots.items()}
    notes = {"step": state.step, "seconds": state.seconds, "history": state.history}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(contiguous, temporary, metadata={"state": json.dumps(notes)})
    with temporary.open("rb+") as file:  # Windows syncs no file that is open for reading only
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(state: TrainState, path: Path) -> None:
    """Bring a fresh state to where `save_checkpoint` left off.

    Raises
    ------
    ModelError
        The file is no checkpoint of this network.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            notes = json.loads(file.metadata()["state"])
        parts: dict[str, dict[str, Tensor]] = {"net": {}, "average": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = value
        state.net.load_state_dict(parts["net"])
        for name, value in state.average.items():  # stays where it is: on the network's device
            value.copy_(parts["average"][name])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            number, slot = name.split("/")
            slots.setdefault(int(number), {})[slot] = value
        whole = state.optimizer.state_dict()
        state.optimizer.load_state_dict({**whole, "state": slots})
    except Exception as error:
        raise ModelError(
            f"{path} cannot be resumed from ({error}); give the checkpoint of a training of the "
            "same network, or start again without it."
        ) from error
    state.step, state.seconds = notes["step"], notes["seconds"]
    state.history = notes["history"]
