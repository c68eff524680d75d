"""Training of the click head on a frozen trunk, by a robot that clicks and corrects."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet.core.clicks import next_click
from napari_unet.core.io.files import sweep_partials
from napari_unet.core.spec import TrainStep
from napari_unet.nn.click import ClickHead, Prompts
from napari_unet.nn.clicks.firstguess import FirstGuess
from napari_unet.nn.clicks.windows import ViewPool, Window, draw_windows
from napari_unet.nn.model import has_fast_bfloat16
from napari_unet.nn.train import rate_factor, share_done
from napari_unet.nn.training.checkpoint import TrainState, save_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.training.log import TrainLog
    from napari_unet.core.training.recipe import Recipe
    from napari_unet.nn.clicks.pictures import PictureSource
    from napari_unet.nn.model import Model

ROUNDS = (0.27, 0.18, 0.15, 0.12, 0.1, 0.08, 0.05, 0.05)
"""How often the last of 1, 2, ... clicks is learned from."""

Validate = Callable[[ClickHead], dict[str, float]]


def train_clicks(
    state: TrainState,
    model: Model,
    sources: Sequence[PictureSource],
    settings: Recipe,
    *,
    validate: Validate | None = None,
    checkpoint: Path | None = None,
    log: TrainLog | None = None,
) -> Generator[TrainStep, None, TrainState]:
    """Train a click head, yielding after every step.

    A training by steps that is killed, and goes on from its checkpoint, ends with the weights of
    one that was never interrupted: all that is random follows from the seed and the step.

    Parameters
    ----------
    state
        Of a `ClickHead`: a fresh `TrainState.start`, or one that `load_checkpoint` brought up to
        date.
    model
        Whose trunk gives the features; it is not changed.
    sources
        Of the pictures; each as often as the others.
    settings
        Budget, rates and seed; `crop` is the edge of a window in the head's pixels.
    validate, checkpoint, log
        As in `train`.

    Returns
    -------
    TrainState
        The state after the last step.
    """
    if checkpoint:
        sweep_partials(checkpoint)
    if log:
        log.begin(state.step)
    head = cast("ClickHead", state.net)
    guess = FirstGuess.of(model)
    views = ViewPool(model, sources, settings.seed, state.step)
    began = time.perf_counter() - state.seconds
    while share_done(state, settings) < 1:
        rng = np.random.default_rng([settings.seed, state.step])
        windows = draw_windows(views.turned(state.step), settings, rng, guess)
        losses = _learn(state, settings, head, windows, rng)
        state.step += 1
        state.seconds = time.perf_counter() - began
        scores = None
        if due := state.step % settings.validate_every == 0 or share_done(state, settings) >= 1:
            averaged = cast("ClickHead", state.averaged_net())
            scores = validate(averaged) if validate else None
            state.keep_best(scores or {})
            state.history.append({"step": state.step, "loss": losses["loss"], **(scores or {})})
        if log:
            log.add(losses)
            if due or state.step % settings.log_every == 0:
                rate = float(state.optimizer.param_groups[0]["lr"])
                log.write(state.step, state.seconds, rate, scores)
            if due:
                log.draw()
        if due and checkpoint:
            save_checkpoint(state, checkpoint)
        done = share_done(state, settings)
        yield TrainStep(
            done=state.step,
            total=settings.steps if settings.minutes is None else math.ceil(state.step / done),
            what="training",
            loss=losses["loss"],
            learning_rate=float(state.optimizer.param_groups[0]["lr"]),
            seconds_left=state.seconds / done * (1 - min(done, 1.0)),
            validation=scores,
        )
    return state


def _learn(
    state: TrainState,
    settings: Recipe,
    head: ClickHead,
    windows: list[Window],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Let the robot click for some rounds, then take one step on what the head says at last."""
    rate = rate_factor(share_done(state, settings), settings.warm_up)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.learning_rate * rate
    device = next(head.parameters()).device
    fast = has_fast_bfloat16(device)
    seen = torch.stack([window.seen for window in windows]).to(device)
    target = torch.stack([window.target for window in windows]).to(device)
    for _ in range(int(rng.choice(len(ROUNDS), p=ROUNDS))):
        head.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=fast):
            masks = (_answer(head, seen, windows) > 0).cpu().numpy()
        for window, mask in zip(windows, masks, strict=True):
            window.previous = mask
            click = next_click(window.truth, mask, rng)
            window.clicks = window.clicks.added(click) if click else window.clicks
    head.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
        logit = _answer(head, seen, windows)
    loss, terms = click_loss(logit, target)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(head.parameters(), settings.clip)
    state.optimizer.step()
    _follow(state, settings.average)
    return {"loss": float(loss.detach())} | {name: float(v.detach()) for name, v in terms.items()}


def _answer(head: ClickHead, seen: Tensor, windows: Sequence[Window]) -> Tensor:
    """Return the head's logits (N, Y, X) for the windows' clicks and masks."""
    masks = np.stack([window.previous for window in windows]).astype(np.float32)
    places = {
        sign: [window.clicks.places(positive=sign, ndim=2) for window in windows]
        for sign in (True, False)
    }
    previous = torch.from_numpy(masks)[:, None].to(seen.device)
    prompts = Prompts.of(places[True], places[False], previous)
    width = head.model.width + 1
    return head(seen[:, :width], seen[:, width:], prompts)  # type: ignore[no-any-return]


def click_loss(logit: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return entropy plus soft Dice loss of logits (N, Y, X), and the two by name."""
    entropy = F.binary_cross_entropy_with_logits(logit, target)
    probability = logit.sigmoid()
    both = (probability * target).sum((1, 2))
    size = probability.sum((1, 2)) + target.sum((1, 2))
    dice = (1 - (2 * both + 1) / (size + 1)).mean()
    return entropy + dice, {"entropy": entropy, "dice": dice}


def _follow(state: TrainState, decay: float) -> None:
    """Move the averaged weights towards the head's; young averages follow faster."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    for name, value in state.net.state_dict().items():
        if value.dtype.is_floating_point:
            state.average[name].lerp_(value.detach(), 1 - decay)
        else:
            state.average[name].copy_(value)
