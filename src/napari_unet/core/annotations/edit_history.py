"""The edits and marks of a journal: which are in force, in which order, and where they lie."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from napari_unet.core.annotations.edits import (
    CANVASES,
    DROPPED,
    KNOWN,
    LABELS,
    UNKNOWN,
    RegionMark,
    box_from_json,
    check_edit,
    is_moment,
    plane_span,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.annotations.append_log import Header


class EditHistory:
    """The edits and marks of a journal; edits are known by their number, in order of recording.

    Only offsets and places are held in memory: a journal may have many thousands of edits.

    Attributes
    ----------
    done, undone
        Numbers of the edits in force and of those that were undone; the last is the next to undo or
        redo.
    largest
        Largest label of any edit.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.done, self.undone = array("q"), array("q")
        self.largest = 0
        self._offsets, self._canvas, self._when = array("q"), array("b"), array("q")
        self._first, self._stop = array("q"), array("q")
        self._top, self._bottom = array("q"), array("q")
        self._steps = array("q")  # number + 1 of an edit that was applied; negative: undone
        self._marks: list[tuple[int, RegionMark]] = []
        self._count = 0

    def take(self, offset: int, header: Header) -> None:
        """Note a record: an edit, a mark, undo or redo; other kinds are ignored."""
        kind = header["kind"]
        self._count += 1
        if kind == "edit":
            self._take_edit(offset, header)
        elif kind in (KNOWN, UNKNOWN, DROPPED):
            if not is_moment(header["date"]):
                raise ValueError("its date is no date")
            mark = RegionMark(kind, box_from_json(header["box"], self.shape), header["date"])
            self._marks.append((self._count, mark))
        elif kind == "undo":
            self._move(self.done, self.undone, -1)
        elif kind == "redo":
            self._move(self.undone, self.done, 1)

    def _take_edit(self, offset: int, header: Header) -> None:
        check_edit(header, self.shape)
        number = len(self._offsets)
        box = box_from_json(header["box"], self.shape)
        first, stop = plane_span(box, self.shape)
        self._top.append(box[-2][0])
        self._bottom.append(box[-2][1])
        self._offsets.append(offset)
        self._canvas.append(CANVASES.index(header.get("canvas", LABELS)))
        self._when.append(self._count)
        self._first.append(first)
        self._stop.append(stop)
        self._steps.append(number + 1)
        self.done.append(number)
        del self.undone[:]
        self.largest = max(self.largest, header["most"])

    def _move(self, source: array[int], target: array[int], sign: int) -> None:
        number = source.pop()
        target.append(number)
        self._steps.append(sign * (number + 1))

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def marks(self) -> list[RegionMark]:
        """Every mark, in order."""
        return [mark for _, mark in self._marks]

    @property
    def changes(self) -> int:
        """How many edits, undos and redos there were."""
        return len(self._steps)

    def offset(self, number: int) -> int:
        """Return the offset of an edit in the file."""
        return self._offsets[number]

    def planes(self, number: int) -> tuple[int, int]:
        """Return the range of planes that an edit reaches: first, stop."""
        return self._first[number], self._stop[number]

    def reaches_rows(self, number: int, first: int, stop: int) -> bool:
        """Return whether an edit reaches rows first:stop of its planes."""
        return self._top[number] < stop and first < self._bottom[number]

    def steps(self, first: int, stop: int, canvas: str) -> Iterator[tuple[int, bool]]:
        """Yield each edit that reaches planes first:stop of a canvas, and True to apply it.

        An edit that was undone comes again with False, to be taken back, and so on.
        """
        wanted = CANVASES.index(canvas)
        for step in self._steps:
            number = abs(step) - 1
            if self._canvas[number] == wanted and self._reaches(number, first, stop):
                yield number, step > 0

    def events(self, first: int, stop: int) -> list[int | RegionMark]:
        """List the edits in force (by number) and marks that reach planes first:stop, in order."""
        found: list[tuple[int, int | RegionMark]] = [
            (self._when[number], number)
            for number in self.done
            if self._reaches(number, first, stop)
        ]
        for when, mark in self._marks:
            low, high = plane_span(mark.box, self.shape)
            if low < stop and first < high:
                found.append((when, mark))
        return [event for _, event in sorted(found, key=lambda pair: pair[0])]

    def _reaches(self, number: int, first: int, stop: int) -> bool:
        return self._first[number] < stop and first < self._stop[number]
