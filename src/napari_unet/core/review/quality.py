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

Few objects may hold most of the true ones, as clumps do that were not divided, and a small sample
says little about them. So large objects are a population of their own, and each of the rest of them
is taken to hold true objects in proportion to its size, as those of the sample do.

The interval is Bayesian: what the unseen rest may be is drawn many times, by a multinomial with a
Dirichlet prior that weighs as much as half a judged object and half a judged square; a heavier one
would not let labels be nearly right. A sample of n weighs n - 2 in it: shares drawn so vary as a
mean of n does whose variance has to be estimated from the same n (Rao & Wu 1988 scale the bootstrap
for the same reason). It includes the estimate, shrinks to nothing when all is judged, and it does
not, as an interval by the normal distribution does, when the first few are all right.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.review.gain import LARGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

LEVEL = 0.9
DRAWS = 2000
ORDERED, LEAST_ORDERS = 500_000, 20
"""So many large objects are put into a random order at most, for the window waits: where there are
many, draws share their orders, of which there are so many at least."""
LEAST_DRAWN = 8
"""The estimate says something from so many randomly drawn objects and squares on."""

Outcome = tuple[int, int, float]
"""Hits, true objects, and true objects for each usual object that would fit into it."""
OBJECT_PRIOR: dict[Outcome, float] = {
    (1, 1, 0): 0.25, (0, 1, 0): 0.1, (0, 0, 0): 0.1, (0, 2, 0): 0.05,
}  # fmt: skip
"""Weight of each outcome of an object."""
LARGE_PRIOR: dict[Outcome, float] = {
    (1, 1, 0): 0.25, (0, 1, 0): 0.1, (0, 0, 0): 0.05, (0, 0, 0.8): 0.1,
}  # fmt: skip
"""The same of a large object: it may be a clump of nearly as many as would fit into it."""
SQUARE_PRIOR: dict[Outcome, float] = {
    (0, 0, 0): 0.2, (0, 1, 0): 0.15, (0, 2, 0): 0.1, (0, 4, 0): 0.05,
}  # fmt: skip
"""Weight of each number of missed objects in a square; its hits are always 0."""


def outcome_table(rows: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Return outcomes as an array, (K, 2) also if there are none."""
    return np.array([*rows], np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class Judged:
    """What was judged of one population.

    Attributes
    ----------
    size
        Members of the population.
    prior
        Weight of each outcome before anything was judged.
    known
        (K, 2) int: hits and true objects of those that were judged in the order of worth.
    drawn
        (D, 2) int: of those drawn at random that are not among `known`.
    extents
        (D,) of large objects: how many usual ones would fit into each that was drawn.
    rest_extents
        Of those that were not judged; empty if size does not matter.
    """

    size: int
    prior: dict[Outcome, float]
    known: NDArray[np.int64] = field(default_factory=lambda: outcome_table([]))
    drawn: NDArray[np.int64] = field(default_factory=lambda: outcome_table([]))
    extents: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    rest_extents: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @property
    def left(self) -> int:
        """Members that were not judged."""
        return max(0, self.size - len(self.known) - len(self.drawn))

    @property
    def sums(self) -> NDArray[np.float64]:
        """Hits and true objects of those that were judged."""
        return np.asarray(self.known.sum(0) + self.drawn.sum(0), np.float64)

    def outcomes(self) -> list[Outcome]:
        """Return the outcome of each that was drawn."""
        rows = [(int(hits), int(true)) for hits, true in self.drawn]
        if not len(self.extents):
            return [(*row, 0.0) for row in rows]
        return [
            (hits, true, 0.0) if true < 2 else (hits, 0, true / float(extent))
            for (hits, true), extent in zip(rows, self.extents, strict=True)
        ]

    def rest(self) -> NDArray[np.float64]:
        """Return the estimated hits and true objects of those that were not judged."""
        if not len(self.drawn):
            return np.zeros(2)
        hits, true, rate = np.mean(self.outcomes(), axis=0)
        return np.array([self.left * hits, self.left * true + rate * self.rest_extents.sum()])

    def draw_rest(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw what those that were not judged may be: (`DRAWS`, 2) hits and true objects."""
        weights, count = dict(self.prior), len(self.drawn)
        for outcome in self.outcomes():
            weight = max(count - 2, min(1, count / 2)) / count
            weights[outcome] = weights.get(outcome, 0) + weight
        shares = rng.dirichlet(list(weights.values()), DRAWS)
        counts = rng.multinomial(self.left, shares)
        hits, true, rates = np.array(list(weights), float).T
        found = np.stack([counts @ hits, counts @ true], 1)
        if len(self.rest_extents) and rates.any():
            # Which of the rest have which outcome: sums of extents in a random order.
            orders = min(DRAWS, max(LEAST_ORDERS, ORDERED // len(self.rest_extents)))
            order = rng.permuted(np.tile(self.rest_extents, (orders, 1)), axis=1)
            upto = np.pad(order.cumsum(1), ((0, 0), (1, 0)))
            ends = np.pad(counts.cumsum(1), ((0, 0), (1, 0)))
            which = np.arange(DRAWS)[:, None] % orders
            found[:, 1] += np.diff(upto[which, ends], axis=1) @ rates
        return found


def judge_objects(
    extents: NDArray[np.float64],
    known: Mapping[int, tuple[int, int]],
    drawn: Mapping[int, tuple[int, int]],
) -> tuple[Judged, Judged]:
    """Divide objects into usual and large ones.

    Parameters
    ----------
    extents
        (N,) of all objects: how many usual ones would fit into each.
    known, drawn
        Hits and true objects of those that were judged, by their number.
    """
    left = np.ones(len(extents), bool)
    left[[*known, *drawn]] = False
    large = extents > LARGE

    def judged(of_large: bool, prior: dict[Outcome, float]) -> Judged:
        tables = [
            outcome_table(row for n, row in part.items() if large[n] == of_large)
            for part in (known, drawn)
        ]
        return Judged(int(np.count_nonzero(large == of_large)), prior, tables[0], tables[1])

    of_drawn = np.array([extents[n] for n in drawn if large[n]])
    by_size = replace(
        judged(True, LARGE_PRIOR), extents=of_drawn, rest_extents=extents[left & large]
    )
    return judged(False, OBJECT_PRIOR), by_size


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


def estimate_quality(
    objects: Sequence[Judged], squares: Judged, added: int, seed: int = 0
) -> Quality:
    """Estimate AP50.

    Parameters
    ----------
    objects
        Populations of objects of the labels as they were found.
    squares
        Those of the image; `known` is empty, and `drawn` has the missed objects of each square
        that no doubtful place led to.
    added
        Missed objects that were found, in squares and at doubtful places.
    """
    rng = np.random.default_rng(seed)
    populations = [*objects, squares]
    draws = [each.draw_rest(rng) for each in populations]
    # Where nothing was drawn, as of a few large objects, the prior says what is likely.
    rest = np.sum(
        [
            each.rest() if len(each.drawn) else drawn.mean(0)
            for each, drawn in zip(populations, draws, strict=True)
        ],
        axis=0,
    )
    every = np.concatenate([rest[None], np.sum(draws, axis=0)])
    hits, true = np.sum([each.sums for each in objects], axis=0)
    size, left = sum(each.size for each in objects), sum(each.left for each in objects)
    true_objects = true + added + every[:, 1]
    found = _ap(hits + every[:, 0], size, true_objects)
    right = true + added
    now = _ap(right + every[:, 0], right + left, true_objects)
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
