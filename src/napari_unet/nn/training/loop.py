"""The training loop: draw a batch, forward, backward, clip, step, average; then validate."""

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
from napari_unet.core.io.files import remove_partials
from napari_unet.core.progress import TrainStep, map_steps
from napari_unet.core.training.config import TrainConfig, resolve_config
from napari_unet.nn.inference.device_memory import is_out_of_memory
from napari_unet.nn.inference.model import has_fast_bfloat16
from napari_unet.nn.training.augment import draw_crop, make_batch
from napari_unet.nn.training.checkpoint import TrainState, save_checkpoint
from napari_unet.nn.unet.layers import LAYOUT
from napari_unet.nn.unet.losses import head_loss
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.settings.tasks import TrainSettings
    from napari_unet.core.training.log import TrainLog
    from napari_unet.core.training.samples import Samples

NamedScores = dict[str, float]
Validate = Callable[[UNet], NamedScores | Generator[None, None, NamedScores]]
MIN_WARM_UP = 20
"""Steps in which the rate rises, at least: Adam's first steps are as long for noise as signal."""
VALIDATION_SHARE = 0.1
"""Share of the time spent on validation, if the interval is not given."""


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

    A training with a budget of steps that is killed at any moment and resumed ends with the weights
    and the log of one that was never interrupted.

    Parameters
    ----------
    state
        From `TrainState.start`, and `load_checkpoint` if resumed. However the training ends, also
        by closing the generator, the best weights so far are in it.
    samples
        The training set.
    settings
        Budget, rates and seed; a `TrainConfig` is used as it is.
    validate
        Called with the averaged network every ``settings.validate_every`` steps and after the last;
        its scores are yielded and kept in the history. The first score decides which weights are
        the best; higher is better. It may return a generator, to report between its images.
    checkpoint
        A file that is rewritten, whole or not at all, at every validation.
    log
        Table that losses, rates and scores are written to.
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
        Not even one crop fits into the device's memory; before that, batches are made smaller.
    DivergedError
        The loss is not finite any more.
    OutputError
        Checkpoint or log cannot be written.
    """
    _check_head(state.net, samples)
    config = resolve_config(settings, state.net.spec, samples)
    weights = samples.weights() if weights is None else weights

    def step(config: TrainConfig) -> tuple[NamedScores, TrainConfig]:
        return _step(state, samples, config, weights)

    yield from run_steps(state, config, step, validate, checkpoint=checkpoint, log=log)
    return state


def run_steps(
    state: TrainState,
    config: TrainConfig,
    step: Callable[[TrainConfig], tuple[NamedScores, TrainConfig]],
    validate: Validate | None = None,
    *,
    checkpoint: Path | None = None,
    log: TrainLog | None = None,
) -> Generator[TrainStep, None, None]:
    """Take steps until the budget is spent: count, validate, log, and write the checkpoint.

    Parameters
    ----------
    step
        Takes one step; returns its losses, the sum named "loss", and how to go on.
    state, config, validate, checkpoint, log
        See `train`.
    """
    if checkpoint:
        remove_partials(checkpoint)
    if log:
        log.begin(state.step)
    began = time.perf_counter() - state.seconds
    timer = _ValidationTimer(state.seconds)
    while share_done(state, config) < 1:
        losses, config = step(config)
        state.step += 1
        state.seconds = time.perf_counter() - began
        scores = None
        if due := timer.is_due(state, config):
            if validate:
                scores = yield from _validated(state, config, validate, losses["loss"])
                state.seconds = time.perf_counter() - began
            state.keep_best(scores or {})
            state.history.append({"step": state.step, "loss": losses["loss"], **(scores or {})})
            timer.validated(state)
        if log:
            log.add(losses)
            if due or state.step % config.log_every == 0:
                log.write(state.step, state.seconds, _rate(state), scores)
            if due:
                log.draw()
        # The checkpoint is written last: up to its step, the log is complete on the disk.
        if due and checkpoint:
            save_checkpoint(state, checkpoint)
        yield _report(state, config, losses["loss"], scores or None)


class _ValidationTimer:
    """Tells when a validation is due."""

    def __init__(self, seconds: float) -> None:
        self._began = self._due = seconds

    def is_due(self, state: TrainState, config: TrainConfig) -> bool:
        """Tell whether to validate after this step; always after the last one."""
        self._began = state.seconds
        if share_done(state, config) >= 1:
            return True
        if config.validate_every:
            return state.step % config.validate_every == 0
        return state.seconds >= self._due and state.step > 1

    def validated(self, state: TrainState) -> None:
        """Note that a validation has just ended; the next is due when it has taken its share."""
        self._due = state.seconds + (state.seconds - self._began) / VALIDATION_SHARE


def _validated(
    state: TrainState, config: TrainConfig, validate: Validate, loss: float
) -> Generator[TrainStep, None, NamedScores]:
    """Score the averaged network, yielding as often as `validate` does."""
    scores = validate(state.averaged_net())
    if isinstance(scores, dict):
        return scores

    def report(_: object) -> TrainStep:
        return replace(_report(state, config, loss, None), what="validating")

    return (yield from map_steps(scores, report))


def _check_head(net: UNet, samples: Samples) -> None:
    wanted = get_head(net.spec)
    if samples.head != wanted:
        raise InputError(
            f"The samples have the targets of {samples.head}, the network's head is {wanted}; "
            "build them with Samples.from_labels(..., head=get_head(spec))."
        )


def _step(
    state: TrainState, samples: Samples, config: TrainConfig, weights: np.ndarray
) -> tuple[NamedScores, TrainConfig]:
    """Take one step; return the loss with its terms, and how to go on.

    If the crops do not fit into memory, there are half as many from now on; if a step takes too
    long, the next ones are made faster.
    """
    began = time.perf_counter()
    losses = None
    try:
        losses = _learn(state, config, *_draw_batch(state, samples, config, weights))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    device = next(state.net.parameters()).device
    if losses is None:  # outside `except`: the error is gone, and the tensors that it held
        if config.batch == 1:
            raise DeviceError(
                f"The memory of {device} does not hold one crop of {config.crop} pixels; choose a "
                "smaller crop, close other programs, or choose the device 'cpu'."
            )
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return _step(state, samples, replace(config, batch=config.batch // 2), weights)
    slow = config.max_step_s and time.perf_counter() - began > config.max_step_s and state.step > 1
    return losses, config.with_faster_steps() if slow else config


def _draw_batch(
    state: TrainState, samples: Samples, config: TrainConfig, weights: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the crops of the next step; everything random follows from seed and step."""
    rng = np.random.default_rng([config.seed, state.step])
    torch.manual_seed(int(rng.integers(2**31)))  # for dropout
    plans = [
        draw_crop(samples, weights, rng, plain=config.plain, diameter=config.diameter)
        for _ in range(config.batch)
    ]
    device = next(state.net.parameters()).device
    images, targets, known = make_batch(samples, plans, config.crop, rng, config.planes)
    return images.to(device), targets.to(device), known.to(device)


def _learn(
    state: TrainState, config: TrainConfig, images: Tensor, targets: Tensor, known: Tensor
) -> NamedScores:
    """Take one step; return the loss and its terms."""
    done = share_done(state, config)
    for group in state.optimizer.param_groups:
        rate = rate_factor(done, config.warm_up) * min(1.0, (state.step + 1) / MIN_WARM_UP)
        group["lr"] = config.learning_rate * rate
    _train_mode(state.net, freeze_norm=done >= config.freeze_after)
    with _arithmetic(config.precision, images.device):
        raw = state.net(images.contiguous(memory_format=LAYOUT[images.ndim - 2]))
    loss, terms = head_loss(state.net.spec, raw.float(), targets, known, config.focal)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(state.net.parameters(), config.clip)
    if not torch.isfinite(loss.detach() + norm):  # before the weights are changed
        raise DivergedError(
            f"The loss is no number any more after step {state.step}; what was best before is "
            f"kept. Try a learning rate below {config.learning_rate:g}."
        )
    state.optimizer.step()
    update_average(state, config.average)
    return _numbers({"loss": loss, **terms})


def _arithmetic(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass in a number format."""
    if precision == "auto":
        # Unlike `Model.choose_precision`, without asking whether the model's labels agree in both
        # formats: weights are kept and updated in float32, whatever the forward pass rounds.
        precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _numbers(scalars: dict[str, Tensor]) -> dict[str, float]:
    """Fetch scalars from the device in one transfer."""
    values = torch.stack([value.detach() for value in scalars.values()]).tolist()
    return dict(zip(scalars, values, strict=True))


def _train_mode(net: UNet, *, freeze_norm: bool) -> None:
    """Switch to training mode; frozen BatchNorm keeps its running statistics, as in use."""
    net.train()
    if freeze_norm:
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.eval()


def share_done(state: TrainState, config: TrainConfig) -> float:
    """Return the share of the budget that is spent: of the minutes if given, else of the steps."""
    if config.minutes is not None:
        return state.seconds / (60 * config.minutes)
    return state.step / config.steps


def rate_factor(done: float, warm_up: float) -> float:
    """Return the learning rate as a share of its maximum: linear warm-up, then a cosine to 0."""
    if done < warm_up:
        return (done + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm_up) / (1 - warm_up))))


def set_rate(state: TrainState, config: TrainConfig) -> None:
    """Set the learning rate of the next step."""
    rate = rate_factor(share_done(state, config), config.warm_up)
    for group in state.optimizer.param_groups:
        group["lr"] = config.learning_rate * rate


def take_step(state: TrainState, loss: Tensor, config: TrainConfig) -> None:
    """Follow the gradient of a loss for one step."""
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.net.parameters(), config.clip)
    state.optimizer.step()
    update_average(state, config.average)


def _rate(state: TrainState) -> float:
    return float(state.optimizer.param_groups[0]["lr"])


def update_average(state: TrainState, decay: float) -> None:
    """Move the averaged weights towards the network's; faster during the first steps."""
    # As in TensorFlow's ExponentialMovingAverage: 0.1 at first, 0.9 after some 80 steps.
    decay = min(decay, (1 + state.step) / (10 + state.step))
    averages, values = [], []
    for name, value in state.net.state_dict().items():
        if value.dtype.is_floating_point:
            averages.append(state.average[name])
            values.append(value)
        else:
            state.average[name].copy_(value)
    torch._foreach_lerp_(averages, values, 1 - decay)


def _report(
    state: TrainState, config: TrainConfig, loss: float, scores: NamedScores | None
) -> TrainStep:
    done = share_done(state, config)
    return TrainStep(
        done=state.step,
        total=config.steps if config.minutes is None else math.ceil(state.step / done),
        what="training",
        loss=loss,
        learning_rate=_rate(state),
        seconds_left=state.seconds / done * (1 - min(done, 1.0)),
        validation=scores,
    )
