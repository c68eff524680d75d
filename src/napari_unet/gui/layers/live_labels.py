"""The array behind a Labels layer while a run still writes into it, and drawing parts of it.

The engine numbers objects with uint32 and may renumber a frame until the frame is done; the layer
shows uint16, which napari draws without a copy. So a frame under way exists twice: its provisional
numbers in a buffer of its own, its preview in the layer's array. When the frame is done the buffer
is copied over the preview and dropped. Memory beyond the layer's: one frame (or one window of it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_unet.core.tiles import Index, Window

LIVE_DTYPE = np.uint16
"""napari shows uint16 as it is; it converts int32 and uint32, the whole plane at each drawing."""


class LiveLabels:
    """The array that the engine writes to (its `out`), and the one that the layer shows.

    Written from the job's thread only. To the engine it is a uint32 array in the order T, Z, Y, X,
    indexed by whole numbers along the leading axes and slices in the frame.

    Parameters
    ----------
    array
        The layer's array in the order T, Z, Y, X; uint16 or uint32. What it holds for a frame is
        cleared when the first tile of that frame comes, not before.
    frame_ndim
        2 if the model's frames are planes, 3 if they are volumes.
    window
        The part of each frame that will be written; None: all of it.
    """

    dtype = np.dtype(np.uint32)

    def __init__(self, array: np.ndarray, frame_ndim: int, window: Window | None = None) -> None:
        self.array = array
        self.shape = array.shape
        self.ndim = array.ndim
        self.leading = max(0, array.ndim - frame_ndim)
        self.window = window
        self._touched: set[Index] = set()
        self._finished: set[Index] = set()
        self._frames: dict[Index, np.ndarray] = {}

    def preview(self, index: Index, window: Window, labels: np.ndarray) -> None:
        """Show a tile; its numbers are provisional."""
        self._touch(index)
        self.array[self._key(index, window)] = labels

    def finish(self, index: Index) -> None:
        """Show a frame's final labels, in uint32 from now on if uint16 cannot count them."""
        frame = self._frames.pop(index, None)
        self._touch(index)
        self._finished.add(index)
        if frame is None:
            return
        if frame.size and frame.max() > np.iinfo(self.array.dtype).max:
            self.array = self.array.astype(np.uint32)
        self.array[self._key(index, self.window or (...,))] = frame

    def finish_all(self) -> None:
        """Show the unfinished frames as they are, as their final labels."""
        for index in list(self._frames):
            self.finish(index)

    @property
    def untouched(self) -> bool:
        """Whether nothing has been shown yet."""
        return not self._touched

    def __getitem__(self, key: Any) -> np.ndarray:
        index, window = self._split(key)
        if index is not None and index in self._frames:
            return np.asarray(self._frames[index][self._inside(window)], dtype=np.uint32)
        return np.asarray(self.array[key], dtype=np.uint32)

    def __setitem__(self, key: Any, values: Any) -> None:
        index, window = self._split(key)
        if index is None:
            raise IndexError(f"labels are written frame by frame, not at {key!r}")
        if index not in self._frames:
            self._frames[index] = self._new_frame(index)
        self._frames[index][self._inside(window)] = values

    def _touch(self, index: Index) -> None:
        if index not in self._touched:
            self._touched.add(index)
            self.array[self._key(index, (...,))] = 0

    def _new_frame(self, index: Index) -> np.ndarray:
        """Begin a frame with zeros, or with its finished labels if it is written again."""
        shown: np.ndarray = self.array[self._key(index, self.window or (...,))]
        if index in self._finished:
            return shown.astype(self.dtype)
        return np.zeros(shown.shape, self.dtype)

    def _split(self, key: Any) -> tuple[Index | None, Window]:
        """Split a key into the frame's index (None: not one frame) and the slices in it."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys[at : at + 1] = [slice(None)] * (self.ndim - len(keys) + 1)
        keys += [slice(None)] * (self.ndim - len(keys))
        index, window = keys[: self.leading], keys[self.leading :]
        if not all(isinstance(number, (int, np.integer)) for number in index):
            return None, tuple(window)
        return tuple(int(number) for number in index), tuple(window)

    def _inside(self, window: Window) -> Window:
        """Move a window of the frame into the buffer, which holds `self.window` of it."""
        if self.window is None:
            return window
        moved = []
        for part, held in zip(window, self.window, strict=True):
            start = held.start if part.start is None else part.start
            stop = held.stop if part.stop is None else part.stop
            moved.append(slice(start - held.start, stop - held.start))
        return tuple(moved)

    def _key(self, index: Index, window: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*index, *window)


def set_labels(layer: Labels, where: tuple[np.ndarray, ...], values: Any) -> None:
    """Change voxels of a layer, as one step of its history, whether it can be seen or not.

    napari's own `data_setitem` writes into the plane that was drawn last, too. Of a layer that is
    hidden and was never drawn there is none, and of one that got data of another type meanwhile it
    has the old type: it raises, after the voxels are written. So the layer is sliced first.

    Parameters
    ----------
    where
        Index arrays, one for each axis of the layer's data.
    values
        One for each voxel, or one for all.
    """
    hidden = not layer.visible
    if hidden:
        layer.visible = True  # slices it
    try:
        layer.data_setitem(where, values)
    finally:
        if hidden:
            layer.visible = False


def draw_part(viewer: Any, layer: Labels, place: tuple[slice, ...]) -> bool:
    """Draw one part of a layer without redrawing all of it; return whether that was possible.

    napari can do that for 2D views of 8 and 16 bit labels, by the event that its brush emits. A
    part that is not in the plane in view needs no drawing.
    """
    shown = list(viewer.dims.displayed)
    first = viewer.dims.ndim - layer.ndim
    if len(shown) != 2 or layer.data.dtype.itemsize > 2 or layer.contour:
        return False
    axes = [axis - first for axis in shown]
    if min(axes) < 0 or axes != [layer.ndim - 2, layer.ndim - 1] or not layer.visible:
        return not layer.visible
    here = np.round(layer.world_to_data(viewer.dims.point)).astype(int)
    for axis in range(layer.ndim - 2):
        if not place[axis].start <= here[axis] < place[axis].stop:
            return True
    plane = layer.data[tuple(int(i) for i in here[:-2])]
    part = plane[place[-2:]]
    layer.events.labels_update(data=part, offset=[place[-2].start, place[-1].start])
    return True
