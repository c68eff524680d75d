"""What corrections teach the click head: it follows its tuned trunk, and learns the new objects."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_unet.core.heads import InstanceHead
from napari_unet.core.samples import Samples
from napari_unet.core.spec import InputError
from napari_unet.core.training.recipe import Recipe
from napari_unet.nn.clicks.pictures import LabelledImages
from napari_unet.nn.clicks.score import ClickValidator, trials_of
from napari_unet.nn.clicks.train import train_clicks
from napari_unet.nn.heartbeat import beating
from napari_unet.nn.training.checkpoint import TrainState

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.samples import Sample
    from napari_unet.nn.click import ClickHead
    from napari_unet.nn.model import Model

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
    model: Model, taught: list[Samples], held: Samples, recipe: Recipe
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
    settings = Recipe(
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

    before = yield from beating(lambda: score(first))
    state = TrainState.start(cast("Any", copy.deepcopy(first)), settings)
    sources = [LabelledImages.of(part) for part in map(_clickable, taught) if part.items]
    steps = train_clicks(state, model, sources, settings)
    try:
        yield from beating(lambda: next(steps, None))  # looks at many pictures before it begins
    except InputError:  # no object is large enough to click on
        return model
    for _ in steps:
        yield
    head = cast("ClickHead", cast("Any", state.averaged_net()))
    after = yield from beating(lambda: score(head))
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
