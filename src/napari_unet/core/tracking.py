"""Tracking: objects are linked from frame to frame, so that they keep their numbers through time.

Each pair of objects that overlap or lie near each other has a cost, half by overlap and half by
distance; the pairs of minimum total cost are taken, one to one (`linear_sum_assignment`), and an
object may also end or begin. An object that began beside one that shrank is taken for the other
half of a division if both halves together look like the object before: its track ends, and both
halves are new tracks with it as their parent. Only two frames are held at a time.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.image.diameters import equivalent_diameters
from napari_unet.core.instances.matching import Overlap
from napari_unet.core.io.files import write_text
from napari_unet.core.settings.tasks import LINK_METHODS, LinkSettings
from napari_unet.core.volumes.volume_mode import PLANES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

AUTO, OVERLAP, TRACKASTRA = LINK_METHODS

REACH = 1.2
"""Between two frames an object moves by at most this many of its diameters."""

END_COST = 1.0
"""Cost of an object that ends; no pair costs more."""

DENSE = 1000
"""Groups of more objects are assigned as a sparse graph: the same answer in less memory."""

HALVES = (0.5, 1.4)
"""Bounds of the size of both halves of a division together, as shares of the object before."""

MAX_HALF_RATIO = 2.5
"""One half of a division is at most this many times as large as the other."""

MAX_HALF_SHARE = 0.85
"""A half of a division is at most this share of the object before."""

MAX_OFF_CENTRE = 0.6
"""The midpoint of the halves is at most this many diameters from the centre of the whole."""


@dataclass(frozen=True, eq=False)
class FrameObjects:
    """The objects of a frame.

    Attributes
    ----------
    labels
        Whole numbers ([Z,] Y, X).
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
    def from_labels(cls, labels: np.ndarray) -> FrameObjects:
        """Measure the objects of a frame; what lies below 0 is background, too."""
        where = np.nonzero(labels > 0)
        ids, owner, sizes = np.unique(labels[where], return_inverse=True, return_counts=True)
        sums = [np.bincount(owner, axis, len(ids)) for axis in where]
        centres = np.stack(sums, 1) / np.maximum(sizes, 1)[:, None]
        return cls(labels, ids.astype(np.int64), sizes.astype(np.int64), centres)

    def diameters(self, ratio: float) -> NDArray[np.float64]:
        """Return the diameter of each object as a disc or ball, in pixels of y and x."""
        return equivalent_diameters(self.sizes, self.labels.ndim, ratio)

    def scaled_centres(self, ratio: float) -> NDArray[np.float64]:
        """Return the centres, with z in pixels of y and x as well."""
        return self.centres * ([ratio, 1, 1] if self.labels.ndim == 3 else 1)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of objects that may be linked: positions in both frames, and costs."""

    before: NDArray[np.int64]
    now: NDArray[np.int64]
    costs: NDArray[np.float64]

    @classmethod
    def from_frames(
        cls, before: FrameObjects, now: FrameObjects, reach: float | None, ratio: float
    ) -> _Pairs:
        there, here = before.scaled_centres(ratio), now.scaled_centres(ratio)
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
    before: FrameObjects, now: FrameObjects, settings: LinkSettings, ratio: float = 1.0
) -> NDArray[np.int64]:
    """Return which object of the frame before each object comes from, -1 for none.

    Parameters
    ----------
    before, now
        Two consecutive frames of the same shape.
    settings
        How objects are linked.
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
    pairs = _Pairs.from_frames(before, now, settings.reach, ratio)
    for group in _groups(pairs, len(before.ids), len(now.ids)):
        row, column = assign(pairs.before[group], pairs.now[group], pairs.costs[group])
        origin[column] = row
    if settings.divisions:
        for parent, half in _divisions(pairs, origin, before, now, ratio):
            origin[half] = parent
    return origin


def _groups(pairs: _Pairs, rows: int, columns: int) -> Iterator[NDArray[np.int64]]:
    """Yield groups of pairs that compete with each other, which are assigned one by one."""
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
    """Choose pairs one to one, with minimum cost of them and of the objects that end."""
    from scipy.optimize import linear_sum_assignment  # its import takes a tenth of a second

    rows, row = np.unique(before, return_inverse=True)
    columns, column = np.unique(now, return_inverse=True)
    count, width = len(rows), len(columns)
    # After the columns of this frame each object of the frame before has one of its own, to end.
    if count <= dense:
        matrix = np.full((count, width + count), np.inf)
        matrix[row, column] = costs
        matrix[np.arange(count), width + np.arange(count)] = END_COST
        first, second = linear_sum_assignment(matrix)
    else:
        own = np.arange(count)
        # 1 is added to all costs, since a sparse graph takes 0 for no edge.
        values = np.concatenate([costs, np.full(count, END_COST)]) + 1
        places = np.concatenate([row, own]), np.concatenate([column, width + own])
        graph = csr_array((values, places), shape=(count, width + count))
        first, second = min_weight_full_bipartite_matching(graph)
    goes_on = second < width
    return rows[first[goes_on]], columns[second[goes_on]]


def _divisions(
    pairs: _Pairs, origin: NDArray[np.int64], before: FrameObjects, now: FrameObjects, ratio: float
) -> Iterator[tuple[int, int]]:
    """Yield objects that divided, each with the half that is not linked to it yet."""
    child = np.full(len(before.ids), -1, np.int64)
    child[origin[origin >= 0]] = np.flatnonzero(origin >= 0)
    open_ = np.flatnonzero((origin[pairs.now] < 0) & (child[pairs.before] >= 0))
    parent, half = pairs.before[open_], pairs.now[open_]
    other = child[parent]
    whole, one, two = before.sizes[parent], now.sizes[half], now.sizes[other]
    here = now.scaled_centres(ratio)
    middle = (here[half] + here[other]) / 2
    off = np.linalg.norm(middle - before.scaled_centres(ratio)[parent], axis=1)
    off = off / before.diameters(ratio)[parent]
    fits = (one + two >= HALVES[0] * whole) & (one + two <= HALVES[1] * whole)
    fits &= np.maximum(one, two) <= np.minimum(
        MAX_HALF_RATIO * np.minimum(one, two), MAX_HALF_SHARE * whole
    )
    fits &= off <= MAX_OFF_CENTRE
    taken: set[tuple[str, int]] = set()
    for at in np.flatnonzero(fits)[np.argsort(off[fits], kind="stable")].tolist():
        both = {("parent", int(parent[at])), ("half", int(half[at]))}
        if not both & taken:
            taken |= both
            yield int(parent[at]), int(half[at])


def check_linkable(labels_axes: str, head: str, mode: str) -> None:
    """Raise an error if the objects of a segmentation cannot be linked, before it is run.

    Parameters
    ----------
    labels_axes
        Axes of the labels, in the order "TZYX".
    head
        The network's: classes have no objects.
    mode
        The volume mode in which the stack is segmented, see `core.volumes.volume_mode`.

    Raises
    ------
    InputError
        The image has no time axis, or the model finds classes.
    SettingsError
        The objects end with their plane.
    """
    if "T" not in labels_axes:
        raise InputError(
            f"There is nothing to link through time in an image with the axes {labels_axes}; give "
            "axes with a T, such as TYX."
        )
    if head != "instance":
        raise InputError("Classes are not linked through time; choose a model for objects.")
    if "Z" in labels_axes and mode == PLANES:
        raise SettingsError(
            "Objects that end with their plane are not linked through time; choose volumes: "
            "joined or orthogonal."
        )


@dataclass
class Linker:
    """Numbers the objects of a time-lapse by track, frame by frame.

    Attributes
    ----------
    settings
        How objects are linked.
    ratio
        How much longer a voxel is in z than in the plane.
    """

    settings: LinkSettings = field(default_factory=LinkSettings)
    ratio: float = 1.0
    _before: FrameObjects | None = None
    _tracks: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _count: int = 0
    _time: int = 0
    _rows: list[NDArray[np.float64]] = field(default_factory=list)
    _graph: dict[int, list[int]] = field(default_factory=dict)

    def add(self, labels: np.ndarray, origin: NDArray[np.int64] | None = None) -> np.ndarray:
        """Add the next frame; return its labels by track, uint32.

        Parameters
        ----------
        labels
            Whole numbers ([Z,] Y, X), however large; 0 and below is background.
        origin
            Which object of the frame before each object comes from, as `match_frames` gives it;
            None: they are matched here.
        """
        now = FrameObjects.from_labels(labels)
        if origin is None and self._before is not None:
            origin = match_frames(self._before, now, self.settings, self.ratio)
        tracks = self._numbers(now, origin)
        rows = np.zeros((len(now.ids), 5))
        rows[:, 0], rows[:, 1] = tracks, self._time
        rows[:, 5 - labels.ndim :] = now.centres
        self._rows.append(rows)
        self._before, self._tracks, self._time = now, tracks, self._time + 1
        # By place and not by value: a table for the labels of other programs may fill the memory.
        found, inside = np.zeros(labels.shape, np.uint32), labels > 0
        found[inside] = tracks[np.searchsorted(now.ids, labels[inside])]
        return found

    def finish(self) -> Tracks:
        """Return the tracks of the frames that were added."""
        rows = np.concatenate([np.zeros((0, 5)), *self._rows])
        return Tracks(rows[np.lexsort((rows[:, 1], rows[:, 0]))], dict(self._graph))

    def _numbers(self, now: FrameObjects, origin: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Return the track of each object: that of its origin, or a new one."""
        if origin is None:
            origin = np.full(len(now.ids), -1, np.int64)
        children = np.bincount(origin[origin >= 0], minlength=len(self._tracks))
        alone = (origin >= 0) & (children[origin] == 1) if len(children) else origin >= 0
        tracks = np.zeros(len(origin), np.int64)
        tracks[alone] = self._tracks[origin[alone]]
        new = np.flatnonzero(~alone)
        tracks[new] = self._count + 1 + np.arange(len(new))
        self._count += len(new)
        for at in new[origin[new] >= 0].tolist():
            self._graph[int(tracks[at])] = [int(self._tracks[origin[at]])]
        return tracks


COLUMNS = ("id", "t", "z", "y", "x")


@dataclass(frozen=True, eq=False)
class Tracks:
    """The objects of a time-lapse, in the form of napari's Tracks layer.

    Attributes
    ----------
    table
        float64 (N, 5), one row for each object and time, by track and time: id, t, z, y, x, in
        pixels; z is 0 in planes.
    graph
        For each track that came out of a division its parents: {child: [parent]}.
    """

    table: NDArray[np.float64]
    graph: dict[int, list[int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of tracks."""
        return len(np.unique(self.table[:, 0]))

    def layer_table(self, axes: str) -> NDArray[np.float64]:
        """Return the table with a column for the id and each of `axes`, such as "TYX"."""
        return self.table[:, [0, *(1 + "TZYX".index(letter) for letter in axes)]]

    def to_csv(self) -> str:
        """Return the table as text, with the parent of each track (0: none) as a last column."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((*COLUMNS, "parent"))
        for number, t, *place in self.table.tolist():
            parent = self.graph.get(int(number), [0])[0]
            writer.writerow((int(number), int(t), *(f"{p:.3f}" for p in place), parent))
        return text.getvalue()

    def write_csv(self, path: Path) -> None:
        """Write `to_csv` into a file, whole or not at all; an existing file is replaced.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        write_text(path, self.to_csv())
