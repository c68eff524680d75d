"""Training of the click head on a frozen trunk, by a robot that clicks and corrects."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet.core.errors import InputError
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.io.atomic import sweep_partials
from napari_unet.core.progress import TrainStep
from napari_unet.core.prompts.simulation import next_click
from napari_unet.core.training.config import TrainConfig
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import has_fast_bfloat16
from napari_unet.nn.interactive.mask_predictor import InitialMask
from napari_unet.nn.training.cancellation import run_with_heartbeat
from napari_unet.nn.training.checkpoint import TrainState, save_checkpoint
from napari_unet.nn.training.click_images import LabelledImages
from napari_unet.nn.training.click_validation import ClickValidator, trials_of
from napari_unet.nn.training.click_windows import ViewPool, Window, draw_windows
from napari_unet.nn.training.loop import rate_factor, share_done
from napari_unet.nn.unet.click_head import ClickHead, Prompts

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_unet.core.training.log import TrainLog
    from napari_unet.core.training.samples import Sample
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.click_images import PictureSource


ROUNDS = (0.27, 0.18, 0.15, 0.12, 0.1, 0.08, 0.05, 0.05)
"""How often the last of 1, 2, ... clicks is learned from."""

Validate = Callable[[ClickHead], dict[str, float]]


def train_clicks(
    state: TrainState,
    model: Model,
    sources: Sequence[PictureSource],
    settings: TrainConfig,
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
    guess = InitialMask.from_model(model)
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
    settings: TrainConfig,
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


SHARE = 0.15
"""Share of a tuning's minutes that is left for the click head."""
RATE = 3e-3
"""Learning rate; with a third of it, half a minute changes next to nothing."""
WINDOW, BATCH = 96, 8
"""Edge length of what it learns from, in network pixels, and how many in a step."""
ASKED, PER_IMAGE = 8, 2
"""How many images of each group the heads before and after are compared on, and objects in each."""
CLICKS = 5
"""How often the robot clicks on an object in that comparison."""


def can_learn_clicks(model: Model, samples: Samples) -> bool:
    """Tell whether there is a click head, and objects to click on, in planes."""
    objects = isinstance(samples.head, InstanceHead) and any(i.diameter for i in samples.items)
    return model.click is not None and model.spec.ndim == 2 and objects


def tune_clicks(
    model: Model, taught: list[Samples], held: Samples, recipe: TrainConfig
) -> Generator[None, None, Model]:
    """Train a tuned model's click head on what its trunk was tuned on; yield after every step.

    The head is trained by the robot, that clicks on known objects alone. It is kept if on objects
    that were held out its masks are no worse than those of the head that there was.

    Parameters
    ----------
    model
        With a click head and the trunk as it is to be.
    taught
        What was corrected, and what was replayed; pictures come from each as often.
    held
        What neither was trained on, in groups; may be empty.
    recipe
        The tuning's: its `SHARE` of minutes or steps is the budget.
    """
    first = cast("ClickHead", model.click)
    settings = TrainConfig(
        minutes=None if recipe.minutes is None else SHARE * recipe.minutes,
        steps=max(1, round(SHARE * recipe.steps)),
        seed=recipe.seed,
        batch=min(BATCH, recipe.batch),
        crop=WINDOW,
        learning_rate=RATE,
        validate_every=2**31,
    )
    validator = ClickValidator(
        [*trials_of(model, _few_of_each(_clickable(held)), PER_IMAGE)], CLICKS
    )

    def score(head: ClickHead) -> dict[str, float]:
        return validator(head) if validator.trials else {}

    before = yield from run_with_heartbeat(lambda: score(first))
    state = TrainState.start(cast("Any", copy.deepcopy(first)), settings)
    sources = [LabelledImages.of(part) for part in map(_clickable, taught) if part.items]
    steps = train_clicks(state, model, sources, settings)
    try:
        yield from run_with_heartbeat(
            lambda: next(steps, None)
        )  # looks at many pictures before it begins
    except InputError:  # no object is large enough to click on
        return model
    for _ in steps:
        yield
    head = cast("ClickHead", cast("Any", state.averaged_net()))
    after = yield from run_with_heartbeat(lambda: score(head))
    if after.get("IoU", 0.0) < before.get("IoU", 0.0):
        return model
    training = {"steps": state.step, "seconds": round(state.seconds), "seed": settings.seed}
    metrics = {name: round(value, 4) for name, value in after.items()}
    card = model.card.replace(click={"training": training, "metrics": metrics})
    return replace(model, click=head.eval(), card=card)


def _clickable(samples: Samples) -> Samples:
    """Leave the known objects of images that have any: others may be what nobody has looked at."""
    return Samples(
        [replace(item, labels=item.known_labels) for item in samples.items if item.diameter],
        samples.head,
    )


def _few_of_each(samples: Samples) -> Samples:
    """Take some images of each group, spread over all of it."""
    chosen: list[Sample] = []
    for group in sorted({item.group for item in samples.items}):
        items = [item for item in samples.items if item.group == group]
        places = np.linspace(0, len(items) - 1, min(ASKED, len(items))).round().astype(int)
        chosen += [items[place] for place in places]
    return Samples(chosen, samples.head)
