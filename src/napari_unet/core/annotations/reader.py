"""What a journal says: the labels as they are now, frame by frame, and how they came about."""

from __future__ import annotations

import dataclasses
import math
import threading
from array import array
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_unet.core.annotations.append_log import RecordFile
from napari_unet.core.annotations.edits import (
    CANVASES,
    DROPPED,
    KNOWN,
    LABELS,
    UNKNOWN,
    Box,
    Edit,
    RegionMark,
    box_from_json,
    plane_span,
)
from napari_unet.core.annotations.header import InitialLabels, JournalHeader
from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_unet.core.annotations.append_log import Header
    from napari_unet.core.tiles import Index


class JournalReader:
    """A journal to look at; it can be open while another window writes to it.

    Every method may be called from any thread; each waits for the one that is at work.

    Parameters
    ----------
    path
        The journal's file, such as `find_journals` names.

    Attributes
    ----------
    path
        The file.
    about
        What it says of image, labels and model.

    Raises
    ------
    InputError
        No journal, or one that is damaged or gone.
    """

    def __init__(self, path: Path) -> None:
        self._load(RecordFile(path))

    def _load(self, file: RecordFile) -> None:
        """Read the file through; close it if it is of no use."""
        self.path, self._file = file.path, file
        self._guard = threading.RLock()
        records = file.scan()
        try:
            self.header = JournalHeader.from_header(next(records, (0, {}))[1])
            self._base, self._history = InitialLabels(self.header), EditHistory(self.header.shape)
            for offset, header in records:
                self._take(offset, header)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, so that others can write to it; may be called twice."""
        self._file.close()

    @property
    def undoable(self) -> int:
        """How many edits `undo` can undo."""
        return len(self._history.done)

    @property
    def redoable(self) -> int:
        """How many edits `redo` can do again."""
        return len(self._history.undone)

    def frames(self, ndim: int | None = None) -> list[Index]:
        """List the frames that were corrected or marked, by their index along the leading axes.

        Parameters
        ----------
        ndim
            2 to list planes, 3 to list volumes; None: as the journal has it.
        """
        shape = self.header.shape
        leading = self.header.leading if ndim is None else shape[: max(0, len(shape) - ndim)]
        size = math.prod(shape[len(leading) : -2])
        touched: set[int] = set()
        with self._guard:
            spans = [self._history.planes(number) for number in self._history.done]
            spans += [plane_span(mark.box, shape) for mark in self._history.marks]
        for first, stop in spans:
            touched.update(range(first // size, (stop - 1) // size + 1))
        return [unravelled(frame, leading) for frame in sorted(touched)]

    def replay(self, index: Index = (), *, canvas: str = LABELS) -> np.ndarray:
        """Return the labels (or scribbles) as they are after the last record.

        Parameters
        ----------
        index
            Position along the leading axes: of a frame, or of a part or several of them.

        Returns
        -------
        np.ndarray
            Shape of the labels without the axes of `index`, of their type, or a wider one where an
            edit needs it; 0 where the journal does not hold the labels.
        """
        first, stop = self._planes(index)
        shape = self.header.shape[len(index) :]
        out = np.zeros((stop - first, math.prod(self.header.shape[-2:])), self.dtype)
        with self._guard:
            if canvas == LABELS:
                for plane in range(first, stop):
                    out[plane - first] = self._base.read(self._file, plane).reshape(-1)
            flat = out.reshape(-1)
            for number, applied in self._history.steps(first, stop, canvas):
                start = first * out.shape[1]
                where, values = self._edit(number).clipped(start, out.size, after=applied)
                flat[where] = values
        return out.reshape(shape)

    def replay_all(self) -> Iterator[tuple[Index, np.ndarray]]:
        """Yield index and labels of each frame that the journal holds."""
        size = self.header.frame_planes
        with self._guard:
            frames = {plane // size for plane in self._base.stored()}
        for frame in sorted(frames):
            index = unravelled(frame, self.header.leading)
            yield index, self.replay(index)

    def history(self, index: Index = ()) -> list[Edit | RegionMark]:
        """Return what is in force of a frame (or as for `replay`): edits not undone, and marks."""
        with self._guard:
            events = self._history.events(*self._planes(index))
            return [self._edit(event) if isinstance(event, int) else event for event in events]

    def marks(self) -> list[RegionMark]:
        """Return every mark, in order."""
        with self._guard:
            return self._history.marks

    def holds(self, index: Index = ()) -> np.ndarray:
        """Tell which planes (Y, X) of a frame (or as for `replay`) are held; bool (N,)."""
        with self._guard:
            return np.array([plane in self._base for plane in range(*self._planes(index))])

    def box(self, index: Index = (), window: tuple[slice, ...] | None = None) -> Box:
        """Return a region of the labels: a frame, a plane or a box.

        Parameters
        ----------
        index
            Position along the first axes of the labels, as many as are fixed.
        window
            Slices along the other axes; all of them if not given.

        Raises
        ------
        InputError
            It is not inside the labels.
        """
        shape = self.header.shape
        rest = shape[len(index) :]
        window = (slice(None),) * len(rest) if window is None else window
        spans = [slice(n, n + 1) for n in index]
        spans += [slice(*s.indices(n)[:2]) for s, n in zip(window, rest, strict=False)]
        box = tuple((int(s.start), int(s.stop)) for s in spans)
        inside = all(0 <= start < stop <= n for (start, stop), n in zip(box, shape, strict=False))
        if len(box) != len(shape) or len(rest) < 2 or not inside:
            raise InputError(f"The region {index} {window} is not in labels of shape {shape}.")
        return box

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the labels that `replay` returns."""
        first: np.dtype[Any] = np.dtype(self.header.dtype).newbyteorder("=")
        return np.promote_types(first, np.min_scalar_type(self._history.most))

    def _take(self, offset: int, header: dict[str, Any]) -> None:
        if header["kind"] == "base":
            self._base.take(offset, header)
        elif header["kind"] == "moved":
            self.header = dataclasses.replace(self.header, path=header["path"])
        else:
            self._history.take(offset, header)

    def _edit(self, number: int) -> Edit:
        return Edit.from_record(self._file.read(self._history.offset(number)), self.header.shape)

    def _planes(self, index: Index) -> tuple[int, int]:
        return plane_span(self.box(index), self.header.shape)


def unravelled(number: int, shape: tuple[int, ...]) -> Index:
    """Return the position of the number-th of the frames or planes that `shape` counts."""
    return tuple(int(n) for n in np.unravel_index(number, shape)) if shape else ()


class EditHistory:
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
        self._marks: list[tuple[int, RegionMark]] = []
        self._count = 0

    def take(self, offset: int, header: Header) -> None:
        """Note a record of the file; other kinds than edits, marks, undo and redo are passed by."""
        kind = header["kind"]
        self._count += 1
        if kind == "edit":
            self._take_edit(offset, header)
        elif kind in (KNOWN, UNKNOWN, DROPPED):
            mark = RegionMark(kind, box_from_json(header["box"]), header["date"])
            self._marks.append((self._count, mark))
        elif kind == "undo":
            self._move(self.done, self.undone, -1)
        elif kind == "redo":
            self._move(self.undone, self.done, 1)

    def _take_edit(self, offset: int, header: Header) -> None:
        number = len(self._offsets)
        first, stop = plane_span(box_from_json(header["box"]), self.shape)
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
    def marks(self) -> list[RegionMark]:
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
