"""The directory of a CZI file, checked before a library counts through what it claims.

libCZI visits every position between the first and the last that the directory names, and asks
nobody whether it may: a damaged number would hold it up for hours, where nothing can stop it.
The layout is that of Zeiss's ZISRAW specification, which libCZI's documentation repeats.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

_SEGMENT = struct.Struct("<16sqq")
_FILE = struct.Struct("<4i16s16siqqiq")
_ENTRY = struct.Struct("<2siqii6si")
_DIMENSION = struct.Struct("<4siifi")
_LARGEST = 2**24
"""Positions along an axis, pixels included, and how far from 0 it begins, at most."""
_POSITIONS = 1000
"""Positions along the axes but x and y for each sub-block of the file, at most."""


def check_czi(path: Path) -> None:
    """Check that the sub-blocks of a CZI file can be where and as many as its directory says.

    Raises
    ------
    InputError
        They cannot.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            name, _, _ = _SEGMENT.unpack(file.read(_SEGMENT.size))
            header = _FILE.unpack(file.read(_FILE.size))
            directory, metadata = header[7], header[8]
            sound = name.startswith(b"ZISRAWFILE") and 0 < directory < size and 0 <= metadata < size
            file.seek(directory if sound else 0)
            name, _, _ = _SEGMENT.unpack(file.read(_SEGMENT.size))
            (count,) = struct.unpack("<i124x", file.read(128))
            sound = sound and name.startswith(b"ZISRAWDIRECTORY")
            sound = sound and 0 < count <= (size - file.tell()) // _ENTRY.size
            sound = sound and _check_entries(file.read(size - file.tell()), count)
    except struct.error:
        sound = False
    if not sound:
        raise InputError(f"{path} is cut short or damaged; copy or export it once more.")


def _check_entries(content: bytes, count: int) -> bool:
    """Return whether the entries of a directory are possible."""
    at, spans = 0, dict[bytes, tuple[int, int]]()
    for _ in range(count):
        schema, _, position, _, _, _, dimensions = _ENTRY.unpack_from(content, at)
        at += _ENTRY.size
        if schema != b"DV" or position < 0 or not 0 < dimensions <= 32:
            return False
        for _ in range(dimensions):
            axis, start, length, _, stored = _DIMENSION.unpack_from(content, at)
            at += _DIMENSION.size
            if abs(start) > _LARGEST or not 0 < length <= _LARGEST or not 0 <= stored <= _LARGEST:
                return False
            if axis.rstrip(b"\0") not in (b"X", b"Y"):
                low, high = spans.get(axis, (start, start))
                spans[axis] = min(low, start), max(high, start + length)
    return all(high - low <= _POSITIONS + count for low, high in spans.values())
