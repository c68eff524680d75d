"""What a file claims to hold, checked against its bytes before memory is allocated for it.

A damaged header, or one made by an attacker, may claim any size: a JPEG of a kilobyte 40,000 pixels
along each side. Decoders believe it. Each format packs only so many pixels into a byte, though.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

ALWAYS = 2**26
"""Decoded bytes that any file may claim: blank images shrink to almost nothing."""
RATIO = {"png": 1100, "jpeg": 1600, "gif": 2800, "bmp": 130, "deflate": 1100, "lzw": 2800}
"""Decoded bytes that a byte of a file can stand for, at most; of other formats `OTHER_RATIO`."""
OTHER_RATIO = 10_000


def check_claim(path: Path, decoded: int, stored: int, kind: str = "") -> None:
    """Check that a part of a file can be as large as the file says, and fits into the memory.

    Parameters
    ----------
    decoded
        Bytes that it claims to have when it is decoded.
    stored
        Bytes that it has in the file.
    kind
        How it is packed, see `RATIO`.

    Raises
    ------
    InputError
        It cannot, or there is not enough memory.
    """
    if decoded <= ALWAYS:
        return
    if decoded > stored * RATIO.get(kind, OTHER_RATIO):
        raise InputError(
            f"{path} claims {_size(decoded)} of pixels in {_size(stored)}; it is damaged or "
            "something else, copy or export it once more."
        )
    import psutil  # optional for a run of files that need not be decoded in one piece

    free = psutil.virtual_memory().available
    if decoded > free:
        raise InputError(
            f"{path} has to be decoded in one piece of {_size(decoded)}, and {_size(free)} of "
            "memory are free; save it as a tiled TIFF or an OME-Zarr."
        )


def count_pages(path: Path) -> tuple[int, bool]:
    """Count the pages of a TIFF file by their offsets alone.

    Returns
    -------
    pages
        How many there are, up to where the chain of pages is broken.
    whole
        Whether the chain ends as it should.

    Raises
    ------
    InputError
        The pages form a loop.
    """
    with open(path, "rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 8:
            return 0, False
        big = struct.unpack(f"{order}H", head[2:4])[0] == 43
        if big and len(head) < 16:
            return 0, False
        count_type, entry, offset_type = ("Q", 20, "Q") if big else ("H", 12, "I")
        if path.suffix.lower() == ".ndpi":  # Hamamatsu's offsets of pages are longer
            offset_type = "Q"
        count_bytes, offset_bytes = struct.calcsize(count_type), struct.calcsize(offset_type)
        head += bytes(4)  # of a file that ends here
        (offset,) = struct.unpack_from(order + offset_type, head, 8 if big else 4)
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise InputError(
                    f"{path} has pages that form a loop; it is damaged, copy or export it once "
                    "more."
                )
            seen.add(offset)
            file.seek(offset)
            head = file.read(count_bytes)
            if len(head) < count_bytes:
                return len(seen) - 1, False
            (tags,) = struct.unpack(order + count_type, head)
            if tags > 4096:  # tifffile's bound, too
                return len(seen) - 1, False
            file.seek(offset + count_bytes + tags * entry)
            following = file.read(offset_bytes)
            if len(following) < offset_bytes:
                return len(seen), False
            (offset,) = struct.unpack(order + offset_type, following)
        return len(seen), True


def _size(count: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
