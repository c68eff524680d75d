"""The records of a journal: edits (pixels that changed) and region marks (checked, dropped)."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.annotations.append_log import Record
from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Numbers = NDArray[np.int64]

LABELS, SCRIBBLES = "labels", "scribbles"
CANVASES = (LABELS, SCRIBBLES)
"""What an edit changes: the labels, or the scribbles (0: nothing, 1 + class: that class)."""

TAKEN_OVER = "taken over"
"""The source of an edit that put a model's answer into the labels: it is no correction."""

KNOWN, UNKNOWN, DROPPED = "known", "unknown", "dropped"
"""What a region mark means: checked by the user; no longer so; left out of the training set."""

Box = tuple[tuple[int, int], ...]
"""Start and stop along each axis of the labels."""


@dataclass(frozen=True, eq=False)
class Edit:
    """The pixels that one action of the user changed: a stroke, a fill, a click ...

    They are stored as runs: pixels that follow each other in C order with equal values before and
    after. A brush stroke of 20,000 pixels has some hundred runs.

    Attributes
    ----------
    shape
        Of the labels.
    runs
        int64 (N, 4): flat index of the first pixel, length, value before, value after; ascending.
    source
        What made it, such as "paint", "fill" or "click"; shown to people. Of `TAKEN_OVER`, nothing
        is learned.
    confirmed
        Ids of objects that the user accepted as they are, without changing a pixel.
    confirmed_in
        The plane (Y, X) that each of them is in, counted in C order; empty: all that `box` reaches.
    box
        Bounding box of the pixels, or the region of the confirmed objects.
    canvas
        One of `CANVASES`.
    date
        Seconds since 1970.
    base
        Initial labels that the journal does not hold yet: planes (Y, X) by number.
    clicks
        The clicks behind the edit, in order: position in the labels, and whether it is positive.
    """

    shape: tuple[int, ...]
    runs: Numbers
    source: str = ""
    confirmed: tuple[int, ...] = ()
    confirmed_in: tuple[int, ...] = ()
    box: Box = ()
    canvas: str = LABELS
    date: float = field(default_factory=time.time)
    base: dict[int, np.ndarray] = field(default_factory=dict)
    clicks: tuple[tuple[tuple[float, ...], bool], ...] = ()

    @classmethod
    def from_pixels(
        cls,
        shape: Sequence[int],
        where: Sequence[ArrayLike],
        old: ArrayLike,
        new: ArrayLike,
        *,
        source: str = "",
        canvas: str = LABELS,
    ) -> Edit:
        """Build an edit from pixels, in any order.

        Parameters
        ----------
        shape
            Of the labels.
        where
            Integer index arrays, one for each axis of the labels, as `np.nonzero` returns them.
        old, new
            Values before and after, for each pixel or one for all. For a pixel that is listed more
            than once, the first `old` and the last `new` count.

        Raises
        ------
        InputError
            Pixels outside the labels, or negative values.
        """
        shape = tuple(int(n) for n in shape)
        try:
            flat = np.ravel_multi_index(tuple(np.asarray(w, np.int64) for w in where), shape)
        except (ValueError, TypeError) as error:
            raise InputError(f"The edit does not fit labels of shape {shape}: {error}.") from error
        flat = np.asarray(flat, np.int64).ravel()
        before, after = (np.broadcast_to(np.asarray(v), flat.shape) for v in (old, new))
        if min(before.min(initial=0), after.min(initial=0)) < 0:
            raise InputError("The edit holds negative labels; labels are 0 or above.")
        if np.any(flat[1:] <= flat[:-1]):
            order = _stable_order(flat)
            flat = flat[order]
            first = np.flatnonzero(np.diff(flat, prepend=-1))
            last = np.append(first[1:], len(flat)) - 1
            flat, before, after = flat[first], before[order[first]], after[order[last]]
        changed = before != after
        if not changed.all():
            flat, before, after = flat[changed], before[changed], after[changed]
        runs = _runs(flat, before.astype(np.int64), after.astype(np.int64))
        return cls(shape, runs, source, box=_box(flat, shape), canvas=canvas)

    @property
    def pixels(self) -> int:
        """Number of pixels that changed."""
        return int(self.runs[:, 1].sum())

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of objects that were changed, added, deleted or confirmed; of scribbles, values."""
        values = np.unique(self.runs[:, 2:])
        return tuple(sorted({*values[values > 0].tolist(), *self.confirmed}))

    def flat(self) -> Numbers:
        """Return the flat index of each pixel, ascending."""
        starts, lengths = self.runs[:, 0], self.runs[:, 1]
        offsets = np.cumsum(lengths) - lengths
        return np.repeat(starts - offsets, lengths) + np.arange(lengths.sum())

    def values(self, *, after: bool = True) -> Numbers:
        """Return each pixel's value after the edit, or before it."""
        return np.repeat(self.runs[:, 3 if after else 2], self.runs[:, 1])

    def clipped(self, start: int, size: int, *, after: bool = True) -> tuple[Numbers, Numbers]:
        """Return the pixels in a stretch of the flat labels: offsets from its start, and values.

        The values are those after the edit, or before it.
        """
        part = self.part(start, start + size)
        return part.flat() - start, part.values(after=after)

    def part(self, start: int, stop: int) -> Edit:
        """Return the edit of the pixels in a stretch of the flat labels alone."""
        ends = self.runs[:, 0] + self.runs[:, 1]
        first, last = np.searchsorted(ends, start, "right"), np.searchsorted(self.runs[:, 0], stop)
        runs = self.runs[first:last].copy()
        ends = np.minimum(ends[first:last], stop)
        runs[:, 0] = np.maximum(runs[:, 0], start)
        runs[:, 1] = ends - runs[:, 0]
        return replace(self, runs=runs)

    def record(self) -> Record:
        """Return the edit as a record."""
        header = {
            "kind": "edit",
            "source": self.source,
            "box": self.box,
            "pixels": self.pixels,
            "most": int(self.runs[:, 2:].max(initial=0)),
            "date": self.date,
        }
        header |= {"confirmed": self.confirmed} if self.confirmed else {}
        header |= {"confirmed_in": self.confirmed_in} if self.confirmed_in else {}
        header |= {"canvas": self.canvas} if self.canvas != LABELS else {}
        header |= {"clicks": self.clicks} if self.clicks else {}
        columns = self.runs.T.copy()
        columns[0, 1:] = np.diff(columns[0])
        return Record(header, columns.astype("<i8").tobytes())

    @classmethod
    def from_record(cls, record: Record, shape: tuple[int, ...]) -> Edit:
        """Build the edit from its record; `shape` is that of the labels.

        Raises
        ------
        ValueError
            The record is damaged.
        """
        columns = np.frombuffer(record.payload, "<i8").reshape(4, -1).astype(np.int64)
        columns[0] = np.cumsum(columns[0])
        _check_runs(columns, math.prod(shape))
        check_edit(record.header, shape)
        header = record.header
        return cls(
            shape,
            np.ascontiguousarray(columns.T),
            header["source"],
            tuple(header.get("confirmed", ())),
            tuple(header.get("confirmed_in", ())),
            box_from_json(header["box"]),
            header.get("canvas", LABELS),
            header["date"],
            clicks=tuple((tuple(place), bool(sign)) for place, sign in header.get("clicks", ())),
        )


@dataclass(frozen=True)
class RegionMark:
    """A region that the user marked as checked, unchecked or left out.

    Attributes
    ----------
    meaning
        `KNOWN`, `UNKNOWN` or `DROPPED`.
    box
        Start and stop along each axis of the labels.
    date
        Seconds since 1970.
    """

    meaning: str
    box: Box
    date: float = field(default_factory=time.time)

    def record(self) -> Record:
        """Return the mark as a record."""
        return Record({"kind": self.meaning, "box": self.box, "date": self.date})


def box_from_json(values: Any, shape: tuple[int, ...] | None = None) -> Box:
    """Build a box from its JSON values.

    Raises
    ------
    ValueError
        It is no box, or not inside labels of this shape.
    """
    if not isinstance(values, list | tuple) or not all(map(_is_pair, values)):
        raise ValueError("its region is no region")
    box = tuple((int(start), int(stop)) for start, stop in values)
    inside = shape is None or len(box) == len(shape)
    if shape is not None and inside:
        inside = all(0 <= low < high <= n for (low, high), n in zip(box, shape, strict=True))
    if not inside:
        raise ValueError("its region is outside the labels")
    return box


def _is_pair(ends: Any) -> bool:
    return isinstance(ends, list | tuple) and len(ends) == 2 and all(map(is_count, ends))


def check_edit(header: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Check the header of an edit's record.

    Raises
    ------
    ValueError
        A field holds what no edit can.
    """
    box_from_json(header["box"], shape)
    confirmed, clicks = header.get("confirmed", []), header.get("clicks", [])
    planes = header.get("confirmed_in", [])
    good = (
        is_count(header["most"])
        and is_moment(header["date"])
        and isinstance(header["source"], str)
        and is_readable(header["source"])
        and header.get("canvas", LABELS) in CANVASES
        and isinstance(confirmed, list | tuple)
        and all(map(is_count, confirmed))
        and isinstance(planes, list | tuple)
        and len(planes) in (0, len(confirmed))
        and all(is_count(plane, math.prod(shape[:-2])) for plane in planes)
        and isinstance(clicks, list | tuple)
        and all(map(_is_click, clicks))
    )
    if not good:
        raise ValueError("it is an edit that cannot be")


def _is_click(click: Any) -> bool:
    return (
        isinstance(click, list | tuple)
        and len(click) == 2
        and isinstance(click[0], list | tuple)
        and all(is_moment(number) for number in click[0])
    )


def _check_runs(columns: Numbers, size: int) -> None:
    """Raise ValueError unless runs of pixels lie one behind the other inside the labels."""
    starts, lengths, *values = columns
    if not len(starts):
        return
    good = (starts >= 0).all() and (lengths > 0).all() and (lengths <= size).all()
    good = good and starts.max() < size and (starts + lengths <= size).all()
    good = good and (starts[1:] >= starts[:-1] + lengths[:-1]).all()
    if not good or min(part.min() for part in values) < 0:
        raise ValueError("it changes pixels outside the labels")


def is_count(value: Any, below: int = 2**63) -> bool:
    """Return whether a value of JSON is a whole number from 0 on, below a bound."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def is_moment(value: Any) -> bool:
    """Return whether a value of JSON is a finite number, such as a date in seconds."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 1e15


def is_readable(text: str) -> bool:
    """Return whether a text can be written to a file and be a part of a path."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def plane_span(box: Box, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the range of planes (Y, X), counted in C order, that a box reaches: first, stop."""
    leading = shape[:-2]
    if not box or not leading:
        return 0, 1
    first = int(np.ravel_multi_index([start for start, _ in box[:-2]], leading))
    last = int(np.ravel_multi_index([stop - 1 for _, stop in box[:-2]], leading))
    return first, last + 1


def _stable_order(flat: Numbers) -> NDArray[np.intp]:
    """Return the stable sorting order of flat indices."""
    order = np.argsort(flat)
    if np.all(np.diff(flat[order])):
        return order
    return np.argsort(flat, kind="stable")  # only needed for duplicates: five times as slow


def _runs(flat: Numbers, old: Numbers, new: Numbers) -> Numbers:
    breaks = (np.diff(flat) != 1) | (np.diff(old) != 0) | (np.diff(new) != 0)
    first = np.flatnonzero(np.concatenate([[True], breaks])) if len(flat) else np.zeros(0, int)
    lengths = np.diff(first, append=len(flat))
    return np.stack([flat[first], lengths, old[first], new[first]], axis=1)


def _box(flat: Numbers, shape: tuple[int, ...]) -> Box:
    """Return the bounding box of ascending flat indices."""
    if not len(flat):
        return ()
    box: list[tuple[int, int]] = []
    for axis in range(len(shape)):
        places = flat // math.prod(shape[axis + 1 :])
        places = places % shape[axis]
        box.append((int(places.min()), int(places.max()) + 1))
    return tuple(box)
