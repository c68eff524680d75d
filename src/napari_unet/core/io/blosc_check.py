"""Chunks of Blosc, held against their length before they are decoded.

numcodecs gives c-blosc a chunk without its length, so that c-blosc believes the length in the
chunk's header: of a chunk that is cut short it decodes what lies behind it in the memory, and
crashes where nothing does. Whole chunks are decoded as before.
"""

from __future__ import annotations

import struct
from functools import cache, wraps
from typing import Any

_HEADER = struct.Struct("<4B3I")
_COPIED = 0x2
"""Flag of a chunk that is not compressed."""


@cache
def check_blosc_chunks() -> None:
    """Make numcodecs check the chunks that it decodes from now on."""
    from numcodecs.blosc import Blosc

    decode = Blosc.decode

    @wraps(decode)
    def checked(self: Any, buf: Any, out: Any = None) -> Any:
        check_chunk(buf)
        return decode(self, buf, out)

    Blosc.decode = checked


def check_chunk(buf: Any) -> None:
    """Raise ValueError for a chunk that is shorter than its header says."""
    size = memoryview(buf).nbytes
    if size < _HEADER.size:
        raise ValueError(f"a Blosc chunk of {size} bytes is cut short")
    _, _, flags, _, decoded, _, stored = _HEADER.unpack_from(buf)
    needed = max(stored, decoded + _HEADER.size if flags & _COPIED else 0)
    if needed > size:
        raise ValueError(f"a Blosc chunk of {needed:,} bytes is cut short after {size:,}")
