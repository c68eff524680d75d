"""What to look at next: by what a correction is worth, with some drawn at random among it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from napari_unet.core.review.quality import (
    SQUARE_PRIOR,
    Judged,
    Quality,
    estimate_quality,
    judge_objects,
    outcome_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

OBJECT, PLACE, SQUARE = "object", "place", "square"
"""An object of the labels; a place where one may be missing; a square drawn at random."""
DRAWN_EVERY = 4
"""Of so many, one is drawn at random; of these, every third is a square."""
ALIKE = 20
"""Neighbours among the descriptors that are looked at for objects alike."""
MISSING = 4
"""Power of the doubt at a place without an object: only where it is great is one missing."""


@dataclass(frozen=True)
class ReviewItem:
    """Something to look at: its kind, its number among its kind, and whether it was drawn."""

    kind: str
    number: int
    drawn: bool = False


def worth(
    gain: np.ndarray, descriptors: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a look at each object, and at each place without one, is worth.

    That of an object is what its correction is expected to gain, times how many are alike: the
    objects near it among the descriptors, weighted by how near they are and by what is expected of
    them. The number counts little (its fourth root, with the object itself): not all that are alike
    are corrected with it.

    Parameters
    ----------
    gain
        (N,) of `expected_gain`.
    descriptors
        (N, D) of `describe_objects`; scaled here.
    places
        (P,) the doubt at places without an object, 0 to 1.
    """
    count, missing = len(gain), places**MISSING
    if count < 3:
        return gain, missing
    spread = np.maximum(descriptors.std(0), 1e-9)
    scaled = np.clip((descriptors - np.median(descriptors, axis=0)) / spread, -4, 4)
    away, near = cKDTree(scaled).query(scaled, min(ALIKE, count))
    reach = max(1e-9, float(np.median(away[:, 1])))
    expected = np.clip(gain, 0, 1)
    alike = (np.exp(-((away / reach) ** 2)) * expected[near])[:, 1:].sum(1)
    more = (1 + alike) ** 0.25
    # The same for all places: how many of them are alike is not known.
    return np.where(gain > 0, gain * more, gain), missing * float(more.mean())


class ReviewOrder:
    """Leads through objects, places and squares, and keeps what came of each.

    Parameters
    ----------
    objects, places
        What a look at each is worth: (N,) and (P,).
    squares
        How many squares the image has.
    seed
        Of what is drawn.
    extents
        (N,) the size of each object, in usual ones; None if all are taken for usual.
    """

    def __init__(
        self,
        objects: np.ndarray,
        places: np.ndarray,
        squares: int,
        seed: int = 0,
        extents: np.ndarray | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        self._extents = np.ones(len(objects)) if extents is None else extents
        self._sizes = {OBJECT: len(objects), PLACE: len(places), SQUARE: squares}
        every = [ReviewItem(OBJECT, number) for number in range(len(objects))]
        every += [ReviewItem(PLACE, number) for number in range(len(places))]
        value = np.concatenate([objects, places])
        self._ordered: list[ReviewItem] = [every[at] for at in np.argsort(-value, kind="stable")]
        self._rank = {(item.kind, item.number): at for at, item in enumerate(self._ordered)}
        self._drawn_objects = rng.permutation(len(objects)).tolist()
        self._drawn_squares = rng.permutation(squares).tolist()
        self._reached = 0
        self._step = 0
        self._seen: set[tuple[str, int]] = set()
        self._judged: dict[tuple[str, int], tuple[int, int]] = {}
        self._missed: dict[int, tuple[int, ...]] = {}
        self._drawn: set[int] = set()

    def __iter__(self) -> Iterator[ReviewItem]:
        """Yield what to look at, until nothing is left."""
        while True:
            item = self.next()
            if item is None:
                return
            yield item

    def next(self) -> ReviewItem | None:
        """Return what to look at next; None if nothing is left."""
        self._step += 1
        if self._step % DRAWN_EVERY == 0:
            draws = self._step // DRAWN_EVERY
            kinds = (SQUARE, OBJECT) if draws % 3 == 0 else (OBJECT, SQUARE)
            for kind in kinds:
                if (item := self._draw(kind)) is not None:
                    return item
        while self._reached < len(self._ordered):
            item = self._ordered[self._reached]
            self._reached += 1
            if self._see(item):
                return item
        return self._draw(SQUARE)

    def _draw(self, kind: str) -> ReviewItem | None:
        left = self._drawn_objects if kind == OBJECT else self._drawn_squares
        while left:
            item = ReviewItem(kind, left.pop(), drawn=True)
            if self._see(item):
                return item
        return None

    def _see(self, item: ReviewItem) -> bool:
        name = (item.kind, item.number)
        new = name not in self._seen
        self._seen.add(name)
        return new

    def judge(self, item: ReviewItem, hits: int, true: int) -> None:
        """Note what came of an object, or how many objects were missing at a place.

        Parameters
        ----------
        hits, true
            See `Judged`; of a place, 0 and the objects that were added.
        """
        self._judged[item.kind, item.number] = (hits, true)
        if item.drawn:
            self._drawn.add(item.number)

    def judge_square(self, item: ReviewItem, places: Sequence[int]) -> None:
        """Note the objects that were missing in a square: for each, the place that leads to it.

        Parameters
        ----------
        places
            The number of a doubtful place, or -1 where none leads there.
        """
        self._missed[item.number] = tuple(places)

    @property
    def judged(self) -> int:
        """How many objects, places and squares were judged."""
        return len(self._judged) + len(self._missed)

    @property
    def left(self) -> int:
        """How many objects and places were not looked at yet."""
        known = sum(kind != SQUARE for kind, _ in self._seen)
        return self._sizes[OBJECT] + self._sizes[PLACE] - known

    @property
    def drawn(self) -> int:
        """How many judged objects and squares were drawn at random."""
        return len(self._drawn) + len(self._missed)

    def quality(self) -> Quality:
        """Estimate AP50 from what was judged."""
        return estimate_quality(*self.judgements())

    def judgements(self) -> tuple[tuple[Judged, Judged], Judged, int]:
        """Return what was judged so far, as `estimate_quality` takes it."""
        # One that was drawn, and that the order has reached since, is one of the order's.
        objects = {n: each for (kind, n), each in self._judged.items() if kind == OBJECT}
        known = {n: each for n, each in objects.items() if self._is_reached(OBJECT, n)}
        drawn = {n: each for n, each in objects.items() if n not in known}
        missed = [
            (0, sum(place < 0 or not self._is_reached(PLACE, place) for place in places))
            for places in self._missed.values()
        ]
        added = sum(true for (kind, _), (_, true) in self._judged.items() if kind == PLACE)
        added += sum(map(len, self._missed.values()))
        squares = Judged(self._sizes[SQUARE], SQUARE_PRIOR, drawn=outcome_table(missed))
        return judge_objects(self._extents, known, drawn), squares, added

    def _is_reached(self, kind: str, number: int) -> bool:
        return self._rank[kind, number] < self._reached
