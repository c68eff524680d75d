"""What happened, in order: where each edit lies in the file, what is undone, what was marked.

Of an edit only some numbers are in memory; its pixels stay on the disk.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from napari_unet.core.journal.edits import (
    CANVASES,
    DROPPED,
    KNOWN,
    LABELS,
    UNKNOWN,
    Mark,
    box_of,
    plane_span,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.journal.recordfile import Header


class History:
    """The edits and marks of a journal, by their numbers; see `take`.

    Attributes
    ----------
    done, undone
        Numbers of the edits that are in force, and of those that `redo` brings back; the next one
        to undo or redo is the last.
    most
        Largest label of any edit.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.done, self.undone = array("q"), array("q")
        self.most = 0
        self._offsets, self._canvas, self._when = array("q"), array("b"), array("q")
        self._first, self._stop = array("q"), array("q")
        self._steps = array("q")  # number + 1 of an edit that was applied, negative: taken back
        self._marks: list[tuple[int, Mark]] = []
        self._count = 0

    def take(self, offset: int, header: Header) -> None:
        """Note a record of the file; other kinds than edits, marks, undo and redo are passed by."""
        kind = header["kind"]
        self._count += 1
        if kind == "edit":
            self._take_edit(offset, header)
        elif kind in (KNOWN, UNKNOWN, DROPPED):
            mark = Mark(kind, box_of(header["box"]), header["date"])
            self._marks.append((self._count, mark))
        elif kind == "undo":
            self._move(self.done, self.undone, -1)
        elif kind == "redo":
            self._move(self.undone, self.done, 1)

    def _take_edit(self, offset: int, header: Header) -> None:
        number = len(self._offsets)
        first, stop = plane_span(box_of(header["box"]), self.shape)
        self._offsets.append(offset)
        self._canvas.append(CANVASES.index(header.get("canvas", LABELS)))
        self._when.append(self._count)
        self._first.append(first)
        self._stop.append(stop)
        self._steps.append(number + 1)
        self.done.append(number)
        del self.undone[:]
        self.most = max(self.most, header["most"])

    def _move(self, source: array[int], target: array[int], sign: int) -> None:
        number = source.pop()
        target.append(number)
        self._steps.append(sign * (number + 1))

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def marks(self) -> list[Mark]:
        """Every mark, in order."""
        return [mark for _, mark in self._marks]

    def offset(self, number: int) -> int:
        """Return where an edit lies in the file."""
        return self._offsets[number]

    def planes(self, number: int) -> tuple[int, int]:
        """Return the first plane of an edit and the one after its last."""
        return self._first[number], self._stop[number]

    def steps(self, first: int, stop: int, canvas: str) -> Iterator[tuple[int, bool]]:
        """Yield each edit that reaches planes first:stop of a canvas, and whether it is applied.

        It comes once more, not to be applied but taken back, where it was undone, and so on.
        """
        wanted = CANVASES.index(canvas)
        for step in self._steps:
            number = abs(step) - 1
            if self._canvas[number] == wanted and self._reaches(number, first, stop):
                yield number, step > 0

    def events(self, first: int, stop: int) -> list[int | Mark]:
        """List the edits in force (by number) and marks that reach planes first:stop, in order."""
        found: list[tuple[int, int | Mark]] = [
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
