"""Training and tuning of the click head on a frozen trunk, by simulated clicks.

A simulated user clicks on an object, looks at the mask and clicks where it is most wrong (as in
Sofiiuk et al. 2021, arXiv:2102.06583).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_unet.core.errors import InputError
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.progress import TrainStep, map_steps
from napari_unet.core.prompts.simulation import next_click
from napari_unet.core.training.config import TrainConfig
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import has_fast_bfloat16
from napari_unet.nn.interactive.mask_predictor import InitialMask
from napari_unet.nn.training.cancellation import run_cancellable
from napari_unet.nn.training.checkpoint import TrainState
from napari_unet.nn.training.click_samples import (
    ClickSample,
    LabelledImages,
    ViewPool,
    draw_click_samples,
)
from napari_unet.nn.training.click_scores import ClickValidator, alternating, make_trials
from napari_unet.nn.training.loop import (
    Validate,
    run_steps,
    set_rate,
    take_step,
)
from napari_unet.nn.unet.prompts import Prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from napari_unet.core.training.log import TrainLog
    from napari_unet.core.training.training_sample import Sample
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.click_samples import PictureSource
    from napari_unet.nn.training.click_scores import Clicked
    from napari_unet.nn.unet.click_head import ClickHead


ROUNDS = (0.27, 0.18, 0.15, 0.12, 0.1, 0.08, 0.05, 0.05)
"""Probabilities that a step learns from the answer to the 1st, 2nd, ... click."""
CLICK_SHARE = 0.15
"""Share of a tuning's minutes that is left for the click head."""
RATE = 3e-3
"""Learning rate of a tuning; with a third of it, half a minute changes next to nothing."""
WINDOW, BATCH = 96, 8
"""Edge length of a tuning's samples, in network pixels, and their number in a step."""
IMAGES_PER_GROUP, OBJECTS_PER_IMAGE, CLICKS = 8, 2, 5
"""A tuned head is compared with the one before on so many images of each group, objects in each
image and clicks on each object."""


def train_clicks(
    state: TrainState,
    model: Model,
    sources: Sequence[PictureSource],
    settings: TrainConfig,
    *,
    validate: Callable[[ClickHead], dict[str, float]] | None = None,
    checkpoint: Path | None = None,
    log: TrainLog | None = None,
) -> Generator[TrainStep, None, TrainState]:
    """Train a click head, yielding after every step.

    A training that was killed and resumed ends with the weights of one that was not: everything
    random follows from the seed and the step.

    Parameters
    ----------
    state
        Of a `ClickHead`: from `TrainState.start`, and `load_checkpoint` if resumed.
    model
        The model whose trunk computes the features; it is not changed.
    sources
        Of the pictures; all are drawn from equally often.
    settings
        Budget, rates and seed; `crop` is the edge length of a sample in the head's pixels.
    validate, checkpoint, log
        As in `train`.

    Returns
    -------
    TrainState
        The state after the last step.
    """
    head = cast("ClickHead", state.net)
    guess = InitialMask.from_model(model)
    views = ViewPool(model, sources, settings.seed, state.step)

    def step(config: TrainConfig) -> tuple[dict[str, float], TrainConfig]:
        rng = np.random.default_rng([config.seed, state.step])
        samples = draw_click_samples(views.views_at(state.step), config, rng, guess)
        return _learn(state, config, head, samples, rng), config

    check = cast("Validate | None", validate)
    yield from run_steps(state, settings, step, check, checkpoint=checkpoint, log=log)
    return state


def _learn(
    state: TrainState,
    settings: TrainConfig,
    head: ClickHead,
    samples: list[ClickSample],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Simulate some rounds of clicks, then take one step on the head's last answer."""
    set_rate(state, settings)
    device = next(head.parameters()).device
    fast = has_fast_bfloat16(device)
    inputs = torch.stack([sample.inputs for sample in samples]).to(device)
    target = torch.stack([sample.target for sample in samples]).to(device)
    for _ in range(int(rng.choice(len(ROUNDS), p=ROUNDS))):
        head.eval()
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=fast):
            masks = (_answer(head, inputs, samples) > 0).cpu().numpy()
        for sample, mask in zip(samples, masks, strict=True):
            sample.previous = mask
            click = next_click(sample.truth, mask, rng)
            sample.clicks = sample.clicks.added(click) if click else sample.clicks
    head.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
        logit = _answer(head, inputs, samples)
    loss, terms = click_loss(logit, target)
    take_step(state, loss, settings)
    return {"loss": float(loss.detach())} | {name: float(v.detach()) for name, v in terms.items()}


def _answer(head: ClickHead, inputs: Tensor, samples: Sequence[ClickSample]) -> Tensor:
    """Return the head's logits (N, Y, X) for the samples' clicks and previous masks."""
    masks = np.stack([sample.previous for sample in samples]).astype(np.float32)
    places = {
        sign: [sample.clicks.places(positive=sign, ndim=2) for sample in samples]
        for sign in (True, False)
    }
    previous = torch.from_numpy(masks)[:, None].to(inputs.device)
    prompts = Prompts.from_clicks(places[True], places[False], previous)
    width = head.model.width + 1
    return head(inputs[:, :width], inputs[:, width:], prompts)  # type: ignore[no-any-return]


def click_loss(logit: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return cross-entropy plus soft Dice loss of logits (N, Y, X), and the two terms by name."""
    entropy = F.binary_cross_entropy_with_logits(logit, target)
    probability = logit.sigmoid()
    both = (probability * target).sum((1, 2))
    size = probability.sum((1, 2)) + target.sum((1, 2))
    dice = (1 - (2 * both + 1) / (size + 1)).mean()
    return entropy + dice, {"entropy": entropy, "dice": dice}


def can_learn_clicks(model: Model, samples: Samples) -> bool:
    """Tell whether the model has a click head, and planes have objects to click on."""
    objects = isinstance(samples.head, InstanceHead) and any(i.diameter for i in samples.items)
    return model.click is not None and model.spec.ndim == 2 and objects


def tune_clicks(
    model: Model, training_sets: list[Samples], held: Samples, config: TrainConfig
) -> Generator[TrainStep, None, Model]:
    """Train a tuned model's click head on what its trunk was tuned on.

    It yields several times a second how far it is in per cent, by the time that it takes.

    Only known objects are clicked on. The new head is kept if its masks of held-out objects are no
    worse than those of the head before. Of those objects so many are clicked on as the minutes
    allow, so that it takes about three times the time that it learns for.

    Parameters
    ----------
    model
        The model with its click head and the tuned trunk.
    training_sets
        Corrections and rehearsal set; pictures are drawn from each equally often.
    held
        Held-out samples, in groups; may be empty.
    config
        Of the tuning; `CLICK_SHARE` of its minutes or steps is the budget.
    """
    first = cast("ClickHead", model.click)
    settings = TrainConfig(
        minutes=config.minutes_of(CLICK_SHARE),
        steps=max(1, round(CLICK_SHARE * config.steps)),
        seed=config.seed,
        batch=min(BATCH, config.batch),
        crop=WINDOW,
        learning_rate=RATE,
        validate_every=2**31,  # only after the last step
    )
    clock = _Clock()
    learning = 60 * (settings.minutes or 0.0)
    trials = alternating(make_trials(model, _few_of_each(_clickable(held)), OBJECTS_PER_IMAGE))
    scoring = ClickValidator(trials, CLICKS).steps(first, learning or math.inf)

    def report_before(clicked: Clicked) -> TrainStep:
        whole = clicked.seconds_of(len(trials))
        whole = min(whole, max(learning, clicked.seconds)) if learning else whole
        return clock.report(2 * whole - clicked.seconds + learning)

    before, scored = yield from map_steps(scoring, report_before)
    again = clock.seconds  # to score the new head takes as long

    state = TrainState.start(cast("Any", copy.deepcopy(first)), settings)
    sources = [
        LabelledImages.from_samples(part) for part in map(_clickable, training_sets) if part.items
    ]
    steps = train_clicks(state, model, sources, settings)
    try:
        # The first step draws many views before; it takes some seconds.
        drawing = run_cancellable(lambda: next(steps, None))
        yield from map_steps(drawing, lambda _: clock.report(learning + again))
    except InputError:  # no object is large enough to click on
        return model
    yield from map_steps(steps, lambda step: clock.report(step.seconds_left + again))
    head = cast("ClickHead", cast("Any", state.averaged_net()))
    scoring = ClickValidator(trials[:scored], CLICKS).steps(head)

    def report_after(clicked: Clicked) -> TrainStep:
        whole = clicked.seconds_of(scored) if clicked.done else max(again, clicked.seconds)
        return clock.report(whole - clicked.seconds)

    after, _ = yield from map_steps(scoring, report_after)
    if after.get("IoU", 0.0) < before.get("IoU", 0.0):
        return model
    training = {"steps": state.step, "seconds": round(state.seconds), "seed": settings.seed}
    metrics = {name: round(value, 4) for name, value in after.items()}
    card = model.card.replace(click={**model.card.click, "training": training, "metrics": metrics})
    return replace(model, click=head.eval(), card=card)


class _Clock:
    """Makes records of the progress of work whose parts take a time that is hard to foresee."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self._began

    def report(self, left: float) -> TrainStep:
        """Return how far it is, in per cent, if it takes so many more seconds; nan: unknown."""
        whole = self.seconds + left
        done = int(100 * self.seconds / whole) if math.isfinite(whole) and whole else 0
        return TrainStep(done, 100, "clicks", seconds_left=left)


def _clickable(samples: Samples) -> Samples:
    """Return the images with known objects, without the others: nobody has checked those."""
    return Samples(
        [replace(item, labels=item.known_labels) for item in samples.items if item.diameter],
        samples.head,
    )


def _few_of_each(samples: Samples) -> Samples:
    """Return some images of each group, evenly spread over it."""
    chosen: list[Sample] = []
    for group in sorted({item.group for item in samples.items}):
        items = [item for item in samples.items if item.group == group]
        places = (
            np.linspace(0, len(items) - 1, min(IMAGES_PER_GROUP, len(items))).round().astype(int)
        )
        chosen += [items[place] for place in places]
    return Samples(chosen, samples.head)
