"""Training, validation and tuning of the click head on a frozen trunk, by simulated clicks.

A simulated user clicks on an object, looks at the mask and clicks where it is most wrong (as in
Sofiiuk et al. 2021, arXiv:2102.06583).
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_unet.core.errors import InputError
from napari_unet.core.image.diameters import working_scale
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.io.stack import open_stack
from napari_unet.core.prompts.simulation import iou, next_click, simulate_clicks
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.training.config import TrainConfig
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import has_fast_bfloat16
from napari_unet.nn.interactive.mask_predictor import InitialMask
from napari_unet.nn.interactive.session import ClickSession
from napari_unet.nn.training.cancellation import run_cancellable
from napari_unet.nn.training.checkpoint import TrainState
from napari_unet.nn.training.click_samples import (
    ClickSample,
    LabelledImages,
    ViewPool,
    draw_click_samples,
)
from napari_unet.nn.training.loop import (
    Validate,
    rate_factor,
    run_steps,
    share_done,
    update_average,
)
from napari_unet.nn.unet.click_head import ClickHead, Prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from napari_unet.core.progress import TrainStep
    from napari_unet.core.prompts.clicks import ClickSet
    from napari_unet.core.training.log import TrainLog
    from napari_unet.core.training.samples import Sample
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.click_samples import PictureSource


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
MIN_PIXELS = 40
"""Smaller objects are not clicked on to score a head."""
MAX_CLICKS = 20
"""Clicks after which simulated users give up."""


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
    rate = rate_factor(share_done(state, settings), settings.warm_up)
    for group in state.optimizer.param_groups:
        group["lr"] = settings.learning_rate * rate
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
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(head.parameters(), settings.clip)
    state.optimizer.step()
    update_average(state, settings.average)
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
) -> Generator[TrainStep | None, None, Model]:
    """Train a tuned model's click head on what its trunk was tuned on.

    It yields each step, and None several times a second where it does something else.

    Only known objects are clicked on. The new head is kept if its masks of held-out objects are no
    worse than those of the head before.

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
    validator = ClickValidator(
        [*make_trials(model, _few_of_each(_clickable(held)), OBJECTS_PER_IMAGE)], CLICKS
    )

    def score(head: ClickHead) -> dict[str, float]:
        return validator(head) if validator.trials else {}

    before = yield from run_cancellable(lambda: score(first))
    state = TrainState.start(cast("Any", copy.deepcopy(first)), settings)
    sources = [
        LabelledImages.from_samples(part) for part in map(_clickable, training_sets) if part.items
    ]
    steps = train_clicks(state, model, sources, settings)
    try:
        # The first step draws many views before; it takes some seconds.
        yield from run_cancellable(lambda: next(steps, None))
    except InputError:  # no object is large enough to click on
        return model
    yield from steps
    head = cast("ClickHead", cast("Any", state.averaged_net()))
    after = yield from run_cancellable(lambda: score(head))
    if after.get("IoU", 0.0) < before.get("IoU", 0.0):
        return model
    training = {"steps": state.step, "seconds": round(state.seconds), "seed": settings.seed}
    metrics = {name: round(value, 4) for name, value in after.items()}
    card = model.card.replace(click={"training": training, "metrics": metrics})
    return replace(model, click=head.eval(), card=card)


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


@dataclass(frozen=True)
class ClickTrial:
    """An object to click on.

    Attributes
    ----------
    session
        Of its image, which has one plane.
    truth
        bool (Y, X).
    group
        Group that scores are averaged over.
    """

    session: ClickSession
    truth: np.ndarray
    group: str = ""


@dataclass(frozen=True)
class ClickScores:
    """The IoU after each click, one row for each object; constant after the last click needed."""

    ious: np.ndarray

    def after(self, clicks: int) -> float:
        """Return the mean IoU after a number of clicks."""
        return float(self.ious[:, clicks - 1].mean())

    def number_of_clicks(self, wanted: float) -> float:
        """Return the mean number of clicks needed for an IoU (NoC), at most those made."""
        reached = self.ious >= wanted
        count = np.where(reached.any(1), reached.argmax(1) + 1, self.ious.shape[1])
        return float(count.mean())


def click_through(trial: ClickTrial, count: int = MAX_CLICKS) -> list[float]:
    """Simulate clicks on an object; return the IoU after each of `count` clicks."""

    def respond(clicks: ClickSet) -> np.ndarray:
        return trial.session.add(clicks.clicks[-1])

    trial.session.reset()
    found = [iou(mask, trial.truth) for _, mask in simulate_clicks(trial.truth, respond, count)]
    trial.session.reset()
    return found + found[-1:] * (count - len(found))


def score_trials(trials: Sequence[ClickTrial], count: int = MAX_CLICKS) -> dict[str, ClickScores]:
    """Click on every object; return the scores by group."""
    rows: dict[str, list[list[float]]] = {}
    for trial in trials:
        rows.setdefault(trial.group, []).append(click_through(trial, count))
    return {group: ClickScores(np.array(these)) for group, these in sorted(rows.items())}


def pick_objects(labels: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Draw objects of at least `MIN_PIXELS`; yield each as bool of the labels' shape."""
    sizes = np.bincount(labels.ravel())
    large = np.flatnonzero(sizes[1:] >= MIN_PIXELS) + 1
    for label in rng.choice(large, min(count, len(large)), replace=False):
        yield labels == label


def make_trials(
    model: Model, samples: Samples, per_image: int, rng: np.random.Generator | None = None
) -> Iterator[ClickTrial]:
    """Yield some objects of each image, a plane each; the network is told the objects' size."""
    rng = rng or np.random.default_rng(0)
    for sample in samples.items:
        stack = open_stack(sample.image, axes="CYX")
        scale = working_scale(sample.diameter, model.diameter)
        settings = PredictSettings(diameter=model.diameter and model.diameter / scale)
        session = ClickSession(model, replace(stack, rgb=True), settings=settings)
        for truth in pick_objects(sample.labels, per_image, rng):
            yield ClickTrial(session, truth, sample.group)


@dataclass(frozen=True)
class ClickValidator:
    """Scores click heads by simulated clicks; `train_clicks` calls it as ``validate``.

    The first score, by which the best weights are chosen, is the mean IoU after 1, 3 and 5 clicks,
    averaged over the groups ("IoU"); then "IoU1", "IoU3", "IoU5" and "NoC85" (at most `count`) of
    each group.
    """

    trials: Sequence[ClickTrial]
    count: int = 10

    def __call__(self, head: ClickHead) -> dict[str, float]:
        """Score a head."""
        ready = head.ready()
        for trial in self.trials:
            trial.session.use(ready)
        groups = score_trials(self.trials, self.count)
        found: dict[str, float] = {}
        for group, scores in groups.items():
            found |= {f"IoU{k} {group}": scores.after(k) for k in (1, 3, 5)}
            found[f"NoC85 {group}"] = scores.number_of_clicks(0.85)
        mean = np.mean([scores.after(k) for scores in groups.values() for k in (1, 3, 5)])
        return {"IoU": float(mean), **found}
