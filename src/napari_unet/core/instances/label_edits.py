"""Objects put into labels, taken out, divided and joined: each one change that can be undone.

Nothing here looks at more of the labels than the objects at hand, which may be part of an array
that does not fit into memory.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from napari_unet.core.errors import InputError
from napari_unet.core.instances.mask import ObjectMask, find_object, full_window, window_around

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_unet.core.tiles import Index, Window

__all__ = [
    "DELETE",
    "EDITS",
    "MERGE",
    "SPLIT",
    "LabelEdit",
    "ObjectMask",
    "check_label",
    "check_writable",
    "find_object",
    "merge_objects",
    "new_label",
    "place_object",
    "remove_object",
    "split_object",
]

SPLIT, MERGE, DELETE = "split", "merge", "delete"
EDITS = {SPLIT: 2, MERGE: 2, DELETE: 1}
"""What can be done to objects that are there, and the clicks that it takes."""


@dataclass(frozen=True)
class LabelEdit:
    """A change of labels in one window.

    Attributes
    ----------
    label
        The object that it is about; 0 if it is gone.
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
        """Which pixels of the window change, bool."""
        return np.asarray(self.before != self.after)

    def pixels(self) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
        """Return the changed pixels: indices into the labels, one array an axis, old and new ids.

        In this form a napari layer's ``data_setitem`` and the journal take them.
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
        # What others changed in the window meanwhile stays.
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
        Where the object was before, if it is there already: what is left of it there goes.
    overwrite
        Whether pixels of other objects may be taken.

    Raises
    ------
    InputError
        Nothing would be left of the object.
    """
    old = replaced or {}
    pieces = {i: m.cropped() for i, m in [*masks.items(), *old.items()] if m.area}
    windows = [full_window(i, m.window) for i, m in [*masks.items(), *old.items()] if m.area]
    if not pieces:
        raise InputError("The object has no pixels; click on it again.")
    window = window_around(windows)
    before = np.array(labels[window])
    after = before.copy()
    free = np.ones(before.shape, bool) if overwrite else (before == 0) | (before == label)
    for index in pieces:
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
    """Return an id that is free: the next one, or if their type ends there, the least.

    Raises
    ------
    InputError
        All ids of the labels' type are taken.
    """
    planes = labels if getattr(labels, "ndim", 2) > 2 else [labels]
    label = 1 + max((int(np.max(np.asarray(plane), initial=0)) for plane in planes), default=0)
    largest = int(np.iinfo(labels.dtype).max)
    if label <= largest:
        return label
    taken = functools.reduce(np.union1d, (np.unique(np.asarray(plane)) for plane in planes))
    taken = taken[taken > 0]
    gaps = np.flatnonzero(taken != np.arange(1, len(taken) + 1, dtype=taken.dtype))
    if not len(gaps):
        raise InputError(
            f"The labels are {labels.dtype}, and all of its {largest} ids are taken; turn them "
            "into a larger type, such as uint32 (in napari: right click on the layer, Convert data "
            "type)."
        )
    return int(gaps[0]) + 1


def check_label(label: Any, labels: Any) -> int:
    """Return an id that somebody chose, if labels can hold it.

    Raises
    ------
    InputError
        It is no whole number, or not one of the labels' type from 1 on.
    """
    largest = int(np.iinfo(labels.dtype).max)
    if not isinstance(label, int | np.integer) or not 1 <= label <= largest:
        raise InputError(
            f"The id {label!r} cannot be in the labels, which are {labels.dtype}; give a whole "
            f"number from 1 to {largest}."
        )
    return int(label)


def check_writable(labels: Any) -> None:
    """Raise InputError if labels can only be read: an array's flag says so, or a file's mode."""
    flags = getattr(labels, "flags", None)
    writable = getattr(flags, "writeable", not getattr(labels, "read_only", False))
    if not writable:
        raise InputError("The labels can only be read; copy them, or open their file for writing.")


def remove_object(labels: Any, place: Sequence[int], index: Index = ()) -> LabelEdit:
    """Take the object at a pixel out; raises InputError if there is none."""
    label, mask = find_object(labels, place, index)
    return _relabelled(labels, index, label, mask, np.where(mask.inside, 0, label), 0)


def split_object(
    labels: Any,
    first: Sequence[int],
    second: Sequence[int],
    index: Index = (),
    hills: Callable[[Window], np.ndarray | None] = lambda _: None,
) -> LabelEdit:
    """Divide the object under two pixels; the part of the second gets a new id.

    Parameters
    ----------
    labels, index
        As in `find_object`.
    first, second
        A pixel of either part.
    hills
        Returns what is seen in a window of the plane (volume), of the window's shape: heights from
        0 to 1, highest in the middle of an object, or None. They are added to the relative depth in
        the object, which alone divides it at its waist; the border lies where two hills meet.

    Raises
    ------
    InputError
        The two are one pixel, or do not lie in one object that hangs together.
    """
    label, mask = find_object(labels, first, index)
    origin = [w.start for w in mask.window]
    places = [tuple(p - o for p, o in zip(at, origin, strict=True)) for at in (first, second)]
    there = all(0 <= p < n for p, n in zip(places[1], mask.inside.shape, strict=True))
    if places[0] == places[1] or not there or not mask.inside[places[1]]:
        raise InputError(
            f"{tuple(first)} and {tuple(second)} do not divide one object; click twice in one."
        )
    height, peaks = _two_hills(mask, places, hills(mask.window))
    markers = np.zeros(mask.inside.shape, np.int32)
    markers[peaks[0]], markers[peaks[1]] = 1, 2
    parts: np.ndarray = watershed(-height, markers, mask=mask.inside)  # type: ignore[no-untyped-call]
    fresh = new_label(labels)
    return _relabelled(labels, index, label, mask, np.where(parts == 2, fresh, label), fresh)


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
    window = full_window(index, window_around([one.window, other.window]))
    before = np.array(labels[window])
    after = before.copy()
    plane = (0,) * len(index)
    after[plane][other.within(window[len(index) :])] = keep
    return LabelEdit(keep, window, before, after)


def _relabelled(
    labels: Any, index: Index, label: int, mask: ObjectMask, values: np.ndarray, about: int
) -> LabelEdit:
    """Build the change that gives the object in a mask the ids in `values`."""
    window = full_window(index, mask.window)
    before = np.array(labels[window])
    after = before.copy()
    after[(0,) * len(index)][mask.inside] = values[mask.inside].astype(before.dtype)
    return LabelEdit(about, window, before, after)


def _two_hills(
    mask: ObjectMask, places: list[Index], seen: np.ndarray | None
) -> tuple[np.ndarray, list[Index]]:
    """Return the height that tells two places of an object apart, and the top beside each."""
    depth = ndimage.distance_transform_edt(np.pad(mask.inside, 1))
    height = depth[(slice(1, -1),) * mask.inside.ndim] / depth.max()
    if seen is not None:
        height = height + seen
    height = np.where(mask.inside, height, -np.inf)
    peaks = [_peak(height, at) for at in places]
    if peaks[0] == peaks[1]:  # one hill: the clicks themselves are all that tells the parts apart
        return np.zeros(mask.inside.shape), places
    return height, peaks


def _peak(hills: np.ndarray, at: Index) -> Index:
    """Climb from a pixel to the top of the hill that it lies on."""
    while True:
        near = tuple(slice(max(0, p - 1), p + 2) for p in at)
        step = np.unravel_index(int(hills[near].argmax()), hills[near].shape)
        top = tuple(int(s + w.start) for s, w in zip(step, near, strict=True))
        if hills[top] <= hills[at]:
            return at
        at = top
