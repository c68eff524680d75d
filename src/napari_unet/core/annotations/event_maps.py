"""What the events of a plane say: the objects they speak of, and maps of a window's pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.annotations.edits import DROPPED, KNOWN, SCRIBBLES, TAKEN_OVER, Box, Edit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_unet.core.annotations.edits import Numbers, RegionMark


def objects_edited(events: Iterable[Edit | RegionMark], box: Box) -> tuple[set[int], set[int]]:
    """Return the objects that were edited or confirmed in a plane, and those that were deleted.

    Deleted are also such as are there again.

    Parameters
    ----------
    events
        In order.
    box
        The plane in all labels, or a window of it.
    """
    ids, deleted = set[int](), set[int]()
    for event in events:
        if isinstance(event, Edit):
            _, before, after = clip(event, box)
            if event.source == TAKEN_OVER:
                # Its objects are a model's now; some that were deleted may have had their ids.
                ids.difference_update(np.unique(after).tolist())
            elif event.canvas != SCRIBBLES:
                ids.update(np.unique(before).tolist(), np.unique(after).tolist())
                deleted.update(np.unique(before[after == 0]).tolist())
                ids.update(_confirmed_here(event, box))
        elif event.meaning == DROPPED and _covers(event.box, box):
            ids.clear()
    return ids - {0}, deleted - {0}


def _confirmed_here(edit: Edit, box: Box) -> list[int]:
    """Return the objects that an edit confirms in a plane."""
    if not edit.confirmed_in:
        return [*edit.confirmed] if meet(edit.box[:-2], box[:-2]) else []
    starts, sizes = [start for start, _ in box[:-2]], edit.shape[:-2]
    here = int(np.ravel_multi_index(starts, sizes)) if sizes else 0
    pairs = zip(edit.confirmed, edit.confirmed_in, strict=True)
    return [label for label, plane in pairs if plane == here]


def clip(edit: Edit, box: Box) -> tuple[Numbers, Numbers, Numbers]:
    """Return an edit's pixels in a region: flat index in it, values before and after."""
    first, last = (
        int(np.ravel_multi_index(corner, edit.shape))
        for corner in ([start for start, _ in box], [stop - 1 for _, stop in box])
    )
    size, sizes = last + 1 - first, [stop - start for start, stop in box]
    part = edit.part(first, first + size)
    flat, before, after = part.flat() - first, part.values(after=False), part.values()
    if size == math.prod(sizes):
        return flat, before, after
    # A window lies in pieces among all pixels.
    where = np.array(np.unravel_index(flat + first, edit.shape))
    low, high = np.array(box).T[..., None]
    inside = np.all((where >= low) & (where < high), axis=0)
    flat = np.ravel_multi_index(tuple(where[:, inside] - low), tuple(sizes))
    return flat, before[inside], after[inside]


class EventMaps:
    """The events of a plane, drawn into maps of the pixels of a window of it, (Y, X).

    Parameters
    ----------
    box
        The window, in all labels.
    plane
        The whole plane: what is dropped as a whole counts again where it is edited later.

    Attributes
    ----------
    marked, changed
        What was marked as known, and what was edited; bool.
    erased
        The object that was deleted at each pixel; 0 for none.
    scribbles
        1 + class; 0 for none.
    left_out
        What was dropped, and not edited since; bool.
    """

    def __init__(self, box: Box, plane: Box) -> None:
        self.box, self._plane = box, plane
        shape = tuple(stop - start for start, stop in box[-2:])
        self.marked, self.changed = np.zeros(shape, bool), np.zeros(shape, bool)
        self.left_out = np.zeros(shape, bool)
        self.erased = np.zeros(shape, np.int64)
        self.scribbles = np.zeros(shape, np.uint8)

    def take(self, event: Edit | RegionMark) -> None:
        """Draw the next event."""
        window = self._window(event.box)
        if isinstance(event, Edit):
            if event.source != TAKEN_OVER:
                self._take_edit(event)
                self.left_out[window] = False
        elif event.meaning == DROPPED:
            for values in (self.marked, self.changed, self.scribbles, self.erased):
                values[window] = 0
            self.left_out[window] = not _covers(event.box, self._plane)
        else:
            self.marked[window] = event.meaning == KNOWN
            self.left_out[window] &= event.meaning != KNOWN

    def _take_edit(self, edit: Edit) -> None:
        flat, before, after = clip(edit, self.box)
        if edit.canvas == SCRIBBLES:
            self.scribbles.reshape(-1)[flat] = after
            return
        self.changed.reshape(-1)[flat] = True
        gone = (before > 0) & (after == 0)
        self.erased.reshape(-1)[flat[gone]] = before[gone]

    def _window(self, box: Box) -> tuple[slice, ...]:
        """Return the part of the maps that a box of all labels covers."""
        pairs = zip(box[-2:], self.box[-2:], strict=True)
        return tuple(
            slice(max(0, start - low), max(0, min(stop, high) - low))
            for (start, stop), (low, high) in pairs
        )


def meet(one: Box, other: Box) -> bool:
    """Return whether two boxes have something in common."""
    pairs = zip(one, other, strict=True)
    return all(a < d and c < b for (a, b), (c, d) in pairs)


def _covers(box: Box, plane: Box) -> bool:
    """Return whether a box covers a plane, or a window of it."""
    pairs = zip(box[-2:], plane[-2:], strict=True)
    return meet(box[:-2], plane[:-2]) and all(a <= c and d <= b for (a, b), (c, d) in pairs)
