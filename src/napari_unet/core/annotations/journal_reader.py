"""A journal read through: the labels as they are now, frame by frame, and their edits."""

from __future__ import annotations

import dataclasses
import math
import threading
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import psutil

from napari_unet.core.annotations.append_log import RecordFile
from napari_unet.core.annotations.edit_history import EditHistory
from napari_unet.core.annotations.edits import (
    LABELS,
    Box,
    Edit,
    RegionMark,
    is_readable,
    plane_span,
)
from napari_unet.core.annotations.event_maps import clip
from napari_unet.core.annotations.header import InitialLabels, JournalHeader
from napari_unet.core.errors import InputError
from napari_unet.core.io.files import first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_unet.core.tiles import Index, Window


class JournalReader:
    """A journal open for reading; another window may be writing to it.

    Every method may be called from any thread and waits for a call in progress.

    Parameters
    ----------
    path
        The journal's file, as found by `find_journals`.

    Attributes
    ----------
    path
        The file.
    header
        The image, the labels and the model that it belongs to.

    Raises
    ------
    InputError
        The file is no journal, damaged or gone.
    """

    def __init__(self, path: Path) -> None:
        self._load(RecordFile(path))

    def _load(self, file: RecordFile) -> None:
        """Read the file through; it is closed on an error."""
        self.path, self._file = file.path, file
        self._guard = threading.RLock()
        records = file.scan()
        try:
            first = next(records, (0, {}))[1]
            if first.get("kind") != "begin":
                raise InputError(f"{file.path} is damaged: it does not begin as a journal does.")
            self.header = JournalHeader.from_header(first)
            self._base, self._history = InitialLabels(self.header), EditHistory(self.header.shape)
            for offset, header in records:
                try:
                    self._take(offset, header)
                except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
                    raise InputError(
                        f"{file.path} is damaged at byte {offset} ({first_line(error)}); restore "
                        "it from a backup."
                    ) from error
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
        """Number of edits that can be undone."""
        return len(self._history.done)

    @property
    def redoable(self) -> int:
        """Number of edits that can be redone."""
        return len(self._history.undone)

    @property
    def changes(self) -> int:
        """How many edits, undos and redos there were: unlike `undoable`, it never falls."""
        return self._history.changes

    def frames(self, ndim: int | None = None) -> list[Index]:
        """List the frames that were corrected or marked, by their index along the leading axes.

        Parameters
        ----------
        ndim
            2 to list planes, 3 to list volumes; None: what the journal counts as frames.
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
        return [unravel(frame, leading) for frame in sorted(touched)]

    def replay(
        self, index: Index = (), window: Window | None = None, *, canvas: str = LABELS
    ) -> np.ndarray:
        """Return the labels (or scribbles) as they are after the last record.

        Parameters
        ----------
        index
            Position along the first axes: of a frame, of a plane in it, or of several frames.
        window
            A part of a plane, (y, x), of which no more is held in memory; None: all of it.

        Returns
        -------
        np.ndarray
            Shape of the labels without the axes of `index`, or of the window; their type, or a
            wider one if an edit needs it. 0 where the journal does not hold the initial labels.
        """
        if window is not None:
            return self._replay_window(index, window, canvas)
        first, stop = self._planes(index)
        shape = self.header.shape[len(index) :]
        size = math.prod(self.header.shape[-2:])
        _check_memory(self.path, (stop - first) * size * self.dtype.itemsize)
        out = np.zeros((stop - first, size), self.dtype)
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

    def _replay_window(self, index: Index, window: Window, canvas: str) -> np.ndarray:
        box = self.box(index, window)
        first, stop = plane_span(box, self.header.shape)
        rows, columns = (slice(*span) for span in box[-2:])
        out = np.zeros((rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        with self._guard:
            if canvas == LABELS:
                out[...] = self._base.read(self._file, first, rows)[:, columns]
            flat = out.reshape(-1)
            for number, applied in self._history.steps(first, stop, canvas):
                if self._history.reaches_rows(number, *box[-2]):
                    where, before, after = clip(self._edit(number), box)
                    flat[where] = after if applied else before
        return out

    def replay_all(self) -> Iterator[tuple[Index, np.ndarray]]:
        """Yield index and labels of each frame that the journal holds."""
        size = self.header.frame_planes
        with self._guard:
            frames = {plane // size for plane in self._base.stored()}
        for frame in sorted(frames):
            index = unravel(frame, self.header.leading)
            yield index, self.replay(index)

    def history(self, index: Index = ()) -> list[Edit | RegionMark]:
        """Return a frame's edits that are not undone, and its marks; `index` as for `replay`."""
        with self._guard:
            events = self._history.events(*self._planes(index))
            return [self._edit(event) if isinstance(event, int) else event for event in events]

    def last_edits(self, count: int) -> list[Edit]:
        """Return the last edits that are not undone, the latest first."""
        with self._guard:
            return [self._edit(number) for number in reversed(self._history.done[-count:])]

    def marks(self) -> list[RegionMark]:
        """Return every mark, in order."""
        with self._guard:
            return self._history.marks

    def holds(self, index: Index = ()) -> np.ndarray:
        """Tell which planes (Y, X) of a frame have their initial labels here; bool (N,)."""
        with self._guard:
            return np.array([plane in self._base for plane in range(*self._planes(index))])

    def box(self, index: Index = (), window: tuple[slice, ...] | None = None) -> Box:
        """Return a region of the labels: a frame, a plane or a box.

        Parameters
        ----------
        index
            Position along the first axes of the labels.
        window
            Slices along the other axes; None: all of them.

        Raises
        ------
        InputError
            The region is not inside the labels.
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
        return np.promote_types(first, np.min_scalar_type(self._history.largest))

    def _take(self, offset: int, header: dict[str, Any]) -> None:
        if header["kind"] == "base":
            self._base.take(offset, header)
        elif header["kind"] == "moved":
            if not isinstance(header["path"], str) or not is_readable(header["path"]):
                raise ValueError("its image's path is no path")
            self.header = dataclasses.replace(self.header, path=header["path"])
        else:
            self._history.take(offset, header)

    def _edit(self, number: int) -> Edit:
        offset = self._history.offset(number)
        try:
            return Edit.from_record(self._file.read(offset), self.header.shape)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path} is damaged at byte {offset} ({error}).") from error

    def _planes(self, index: Index) -> tuple[int, int]:
        return plane_span(self.box(index), self.header.shape)


def _check_memory(path: Path, size: int) -> None:
    """Raise InputError if labels of this many bytes do not fit into the memory that is free."""
    free = psutil.virtual_memory().available
    if size > free:
        raise InputError(
            f"The labels that {path} begins with take {size / 2**30:,.0f} GB, more than the memory "
            "that is free; the journal is damaged, or needs a larger computer."
        )


def unravel(number: int, shape: tuple[int, ...]) -> Index:
    """Return the index of a frame or plane by its number in C order."""
    return tuple(int(n) for n in np.unravel_index(number, shape)) if shape else ()
