"""The training loop: batch, forward, backward, clip, step, average; one screen, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_unet.core.files import sweep_partials
from napari_unet.core.heads import head_of
from napari_unet.core.samples import Samples, draw_crop
from napari_unet.core.spec import InputError, TrainSettings, TrainStep

from .augment import make_batch
from .checkpoint import TrainState, load_checkpoint, save_checkpoint
from .losses import head_loss
from .model import has_fast_bfloat16
from .net import UNet

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.trainlog import TrainLog

__all__ = [
    "TrainState",
    "Validate",
    "load_checkpoint",
    "rate_factor",
    "save_checkpoint",
    "share_done",
    "train",
]

Validate = Callable[[UNet], dict[str, float]]


def train(
    state: TrainState,
    samples: Samples,
    settings: TrainSettings,
    *,
    validate: Validate | None = None,
    checkpoint: Path | None = None,
    log: TrainLog | None = None,
) -> Generator[TrainStep, None, TrainState]:
    """Train a 2D network, yielding after every step.

    A training by steps that is killed at any moment, and goes on from its checkpoint, ends with the
    weights and the log of one that was never interrupted.

    Parameters
    ----------
    state
        A fresh `TrainState.start`, or one that `load_checkpoint` brought up to date.
    samples
        The training set.
    settings
        Budget, rates and seed.
    validate
        Called with the averaged network every ``settings.validate_every`` steps and after the last;
        its scores are yielded and kept in the history. The first of them decides which weights are
        the best; higher is better.
    checkpoint
        A file that is rewritten, whole or not at all, at every validation.
    log
        Where losses, rates and scores are written to.

    Returns
    -------
    TrainState
        The state after the last step.

    Raises
    ------
    InputError
        The samples have the targets of another head.
    OutputError
        Checkpoint or log cannot be written.
    """
    _check_head(state.net, samples)
    if checkpoint:
        sweep_partials(checkpoint)
    if log:
        log.begin(state.step)
    weights = samples.weights()
    began = time.perf_counter() - state.seconds
    while share_done(state, settings) < 1:
        batch = _draw_batch(state, samples, settings, weights)
        losses = _learn(state, settings, *batch)
        state.step += 1
        state.seconds = time.perf_counter() - began
        scores = None
        if due := state.step % settings.validate_every == 0 or share_done(state, settings) >= 1:
            scores = validate(state.averaged_net()) if validate else None
            state.keep_best(scores or {})
            state.history.append({"step": state.step, "loss": losses["loss"], **(scores or {})})
        if log:
            log.add(losses)
            if due or state.step % settings.log_every == 0:
                log.write(state.step, state.seconds, _rate(state), scores)
            if due:
                log.draw()
        # Last of the files: up to a checkpoint's step, the log is on the disk.
        if due and checkpoint:
            save_checkpoint(state, checkpoint)
        yield _report(state, settings, losses["loss"], scores)
    return state


def _check_head(net: UNet, samples: Samples) -> None:
    wanted = head_of(net.spec)
    if samples.head != wanted:
        raise InputError(
            f"The samples have the targets of {samples.head}, the network's head is {wanted}; "
            "build them with Samples.from_labels(..., head=head_of(spec))."
        )


def _draw_batch(
    state: TrainState, samples: Samples, settings: TrainSettings, weights: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the crops of the next step; all that is random in it follows from seed and step."""
    rng = np.random.default_rng([settings.seed, state.step])
    torch.manual_seed(int(rng.integers(2**31)))  # dropout
    plans = [
        draw_crop(samples, weights, rng, plain=settings.plain, diameter=settings.diameter)
        for _ in range(settings.batch)
    ]
    device = next(state.net.parameters()).device
    images, targets, known = make_batch(samples, plans, settings.crop, rng)
    return images.to(device), targets.to(device), known.to(device)


def _learn(
    state: TrainState, settings: TrainSettings, images: Tensor, targets: Tensor, known: Tensor
) -> dict[str, float]:
    """Take one step; return the loss and its terms."""
    rate = rate_factor(share_done(state, settings), settings.warm_up)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.learning_rate * rate
    _train_mode(state.net, freeze_norm=settings.freeze_norm)
    with _arithmetic(settings.precision, images.device):
        raw = state.net(images.contiguous(memory_format=torch.channels_last))
    loss, terms = head_loss(state.net.spec, raw.float(), targets, known, settings.focal)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.net.parameters(), settings.clip)
    state.optimizer.step()
    _update_average(state, settings.average)
    return _numbers({"loss": loss, **terms})


def _arithmetic(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass in a number format."""
    if precision == "auto":
        precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _numbers(scalars: dict[str, Tensor]) -> dict[str, float]:
    """Fetch scalars from the device, all at once."""
    values = torch.stack([value.detach() for value in scalars.values()]).tolist()
    return dict(zip(scalars, values, strict=True))


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


def _rate(state: TrainState) -> float:
    return float(state.optimizer.param_groups[0]["lr"])


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
        learning_rate=_rate(state),
        seconds_left=state.seconds / done * (1 - min(done, 1.0)),
        validation=scores,
    )
