"""Objects placed into labels, removed, split and merged: each one change that can be undone.

No more of the labels is read than the objects at hand: they may be part of an array that does not
fit into memory.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from napari_unet.core.errors import InputError
from napari_unet.core.instances.mask import ObjectMask, bounding_window, find_object, full_window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_unet.core.tiles import Index, Window

SPLIT, MERGE, DELETE = "split", "merge", "delete"
EDITS = {SPLIT: 2, MERGE: 2, DELETE: 1}
"""The edits of existing objects, and how many clicks each takes."""


@dataclass(frozen=True)
class LabelEdit:
    """A change of labels in one window.

    Attributes
    ----------
    label
        The object that was changed; 0 if it was removed.
    window
        One slice for each axis of the labels.
    before, after
        The labels in the window.
    """

    label: int
    window: Window
    before: np.ndarray
    after: np.ndarray

    @property
    def changed(self) -> np.ndarray:
        """The pixels of the window that change, bool."""
        return np.asarray(self.before != self.after)

    def pixels(self) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
        """Return the changed pixels: indices into the labels, one array per axis, old and new ids.

        This is the form that a napari layer's ``data_setitem`` and the journal take.
        """
        changed = self.changed
        places = zip(np.nonzero(changed), self.window, strict=True)
        where = tuple(place + w.start for place, w in places)
        return where, self.before[changed], self.after[changed]

    def apply(self, labels: Any) -> None:
        """Make the change."""
        self._write(labels, self.after)

    def undo(self, labels: Any) -> None:
        """Take the change back."""
        self._write(labels, self.before)

    def _write(self, labels: Any, values: np.ndarray) -> None:
        # What others changed in the window in the meantime stays.
        now = np.array(labels[self.window])
        now[self.changed] = values[self.changed]
        labels[self.window] = now


def place_object(
    labels: Any,
    masks: Mapping[Index, ObjectMask],
    label: int,
    *,
    replaced: Mapping[Index, ObjectMask] | None = None,
    overwrite: bool = False,
) -> LabelEdit:
    """Put an object into labels.

    Parameters
    ----------
    labels
        Integers, indexed by slices.
    masks
        The object in each plane (volume), by the position along the leading axes.
    label
        Its id.
    replaced
        Where the object was before, if it is in the labels already: these pixels are cleared.
    overwrite
        Whether pixels of other objects may be overwritten.

    Raises
    ------
    InputError
        Nothing would be left of the object.
    """
    old = replaced or {}
    present = [(index, mask) for index, mask in [*masks.items(), *old.items()] if mask.area]
    if not present:
        raise InputError("The object has no pixels; click on it again.")
    window = bounding_window([full_window(index, mask.window) for index, mask in present])
    before = np.array(labels[window])
    after = before.copy()
    free = np.ones(before.shape, bool) if overwrite else (before == 0) | (before == label)
    for index in dict(present):
        plane = tuple(i - w.start for i, w in zip(index, window, strict=False))
        rest = window[len(index) :]
        if index in old:
            after[plane][old[index].within(rest) & (before[plane] == label)] = 0
        if index in masks:
            after[plane][masks[index].within(rest) & free[plane]] = label
    if not (after == label).any():
        raise InputError(
            "All pixels of the object belong to others; allow overwriting, or click elsewhere."
        )
    return LabelEdit(label, window, before, after)


def new_label(labels: Any) -> int:
    """Return an unused id; see `new_labels`."""
    return int(new_labels(labels, 1)[0])


def new_labels(labels: Any, count: int) -> np.ndarray:
    """Return unused ids: the next ones, or the smallest if these exceed the labels' type.

    Raises
    ------
    InputError
        Too many ids of the labels' type are taken.
    """
    planes = labels if getattr(labels, "ndim", 2) > 2 else [labels]
    label = 1 + max((int(np.max(np.asarray(plane), initial=0)) for plane in planes), default=0)
    largest = int(np.iinfo(labels.dtype).max)
    if label + count - 1 <= largest:
        return np.arange(label, label + count)
    taken = functools.reduce(np.union1d, (np.unique(np.asarray(plane)) for plane in planes))
    taken = taken[taken > 0]
    free = np.setdiff1d(np.arange(1, min(largest, len(taken) + count) + 1), taken)
    if len(free) < count:
        many = "too many" if len(free) else "all"
        raise InputError(
            f"The labels are {labels.dtype}, and {many} of its {largest} ids are taken; turn "
            "them into a larger type, such as uint32 (in napari: right click on the layer, Convert "
            "data type)."
        )
    return free[:count]


def check_label(label: Any, labels: Any) -> int:
    """Return an id that the user chose, if labels can hold it.

    Raises
    ------
    InputError
        It is no whole number, below 1, or too large for the labels' type.
    """
    largest = int(np.iinfo(labels.dtype).max)
    if not isinstance(label, int | np.integer) or not 1 <= label <= largest:
        raise InputError(
            f"The id {label!r} cannot be in the labels, which are {labels.dtype}; give a whole "
            f"number from 1 to {largest}."
        )
    return int(label)


def check_writable(labels: Any) -> None:
    """Raise InputError if labels are read-only, by an array's flag or a file's mode."""
    flags = getattr(labels, "flags", None)
    writable = getattr(flags, "writeable", not getattr(labels, "read_only", False))
    if not writable:
        raise InputError("The labels can only be read; copy them, or open their file for writing.")


def remove_object(labels: Any, place: Sequence[int], index: Index = ()) -> LabelEdit:
    """Remove the object at a pixel; raises InputError if there is none."""
    label, mask = find_object(labels, place, index)
    return _relabel(labels, index, label, mask, np.where(mask.inside, 0, label), 0)


def split_object(
    labels: Any,
    first: Sequence[int],
    second: Sequence[int],
    index: Index = (),
    distance_map: Callable[[Window], np.ndarray | None] = lambda _: None,
    *,
    fresh: int | None = None,
) -> LabelEdit:
    """Split the object under two pixels; the part of the second gets a new id.

    A watershed from the peaks beside the two pixels divides it.

    Parameters
    ----------
    labels, index
        As in `find_object`.
    first, second
        A pixel of either part.
    distance_map
        Returns what the network sees in a window of the plane (volume): the relative distance, from
        0 to 1, of the window's shape, or None. It is added to the relative distance of the object's
        own mask, which alone divides the object at its neck.
    fresh
        The new id; None: an unused one.

    Raises
    ------
    InputError
        The two are one pixel, or do not lie in one connected object.
    """
    label, mask = find_object(labels, first, index)
    origin = [w.start for w in mask.window]
    places = [tuple(p - o for p, o in zip(at, origin, strict=True)) for at in (first, second)]
    there = all(0 <= p < n for p, n in zip(places[1], mask.inside.shape, strict=True))
    if places[0] == places[1] or not there or not mask.inside[places[1]]:
        raise InputError(
            f"{tuple(first)} and {tuple(second)} do not divide one object; click twice in one."
        )
    height, peaks = _find_peaks(mask, places, distance_map(mask.window))
    markers = np.zeros(mask.inside.shape, np.int32)
    markers[peaks[0]], markers[peaks[1]] = 1, 2
    parts: np.ndarray = watershed(-height, markers, mask=mask.inside)  # type: ignore[no-untyped-call]
    fresh = new_label(labels) if fresh is None else fresh
    return _relabel(labels, index, label, mask, np.where(parts == 2, fresh, label), fresh)


def merge_objects(
    labels: Any, first: Sequence[int], second: Sequence[int], index: Index = ()
) -> LabelEdit:
    """Give the object at the second pixel the id of that at the first.

    Raises
    ------
    InputError
        One of them is missing, or they are one already.
    """
    keep, one = find_object(labels, first, index)
    gone, other = find_object(labels, second, index)
    if keep == gone:
        raise InputError(f"{tuple(first)} and {tuple(second)} are one object already.")
    window = full_window(index, bounding_window([one.window, other.window]))
    before = np.array(labels[window])
    after = before.copy()
    plane = (0,) * len(index)
    after[plane][other.within(window[len(index) :])] = keep
    return LabelEdit(keep, window, before, after)


def _relabel(
    labels: Any, index: Index, label: int, mask: ObjectMask, values: np.ndarray, about: int
) -> LabelEdit:
    """Return the change that gives the pixels of a mask the ids in `values`."""
    window = full_window(index, mask.window)
    before = np.array(labels[window])
    after = before.copy()
    after[(0,) * len(index)][mask.inside] = values[mask.inside].astype(before.dtype)
    return LabelEdit(about, window, before, after)


def _find_peaks(
    mask: ObjectMask, places: list[Index], predicted: np.ndarray | None
) -> tuple[np.ndarray, list[Index]]:
    """Return the distance map that divides an object, and the peak beside each of two pixels."""
    depth = ndimage.distance_transform_edt(np.pad(mask.inside, 1))
    height = depth[(slice(1, -1),) * mask.inside.ndim] / depth.max()
    if predicted is not None:
        height = height + predicted
    height = np.where(mask.inside, height, -np.inf)
    peaks = [_ascend(height, at) for at in places]
    if peaks[0] == peaks[1]:  # one peak: nothing but the clicks themselves divides the object
        return np.zeros(mask.inside.shape), places
    return height, peaks


def _ascend(height: np.ndarray, at: Index) -> Index:
    """Ascend from a pixel to the peak of its basin."""
    while True:
        near = tuple(slice(max(0, p - 1), p + 2) for p in at)
        step = np.unravel_index(int(height[near].argmax()), height[near].shape)
        top = tuple(int(s + w.start) for s, w in zip(step, near, strict=True))
        if height[top] <= height[at]:
            return at
        at = top
