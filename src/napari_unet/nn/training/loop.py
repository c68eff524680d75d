"""The training loop: batch, forward, backward, clip, step, average; one screen, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_unet.core.errors import DeviceError, DivergedError, InputError
from napari_unet.core.instances.heads import get_head
from napari_unet.core.io.atomic import sweep_partials
from napari_unet.core.progress import TrainStep, map_steps
from napari_unet.core.training.config import TrainConfig, resolve_config
from napari_unet.core.training.crops import draw_crop
from napari_unet.nn.inference.model import has_fast_bfloat16
from napari_unet.nn.inference.tile_runner import is_out_of_memory
from napari_unet.nn.training.augment import make_batch
from napari_unet.nn.training.checkpoint import TrainState, load_checkpoint, save_checkpoint
from napari_unet.nn.unet.losses import head_loss
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.settings import TrainSettings
    from napari_unet.core.training.log import TrainLog
    from napari_unet.core.training.samples import Samples

__all__ = [
    "TrainState",
    "Validate",
    "load_checkpoint",
    "rate_factor",
    "save_checkpoint",
    "share_done",
    "train",
]

NamedScores = dict[str, float]
Validate = Callable[[UNet], NamedScores | Generator[None, None, NamedScores]]
LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}
RAMP = 20
"""Steps in which the rate rises at least: Adam's first ones are as long for noise as for signal."""
VALIDATION_SHARE = 0.1
"""Validations that come whenever it is time for one take about this share of the time."""


def train(
    state: TrainState,
    samples: Samples,
    settings: TrainSettings,
    *,
    validate: Validate | None = None,
    checkpoint: Path | None = None,
    log: TrainLog | None = None,
    weights: np.ndarray | None = None,
) -> Generator[TrainStep, None, TrainState]:
    """Train a network, yielding after every step.

    A training by steps that is killed at any moment, and goes on from its checkpoint, ends with the
    weights and the log of one that was never interrupted.

    Parameters
    ----------
    state
        A fresh `TrainState.start`, or one that `load_checkpoint` brought up to date. Whatever ends
        the training, also closing the generator, leaves the best weights so far in it.
    samples
        The training set.
    settings
        Budget, rates and seed; a `TrainConfig` where nothing is to be filled in.
    validate
        Called with the averaged network every ``settings.validate_every`` steps and after the last;
        its scores are yielded and kept in the history. The first of them decides which weights are
        the best; higher is better. It may be a generator, to report between its images.
    checkpoint
        A file that is rewritten, whole or not at all, at every validation.
    log
        Where losses, rates and scores are written to.
    weights
        Each sample's share of the crops; `Samples.weights` if not given.

    Returns
    -------
    TrainState
        The state after the last step.

    Raises
    ------
    InputError
        The samples have the targets of another head.
    DeviceError
        Not even one crop fits into the device's memory; of many, fewer are taken.
    DivergedError
        The loss is no number any more.
    OutputError
        Checkpoint or log cannot be written.
    """
    _check_head(state.net, samples)
    recipe = resolve_config(settings, state.net.spec, samples)
    if checkpoint:
        sweep_partials(checkpoint)
    if log:
        log.begin(state.step)
    weights = samples.weights() if weights is None else weights
    began = time.perf_counter() - state.seconds
    timer = Timer(state.seconds)
    while share_done(state, recipe) < 1:
        losses, recipe = _step(state, samples, recipe, weights)
        state.step += 1
        state.seconds = time.perf_counter() - began
        scores = None
        if due := timer.is_due(state, recipe):
            if validate:
                scores = yield from _validated(state, recipe, validate, losses["loss"])
                state.seconds = time.perf_counter() - began
            state.keep_best(scores or {})
            state.history.append({"step": state.step, "loss": losses["loss"], **(scores or {})})
            timer.validated(state)
        if log:
            log.add(losses)
            if due or state.step % recipe.log_every == 0:
                log.write(state.step, state.seconds, _rate(state), scores)
            if due:
                log.draw()
        # Last of the files: up to a checkpoint's step, the log is on the disk.
        if due and checkpoint:
            save_checkpoint(state, checkpoint)
        yield _report(state, recipe, losses["loss"], scores or None)
    return state


class Timer:
    """Says when it is time for a validation."""

    def __init__(self, seconds: float) -> None:
        self._began = self._due = seconds

    def is_due(self, state: TrainState, recipe: TrainConfig) -> bool:
        """Tell whether to validate after this step; after the last one, always."""
        self._began = state.seconds
        if share_done(state, recipe) >= 1:
            return True
        if recipe.validate_every:
            return state.step % recipe.validate_every == 0
        return state.seconds >= self._due and state.step > 1

    def validated(self, state: TrainState) -> None:
        """Take note of the validation that has just ended."""
        self._due = state.seconds + (state.seconds - self._began) / VALIDATION_SHARE


def _validated(
    state: TrainState, recipe: TrainConfig, validate: Validate, loss: float
) -> Generator[TrainStep, None, NamedScores]:
    """Score the averaged network, reporting as often as `validate` does."""
    answer = validate(state.averaged_net())
    if isinstance(answer, dict):
        return answer

    def report(_: object) -> TrainStep:
        return replace(_report(state, recipe, loss, None), what="validating")

    return (yield from map_steps(answer, report))


def _check_head(net: UNet, samples: Samples) -> None:
    wanted = get_head(net.spec)
    if samples.head != wanted:
        raise InputError(
            f"The samples have the targets of {samples.head}, the network's head is {wanted}; "
            "build them with Samples.from_labels(..., head=head_of(spec))."
        )


def _step(
    state: TrainState, samples: Samples, recipe: TrainConfig, weights: np.ndarray
) -> tuple[NamedScores, TrainConfig]:
    """Take one step; return the loss with its terms, and how to go on.

    Where crops do not fit into the memory there are half as many from now on; where they take too
    long the recipe gets lighter.
    """
    began = time.perf_counter()
    losses = None
    try:
        losses = _learn(state, recipe, *_draw_batch(state, samples, recipe, weights))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    device = next(state.net.parameters()).device
    if losses is None:  # out here the error is gone, and with it what it held in memory
        if recipe.batch == 1:
            raise DeviceError(
                f"The memory of {device} does not hold one crop of {recipe.crop} pixels; choose a "
                "smaller crop, close other programs, or choose the device 'cpu'."
            )
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return _step(state, samples, replace(recipe, batch=recipe.batch // 2), weights)
    slow = recipe.pace and time.perf_counter() - began > recipe.pace and state.step > 1
    return losses, recipe.lighter() if slow else recipe


def _draw_batch(
    state: TrainState, samples: Samples, recipe: TrainConfig, weights: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the crops of the next step; all that is random in it follows from seed and step."""
    rng = np.random.default_rng([recipe.seed, state.step])
    torch.manual_seed(int(rng.integers(2**31)))  # dropout
    plans = [
        draw_crop(samples, weights, rng, plain=recipe.plain, diameter=recipe.diameter)
        for _ in range(recipe.batch)
    ]
    device = next(state.net.parameters()).device
    images, targets, known = make_batch(samples, plans, recipe.crop, rng, recipe.planes)
    return images.to(device), targets.to(device), known.to(device)


def _learn(
    state: TrainState, recipe: TrainConfig, images: Tensor, targets: Tensor, known: Tensor
) -> NamedScores:
    """Take one step; return the loss and its terms."""
    done = share_done(state, recipe)
    for group in state.optimizer.param_groups:
        rate = rate_factor(done, recipe.warm_up) * min(1.0, (state.step + 1) / RAMP)
        group["lr"] = recipe.learning_rate * rate
    _train_mode(state.net, freeze_norm=done >= recipe.freeze_after)
    with _arithmetic(recipe.precision, images.device):
        raw = state.net(images.contiguous(memory_format=LAYOUT[images.ndim - 2]))
    loss, terms = head_loss(state.net.spec, raw.float(), targets, known, recipe.focal)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(state.net.parameters(), recipe.clip)
    if not torch.isfinite(loss.detach() + norm):  # before the weights are spoilt
        raise DivergedError(
            f"The loss is no number any more after step {state.step}; what was best before is "
            f"kept. Try a learning rate below {recipe.learning_rate:g}."
        )
    state.optimizer.step()
    _update_average(state, recipe.average)
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


def share_done(state: TrainState, recipe: TrainConfig) -> float:
    """Return how much of the budget is spent, 0 to 1: of the minutes if given, else the steps."""
    if recipe.minutes is not None:
        return state.seconds / (60 * recipe.minutes)
    return state.step / recipe.steps


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
    state: TrainState, recipe: TrainConfig, loss: float, scores: NamedScores | None
) -> TrainStep:
    done = share_done(state, recipe)
    return TrainStep(
        done=state.step,
        total=recipe.steps if recipe.minutes is None else math.ceil(state.step / done),
        what="training",
        loss=loss,
        learning_rate=_rate(state),
        seconds_left=state.seconds / done * (1 - min(done, 1.0)),
        validation=scores,
    )
