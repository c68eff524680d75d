"""Objects of one frame found again in the next, so that their numbers stay the same through time.

Each pair of objects that overlap or lie near each other has a cost, half by overlap and half by
distance; the pairs with the least total cost are taken, one to one (`linear_sum_assignment`), and
an object may also end or begin. What began beside an object that went on, smaller than before, is
taken for the other half of a division when both halves together look like the object: its track
ends, and both halves are new tracks with it as their parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from napari_unet.core.instances.matching import Overlap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_unet.core.tracking.linking import LinkSettings

REACH = 1.2
"""Between two frames an object moves by this many of its diameters at most."""
ALONE = 1.0
"""Cost of an object that ends; no pair costs more."""
DENSE = 1000
"""Groups of more objects are assigned as a sparse graph, with the same answer."""
HALVES = (0.5, 1.4)
"""Size of both halves of a division together, as shares of the whole."""
UNLIKE = 2.5
"""A half of a division is at most this much larger than the other."""
SMALLER = 0.85
"""A half of a division is at most this share of the whole."""
OFF_CENTRE = 0.6
"""The middle between the halves lies this many diameters from the whole's centre at most."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One frame's objects.

    Attributes
    ----------
    labels
        Unsigned ([Z,] Y, X).
    ids, sizes
        Label and pixels of each object, labels ascending.
    centres
        float64 (N, 2 or 3), in pixels.
    """

    labels: np.ndarray
    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    centres: NDArray[np.float64]

    @classmethod
    def of(cls, labels: np.ndarray) -> Seen:
        """Measure the objects of a frame."""
        where = np.nonzero(labels)
        ids, owner, sizes = np.unique(labels[where], return_inverse=True, return_counts=True)
        sums = [np.bincount(owner, axis, len(ids)) for axis in where]
        centres = np.stack(sums, 1) / np.maximum(sizes, 1)[:, None]
        return cls(labels, ids.astype(np.int64), sizes.astype(np.int64), centres)

    def diameters(self, ratio: float) -> NDArray[np.float64]:
        """Return the diameter of the disc or ball as large as each object, in pixels of y and x."""
        if self.labels.ndim == 2:
            return np.asarray(2 * np.sqrt(self.sizes / np.pi))
        return np.asarray(np.cbrt(6 / np.pi * self.sizes * ratio))

    def places(self, ratio: float) -> NDArray[np.float64]:
        """Return the centres with z in pixels of y and x, too."""
        return self.centres * ([ratio, 1, 1] if self.labels.ndim == 3 else 1)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Objects that may be one: positions in the frame before and in this one, and what it costs."""

    before: NDArray[np.int64]
    now: NDArray[np.int64]
    costs: NDArray[np.float64]

    @classmethod
    def of(cls, before: Seen, now: Seen, reach: float | None, ratio: float) -> _Pairs:
        there, here = before.places(ratio), now.places(ratio)
        far = REACH * before.diameters(ratio) if reach is None else np.full(len(there), reach)
        near = cKDTree(there).sparse_distance_matrix(
            cKDTree(here), float(far.max()), output_type="coo_matrix"
        )
        overlap = Overlap.from_labels(before.labels, now.labels)
        keys = np.union1d(
            near.row.astype(np.int64) * len(here) + near.col,
            overlap.predicted * len(here) + overlap.true,
        )
        row, column = np.divmod(keys, len(here))
        iou = np.zeros(len(keys))
        iou[np.searchsorted(keys, overlap.predicted * len(here) + overlap.true)] = overlap.iou
        distance = np.linalg.norm(there[row] - here[column], axis=1) / far[row]
        kept = distance <= 1
        costs = (1 - iou + np.minimum(distance, 1)) / 2
        return cls(row[kept], column[kept], costs[kept])


def match_frames(
    before: Seen, now: Seen, settings: LinkSettings, ratio: float = 1.0
) -> NDArray[np.int64]:
    """Return which object of the frame before each object comes from, -1 for none.

    Parameters
    ----------
    before, now
        Two consecutive frames of the same shape.
    settings
        How objects are followed.
    ratio
        How much longer a voxel is in z than in the plane.

    Returns
    -------
    np.ndarray
        Positions in ``before.ids``; a position that appears twice has divided.
    """
    origin = np.full(len(now.ids), -1, np.int64)
    if not len(before.ids) or not len(now.ids):
        return origin
    pairs = _Pairs.of(before, now, settings.reach, ratio)
    for group in _groups(pairs, len(before.ids), len(now.ids)):
        row, column = assign(pairs.before[group], pairs.now[group], pairs.costs[group])
        origin[column] = row
    if settings.divisions:
        for parent, half in _divisions(pairs, origin, before, now, ratio):
            origin[half] = parent
    return origin


def _groups(pairs: _Pairs, rows: int, columns: int) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs of objects that compete with each other."""
    if not len(pairs.before):
        return
    size = rows + columns
    ends = pairs.before, rows + pairs.now
    graph = csr_array((np.ones(len(pairs.before)), ends), shape=(size, size))
    group = connected_components(graph, directed=False)[1][pairs.before]
    order = np.argsort(group, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def assign(
    before: NDArray[np.int64],
    now: NDArray[np.int64],
    costs: NDArray[np.float64],
    dense: int = DENSE,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose pairs one to one, so that their costs and those of objects that end are least."""
    rows, row = np.unique(before, return_inverse=True)
    columns, column = np.unique(now, return_inverse=True)
    count, width = len(rows), len(columns)
    # Behind the objects of this frame each one of the frame before has a place of its own to end.
    if count <= dense:
        matrix = np.full((count, width + count), np.inf)
        matrix[row, column] = costs
        matrix[np.arange(count), width + np.arange(count)] = ALONE
        first, second = linear_sum_assignment(matrix)
    else:
        own = np.arange(count)
        values = np.concatenate([costs, np.full(count, ALONE)]) + 1  # a graph has no edges of 0
        places = np.concatenate([row, own]), np.concatenate([column, width + own])
        graph = csr_array((values, places), shape=(count, width + count))
        first, second = min_weight_full_bipartite_matching(graph)
    goes_on = second < width
    return rows[first[goes_on]], columns[second[goes_on]]


def _divisions(
    pairs: _Pairs, origin: NDArray[np.int64], before: Seen, now: Seen, ratio: float
) -> Iterator[tuple[int, int]]:
    """Yield objects that divided, and the half that is not yet known to be of them."""
    child = np.full(len(before.ids), -1, np.int64)
    child[origin[origin >= 0]] = np.flatnonzero(origin >= 0)
    open_ = np.flatnonzero((origin[pairs.now] < 0) & (child[pairs.before] >= 0))
    parent, half = pairs.before[open_], pairs.now[open_]
    other = child[parent]
    whole, one, two = before.sizes[parent], now.sizes[half], now.sizes[other]
    here = now.places(ratio)
    middle = (here[half] + here[other]) / 2
    off = np.linalg.norm(middle - before.places(ratio)[parent], axis=1)
    off = off / before.diameters(ratio)[parent]
    fits = (one + two >= HALVES[0] * whole) & (one + two <= HALVES[1] * whole)
    fits &= np.maximum(one, two) <= np.minimum(UNLIKE * np.minimum(one, two), SMALLER * whole)
    fits &= off <= OFF_CENTRE
    taken: set[tuple[str, int]] = set()
    for at in np.flatnonzero(fits)[np.argsort(off[fits], kind="stable")].tolist():
        both = {("parent", int(parent[at])), ("half", int(half[at]))}
        if not both & taken:
            taken |= both
            yield int(parent[at]), int(half[at])
