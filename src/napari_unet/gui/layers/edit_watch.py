"""Noticing that labels were changed since something was computed from them.

napari tells of strokes, but of an undo only that the layer was drawn anew, as it is after every
move of a slider. So each plane has a checksum, against which the plane on view is held.
"""

from __future__ import annotations

import itertools
import weakref
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.layers import Labels

Checks = dict[tuple[int, ...], int]


def plane_checks(data: Any) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield the position and checksum of each plane of an array; of lazy ones nothing."""
    if isinstance(data, np.ndarray):
        for index in itertools.product(*map(range, data.shape[:-2])):
            yield index, check_of(data[index])


def check_of(plane: np.ndarray) -> int:
    """Return a checksum of an array's values."""
    return zlib.crc32(np.ascontiguousarray(plane).data)


class EditWatch:
    """Calls `edited` once, in the window's thread, when a Labels layer is no longer what it was.

    Parameters
    ----------
    viewer, layer
        Neither is kept alive by the watch.
    checks
        The planes' checksums, as `plane_checks` gives them.
    """

    def __init__(
        self, viewer: Any, layer: Labels, checks: Checks, edited: Callable[[], object]
    ) -> None:
        self._viewer, self._layer = weakref.ref(viewer), weakref.ref(layer)
        self._checks, self._edited = checks, edited
        events = layer.events
        self._surely: tuple[Any, ...] = (events.paint, events.labels_update, events.data)
        for event in self._surely:
            event.connect(self._changed)
        events.set_data.connect(self._drawn)
        self._drawn()

    def stop(self) -> None:
        """Watch no longer."""
        self._edited = _nobody
        layer = self._layer()
        if layer is not None:
            for event in self._surely:
                event.disconnect(self._changed)
            layer.events.set_data.disconnect(self._drawn)
        self._surely = ()

    def _changed(self, *_: Any) -> None:
        edited = self._edited
        self.stop()
        edited()

    def _drawn(self, *_: Any) -> None:
        """Hold the plane on view against its checksum; a cut across the planes tells nothing."""
        viewer, layer = self._viewer(), self._layer()
        if viewer is None or layer is None or not isinstance(layer.data, np.ndarray):
            return
        first = viewer.dims.ndim - layer.ndim
        shown = [axis - first for axis in viewer.dims.displayed]
        if first < 0 or sorted(shown) != [layer.ndim - 2, layer.ndim - 1]:
            return
        here = np.round(layer.world_to_data(viewer.dims.point)).astype(int)
        index = tuple(int(at) for at in here[:-2])
        known = self._checks.get(index)
        if known is not None and known != check_of(layer.data[index]):
            self._changed()


def _nobody(*_: Any) -> None:
    """Stand in for the owner after the end."""
