"""The annotation mask of a plane, worked out window by window: planes may be large."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_unet.core.annotations.annotation_mask import AnnotationMask, pack, unpack
from napari_unet.core.annotations.edits import SCRIBBLES, Edit
from napari_unet.core.annotations.event_maps import EventMaps, meet, objects_edited
from napari_unet.core.annotations.known_around import (
    RIM,
    RIM_SHARE,
    known_around,
    margin_of,
    middle_diameter,
    near,
    rest_of,
)
from napari_unet.core.instances.mask import count_pixels
from napari_unet.core.tiles import relative_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_unet.core.annotations.edits import Box, RegionMark
    from napari_unet.core.annotations.journal_reader import JournalReader
    from napari_unet.core.tiles import Index, Window

STRIP = 2**24
"""Pixels of labels that are kept for cells side by side, at most."""
BAND = 2**22
"""Pixels of a plane that are looked at together."""


@dataclass(frozen=True)
class _Survey:
    """What all of a plane says, and a window of it alone does not.

    Attributes
    ----------
    replaced
        Deleted objects in whose place others were drawn.
    diameter
        Of the objects touched, in pixels; None if nothing was touched.
    busy
        Whether there is anything to know in each band.
    """

    replaced: np.ndarray
    diameter: float | None
    busy: tuple[bool, ...]


class PlaneMask:
    """The annotation mask of a plane, worked out window by window: planes may be large.

    A window's mask is that of the whole plane, cut out. To work it out takes some thirty bytes a
    pixel, so that no more than `BAND` pixels are looked at together.

    Parameters
    ----------
    read
        Returns the labels of a window of the plane, as they are now.
    events, box, classes, touched, margin
        As for `mask_from_events`; of one plane.
    held
        Whether the journal knows the labels of the plane: without them only scribbles teach.
    """

    def __init__(
        self,
        read: Callable[[Window], np.ndarray],
        events: Iterable[Edit | RegionMark],
        box: Box,
        *,
        classes: bool = False,
        touched: bool = True,
        margin: float | None = None,
        held: bool = True,
    ) -> None:
        self._read, self._box, self._held = read, box, held
        self._classes, self._touched, self._margin = classes, touched, margin
        self.shape = tuple(stop - start for start, stop in box[-2:])
        self._events = [event for event in events if meet(event.box[:-2], box[:-2])]
        self._all: AnnotationMask | None = None  # of a plane that is looked at in one piece
        self._bands: dict[int, bytes] = {}  # of a large one, by their first row
        self._seen: tuple[Window, np.ndarray] | None = None
        self._drawn: tuple[Window, EventMaps] | None = None

    @classmethod
    def from_journal(
        cls,
        journal: JournalReader,
        index: Index,
        *,
        touched: bool = True,
        margin: float | None = None,
        classes: bool | None = None,
    ) -> PlaneMask:
        """Return the mask of a plane (Y, X) of a journal."""
        return cls(
            functools.partial(journal.replay, index),
            journal.history(index),
            journal.box(index),
            classes=journal.header.head == "semantic" if classes is None else classes,
            touched=touched,
            margin=margin,
            held=bool(journal.holds(index).all()),
        )

    def whole(self) -> AnnotationMask:
        """Return the mask of all of the plane."""
        parts = self.bands()
        window, first = next(parts)
        if first.known.shape == self.shape:
            return first
        kinds = (first.labels.dtype, bool, bool, bool)
        out = AnnotationMask(*(np.zeros(self.shape, kind) for kind in kinds))
        for place, mask in itertools.chain([(window, first)], parts):
            for name in ("labels", "known", "scribbled", "assumed"):
                getattr(out, name)[place] = getattr(mask, name)
        return out

    def bands(self) -> Iterator[tuple[Window, AnnotationMask]]:
        """Yield the mask in bands of rows, which cover the plane."""
        for window in self._windows():
            mask = self.read(window)
            if self._all is None:
                self._bands[window[0].start] = pack(mask)
            yield window, mask

    def read(self, window: Window) -> AnnotationMask:
        """Return the mask of a window."""
        windows = list(self._windows())
        if len(windows) == 1:
            if self._all is None:
                self._all = self._work_out(windows[0])
            return self._all.part(window)
        reached = [each for each in windows if _overlap(each[0], window[0])]
        known = all(each[0].start in self._bands for each in reached)
        # What is drawn of classes is a part of the labels, too.
        if not known or any(map(_is_scribble, self._events_in(window))):
            return self._work_out(window)
        rows, columns = window
        bands = [unpack(self._bands[each[0].start], each, columns) for each in reached]
        first = rows.start - reached[0][0].start
        parts = np.concatenate(bands, axis=1)[:, first : first + rows.stop - rows.start]
        return AnnotationMask(np.array(self._labels(window)), *parts)

    def _work_out(self, window: Window) -> AnnotationMask:
        survey, wide = self._survey, window
        if survey.diameter is not None:
            reach = self._reach(survey.diameter)
            wide = tuple(
                slice(max(0, span.start - reach), min(size, span.stop + reach))
                for span, size in zip(window, self.shape, strict=True)
            )
        if not self._is_busy(wide):
            nothing = np.zeros([span.stop - span.start for span in window], bool)
            labels = np.array(self._labels(window))
            return AnnotationMask(labels, nothing, nothing.copy(), nothing.copy())
        labels, maps = self._labels(wide), self._maps(wide)
        known, assumed = maps.marked.copy(), np.zeros(labels.shape, bool)
        if survey.diameter is not None:
            seen, assumed = self._around(labels, maps, survey.replaced, survey.diameter)
            assumed &= ~known
            known |= seen
        found = _with_scribbles(labels, known, assumed, maps.scribbles, self._classes)
        if not self._held:
            found.known[...] = found.assumed[...] = False
        return found.part(relative_window(window, wide))

    @cached_property
    def _objects(self) -> tuple[set[int], set[int]]:
        """Objects that were edited, and such as were deleted."""
        return objects_edited(self._events, self._box)

    @cached_property
    def _survey(self) -> _Survey:
        """Look at all of the plane, band by band."""
        ids, deleted = self._objects
        names = np.array(sorted(ids | deleted), np.int64)
        if self._classes or not self._touched:
            names = names[:0]  # nothing but the events themselves teaches
        busy, sizes = [], Counter[int]()
        there, erased, covered = set[int](), set[int](), set[int]()
        for window in self._windows():
            reached = self._is_reached(window)
            maps = self._maps(window) if reached else None
            labels = self._labels(window)
            named = np.isin(labels, names) if len(names) else np.zeros(labels.shape, bool)
            busy.append(reached or bool(named.any()))
            if not busy[-1] or self._classes or not self._touched:
                continue
            there.update(count_pixels(labels[named])[0].tolist())
            core = named & np.isin(labels, list(ids))
            if maps is not None:
                erased.update(count_pixels(maps.erased)[0].tolist())
                covered.update(count_pixels(maps.erased[labels > 0])[0].tolist())
                core |= maps.changed & (labels > 0)
            values, counts = count_pixels(labels[core])
            sizes.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        replaced = np.array(sorted(((erased - there) & covered) - {0}), np.int64)
        if not self._touched:
            return _Survey(replaced, None, tuple(busy))
        found = np.array([*sizes.values()]) if sizes else self._part_sizes(replaced)
        diameter = middle_diameter(found) if len(found) else None
        return _Survey(replaced, diameter, tuple(busy))

    def _part_sizes(self, replaced: np.ndarray) -> np.ndarray:
        """Return the areas of the connected parts of what changed, where no objects are left."""
        areas, pairs, above = [0], [np.zeros((2, 0), int)], None
        for window in self._windows():
            if not self._is_reached(window):
                above = None
                continue
            core, _ = self._core(self._labels(window), self._maps(window), replaced)
            parts = ndimage.label(core)[0].astype(int)
            found = np.bincount(parts.ravel())[1:]
            parts[core] += len(areas) - 1
            areas += found.tolist()
            if above is not None:
                joined = (above > 0) & (parts[0] > 0)
                pairs.append(np.stack([above[joined], parts[0][joined]]))
            above = parts[-1]
        one, other = np.concatenate(pairs, axis=1)
        graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(areas),) * 2)
        groups = connected_components(graph, directed=False)[1]
        whole = np.bincount(groups, areas).astype(int)
        return whole[whole > 0]

    def _core(
        self, labels: np.ndarray, maps: EventMaps, replaced: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what was touched in a window, and the rest of clumps."""
        if self._classes:
            return maps.changed, np.zeros(labels.shape, bool)
        clumps = rest_of(replaced, labels, maps.erased)
        core = maps.changed & ~clumps
        ids = self._objects[0]
        return (core | np.isin(labels, list(ids)) if ids else core), clumps

    def _around(
        self, labels: np.ndarray, maps: EventMaps, replaced: np.ndarray, diameter: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels touched and what is around them, and which of it is assumed."""
        core, clumps = self._core(labels, maps, replaced)
        if self._classes:
            margin = margin_of(diameter) if self._margin is None else self._margin
            seen, assumed = near(core, margin), np.zeros(labels.shape, bool)
        else:
            seen, assumed = known_around(labels, core, clumps, diameter, self._margin)
        return seen & ~maps.left_out, assumed & ~maps.left_out

    def _reach(self, diameter: float) -> int:
        """Return how far away what is known of a pixel may be decided."""
        margin = margin_of(diameter) if self._margin is None else self._margin
        return math.ceil(max(margin, RIM, RIM_SHARE * diameter)) + 1

    def _windows(self) -> Iterator[Window]:
        rows = max(1, BAND // max(1, self.shape[1]))
        for start in range(0, self.shape[0], rows):
            yield slice(start, min(self.shape[0], start + rows)), slice(0, self.shape[1])

    def _is_busy(self, window: Window) -> bool:
        """Return whether something may be known in a window."""
        bands = zip(self._windows(), self._survey.busy, strict=True)
        first, stop = window[0].start, window[0].stop
        return any(busy and band.start < stop and first < band.stop for (band, _), busy in bands)

    def _is_reached(self, window: Window) -> bool:
        """Return whether an event reaches a window."""
        return any(True for _ in self._events_in(window))

    def _events_in(self, window: Window) -> Iterator[Edit | RegionMark]:
        """Yield the events that reach a window, in order."""
        box = self._window_box(window)
        return (event for event in self._events if meet(event.box[-2:], box[-2:]))

    def _labels(self, window: Window) -> np.ndarray:
        """Read the labels of a window; the last ones are kept, and those beside them."""
        rows, columns = window
        if self._seen is None or not _covers(self._seen[0], window):
            self._seen = None
            # Cells lie side by side: what lies in the same rows is replayed once for all of them.
            small = (rows.stop - rows.start) * self.shape[1] <= STRIP
            strip = (rows, slice(0, self.shape[1]) if small else columns)
            self._seen = strip, self._read(strip)
        seen, labels = self._seen
        return labels[:, columns.start - seen[1].start : columns.stop - seen[1].start]

    def _maps(self, window: Window) -> EventMaps:
        """Draw the events of a window; the last maps are kept."""
        if self._drawn is None or self._drawn[0] != window:
            self._drawn = None
            maps = EventMaps(self._window_box(window), self._box)
            for event in self._events_in(window):
                maps.take(event)
            self._drawn = window, maps
        return self._drawn[1]

    def _window_box(self, window: Window) -> Box:
        pairs = zip(window, self._box[-2:], strict=True)
        spans = ((low + span.start, low + span.stop) for span, (low, _) in pairs)
        return (*self._box[:-2], *spans)


def _with_scribbles(
    labels: np.ndarray,
    known: np.ndarray,
    assumed: np.ndarray,
    scribbles: np.ndarray,
    classes: bool,
) -> AnnotationMask:
    """Put scribbles over what is known without them; `known` and `assumed` are changed."""
    labels, scribbled = np.array(labels), np.zeros(labels.shape, bool)
    if scribbles.any():
        named = scribbles > 0 if classes else scribbles == 1
        labels[named] = scribbles[named] - 1
        known |= named
        outlined = known & (labels > 0)
        scribbled = (scribbles > 1) & ~outlined & ~named
        known &= ~scribbled
        assumed &= known & ~named
    return AnnotationMask(labels, known, scribbled, assumed)


def _is_scribble(event: Edit | RegionMark) -> bool:
    return isinstance(event, Edit) and event.canvas == SCRIBBLES


def _overlap(one: slice, other: slice) -> bool:
    return bool(one.start < other.stop and other.start < one.stop)


def _covers(strip: Window, window: Window) -> bool:
    """Return whether a strip has the rows of a window, and all of its columns."""
    (rows, columns), (wanted, inside) = strip, window
    return rows == wanted and columns.start <= inside.start and inside.stop <= columns.stop
