"""Whether more corrections are likely to help: the learning curve of a model's ancestors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.training.model_comparison import UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unet.core.training.model_comparison import ModelComparison

FEWEST = 3
"""Rounds without which nothing can be told."""
LAST = 4
"""So many rounds decide; what the first ones gained is past."""
WORTH = 0.01
"""A score that doubling the corrections would raise by less than this is as good as reached."""


@dataclass(frozen=True)
class Round:
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


def rounds_of(training: Mapping[str, Any]) -> list[Round]:
    """Return the rounds that a model's card (its entry `training`) tells of, oldest first."""
    return [Round(int(objects), float(score)) for objects, score in training.get("rounds", [])]


def taught_with(training: Mapping[str, Any], metric: str) -> int:
    """Return how much a model was taught with by its card: known objects; of classes, pixels."""
    return int(training["objects" if UNITS[metric] == "objects" else "known_px"])


def next_rounds(
    before: Mapping[str, Any], objects: int, judgement: ModelComparison
) -> list[list[float]]:
    """Return the parent's rounds and the new one, as the card keeps them.

    Parameters
    ----------
    before
        The parent's entry `training`.
    objects
        How much the new model was taught with: see `taught_with`.
    """
    rounds = [[found.objects, round(found.score, 4)] for found in rounds_of(before)]
    if not rounds and judgement.before is not None:
        rounds = [[0, round(judgement.before, 4)]]
    if judgement.after is not None:
        rounds.append([objects, round(judgement.after, 4)])
    return rounds


def advice(rounds: Sequence[Round], what: str = "objects") -> str:
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


def gain_of_doubling(rounds: Sequence[Round]) -> float:
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
