"""How many values an encoded picture says it has, read from its header before it is decoded.

A strip or tile of a TIFF file may be such a picture, and say more than its page does; its decoder
believes it and makes room. Headers are read as the specifications of the formats lay them out.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_JP2_FILE, _JXL_FILE = b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL "
"""Starts of files made of boxes, one of which holds the picture."""
_TILE_BYTES, _TILE_CHANNEL_BYTES = 10_000, 1_100
"""What OpenJPEG allocates for each further tile, and each channel of it, however small it is."""
_SCANS = 64
"""Scans of a JPEG that take no longer than decoding may take; programs write a dozen."""
_FRAME_BYTES = 2
"""Bytes of a frame of a JPEG XL animation, at least."""
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Widths to heights that a JPEG XL picture names by a number."""
_ZSTD = b"\x28\xb5\x2f\xfd"
_LERC = (b"Lerc2 ", b"CntZImage ")


class Jpeg2000Size(NamedTuple):
    """What the header of a JPEG 2000 picture says.

    Attributes
    ----------
    height, width, channels, bits
        Of the picture and its values.
    work_bytes
        What its decoder allocates beside the pixels.
    """

    height: int
    width: int
    channels: int
    bits: int
    work_bytes: int


def claimed_values(data: bytes) -> int:
    """Return how many values an encoded picture says it has; 0 for one that is not known or cut.

    What a decoder allocates beside the values counts as some, too.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg_values(data)
        if data.startswith(b"\x89PNG"):
            width, height = struct.unpack_from(">II", data, 16)
            return int(width * height) * {2: 3, 4: 2, 6: 4}.get(data[25], 1)
        if data.startswith(_LERC):
            return _lerc_values(data)
        if data.startswith(b"RIFF"):
            return 3 * webp_pixels(data)
        if data.startswith((b"II\xbc", b"MM\xbc", b"WMPHOTO")):
            return _jpeg_xr_pixels(data)
        if data.startswith((b"\xff\x0a", _JXL_FILE)):
            return _jpeg_xl_values(data)
        size = read_jpeg2000_size(data)
    except (struct.error, IndexError):  # cut short, as the decoder will say
        return 0
    return max(size.height * size.width * size.channels, size.work_bytes // 8) if size else 0


def unwrap_lerc(data: bytes, largest: int) -> bytes:
    """Return a LERC picture without the compression that it may have on top.

    Parameters
    ----------
    largest
        Bytes that it may have, at most.

    Raises
    ------
    ValueError
        It has more, or is damaged.
    """
    if data.startswith(_LERC):
        return data
    if data.startswith(_ZSTD):
        import imagecodecs

        size, content = _zstd_bytes(data), b""
        if size <= largest:
            content = bytes(imagecodecs.zstd_decode(data))
    else:
        try:
            content = zlib.decompressobj().decompress(data, largest + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        size = len(content)
    if size > largest:
        raise ValueError(f"a piece of {largest:,} bytes at most claims more")
    return content


def read_jpeg2000_size(data: bytes) -> Jpeg2000Size | None:
    """Read the header of a JPEG 2000 picture, in a file of boxes or without; None if it is none."""
    stream, palette = memoryview(data), 1
    if data.startswith(_JP2_FILE):
        for header in _payloads(stream, b"jp2h"):  # a palette makes several channels of one
            palette = max([palette, *(entry[2] for entry in _payloads(header, b"pclr"))])
        stream = next(_payloads(stream, b"jp2c"), stream[:0])
    if bytes(stream[:4]) != b"\xff\x4f\xff\x51":
        return None
    right, bottom, left, top, wide, high, tile_left, tile_top, channels = struct.unpack_from(
        ">8IH", stream, 8
    )
    columns, rows = (
        max(0, -(-(end - start) // max(1, size)))
        for start, end, size in ((tile_left, right, wide), (tile_top, bottom, high))
    )
    work = max(0, columns * rows - 1) * (_TILE_BYTES + channels * _TILE_CHANNEL_BYTES)
    bits = (stream[42] & 127) + 1
    height, width = max(0, bottom - top), max(0, right - left)
    return Jpeg2000Size(height, width, max(channels, palette), bits, work)


def webp_pixels(data: bytes) -> int:
    """Return how many pixels the canvas of a WebP has; 0 for something else."""
    kind, start = data[12:16], 20
    if data[8:12] != b"WEBP":
        return 0
    if kind == b"VP8X":
        sizes = [int.from_bytes(data[at : at + 3], "little") + 1 for at in (start + 4, start + 7)]
    elif kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, start + 1)
        sizes = [(packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1]
    elif kind == b"VP8 ":
        sizes = [size & 0x3FFF for size in struct.unpack_from("<HH", data, start + 6)]
    else:
        return 0
    return sizes[0] * sizes[1]


def _jpeg_values(data: bytes) -> int:
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:  # decoders, too, skip what is no marker
        kind = data[at + 1]
        if kind == 0xFF:
            at += 1
        elif kind <= 1 or 0xD0 <= kind <= 0xD8:  # has no length
            at += 2
        elif kind in (0xD9, 0xDA):
            return 0
        elif kind == 0xF7 or (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)):
            height, width, channels = struct.unpack_from(">HHB", data, at + 5)
            # Each scan of a progressive picture takes the work of a whole one.
            return int(height * width * channels) * max(1, data.count(b"\xff\xda") // _SCANS)
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return 0


def _lerc_values(data: bytes) -> int:
    """Return the values of a LERC picture, which may be several that follow each other."""
    if data.startswith(b"CntZImage "):  # LERC 1
        height, width = struct.unpack_from("<ii", data, 18)
        channels = 1
    else:
        (version,) = struct.unpack_from("<i", data, 6)
        height, width, channels = struct.unpack_from("<iii", data, 10 if version < 3 else 14)
        channels = channels if version > 3 else 1
    pictures = max(map(data.count, _LERC))
    return int(max(0, width) * max(0, height) * max(1, channels)) * pictures


def _jpeg_xr_pixels(data: bytes) -> int:
    """Return the pixels of a JPEG XR picture by its stream, which the decoder goes by."""
    start = data.index(b"WMPHOTO\0") if b"WMPHOTO\0" in data else len(data)
    short = data[start + 10] & 0x80
    width, height = struct.unpack_from(">HH" if short else ">II", data, start + 12)
    return int((width + 1) * (height + 1))


def _jpeg_xl_values(data: bytes) -> int:
    """Return the values of a JPEG XL picture, of an animation those of all frames it may have."""
    stream = data
    if data.startswith(_JXL_FILE):  # a stream in one box, or numbered parts
        view = memoryview(data)
        whole = next(_payloads(view, b"jxlc"), None)
        parts = _payloads(view, b"jxlp") if whole is None else ()
        stream = b"".join([(whole or b"")[:256], *(part[4:256] for part in parts)])
    if not stream.startswith(b"\xff\x0a"):
        return 0
    bits = _Bits(stream[2:130])
    height, width = bits.size()
    channels, frames = 1, 1  # or three, which is said only further on
    if not bits.read(1):  # not all is as usual
        if bits.read(1):
            bits.read(3)  # orientation
            if bits.read(1):  # the size at which it should be shown
                bits.size()
            if bits.read(1):
                bits.preview()
            if bits.read(1):
                frames = len(data) // _FRAME_BYTES
                bits.choose((100, 0), (1000, 0), (1, 10), (1, 30))
                bits.choose((1, 0), (1001, 0), (1, 8), (1, 10))
                bits.choose((0, 0), (0, 3), (0, 16), (0, 32))
                bits.read(1)
        if bits.read(1):  # numbers with a point
            bits.choose((32, 0), (16, 0), (24, 0), (1, 6))
            bits.read(4)
        else:
            bits.choose((8, 0), (10, 0), (12, 0), (1, 6))
        bits.read(1)
        channels += bits.choose((0, 0), (1, 0), (2, 4), (1, 12))
    return height * width * channels * frames


class _Bits:
    """The header of a JPEG XL stream, read bit by bit, the lowest of a byte first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError("cut short")
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        return found

    def choose(self, *ways: tuple[int, int]) -> int:
        """Read a number of one of four kinds, each given by what is added and its bits."""
        added, count = ways[self.read(2)]
        return added + self.read(count)

    def size(self) -> tuple[int, int]:
        """Read a height and a width."""
        small = self.read(1)

        def side() -> int:
            if small:
                return 8 * (1 + self.read(5))
            return self.choose((1, 9), (1, 13), (1, 18), (1, 30))

        return self._height_and_width(side)

    def preview(self) -> tuple[int, int]:
        """Read the size of a preview."""
        eighth = self.read(1)

        def side() -> int:
            if eighth:
                return 8 * self.choose((16, 0), (32, 0), (1, 5), (33, 9))
            return self.choose((1, 6), (65, 8), (321, 10), (1345, 12))

        return self._height_and_width(side)

    def _height_and_width(self, side: Callable[[], int]) -> tuple[int, int]:
        height, ratio = side(), self.read(3)
        if not ratio:
            return height, side()
        across, down = _RATIOS[ratio - 1]
        return height, height * across // down


def _payloads(data: memoryview, *wanted: bytes) -> Iterator[memoryview]:
    """Yield what is in the boxes of some kinds."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1:
            (length,), head = struct.unpack_from(">Q", data, at + 8), 16
        end = at + length if length else len(data)
        if kind in wanted:
            yield data[at + head : end]
        if end < at + head:
            return
        at = end


def _zstd_bytes(data: bytes) -> int:
    """Return how many bytes a frame of Zstandard says it becomes; 0 if it does not say."""
    kind = data[4]
    single, skipped = kind >> 5 & 1, (0, 1, 2, 4)[kind & 3]
    at, code = 5 + (not single) + skipped, kind >> 6
    if not code:
        return data[at] if single else 0
    count = 1 << code
    return int.from_bytes(data[at : at + count], "little") + (256 if code == 1 else 0)
