"""How good labels are, from objects and squares of the image that a user judged.

With TP hits, N objects in the labels and T true objects, AP50 is TP / (N + T - TP). Each true
object is counted with the object of the labels that covers most of it, if that covers a good part
of it, or else as missed in the square that its middle lies in. So TP, N and T are sums over two
populations that are known in number: objects, each with its hits (0 or 1) and its true objects (0
for debris, 2 for a pair that was not divided), and squares, each with its missed objects.

Some members of each population were judged because they seemed doubtful: these are known, and say
nothing about others. The order of doubt does not depend on what is found, and so the members that
were drawn at random and are not among the doubtful ones are a random sample of the rest. The
estimate takes what is known as it is, and the mean of the random sample for each member of the
rest: an unbiased estimate of each sum, and AP50 is their ratio. (A ratio of unbiased estimates has
a bias of the order of one over the sample's size.) What the user skipped is taken to be like the
rest.

The interval is Bayesian: what the unseen rest may be is drawn many times, by a multinomial with a
Dirichlet prior that weighs as much as half a judged object and half a judged square; a heavier one
would not let labels be nearly right. It includes the estimate, shrinks to nothing when all is
judged, and it does not, as an interval by the normal distribution does, when the first few are all
right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.9
DRAWS = 4000
OBJECT_PRIOR = {(1, 1): 0.25, (0, 1): 0.1, (0, 0): 0.1, (0, 2): 0.05}
"""Weight of each outcome of an object: hits, true objects."""
SQUARE_PRIOR = {(0, 0): 0.2, (0, 1): 0.15, (0, 2): 0.1, (0, 4): 0.05}
"""Weight of each number of missed objects in a square; its hits are always 0."""


@dataclass(frozen=True)
class Judged:
    """What was judged of one population.

    Attributes
    ----------
    size
        Members of the population.
    known
        (K, 2) int: hits and true objects of those that were judged in the order of doubt.
    drawn
        (D, 2) int: of those drawn at random that are not among `known`.
    """

    size: int
    known: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    drawn: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    @property
    def left(self) -> int:
        """Members that were not judged."""
        return max(0, self.size - len(self.known) - len(self.drawn))

    @property
    def sums(self) -> NDArray[np.float64]:
        """Hits and true objects of those that were judged."""
        return np.asarray(self.known.sum(0) + self.drawn.sum(0), np.float64)

    def rest(self) -> NDArray[np.float64]:
        """Return the estimated hits and true objects of those that were not judged."""
        return self.left * self.drawn.mean(0) if len(self.drawn) else np.zeros(2)

    def draw_rest(
        self, prior: dict[tuple[int, int], float], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw what those that were not judged may be: (`DRAWS`, 2) hits and true objects."""
        weights = dict(prior)
        for outcome in map(tuple, self.drawn.tolist()):
            weights[outcome] = weights.get(outcome, 0) + 1
        shares = rng.dirichlet(list(weights.values()), DRAWS)
        counts = rng.multinomial(self.left, shares)
        return np.asarray(counts @ np.array(list(weights)), np.float64)


@dataclass(frozen=True)
class Interval:
    """An estimate, and the interval that it lies in with a probability of `LEVEL`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """AP50 of labels as they were found, and as they are now: what was judged is right now."""

    found: Interval
    now: Interval


def estimate_quality(objects: Judged, squares: Judged, added: int, seed: int = 0) -> Quality:
    """Estimate AP50.

    Parameters
    ----------
    objects
        Of the labels as they were found.
    squares
        Those of the image; `known` is empty, and `drawn` has the missed objects of each square
        that no doubtful place led to.
    added
        Missed objects that were found, in squares and at doubtful places.
    """
    rng = np.random.default_rng(seed)
    rest = objects.rest() + squares.rest()
    draws = objects.draw_rest(OBJECT_PRIOR, rng) + squares.draw_rest(SQUARE_PRIOR, rng)
    every = np.concatenate([rest[None], draws])
    hits, true = objects.sums
    true_objects = true + added + every[:, 1]
    found = _ap(hits + every[:, 0], objects.size, true_objects)
    right = true + added
    now = _ap(right + every[:, 0], right + objects.left, true_objects)
    return Quality(_interval(found), _interval(now))


def _ap(
    hits: NDArray[np.float64], objects: float, true: NDArray[np.float64]
) -> NDArray[np.float64]:
    every = objects + true - hits
    return np.asarray(np.divide(hits, every, out=np.ones_like(hits), where=every > 0))


def _interval(values: NDArray[np.float64]) -> Interval:
    """Return the estimate, which comes first, with the middle of the draws as its interval."""
    value = float(values[0])
    low, high = np.quantile(values[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, min(value, float(low)), max(value, float(high)))
