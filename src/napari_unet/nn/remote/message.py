"""What users and servers send each other: a header in JSON, and arrays compressed without loss.

Nothing in it is executed or unpickled, and nothing is taken for granted: sizes are checked before
memory is taken for them.
"""

from __future__ import annotations

import functools
import json
import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
"""Of the messages; both sides must speak the same."""
BODY_LIMIT = 64 << 20
"""Bytes of a message, compressed and unpacked, at most; models have `MODEL_LIMIT`."""
MODEL_LIMIT = 1 << 30
"""Bytes of a model's message, at most."""
_HEADER_LIMIT = 16 << 20
_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool")
_FLOATS = ("float16", "float32", "float64")


@functools.cache
def _codec() -> Any:
    # Imported where it is needed: runs on this computer do without it.
    from numcodecs.blosc import Blosc

    # Of zstd's levels this is the last that keeps up with a GPU; bits are shuffled, for
    # neighbouring pixels differ in their low bits only.
    return Blosc(cname="zstd", clevel=3, shuffle=Blosc.BITSHUFFLE)


class MessageError(ValueError):
    """Bytes that are no message, or one that is too large."""


class Message(NamedTuple):
    """A header of JSON values, and arrays by name."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


def pack(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> bytes:
    """Return a message as bytes."""
    parts, described = [], []
    for name, values in (arrays or {}).items():
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
        data = bytes(_codec().encode(values)) if values.size else b""
        described.append([name, values.dtype.name, list(values.shape), len(data)])
        parts.append(data)
    text = json.dumps({"version": VERSION, "header": header, "arrays": described}).encode()
    return b"".join([struct.pack("<I", len(text)), text, *parts])


def unpack(data: bytes, limit: int = BODY_LIMIT) -> Message:
    """Read a message.

    Raises
    ------
    MessageError
        It is none, of another version, or its arrays have more than `limit` bytes.
    """
    if len(data) < 4:
        raise MessageError("it is cut short")
    (length,) = struct.unpack_from("<I", data)
    if length > min(_HEADER_LIMIT, len(data) - 4):
        raise MessageError("its header is cut short or too long")
    try:
        found = json.loads(data[4 : 4 + length])
        if found["version"] != VERSION:
            raise MessageError(f"it is of version {found['version']}, known is {VERSION}")
        header, described = dict(found["header"]), list(found["arrays"])
        arrays, at, left = {}, 4 + length, limit
        for name, kind, shape, size in described:
            values, left = _array(data[at : at + size], str(kind), shape, size, left)
            arrays[str(name)], at = values, at + size
    except MessageError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, RuntimeError) as error:
        raise MessageError(f"it is damaged ({type(error).__name__})") from error
    return Message(header, arrays)


def _array(
    data: bytes, kind: str, shape: list[int], size: int, left: int
) -> tuple[np.ndarray, int]:
    """Return an array, and how many bytes others may have."""
    if kind not in (*_TYPES, *_FLOATS) or any(type(n) is not int or n < 0 for n in shape):
        raise MessageError("an array in it has no plain type or shape")
    dtype = np.dtype(kind)
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > left:
        raise MessageError("it is too large")
    if len(data) != size:
        raise MessageError("it is cut short")
    values = np.empty(shape, dtype)
    if not wanted:
        return values, left
    if size < 16 or struct.unpack_from("<I", data, 4)[0] != wanted:  # what blosc will write
        raise MessageError("an array in it has another size than it says")
    _codec().decode(data, out=values.reshape(-1).view(np.uint8))
    return values, left - wanted
