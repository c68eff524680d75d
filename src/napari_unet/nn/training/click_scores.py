"""How well a click head does: simulated clicks on objects, and their scores."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.image.diameters import working_scale
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import map_steps, run_to_end
from napari_unet.core.prompts.simulation import iou, simulate_clicks
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.interactive.session import ClickSession
from napari_unet.nn.training.cancellation import run_cancellable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from napari_unet.core.prompts.clicks import ClickSet
    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.unet.click_head import ClickHead

MIN_PIXELS = 40
"""Smaller objects are not clicked on to score a head."""
MAX_CLICKS = 20
"""Clicks after which simulated users give up."""


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


def alternating(trials: Iterable[ClickTrial]) -> list[ClickTrial]:
    """Put one trial of each group after the other, so that the first few are of all groups."""
    groups: dict[str, list[ClickTrial]] = {}
    for trial in trials:
        groups.setdefault(trial.group, []).append(trial)
    rows = itertools.zip_longest(*groups.values())
    return [trial for row in rows for trial in row if trial is not None]


@dataclass(frozen=True)
class Clicked:
    """How far clicks on trials are: so many of them are done, after so many seconds."""

    done: int
    seconds: float

    def seconds_of(self, count: int) -> float:
        """Return how long so many trials are likely to take; nan before the first is done."""
        return self.seconds / self.done * count if self.done else math.nan


@dataclass(frozen=True)
class ClickValidator:
    """Scores click heads by simulated clicks; `train_clicks` calls it as ``validate``.

    The first score, by which the best weights are chosen, is the mean IoU after 1, 3 and 5 clicks,
    averaged over the groups ("IoU"); then "IoU1", "IoU3", "IoU5" and "NoC85" (at most `count`) of
    each group. Without trials there are no scores.
    """

    trials: Sequence[ClickTrial]
    count: int = 10

    def __call__(self, head: ClickHead) -> dict[str, float]:
        """Score a head."""
        return run_to_end(self.steps(head))[0]

    def steps(
        self, head: ClickHead, seconds: float = math.inf
    ) -> Generator[Clicked, None, tuple[dict[str, float], int]]:
        """Score a head as a call does, yielding several times a second.

        Returns the scores, and the number of trials that they are of: those that `seconds` allow,
        and one of each group at least.
        """
        ready = head.ready()
        rows: dict[str, list[list[float]]] = {trial.group: [] for trial in self.trials}
        began, done = time.perf_counter(), 0

        def report(_: object = None) -> Clicked:
            return Clicked(done, time.perf_counter() - began)

        for trial in self.trials:
            if report().seconds > seconds and all(rows.values()):
                break
            trial.session.use(ready)
            clicking = run_cancellable(partial(click_through, trial, self.count))
            rows[trial.group].append((yield from map_steps(clicking, report)))
            done += 1
            yield report()
        groups = {group: ClickScores(np.array(these)) for group, these in sorted(rows.items())}
        found: dict[str, float] = {}
        for group, scores in groups.items():
            found |= {f"IoU{k} {group}": scores.after(k) for k in (1, 3, 5)}
            found[f"NoC85 {group}"] = scores.number_of_clicks(0.85)
        if not groups:
            return {}, 0
        mean = np.mean([scores.after(k) for scores in groups.values() for k in (1, 3, 5)])
        return {"IoU": float(mean), **found}, done
