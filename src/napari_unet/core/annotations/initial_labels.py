"""The labels that a journal begins with, plane by plane, in its records."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.annotations.append_log import Header, Record, RecordFile
from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.annotations.edits import Edit
    from napari_unet.core.annotations.header import JournalHeader

WHOLE = 512 * 2**20
"""Labels of up to this many bytes are kept whole from the beginning."""
REACH = 16
"""Of a volume larger than `WHOLE`, this many planes on either side of an edit are kept with it."""
_BLOCK = 2**22  # pixels of a record


class InitialLabels:
    """Which planes (Y, X) of the first labels are in a journal, and where.

    Planes are counted in C order over the axes before Y and X.
    """

    def __init__(self, begin: JournalHeader) -> None:
        self.begin = begin
        self.planes = math.prod(begin.shape[:-2])
        self._rows = max(1, _BLOCK // max(1, begin.shape[-1]))
        self._blocks = max(1, -(-begin.shape[-2] // self._rows))
        self._offsets: dict[int, list[int]] = {}

    def take(self, offset: int, header: Header) -> None:
        """Note a record of the file."""
        self._offsets.setdefault(header["plane"], []).append(offset)

    def __contains__(self, plane: int) -> bool:
        return len(self._offsets.get(plane, ())) >= self._blocks

    def stored(self) -> list[int]:
        """List the planes that are in the journal."""
        return sorted(plane for plane in self._offsets if plane in self)

    def read(self, file: RecordFile, plane: int) -> np.ndarray:
        """Return a plane (Y, X); zeros if it is not in the journal."""
        out = np.zeros(self.begin.shape[-2:], self.begin.dtype)
        for offset in self._offsets.get(plane, ()):
            header, payload = file.read(offset)
            rows = np.frombuffer(payload, self.begin.dtype).reshape(-1, out.shape[1])
            out[header["row"] : header["row"] + len(rows)] = rows
        return out

    def records(self, plane: int, values: np.ndarray) -> Iterator[Record]:
        """Yield what is written of a plane (Y, X).

        Raises
        ------
        InputError
            Negative labels.
        """
        if values.min(initial=0) < 0:
            raise InputError("The labels are negative in places; give labels of 0 and above.")
        for row in range(0, max(1, len(values)), self._rows):
            block = np.ascontiguousarray(values[row : row + self._rows], self.begin.dtype)
            yield Record({"kind": "base", "plane": plane, "row": row}, block.tobytes())

    def everything(self, labels: Any) -> Iterator[Record]:
        """Yield what is written of all labels, read plane by plane."""
        for plane in range(self.planes):
            yield from self.records(plane, self.plane_of(labels, plane))

    def plane_of(self, labels: Any, plane: int) -> np.ndarray:
        """Read a plane of the labels' array."""
        place = np.unravel_index(plane, self.begin.shape[:-2]) if self.begin.shape[:-2] else ()
        return np.asarray(labels[(*map(int, place), slice(None), slice(None))])

    def missing(self, first: int, stop: int) -> list[int]:
        """List the planes that must be put in the journal before planes first:stop are changed."""
        if self.begin.whole:
            return []
        size = self.begin.frame_planes
        low, high = first // size * size, -(-stop // size) * size
        plane_bytes = math.prod(self.begin.shape[-2:]) * np.dtype(self.begin.dtype).itemsize
        if size * plane_bytes > WHOLE:
            low, high = max(low, first - REACH), min(high, stop + REACH)
        return [plane for plane in range(low, high) if plane not in self]

    def before(self, labels: Any, plane: int, edit: Edit | None) -> np.ndarray:
        """Copy a plane of the labels as it was before an edit that they hold already."""
        values = np.array(self.plane_of(labels, plane))
        if edit is not None:
            flat, part = clipped(edit, plane * values.size, values.size, after=False)
            values.reshape(-1)[flat] = part
        return values


def clipped(
    edit: Edit, start: int, size: int, *, after: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return an edit's pixels in a stretch of the flat labels, counted from its start, and values.

    The values are those after the edit, or before it.
    """
    part = edit.within(start, start + size)
    return part.flat() - start, part.values(after=after)
