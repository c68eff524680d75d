"""Do no harm: whether a tuned model is better than the one that it was tuned from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


BETTER, WORSE, UNMEASURED = "better", "worse", "not measurable"
UNITS = {"AP50": "objects", "IoU": "pixels"}
"""What each metric is a share of, and corrections are counted in."""
FORGOTTEN = 0.02
"""A score that falls by more than this, and by more than chance explains, on what was learned
before makes a model worse."""


@dataclass(frozen=True)
class ModelComparison:
    """The scores of a model before and after tuning, and what they say.

    Attributes
    ----------
    verdict
        "better", "worse" or "not measurable".
    metric
        What the scores are: "AP50" or "IoU".
    before, after
        On the corrections that were held out; None without any.
    replay_before, replay_after
        On crops of what the model was trained on before; None without any.
    objects
        How many known objects (of classes: so many times 400 pixels) were held out.
    reason
        In a sentence, why the verdict is what it is.
    """

    verdict: str
    metric: str
    before: float | None = None
    after: float | None = None
    replay_before: float | None = None
    replay_after: float | None = None
    objects: int = 0
    reason: str = ""

    @property
    def share(self) -> str:
        """What the scores `before` and `after` were measured on, in words."""
        return _share(self.metric, self.objects)

    @property
    def keep(self) -> bool:
        """Whether there is no reason against the tuned model."""
        return self.verdict != WORSE

    def to_json(self) -> dict[str, Any]:
        """Return the judgement for a model's card."""
        values = asdict(self)
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}

    def __str__(self) -> str:
        figures = []
        if self.before is not None and self.after is not None:
            figures.append(
                f"{self.metric} {self.before:.3f} -> {self.after:.3f} on what was held out"
            )
        if self.replay_before is not None and self.replay_after is not None:
            figures.append(
                f"{self.replay_before:.3f} -> {self.replay_after:.3f} on what it learned before"
            )
        if not figures:
            return f"{self.verdict}: {self.reason}"
        return f"{self.verdict}: {self.reason.rstrip('.')} ({', '.join(figures)})"


def compare_models(
    metric: str,
    held: tuple[float, float] | None,
    replay: tuple[float, float] | None,
    objects: int,
    reason: str = "",
    replay_objects: int = 10_000,
) -> ModelComparison:
    """Weigh the scores (before, after) on what was held out, and on what was learned before.

    Parameters
    ----------
    objects, replay_objects
        How many objects the scores are shares of.
    reason
        Why nothing was held out, where `held` is None.
    """
    before, after = held or (None, None)
    old, new = replay or (None, None)
    verdict = UNMEASURED
    chance = math.sqrt((old or 0) * (1 - (old or 0)) / max(1, replay_objects))
    if old is not None and new is not None and new < old - FORGOTTEN - chance:
        verdict, reason = WORSE, "It forgot too much of what it could do before."
    elif before is not None and after is not None:
        # One object more or less, of so few, is chance.
        margin = 1 / max(1, objects)
        if after >= before + margin:
            verdict, reason = BETTER, "It does better on what it was not shown."
        elif after < before - margin:
            verdict, reason = WORSE, "It does worse on what it was not shown."
        else:
            reason = f"The difference on the {_share(metric, objects)} may be chance."
    return ModelComparison(verdict, metric, before, after, old, new, objects, reason)


def _share(metric: str, objects: int) -> str:
    if UNITS.get(metric) != "objects":
        return "pixels held out"
    return f"{pluralise(objects, 'object')} held out"


FEWEST = 3
"""Rounds without which nothing can be told."""
LAST = 4
"""So many rounds decide; what the first ones gained is past."""
WORTH = 0.01
"""A score that doubling the corrections would raise by less than this is as good as reached."""


@dataclass(frozen=True)
class CorrectionRound:
    """One round of corrections: how many objects were known, and how well the model did then.

    Attributes
    ----------
    objects
        All known objects (of classes: pixels) that the model was taught with, in this round and
        those before.
    score
        On what was held out, 0 to 1.
    """

    objects: int
    score: float


def get_rounds(training: Mapping[str, Any]) -> list[CorrectionRound]:
    """Return the rounds that a model's card (its entry `training`) tells of, oldest first."""
    return [
        CorrectionRound(int(objects), float(score)) for objects, score in training.get("rounds", [])
    ]


def count_taught(training: Mapping[str, Any], metric: str) -> int:
    """Return how much a model was taught with by its card: known objects; of classes, pixels."""
    return int(training["objects" if UNITS[metric] == "objects" else "known_px"])


def add_round(
    before: Mapping[str, Any], objects: int, judgement: ModelComparison
) -> list[list[float]]:
    """Return the parent's rounds and the new one, as the card keeps them.

    Parameters
    ----------
    before
        The parent's entry `training`.
    objects
        How much the new model was taught with: see `count_taught`.
    """
    rounds = [[found.objects, round(found.score, 4)] for found in get_rounds(before)]
    if not rounds and judgement.before is not None:
        rounds = [[0, round(judgement.before, 4)]]
    if judgement.after is not None:
        rounds.append([objects, round(judgement.after, 4)])
    return rounds


def advise(rounds: Sequence[CorrectionRound], what: str = "objects") -> str:
    """Say in one line whether more corrections are likely to help.

    The score is taken to grow with the logarithm of the number of objects, which is how learning
    curves of networks look before they saturate; where it does not grow any more, it has.

    Parameters
    ----------
    what
        What the rounds count, in the plural.
    """
    known = [found for found in rounds if math.isfinite(found.score)]
    if len(known) < FEWEST:
        left = FEWEST - len(known)
        return (
            f"Too early to tell whether more corrections help: {left} more "
            f"{'round' if left == 1 else 'rounds'} will show it."
        )
    gain = gain_of_doubling(known)
    last = known[-1]
    wanted = max(1, last.objects)
    if gain >= WORTH:
        return (
            f"More corrections are likely to help: {wanted:,} more "
            f"{what[:-1] if wanted == 1 else what} may raise the score from "
            f"{last.score:.2f} to about {min(1.0, last.score + gain):.2f}."
        )
    if known[-1].score < max(found.score for found in known) - WORTH:
        return "The last corrections did not help; look at where the model errs, or go back a step."
    return f"More corrections of this kind will hardly help; the score stays at {last.score:.2f}."


def gain_of_doubling(rounds: Sequence[CorrectionRound]) -> float:
    """Return by how much twice the objects would raise the score, as the last rounds have it.

    The slope over the logarithm of the objects; of two rounds, the later one counts most.
    """
    rounds = rounds[-LAST:]
    x = np.log2([1 + found.objects for found in rounds])
    y = np.array([found.score for found in rounds])
    weight = 2.0 ** np.arange(len(rounds))
    x_mean, y_mean = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = float(np.sum(weight * (x - x_mean) ** 2))
    if not spread:
        return 0.0
    return float(np.sum(weight * (x - x_mean) * (y - y_mean)) / spread)
