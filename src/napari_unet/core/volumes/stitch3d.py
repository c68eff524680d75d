"""Objects of planes joined through z: which object of one plane continues in the next.

Objects of two consecutive planes are one where each is the other's best partner by intersection
over union, and they overlap enough, or one lies nearly whole in the other. Where one object ends
and another begins two planes on, in the same place, the plane between counts as a gap and is
bridged. So every object has at most one neighbour above and one below, and two objects of one plane
never become one.

Two bodies that lie one upon the other are matched, too: a chain is divided where its area falls to
a neck and rises again, by the persistence with which basins are divided.

Two or three planes are compared at a time, whatever the depth; the rest is a table of objects.
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

MIN_IOU = 0.25
"""Objects of consecutive planes that overlap less are not one ..."""
MIN_CONTAINED = 0.75
"""... unless so much of the smaller lies in the other: a round object ends in a small cap."""
NECK_AREA = 0.5
"""A chain is divided where its area falls below this share of the smaller of the areas around."""


@dataclass
class _Plane:
    """The objects of one plane: their sizes, and which of them continue or begin here.

    They are counted from 1 in the order of their first pixels, so that it does not matter how they
    were numbered; `names` are the labels that they came with. `first` is the number of the first
    one among the objects of all planes.
    """

    labels: np.ndarray
    names: NDArray[np.int64]
    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    first: int
    continues: NDArray[np.bool_]
    begins: NDArray[np.bool_]


@dataclass
class StitchResult:
    """How the objects of a volume's planes are joined.

    Attributes
    ----------
    tables
        For each plane, in order, the object of each label: uint32 (largest label + 1,), 0 for
        objects that are dropped.
    bridged
        For each plane the objects that have a gap there.
    objects
        Number of objects.
    """

    tables: list[np.ndarray]
    bridged: list[np.ndarray]
    objects: int


@dataclass
class ZStitcher:
    """Takes the planes of a volume, in order, and tells which of their objects are one.

    Attributes
    ----------
    min_iou, neck_area
        See `MIN_IOU` and `NECK_AREA`; a neck area of 0 divides nothing.
    """

    min_iou: float = MIN_IOU
    neck_area: float = NECK_AREA
    _planes: list[_Plane] = field(default_factory=list)
    _pairs: list[NDArray[np.int64]] = field(default_factory=list)
    _gaps: list[tuple[int, NDArray[np.int64]]] = field(default_factory=list)

    def add(self, labels: np.ndarray) -> None:
        """Add the next plane, unsigned integers (Y, X); it is held until two more are added."""
        labels, names = _renumber(labels)
        before = self._planes[-1] if self._planes else None
        first = before.first + len(before.ids) if before else 0
        overlap = Overlap.from_labels(before.labels if before else np.zeros_like(labels), labels)
        count = len(overlap.true_ids)
        ends, starts = np.zeros(count, bool), np.ones(count, bool)
        here = _Plane(labels, names, overlap.true_ids, overlap.true_sizes, first, ends, starts)
        if before:
            self._link(before, here, overlap)
        if len(self._planes) > 1:
            self._bridge(self._planes[-2], here)
            self._planes[-2].labels = labels[:0]  # no longer needed: frees the plane
        self._planes.append(here)

    def finish(self, min_voxels: int = 0) -> StitchResult:
        """Return the objects; those of fewer voxels are dropped, the others counted from 1."""
        if not self._planes:
            return StitchResult([], [], 0)
        sizes = np.concatenate([plane.sizes for plane in self._planes])
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *self._pairs])
        heights = np.log(np.maximum(sizes, 1))
        depth = -np.log(self.neck_area) if self.neck_area > 0 else np.inf
        root = merge_basins(heights, pairs, heights[pairs].min(1), depth)
        # An object is named by its first part, so that the numbers rise with z.
        _, first, owner = np.unique(root, return_index=True, return_inverse=True)
        voxels = np.bincount(owner, sizes, len(first))
        order = np.argsort(first)
        kept = voxels[order] >= max(1, min_voxels)
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
        return StitchResult(tables, bridged, int(kept.sum()))

    def _link(self, below: _Plane, above: _Plane, overlap: Overlap) -> None:
        one, other = best_partners(overlap, self.min_iou)
        below.continues[one] = True
        above.begins[other] = False
        self._pairs.append(np.stack([one + below.first, other + above.first], 1))

    def _bridge(self, below: _Plane, above: _Plane) -> None:
        """Join what ends in one plane with what begins two planes on."""
        ending = np.where(below.continues, 0, below.ids)
        beginning = np.where(above.begins, above.ids, 0)
        if not ending.any() or not beginning.any():
            return
        overlap = Overlap.from_labels(
            _select(below.labels, below.ids, ending), _select(above.labels, above.ids, beginning)
        )
        one, other = best_partners(overlap, self.min_iou)
        if not len(one):
            return
        one = np.searchsorted(below.ids, overlap.predicted_ids[one])
        other = np.searchsorted(above.ids, overlap.true_ids[other])
        below.continues[one] = True
        above.begins[other] = False
        pairs = np.stack([one + below.first, other + above.first], 1)
        self._pairs.append(pairs)
        self._gaps.append((len(self._planes) - 1, pairs))


def best_partners(overlap: Overlap, min_iou: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of objects that are each other's best by IoU, as positions in `overlap`.

    Of equals the first counts, so that each object is in one pair at most.
    """
    iou = overlap.iou
    sizes = overlap.predicted_sizes[overlap.predicted], overlap.true_sizes[overlap.true]
    inside = overlap.shared / np.minimum(*sizes)
    enough = np.flatnonzero((iou >= min_iou) | (inside >= MIN_CONTAINED))
    order = enough[np.lexsort((overlap.true[enough], overlap.predicted[enough], -iou[enough]))]
    best: list[NDArray[np.int64]] = []
    for side in (overlap.predicted, overlap.true):
        _, first = np.unique(side[order], return_index=True)
        best.append(order[first])
    both = np.intersect1d(best[0], best[1])
    return overlap.predicted[both], overlap.true[both]


def _renumber(labels: np.ndarray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count objects from 1 in the order of their first pixels; return these labels, and the old."""
    names, first, place = np.unique(labels, return_index=True, return_inverse=True)
    first[names == 0] = -1
    order = np.argsort(first)
    number = np.empty(len(names), np.int64)
    number[order] = np.arange(len(names)) + int(0 not in names)
    return number[place].reshape(labels.shape), names[order][names[order] > 0].astype(np.int64)


def _select(
    labels: np.ndarray, ids: NDArray[np.int64], kept: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return labels with only those objects whose entry in `kept`, beside `ids`, is not 0."""
    table = np.zeros(int(ids.max(initial=0)) + 1, np.int64)
    table[ids] = kept
    return np.asarray(table[labels])


def stitch_steps(
    out: Any,
    planes: Sequence[Index],
    window: Window | None = None,
    min_voxels: int = 0,
    progress: tuple[int, int] = (0, 0),
) -> Generator[Progress, None, int]:
    """Join the objects of a volume's planes in place, yielding after every plane.

    Planes that were not segmented divide the volume. In memory are three planes.

    Parameters
    ----------
    out
        The labels, indexed by a plane's position and slices in it; changed in place.
    planes
        Positions of the volume's planes, z last.
    window
        Part of each plane to join; all of it if not given.
    min_voxels
        Smaller objects are dropped.
    progress
        `done` and `total` of the progress records.

    Returns
    -------
    int
        Number of objects.
    """
    place = window or (slice(None), slice(None))
    count = 0
    for run in _find_runs(sorted(planes)):
        stitcher = ZStitcher()
        for index in run:
            stitcher.add(np.asarray(out[(*index, *place)]))
            yield Progress(*progress, "planes joined")
        found = stitcher.finish(min_voxels)
        below = after = None
        for z, index in enumerate(run):
            here = np.asarray(out[(*index, *place)]) if after is None else after
            after = np.asarray(out[(*run[z + 1], *place)]) if z + 1 < len(run) else None
            labels = _add_offset(found.tables[z][here], count)
            if below is not None and after is not None and len(found.bridged[z]):
                above = _add_offset(found.tables[z + 1][after], count)
                labels = fill_gaps(labels, below, above, found.bridged[z] + np.uint32(count))
            out[(*index, *place)] = below = labels
            yield FrameDone(*progress, "frames", index, count + found.objects)
        count += found.objects
    return count


def fill_gaps(
    labels: np.ndarray, below: np.ndarray, above: np.ndarray, bridged: np.ndarray
) -> np.ndarray:
    """Return a plane's labels with the gaps of bridged objects filled where both neighbours agree.

    Parameters
    ----------
    labels, below, above
        Labels of the plane and of those on its sides, (Y, X).
    bridged
        The objects that have a gap in the plane.
    """
    gap = (labels == 0) & (below == above) & np.isin(below, bridged)
    return np.where(gap, below, labels)


def _add_offset(labels: np.ndarray, count: int) -> np.ndarray:
    return np.where(labels > 0, labels + np.uint32(count), np.uint32(0))


def _find_runs(planes: list[Index]) -> list[list[Index]]:
    """Divide planes where one is missing."""
    runs: list[list[Index]] = []
    for index in planes:
        follows = runs and runs[-1][-1] == (*index[:-1], index[-1] - 1)
        if follows:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs
