"""Whether labels were edited since they were made: looked at in a job, or watched."""

from __future__ import annotations

import itertools
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.progress import Progress
from napari_unet.gui.layers.result_info import ResultInfo, is_unedited, labels_checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from napari.layers import Labels


class EditCheck:
    """Finds out, in a job, which results still are what their runs left.

    A checksum of a large stack takes a second, in which the window must not stand still. What the
    user does to a layer meanwhile counts as an edit.

    Parameters
    ----------
    layers
        The results. They are kept alive until `close`.
    """

    def __init__(self, layers: Sequence[Labels]) -> None:
        self._layers = [(layer, ResultInfo.from_layer(layer)) for layer in layers]
        self._same: list[Labels] = []
        self._touched: list[Labels] = []
        for layer, _ in self._layers:
            for event in _edit_events(layer):
                event.connect(self._touch)

    def steps(self) -> Generator[Progress, None, None]:
        """Compare the layers with their checksums, in the job's thread."""
        self._touched, self._same = [], []
        for layer, info in self._layers:
            yield Progress(0, 0, "looking for edits")
            if is_unedited(layer, info):
                self._same.append(layer)

    @property
    def touched(self) -> bool:
        """Whether something was done to one of them since, an edit or not."""
        return bool(self._touched)

    def unedited(self) -> list[Labels]:
        """Return those that are, and that nothing was done to since; in the window's thread."""
        return [layer for layer in self._same if layer not in self._touched]

    def close(self) -> None:
        """Let go of the layers."""
        for layer, _ in self._layers:
            for event in _edit_events(layer):
                event.disconnect(self._touch)
        self._layers, self._same, self._touched = [], [], []

    def _touch(self, event: Any) -> None:
        self._touched.append(event.source)


def _edit_events(layer: Labels) -> tuple[Any, ...]:
    """Return what an edit of a layer emits: one of these, which other things emit, too."""
    events = layer.events
    return events.paint, events.labels_update, events.data, events.set_data


PlaneChecksums = dict[tuple[int, ...], int]
"""Checksums of the planes of an array, by their position along the leading axes."""


def plane_checksums(data: Any) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield the position and checksum of each plane of a numpy array; nothing of lazy arrays."""
    if isinstance(data, np.ndarray):
        for index in itertools.product(*map(range, data.shape[:-2])):
            yield index, labels_checksum(data[index])


class EditWatch:
    """Calls `edited` once, in the window's thread, when a Labels layer was changed.

    napari emits events for paint strokes, but for an undo only `set_data`, which it also emits
    whenever a slider moves. So the plane in view is compared with its checksum at each drawing.

    Parameters
    ----------
    viewer, layer
        Neither is kept alive by the watch.
    checksums
        The planes' checksums, as `plane_checksums` gives them.
    """

    def __init__(
        self, viewer: Any, layer: Labels, checksums: PlaneChecksums, edited: Callable[[], object]
    ) -> None:
        self._viewer, self._layer = weakref.ref(viewer), weakref.ref(layer)
        self._checksums = checksums
        self._edited: Callable[[], object] | None = edited
        events = layer.events
        self._edit_events: tuple[Any, ...] = (events.paint, events.labels_update, events.data)
        for event in self._edit_events:
            event.connect(self._report)
        events.set_data.connect(self._compare)
        self._compare()

    def stop(self) -> None:
        """Watch no longer."""
        self._edited = None
        layer = self._layer()
        if layer is not None:
            for event in self._edit_events:
                event.disconnect(self._report)
            layer.events.set_data.disconnect(self._compare)
        self._edit_events = ()

    def _report(self, *_: Any) -> None:
        edited = self._edited
        self.stop()
        if edited is not None:
            edited()

    def _compare(self, *_: Any) -> None:
        """Compare the plane in view with its checksum, unless the view cuts across the planes."""
        viewer, layer = self._viewer(), self._layer()
        if viewer is None or layer is None or not isinstance(layer.data, np.ndarray):
            return
        first = viewer.dims.ndim - layer.ndim
        shown = [axis - first for axis in viewer.dims.displayed]
        if first < 0 or sorted(shown) != [layer.ndim - 2, layer.ndim - 1]:
            return
        here = np.round(layer.world_to_data(viewer.dims.point)).astype(int)
        index = tuple(int(at) for at in here[:-2])
        expected = self._checksums.get(index)
        if expected is not None and expected != labels_checksum(layer.data[index]):
            self._report()
