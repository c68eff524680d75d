"""Objects followed through time: their numbers stay the same, and their tracks are collected.

Which object of a frame is which of the next, `framematch` says. Two frames are held at a time.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.io.files import write_text
from napari_unet.core.settings import check_settings, setting
from napari_unet.core.tracking.assignment import FrameObjects, match_frames
from napari_unet.core.volumes.modes import PLANES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


METHODS = AUTO, OVERLAP, TRACKASTRA = ("auto", "overlap", "trackastra")


@dataclass(frozen=True)
class LinkSettings:
    """How objects are followed through time."""

    link_by: str = setting(
        AUTO,
        "what links objects through time: overlap and distance, or the package trackastra. auto: "
        "trackastra where it and its model are installed",
        choices=METHODS,
    )
    reach: float | None = setting(
        None,
        "how far an object moves between two frames. Empty: 1.2 of its diameters",
        unit="px",
        low=0.1,
    )
    divisions: bool = setting(True, "look for divisions")

    def __post_init__(self) -> None:
        check_settings(self)


def check_linkable(labels_axes: str, head: str, way: str) -> None:
    """Say beforehand that a segmentation has nothing to follow through time.

    Parameters
    ----------
    labels_axes
        Axes of the labels, in the order "TZYX".
    head
        The network's: classes have no objects.
    way
        How the stack is segmented, see `core.volumes.ways`.

    Raises
    ------
    InputError
        There is no time, or there are no objects.
    SettingsError
        Objects end with their plane.
    """
    if "T" not in labels_axes:
        raise InputError(
            f"There is nothing to link through time in an image with the axes {labels_axes}; give "
            "axes with a T, such as TYX."
        )
    if head != "instance":
        raise InputError("Classes are not linked through time; choose a model for objects.")
    if "Z" in labels_axes and way == PLANES:
        raise SettingsError(
            "Objects that end with their plane are not linked through time; choose volumes: "
            "joined or orthogonal."
        )


@dataclass
class Linker:
    """Takes the frames of a time-lapse in, in order, and numbers their objects by track.

    Attributes
    ----------
    settings
        How objects are followed.
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
        """Take the next frame in; return its labels by track, uint32.

        Parameters
        ----------
        labels
            Unsigned ([Z,] Y, X), 0 is background.
        origin
            Which object of the frame before each object comes from, as `match_frames` gives it;
            found out if not given.
        """
        now = FrameObjects.of(labels)
        if origin is None and self._before is not None:
            origin = match_frames(self._before, now, self.settings, self.ratio)
        tracks = self._numbers(now, origin)
        table = np.zeros(int(now.ids.max(initial=0)) + 1, np.uint32)
        table[now.ids] = tracks
        rows = np.zeros((len(now.ids), 5))
        rows[:, 0], rows[:, 1] = tracks, self._time
        rows[:, 5 - labels.ndim :] = now.centres
        self._rows.append(rows)
        self._before, self._tracks, self._time = now, tracks, self._time + 1
        return np.asarray(table[labels])

    def finish(self) -> Tracks:
        """Return the tracks of the frames so far."""
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
        """How many tracks there are."""
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
        """Write `to_csv` into a file, whole or not at all; a file of that name is replaced.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        write_text(path, self.to_csv())
