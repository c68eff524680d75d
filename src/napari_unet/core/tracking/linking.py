"""Objects followed through time: their numbers stay the same, and their tracks are collected.

Which object of a frame is which of the next, `framematch` says. Two frames are held at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.spec import InputError, SettingsError, check_settings, setting
from napari_unet.core.tracking.framematch import Seen, match_frames
from napari_unet.core.tracking.tracks import Tracks
from napari_unet.core.volumes.ways import PLANES

if TYPE_CHECKING:
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
    _before: Seen | None = None
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
        now = Seen.of(labels)
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

    def _numbers(self, now: Seen, origin: NDArray[np.int64] | None) -> NDArray[np.int64]:
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
