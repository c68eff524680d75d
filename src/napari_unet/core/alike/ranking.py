"""Which objects are like a few examples, and unlike the counterexamples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.alike.descriptors import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

MARKED = 0.5
"""Objects with this score or more count as alike, unless the user sets otherwise."""
OTHERS = 1.2
"""All objects together count as so many counterexamples: most are not alike, but some are."""
RIDGE = 10.0
"""Penalty on the weights: with few examples the direction that separates them is hardly known."""
SEEN = 0.5
"""Weight of all that the network sees, against the looks of an object."""
ROUNDS = 3
"""How often what was found becomes examples, with the weight of one, for another fit."""
_FURTHEST = 6.0


class AlikeRanking:
    """Scores objects by a few examples: ridge logistic regression, most of it unlabelled.

    Descriptors are scaled by their middle and their spread over all objects. All objects together
    are weak counterexamples, which is what makes one example say something: it is taken to matter
    in what is unusual about it. What is found then takes part as an example (self-training), so
    that the shape of the group is learned beyond the few examples.

    Parameters
    ----------
    values
        Descriptors (N, D), the looks first (`describe_objects`), then what the network sees.
    usual
        The first of the objects that say what is usual.
    """

    def __init__(self, values: np.ndarray, usual: int = 0) -> None:
        like = values[usual:] if usual < len(values) else values
        middle = np.median(like, axis=0)
        low, high = np.percentile(like, [16, 84], axis=0)
        spread = np.maximum((high - low) / 2, 0.3 * like.std(0)) + 1e-6 * (1 + np.abs(middle))
        scaled = np.clip((values - middle) / spread, -_FURTHEST, _FURTHEST)
        looks = len(NAMES)
        if scaled.shape[1] > looks:
            scaled[:, looks:] *= SEEN * np.sqrt(looks / (scaled.shape[1] - looks))
        self._values = np.column_stack([scaled, np.ones(len(scaled))])

    def scores(self, positive: Sequence[int], negative: Sequence[int] = ()) -> np.ndarray:
        """Score every object, from 0 (unlike the examples) to 1.

        Parameters
        ----------
        positive, negative
            Rows of the examples, at least one, and of the counterexamples.
        """
        known, count = [*positive, *negative], len(self._values)
        scores = np.zeros(count)
        for _ in range(1 + ROUNDS):
            found = scores > MARKED
            sure = np.where(found, 2 * scores - 1, 0)
            share = min(1.0, sure.sum() / len(positive)) / max(1e-9, sure.sum())
            unlike = OTHERS / count * np.minimum(1, 2 * (1 - scores))
            target, weight = found.astype(float), np.where(found, sure * share, unlike)
            target[known], weight[known] = 0, 1
            target[list(positive)] = 1
            scores = self._fit(target, weight)
        return scores

    def _fit(self, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Fit by Newton's method and return every object's probability."""
        values = self._values
        penalty = np.full(values.shape[1], RIDGE / values.shape[1])
        penalty[-1] = 1e-6
        weights = np.zeros(values.shape[1])
        for _ in range(15):
            scores = _sigmoid(values @ weights)
            slope = values.T @ (weight * (scores - target)) + penalty * weights
            bend = weight * scores * (1 - scores) + 1e-9
            step = np.linalg.solve((values * bend[:, None]).T @ values + np.diag(penalty), slope)
            weights -= step
            if np.abs(step).max() < 1e-4:
                break
        return _sigmoid(values @ weights)


def first_cut(scores: np.ndarray) -> float:
    """Return the score from which on objects are marked at first.

    That is `MARKED`; if none has it, as after one example among few objects, the middle of the
    largest gap between the better half of them.
    """
    if len(scores) < 2 or (scores >= MARKED).any():
        return MARKED
    odds = np.sort(np.log(scores / (1 - scores)))[::-1]
    gaps = odds[:-1] - odds[1:]
    at = int(gaps[: max(1, len(scores) // 2)].argmax())
    return float(_sigmoid((odds[at] + odds[at + 1]) / 2))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))))
