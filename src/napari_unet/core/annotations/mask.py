"""Annotation masks: which pixels of a frame are known from its corrections, and what they are.

Only what the user looked at is known: regions marked as known (a frame, a plane, a box), scribbles,
and what was touched. Touched are the pixels that changed; the objects that were edited, added or
confirmed, as they are now; and the background around both up to a margin. Other objects within the
margin stay unknown, and so does what is left of an object that was deleted and partly drawn anew:
it may be a clump's next object. The background of the margin is marked as assumed: a training may
doubt it (`nn/training/assumed_background.py`). All of this is decided plane by plane: an edit in
one plane of a volume says nothing about the planes above and below.

What the user took over from a model is not known: it is the model's answer, and none of theirs.

If labels are classes, there are no objects to be touched: the pixels that changed and everything
within the margin are known.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_unet.core.annotations.edits import (
    DROPPED,
    KNOWN,
    SCRIBBLES,
    TAKEN_OVER,
    Box,
    Edit,
    RegionMark,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_unet.core.annotations.journal_reader import JournalReader

MARGIN = 0.35
"""Margin of known background around what was touched, as a share of the objects' diameter: about
half of the gap to a neighbour among crowded objects ..."""
MARGIN_LIMITS = (3.0, 30.0)
"""... and within these limits, in pixels."""
_ROWS = 1024
"""Rows of a plane that are looked at together."""
RIM, RIM_SHARE = 1.5, 0.07
"""Width of the background around objects that were drawn that is certain, as their outline shows
it: in pixels, of which no more is known in a clump; and for large objects a share of the diameter.
"""


@dataclass(frozen=True, eq=False)
class AnnotationMask:
    """What a frame teaches.

    Attributes
    ----------
    labels
        ([Z,] Y, X): the corrected labels, with scribbles of background (of a class) put in.
    known
        bool, the same shape: pixels whose label is true.
    scribbled
        bool, the same shape, disjoint from `known`: pixels that a scribble says belong to some
        object, while nothing is known of its outline. They teach the foreground alone.
    assumed
        bool, the same shape, part of `known`: background that nobody spoke of, and that is known by
        lying near what was touched. Among crowded objects there may be some that were not drawn.
    """

    labels: np.ndarray
    known: np.ndarray
    scribbled: np.ndarray
    assumed: np.ndarray

    @property
    def annotated(self) -> np.ndarray:
        """All pixels that can be learned from; bool ([Z,] Y, X)."""
        return np.asarray(self.known | self.scribbled)


def read_annotation_mask(
    journal: JournalReader,
    index: tuple[int, ...] = (),
    *,
    touched: bool = True,
    margin: float | None = None,
    classes: bool | None = None,
) -> AnnotationMask:
    """Return the annotation mask of a frame of a journal; parameters as for `mask_from_events`.

    Parameters
    ----------
    classes
        None: by the journal's header.
    """
    found = mask_from_events(
        journal.replay(index),
        journal.history(index),
        journal.box(index),
        classes=journal.header.head == "semantic" if classes is None else classes,
        touched=touched,
        margin=margin,
    )
    held = journal.holds(index).reshape(found.known.shape[:-2])
    found.known[~held] = False
    found.assumed[~held] = False
    return found


def mask_from_events(
    labels: np.ndarray,
    events: Iterable[Edit | RegionMark],
    box: Box,
    *,
    classes: bool = False,
    touched: bool = True,
    margin: float | None = None,
) -> AnnotationMask:
    """Work out the annotation mask of a frame.

    Parameters
    ----------
    labels
        The frame's labels as they are now, ([Z,] Y, X); or those of a window of it.
    events
        Edits and marks in force, in order: `Journal.history`.
    box
        The region of the frame, or of the window, in all labels: `Journal.box`.
    classes
        The labels are classes, not objects.
    touched
        Whether what was touched is known; otherwise only marks and scribbles count.
    margin
        Width of the background around what was touched, in pixels; None: by the objects' diameter.
    """
    maps = _EventMaps(labels.shape, box)
    for event in events:
        maps.take(event)
    known, assumed = maps.marked.copy(), np.zeros(labels.shape, bool)
    if touched:
        seen, assumed = maps.touched(labels, classes, margin)
        assumed &= ~known
        known |= seen
    labels, scribbled = labels.copy(), np.zeros(labels.shape, bool)
    if maps.scribbles.any():
        named = maps.scribbles > 0 if classes else maps.scribbles == 1
        labels[named] = maps.scribbles[named] - 1
        known |= named
        outlined = known & (labels > 0)
        scribbled = (maps.scribbles > 1) & ~outlined & ~named
        known &= ~scribbled
        assumed &= known & ~named
    return AnnotationMask(labels, known, scribbled, assumed)


class _EventMaps:
    """The events of a frame, drawn into maps of its pixels and lists of each plane's objects."""

    def __init__(self, shape: tuple[int, ...], box: Box) -> None:
        self.box = box
        self.marked, self.changed = np.zeros(shape, bool), np.zeros(shape, bool)
        self.left_out = np.zeros(shape, bool)
        self.erased = np.zeros(shape, np.int64)
        self.scribbles = np.zeros(shape, np.uint8)
        self.ids: defaultdict[int, set[int]] = defaultdict(set)
        rows, columns = shape[-2:]
        self._pixels = rows * columns

    def take(self, event: Edit | RegionMark) -> None:
        window = self._window(event.box)
        if isinstance(event, Edit) and event.source == TAKEN_OVER:
            self._take_over(event)
        elif isinstance(event, Edit):
            self._take_edit(event)
            self.left_out[window] = False
        elif event.meaning == DROPPED:
            self._drop(window)
        else:
            self.marked[window] = event.meaning == KNOWN
            self.left_out[window] &= event.meaning != KNOWN

    def _take_over(self, edit: Edit) -> None:
        """Take in that objects are a model's now; some that were deleted may have had their ids."""
        flat, _, after = self._clip(edit)
        planes = flat // self._pixels
        for plane in np.unique(planes).tolist():
            self.ids[plane].difference_update(np.unique(after[planes == plane]).tolist())

    def _clip(self, edit: Edit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return an edit's pixels in the region: flat index in it, values before and after."""
        first, last = (
            int(np.ravel_multi_index(corner, edit.shape))
            for corner in ([start for start, _ in self.box], [stop - 1 for _, stop in self.box])
        )
        size = last + 1 - first
        flat, after = edit.clipped(first, size)
        _, before = edit.clipped(first, size, after=False)
        if size == self.changed.size:
            return flat, before, after
        # A window lies in pieces among all pixels.
        where = np.array(np.unravel_index(flat + first, edit.shape))
        low, high = np.array(self.box).T[..., None]
        inside = np.all((where >= low) & (where < high), axis=0)
        sizes = tuple((high - low).ravel().tolist())
        flat = np.ravel_multi_index(tuple(where[:, inside] - low), sizes)
        return flat, before[inside], after[inside]

    def _take_edit(self, edit: Edit) -> None:
        flat, before, after = self._clip(edit)
        if edit.canvas == SCRIBBLES:
            self.scribbles.reshape(-1)[flat] = after
            return
        self.changed.reshape(-1)[flat] = True
        gone = (before > 0) & (after == 0)
        self.erased.reshape(-1)[flat[gone]] = before[gone]
        planes = flat // self._pixels
        for plane in np.unique(planes).tolist():
            here = planes == plane
            self.ids[plane].update(np.unique(before[here]).tolist())
            self.ids[plane].update(np.unique(after[here]).tolist())
        if edit.confirmed_in:
            first = int(
                np.ravel_multi_index([start for start, _ in self.box[:-2]], edit.shape[:-2])
            )
            for label, plane in zip(edit.confirmed, edit.confirmed_in, strict=True):
                self.ids[plane - first].add(label)
        elif edit.confirmed:
            for plane in self._planes(self._window(edit.box)):
                self.ids[plane].update(edit.confirmed)

    def _drop(self, window: tuple[slice, ...]) -> None:
        """Forget the events in a region; of whole planes, their objects, too."""
        for values in (self.marked, self.changed, self.scribbles, self.erased):
            values[window] = 0
        whole = self.left_out[window].shape[-2:] == self.left_out.shape[-2:]
        self.left_out[window] = not whole
        if whole:
            for plane in self._planes(window):
                self.ids.pop(plane, None)

    def touched(
        self, labels: np.ndarray, classes: bool, margin: float | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels touched and what is around them, and which of it is assumed."""
        out, assumed = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
        maps = (labels, self.changed, self.erased, out, assumed)
        planes = zip(*map(_planes_of, maps), strict=True)
        reach = MARGIN_LIMITS[1] if margin is None else margin
        for number, whole in enumerate(planes):
            ids = self.ids[number] - {0}
            here = _part_touched(whole[0], whole[1], whole[2], ids, reach)
            if here is None:
                continue
            plane, changed, erased, known, around = (values[here] for values in whole)
            clumps = rest_of_clumps(plane, erased)
            core = changed if classes else changed & ~clumps
            if ids and not classes:
                core = core | np.isin(plane, list(ids))
            if not core.any():
                continue
            diameter = _diameter(plane, core, classes)
            if classes:
                known[...] = _near(core, _margin(diameter) if margin is None else margin)
            else:
                known[...], around[...] = known_around(plane, core, clumps, diameter, margin)
        return out & ~self.left_out, assumed & ~self.left_out

    def _window(self, box: Box) -> tuple[slice, ...]:
        """Return the part of the frame that a box of all labels covers."""
        spans = list(zip(box, self.box, strict=True))[len(self.box) - self.marked.ndim :]
        return tuple(
            slice(max(0, start - low), max(0, min(stop, high) - low))
            for (start, stop), (low, high) in spans
        )

    def _planes(self, window: tuple[slice, ...]) -> range:
        return range(*window[0].indices(len(self.marked))) if len(window) == 3 else range(1)


def _part_touched(
    plane: np.ndarray, changed: np.ndarray, erased: np.ndarray, ids: set[int], reach: float
) -> tuple[slice, slice] | None:
    """Return the part of a plane that all that was touched lies in, with what is around it.

    What is worked out there takes many times the memory of the labels, and images may be large.
    None if nothing was touched.
    """
    rows, columns = np.zeros(plane.shape[0], bool), np.zeros(plane.shape[1], bool)
    names = list(ids | set(np.unique(erased[erased > 0]).tolist()))
    for start in range(0, len(plane), _ROWS):
        some = slice(start, start + _ROWS)
        there = changed[some] | (erased[some] > 0)
        if names:
            there |= np.isin(plane[some], names)
        rows[some], columns = there.any(1), columns | there.any(0)
    if not rows.any():
        return None
    wide = int(np.ceil(reach)) + 1
    spans = [np.flatnonzero(line)[[0, -1]].tolist() for line in (rows, columns)]
    return (
        slice(max(0, spans[0][0] - wide), spans[0][1] + wide + 1),
        slice(max(0, spans[1][0] - wide), spans[1][1] + wide + 1),
    )


def known_around(
    plane: np.ndarray,
    core: np.ndarray,
    clumps: np.ndarray,
    diameter: float,
    margin: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is known by what was touched, and which of it is assumed; bool (Y, X) both.

    Parameters
    ----------
    plane
        The labels of objects as they are now, (Y, X).
    core, clumps
        What was touched, and the `rest_of_clumps`; bool (Y, X).
    diameter
        Of the objects touched, in pixels.
    margin
        Width of the background around what was touched, in pixels; None: by the diameter.
    """
    near = background_near(core, clumps, _margin(diameter) if margin is None else margin)
    known = core | near & (plane == 0)
    outlined = _near(core & (plane > 0), max(RIM, RIM_SHARE * diameter))
    return known, known & ~core & ~outlined


def _margin(diameter: float) -> float:
    return float(np.clip(MARGIN * diameter, *MARGIN_LIMITS))


def rest_of_clumps(plane: np.ndarray, erased: np.ndarray) -> np.ndarray:
    """Mark what is left of deleted objects in whose place others were drawn; bool (Y, X).

    Such an object was outlined wrongly: it may have been a clump, of which not all objects are
    drawn yet. What was deleted and not replaced is background.

    Parameters
    ----------
    plane
        The labels as they are now, (Y, X).
    erased
        The object that was deleted at each pixel; 0 for none.
    """
    gone = np.setdiff1d(erased[erased > 0], plane)
    replaced = np.intersect1d(gone, erased[plane > 0])
    return np.asarray(np.isin(erased, replaced) & (plane == 0) if len(replaced) else erased < 0)


def _planes_of(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, *values.shape[-2:])


def _diameter(plane: np.ndarray, core: np.ndarray, classes: bool) -> float:
    """Return the median diameter (px) of the objects touched, or else of the parts that changed."""
    objects = np.zeros(0, plane.dtype) if classes else plane[core & (plane > 0)]
    if len(objects):
        sizes = np.unique(objects, return_counts=True)[1]
    else:
        sizes = np.bincount(ndimage.label(core)[0].ravel())[1:]
    return float(np.median(2 * np.sqrt(sizes / np.pi)))


def background_near(core: np.ndarray, clumps: np.ndarray, reach: float) -> np.ndarray:
    """Return what lies within `reach` of a mask (Y, X); of the rest of clumps only a rim.

    An object that was drawn in a clump has the clump's other objects right beside it.
    """
    near = _near(core, reach)
    return near & (~clumps | _near(core, RIM)) if clumps.any() else near


def _near(core: np.ndarray, reach: float) -> np.ndarray:
    """Return the pixels within `reach` of a mask (Y, X).

    Distances are computed around each part alone: a stroke in a large image must stay cheap.
    """
    out = core.copy()
    wide = int(np.ceil(reach))
    for rows, columns in ndimage.find_objects(ndimage.label(core)[0]):
        part = (
            slice(max(0, rows.start - wide), rows.stop + wide),
            slice(max(0, columns.start - wide), columns.stop + wide),
        )
        out[part] |= ndimage.distance_transform_edt(~core[part]) <= reach
    return out
