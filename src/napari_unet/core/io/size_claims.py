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


def claimed_pixels(data: bytes) -> int:
    """Return how many pixels an encoded picture says it has; 0 for one of a kind that is not known.

    A strip or tile of a TIFF may be such a picture, and say more than its page does.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg_pixels(data)
        if data.startswith(b"\x89PNG"):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(b"Lerc2 "):
            (version,) = struct.unpack_from("<i", data, 6)
            height, width = struct.unpack_from("<ii", data, 10 if version < 3 else 14)
        elif data.startswith(b"CntZImage "):  # LERC 1
            height, width = struct.unpack_from("<ii", data, 18)
        elif (size := data.find(b"\xff\x4f\xff\x51", 0, 4096)) >= 0:  # JPEG 2000
            right, bottom, left, top = struct.unpack_from(">4I", data, size + 8)
            width, height = right - left, bottom - top
        else:
            return 0
    except struct.error:  # cut short, as the decoder will say
        return 0
    return int(max(0, width) * max(0, height))


def _jpeg_pixels(data: bytes) -> int:
    """Return height times width of the frame of a JPEG."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        frame = 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)
        if frame or kind == 0xF7:  # the latter of JPEG-LS
            height, width = struct.unpack_from(">HH", data, at + 5)
            return int(height * width)
        at += 2 + length
    return 0


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
