"""Which object of one labelling is which object of another.

Objects are matched one to one by intersection over union (IoU), so as to match as many as possible
and, among those choices, the best overlapping ones (as StarDist's `matching`, Schmidt et al. 2018).
Everything is computed from the voxels that pairs of objects share; few pairs share any, so tens of
thousands of objects are no burden. The scores made of it (AP, F1, PQ) are in
`core.evaluation.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

_CHUNK = 1 << 22
"""Voxels that are counted at once, so that little memory is needed beside the labels."""


@dataclass(frozen=True)
class Overlap:
    """The voxels of the objects of two labellings, and those that they share.

    Attributes
    ----------
    predicted_ids, true_ids
        Label of each object, ascending.
    predicted_sizes, true_sizes
        Voxels of each object.
    predicted, true, shared
        For each pair of objects that shares voxels: their positions in the lists above, and how
        many voxels they share.
    """

    predicted_ids: NDArray[np.int64]
    true_ids: NDArray[np.int64]
    predicted_sizes: NDArray[np.int64]
    true_sizes: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    shared: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair."""
        union = self.predicted_sizes[self.predicted] + self.true_sizes[self.true] - self.shared
        return np.asarray(self.shared / union, np.float64)

    @classmethod
    def from_labels(cls, labels: ArrayLike, truth: ArrayLike) -> Overlap:
        """Count the voxels that two labellings of the same image share.

        Parameters
        ----------
        labels, truth
            Whole numbers, arrays of the same shape; 0 and below is background.

        Raises
        ------
        InputError
            The shapes differ, or the values are no whole numbers.
        """
        found, wanted = _whole_numbers(labels, "labels"), _whole_numbers(truth, "truth")
        if found.shape != wanted.shape:
            raise InputError(
                f"The labels have shape {found.shape}, the truth {wanted.shape}; "
                "give two labellings of the same image."
            )
        predicted, true = _Objects.from_labels(found), _Objects.from_labels(wanted)
        pairs, shared = _count_pairs(predicted, true)
        rows, columns = np.divmod(pairs, max(true.ids.size, 1))
        return cls(predicted.ids, true.ids, predicted.sizes, true.sizes, rows, columns, shared)


@dataclass(frozen=True)
class Match:
    """Pairs of predicted and true objects, one to one.

    Attributes
    ----------
    predicted, true
        Positions in `Overlap.predicted_ids` and `Overlap.true_ids`.
    iou
        Each pair's intersection over union.
    """

    predicted: NDArray[np.int64]
    true: NDArray[np.int64]
    iou: NDArray[np.float64]


def match(overlap: Overlap, threshold: float = 0.5) -> Match:
    """Match predicted with true objects whose IoU is at least `threshold`, one to one.

    As many pairs as possible are matched, and of such matchings the one whose IoUs have the
    largest sum is taken.
    """
    iou = overlap.iou
    chosen = np.flatnonzero(iou >= threshold)
    if threshold <= 0.5:  # above it no object has two partners
        chosen = chosen[_assign(overlap.predicted[chosen], overlap.true[chosen], iou[chosen])]
    return Match(overlap.predicted[chosen], overlap.true[chosen], iou[chosen])


def _assign(
    rows: NDArray[np.int64], columns: NDArray[np.int64], iou: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the positions of the pairs to take, each row and column at most once."""
    row_ids, row = np.unique(rows, return_inverse=True)
    column_ids, column = np.unique(columns, return_inverse=True)
    count = row_ids.size
    alone = np.arange(count)
    # Each row may stay alone, at a cost that no gain in overlap of the others can outweigh.
    costs = np.concatenate([1 - iou / (2 * max(count, 1)), np.full(count, 2.0)])
    places = np.concatenate([row, alone]), np.concatenate([column, column_ids.size + alone])
    graph = csr_array((costs, places), shape=(count, column_ids.size + count))
    partner = min_weight_full_bipartite_matching(graph)[1]
    return np.flatnonzero(partner[row] == column)


def count_objects(labels: ArrayLike) -> int:
    """Return the number of objects of a labelling, without sorting its voxels.

    Raises
    ------
    InputError
        The values are no whole numbers.
    """
    return _Objects.from_labels(_whole_numbers(labels, "labels")).ids.size


@dataclass(frozen=True)
class _Objects:
    """Flat labels, their ids and sizes, and a table that turns small ids into positions."""

    flat: NDArray[np.integer]
    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    table: NDArray[np.int64] | None

    @classmethod
    def from_labels(cls, labels: NDArray[np.integer]) -> _Objects:
        flat = labels.ravel()
        top = int(flat.max(initial=0))
        if top > max(flat.size, _CHUNK):  # ids too large for a table
            ids, sizes = np.unique(flat, return_counts=True)
            return cls(flat, ids[ids > 0].astype(np.int64), sizes[ids > 0], None)
        counts = np.zeros(top + 1, np.int64)
        for chunk in _chunks(flat):
            counts += np.bincount(np.maximum(chunk, 0).astype(np.int64), minlength=top + 1)
        ids = np.flatnonzero(counts[1:]) + 1
        table = np.zeros(top + 1, np.int64)
        table[ids] = np.arange(ids.size)
        return cls(flat, ids, counts[ids], table)

    def positions(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the positions in `ids` of labels that are all above 0."""
        return np.searchsorted(self.ids, labels) if self.table is None else self.table[labels]


def _count_pairs(
    predicted: _Objects, true: _Objects
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each overlapping pair of objects, as one number, and the voxels that it shares."""
    keys, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for found, wanted in zip(_chunks(predicted.flat), _chunks(true.flat), strict=True):
        both = (found > 0) & (wanted > 0)
        rows, columns = predicted.positions(found[both]), true.positions(wanted[both])
        key, count = np.unique(rows * true.ids.size + columns, return_counts=True)
        keys.append(key)
        counts.append(count)
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    shared = np.zeros(pairs.size, np.int64)
    np.add.at(shared, place, np.concatenate(counts))
    return pairs, shared


def _chunks(flat: NDArray[np.integer]) -> Iterator[NDArray[np.integer]]:
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]


def are_whole(values: NDArray[Any]) -> bool:
    """Tell whether numbers are whole, whatever their type."""
    whole = values.dtype.kind != "f" or (np.isfinite(values).all() and not np.mod(values, 1).any())
    return bool(whole)


def _whole_numbers(values: ArrayLike, what: str) -> NDArray[np.integer]:
    labels = np.asarray(values)
    if labels.dtype.kind == "b":
        return labels.view(np.uint8)
    if labels.dtype.kind == "f" and are_whole(labels):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu" or int(labels.max(initial=0)) > np.iinfo(np.int64).max:
        raise InputError(
            f"The {what} are no whole numbers (type {labels.dtype}); give the objects' numbers, "
            "0 for background."
        )
    return labels
