"""Objects of planes joined through z: which object of one plane goes on in the next.

Objects of two consecutive planes are one where each is the other's best partner, by intersection
over union, and they overlap enough, or one lies nearly whole in the other. Where an object ends
that way and another begins two planes on, in the same place, the plane between is taken for a gap
and bridged. So every object has at most one neighbour above and one below, and two objects of one
plane never become one.

Two bodies that lie one upon the other are matched, too: a chain is divided where its area falls to
a waist and rises again, by the persistence with which `objects` divides basins.

What is compared are two or three planes, whatever the depth; the rest is a table of objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.instances.matching import Overlap
from napari_unet.core.instances.persistence import merge_basins
from napari_unet.core.progress import FrameDone, Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from napari_unet.core.tiles import Index, Window

LEAST_IOU = 0.25
"""Objects of consecutive planes that overlap less are not one ..."""
INSIDE = 0.75
"""... unless so much of the smaller lies in the other: a round object ends in a small cap."""
WAIST = 0.5
"""A chain is divided where its area falls below this share of the smaller of the areas around."""


@dataclass
class _Plane:
    """One plane's objects: labels, sizes, the first one's number among all, and their fate.

    They are counted from 1 in the order of their first pixels, so that it does not matter how they
    were numbered; `names` are the labels that they came with.
    """

    labels: np.ndarray
    names: NDArray[np.int64]
    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    first: int
    goes_on: NDArray[np.bool_]
    begins: NDArray[np.bool_]


@dataclass
class Joined:
    """What the planes of a volume become.

    Attributes
    ----------
    tables
        For each plane, in order, the object of each label: uint32 (largest label + 1,), 0 for what
        is dropped.
    bridged
        For each plane the objects that have a gap there.
    objects
        How many objects there are.
    """

    tables: list[np.ndarray]
    bridged: list[np.ndarray]
    objects: int


@dataclass
class ZStitcher:
    """Takes the planes of a volume in, in order, and says which of their objects are one.

    Attributes
    ----------
    least_iou, waist
        See `LEAST_IOU` and `WAIST`; a waist of 0 divides nothing.
    """

    least_iou: float = LEAST_IOU
    waist: float = WAIST
    _planes: list[_Plane] = field(default_factory=list)
    _pairs: list[NDArray[np.int64]] = field(default_factory=list)
    _gaps: list[tuple[int, NDArray[np.int64]]] = field(default_factory=list)

    def add(self, labels: np.ndarray) -> None:
        """Take the next plane in, unsigned integers (Y, X); it is held until two more have come."""
        labels, names = _counted_in_order(labels)
        before = self._planes[-1] if self._planes else None
        first = before.first + len(before.ids) if before else 0
        overlap = Overlap.of(before.labels if before else np.zeros_like(labels), labels)
        count = len(overlap.true_ids)
        ends, starts = np.zeros(count, bool), np.ones(count, bool)
        here = _Plane(labels, names, overlap.true_ids, overlap.true_sizes, first, ends, starts)
        if before:
            self._link(before, here, overlap)
        if len(self._planes) > 1:
            self._bridge(self._planes[-2], here)
            self._planes[-2].labels = labels[:0]
        self._planes.append(here)

    def finish(self, least_voxels: int = 0) -> Joined:
        """Return the objects; those of fewer voxels are dropped, the others counted from 1."""
        if not self._planes:
            return Joined([], [], 0)
        sizes = np.concatenate([plane.sizes for plane in self._planes])
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *self._pairs])
        heights = np.log(np.maximum(sizes, 1))
        depth = -np.log(self.waist) if self.waist > 0 else np.inf
        root = merge_basins(heights, pairs, heights[pairs].min(1), depth)
        # An object is named by its first part, so that the numbers rise with z.
        _, first, owner = np.unique(root, return_index=True, return_inverse=True)
        voxels = np.bincount(owner, sizes, len(first))
        order = np.argsort(first)
        kept = voxels[order] >= max(1, least_voxels)
        number = np.zeros(len(first), np.uint32)
        number[order] = np.where(kept, np.cumsum(kept), 0)
        label = number[owner]
        tables, bridged = [], [np.zeros(0, np.uint32) for _ in self._planes]
        for plane in self._planes:
            table = np.zeros(int(plane.names.max(initial=0)) + 1, np.uint32)
            table[plane.names] = label[plane.first : plane.first + len(plane.ids)]
            tables.append(table)
        for z, gap in self._gaps:
            same = label[gap[:, 0]] == label[gap[:, 1]]
            bridged[z] = np.unique(label[gap[same, 0]])
        return Joined(tables, bridged, int(kept.sum()))

    def _link(self, below: _Plane, above: _Plane, overlap: Overlap) -> None:
        one, other = best_partners(overlap, self.least_iou)
        below.goes_on[one] = True
        above.begins[other] = False
        self._pairs.append(np.stack([one + below.first, other + above.first], 1))

    def _bridge(self, below: _Plane, above: _Plane) -> None:
        """Join what ends in one plane with what begins two planes on."""
        ending = np.where(below.goes_on, 0, below.ids)
        beginning = np.where(above.begins, above.ids, 0)
        if not ending.any() or not beginning.any():
            return
        overlap = Overlap.of(
            _chosen(below.labels, below.ids, ending), _chosen(above.labels, above.ids, beginning)
        )
        one, other = best_partners(overlap, self.least_iou)
        if not len(one):
            return
        one = np.searchsorted(below.ids, overlap.predicted_ids[one])
        other = np.searchsorted(above.ids, overlap.true_ids[other])
        below.goes_on[one] = True
        above.begins[other] = False
        pairs = np.stack([one + below.first, other + above.first], 1)
        self._pairs.append(pairs)
        self._gaps.append((len(self._planes) - 1, pairs))


def best_partners(
    overlap: Overlap, least_iou: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of objects of which each is the other's best by IoU, as positions.

    Of equals the first counts, so that each object is in one pair at most.
    """
    iou = overlap.iou
    sizes = overlap.predicted_sizes[overlap.predicted], overlap.true_sizes[overlap.true]
    inside = overlap.shared / np.minimum(*sizes)
    enough = np.flatnonzero((iou >= least_iou) | (inside >= INSIDE))
    order = enough[np.lexsort((overlap.true[enough], overlap.predicted[enough], -iou[enough]))]
    best: list[NDArray[np.int64]] = []
    for side in (overlap.predicted, overlap.true):
        _, first = np.unique(side[order], return_index=True)
        best.append(order[first])
    both = np.intersect1d(best[0], best[1])
    return overlap.predicted[both], overlap.true[both]


def _counted_in_order(labels: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count objects from 1 in the order of their first pixels; return labels and former names."""
    names, first, place = np.unique(labels, return_index=True, return_inverse=True)
    first[names == 0] = -1
    order = np.argsort(first)
    number = np.empty(len(names), np.int64)
    number[order] = np.arange(len(names)) + int(0 not in names)
    return number[place].reshape(labels.shape), names[order][names[order] > 0].astype(np.int64)


def _chosen(
    labels: np.ndarray, ids: NDArray[np.int64], kept: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return labels with only those of `ids` that are not 0 in `kept`."""
    table = np.zeros(int(ids.max(initial=0)) + 1, np.int64)
    table[ids] = kept
    return np.asarray(table[labels])


def stitch_steps(
    out: Any,
    planes: Sequence[Index],
    window: Window | None = None,
    least_voxels: int = 0,
    progress: tuple[int, int] = (0, 0),
) -> Generator[Progress, None, int]:
    """Join the objects of a volume's planes where they lie, yielding after every plane.

    Planes that were not segmented divide the volume. Memory: three planes.

    Parameters
    ----------
    out
        The labels, indexed by a plane's position and slices in it; changed in place.
    planes
        Positions of the volume's planes, z last.
    window
        Part of each plane that is to be looked at; all of it if not given.
    least_voxels
        Smaller objects are dropped.
    progress
        What `done` and `total` of the records are.

    Returns
    -------
    int
        How many objects there are.
    """
    place = window or (slice(None), slice(None))
    runs, count = _runs(sorted(planes)), 0
    for run in runs:
        chains = ZStitcher()
        for index in run:
            chains.add(np.asarray(out[(*index, *place)]))
            yield Progress(*progress, "planes joined")
        joined = chains.finish(least_voxels)
        below = after = None
        for z, index in enumerate(run):
            here = np.asarray(out[(*index, *place)]) if after is None else after
            after = np.asarray(out[(*run[z + 1], *place)]) if z + 1 < len(run) else None
            labels = _counted_on(joined.tables[z][here], count)
            if below is not None and after is not None and len(joined.bridged[z]):
                above = _counted_on(joined.tables[z + 1][after], count)
                bridged = joined.bridged[z] + np.uint32(count)
                gap = (labels == 0) & (below == above) & np.isin(below, bridged)
                labels[gap] = below[gap]
            out[(*index, *place)] = below = labels
            yield FrameDone(*progress, "frames", index, count + joined.objects)
        count += joined.objects
    return count


def _counted_on(labels: np.ndarray, count: int) -> np.ndarray:
    return np.where(labels > 0, labels + np.uint32(count), np.uint32(0))


def _runs(planes: list[Index]) -> list[list[Index]]:
    """Divide planes where one is missing."""
    runs: list[list[Index]] = []
    for index in planes:
        follows = runs and runs[-1][-1] == (*index[:-1], index[-1] - 1)
        if follows:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs
