"""How well clicks work: a robot clicks on known objects, and the masks are held against them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.image.diameters import working_scale
from napari_unet.core.io.stack import open_stack
from napari_unet.core.prompts.simulation import iou, simulate_clicks
from napari_unet.core.settings import PredictSettings
from napari_unet.nn.interactive.session import ClickSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.core.prompts.clicks import ClickSet
    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.unet.click_head import ClickHead

MOST = 20
"""Clicks after which the robot gives up."""


@dataclass(frozen=True)
class Trial:
    """An object to click on.

    Attributes
    ----------
    session
        Of its image, which has one plane.
    truth
        bool (Y, X).
    group
        What scores are averaged over.
    """

    session: ClickSession
    truth: np.ndarray
    group: str = ""


@dataclass(frozen=True)
class ClickScores:
    """The IoU after each click, one row an object; after the last click it stays as it was."""

    ious: np.ndarray

    def after(self, clicks: int) -> float:
        """Return the mean IoU after so many clicks."""
        return float(self.ious[:, clicks - 1].mean())

    def number_of_clicks(self, wanted: float) -> float:
        """Return the mean number of clicks to an IoU, at most as many as were made (NoC)."""
        reached = self.ious >= wanted
        count = np.where(reached.any(1), reached.argmax(1) + 1, self.ious.shape[1])
        return float(count.mean())


def click_through(trial: Trial, count: int = MOST) -> list[float]:
    """Click on an object as often as it takes; return the IoU after each of `count` clicks."""

    def respond(clicks: ClickSet) -> np.ndarray:
        return trial.session.add(clicks.clicks[-1])

    trial.session.reset()
    found = [iou(mask, trial.truth) for _, mask in simulate_clicks(trial.truth, respond, count)]
    trial.session.reset()
    return found + found[-1:] * (count - len(found))


def score_trials(trials: Sequence[Trial], count: int = MOST) -> dict[str, ClickScores]:
    """Click on every object; return the scores by group."""
    rows: dict[str, list[list[float]]] = {}
    for trial in trials:
        rows.setdefault(trial.group, []).append(click_through(trial, count))
    return {group: ClickScores(np.array(these)) for group, these in sorted(rows.items())}


def pick_objects(
    labels: np.ndarray, count: int, rng: np.random.Generator, smallest: int = 40
) -> Iterator[np.ndarray]:
    """Draw some objects of at least so many pixels; yield each as bool of the labels' shape."""
    sizes = np.bincount(labels.ravel())
    large = np.flatnonzero(sizes[1:] >= smallest) + 1
    for label in rng.choice(large, min(count, len(large)), replace=False):
        yield labels == label


def trials_of(
    model: Model, samples: Samples, per_image: int, rng: np.random.Generator | None = None
) -> Iterator[Trial]:
    """Yield some objects of each labelled image of one plane, whose size the network is told."""
    rng = rng or np.random.default_rng(0)
    for sample in samples.items:
        stack = open_stack(sample.image, axes="CYX")
        scale = working_scale(sample.diameter, model.diameter)
        settings = PredictSettings(diameter=model.diameter and model.diameter / scale)
        session = ClickSession(model, replace(stack, rgb=True), settings=settings)
        for truth in pick_objects(sample.labels, per_image, rng):
            yield Trial(session, truth, sample.group)


@dataclass(frozen=True)
class ClickValidator:
    """What `train_clicks` calls as ``validate``: the first of the scores decides what is best.

    It is the mean IoU after 1, 3 and 5 clicks, averaged over the groups ("IoU"). Beside it stand
    "IoU1", "IoU3", "IoU5" and "NoC85" (at most `count`) of each group.
    """

    trials: Sequence[Trial]
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
