"""What corrected labels say about the objects that were there before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.instances.matching import Overlap, match

if TYPE_CHECKING:
    from numpy.typing import NDArray

COVERED = 0.25
"""A true object is counted with an object that covers at least this share of it."""


@dataclass(frozen=True)
class Outcomes:
    """What came of the objects of a frame, by the labels that are right.

    Attributes
    ----------
    labels
        Their ids, (N,), ascending.
    hits
        (N,) 1 if a true object has an IoU of a half or more with it.
    true
        (N,) how many true objects are counted with it.
    missed
        Ids of the true objects that are counted with none, (M,).
    """

    labels: NDArray[np.int64]
    hits: NDArray[np.int64]
    true: NDArray[np.int64]
    missed: NDArray[np.int64]

    @classmethod
    def from_labels(cls, before: np.ndarray, after: np.ndarray) -> Outcomes:
        """Compare labels with the right ones, arrays of the same shape.

        In a window of a frame, what its border cuts is judged by what is inside.
        """
        overlap = Overlap.from_labels(before, after)
        pairs = match(overlap)
        hits = np.zeros(overlap.predicted_ids.size, np.int64)
        hits[pairs.predicted] = 1
        owner = np.full(overlap.true_ids.size, -1, np.int64)
        # A hit counts its own true object, even where another one covers more of that.
        owner[pairs.true] = pairs.predicted
        order = np.argsort(overlap.shared, kind="stable")
        best = np.full(overlap.true_ids.size, -1, np.int64)
        share = overlap.shared / overlap.true_sizes[overlap.true]
        for place in order[share[order] >= COVERED]:
            best[overlap.true[place]] = overlap.predicted[place]
        owner = np.where(owner < 0, best, owner)
        true = np.bincount(owner[owner >= 0], minlength=hits.size)
        return cls(overlap.predicted_ids, hits, true, overlap.true_ids[owner < 0])

    def of(self, label: int) -> tuple[int, int]:
        """Return hits and true objects of one object; (0, 0) if it is not there."""
        (at,) = np.nonzero(self.labels == label)
        return (int(self.hits[at[0]]), int(self.true[at[0]])) if len(at) else (0, 0)
