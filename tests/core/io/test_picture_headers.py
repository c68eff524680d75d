"""How large encoded pictures say they are: headers that codecs write, and some made by hand."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from napari_unet.core.errors import InputError
from napari_unet.core.io.picture_headers import claimed_values, read_jpeg2000_size
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from pathlib import Path

J2K = bytes(imagecodecs.jpeg2k_encode(np.zeros((64, 64), "u1"), level=0, codecformat="j2k"))


def j2k(height: int, width: int, tile: int, channels: int = 1) -> bytes:
    """Return a JPEG 2000 stream with another size marker in front of the data of one tile."""
    sizes = struct.pack(">8IH", width, height, 0, 0, tile, tile, 0, 0, channels)
    (length,) = struct.unpack_from(">H", J2K, 4)
    marker = struct.pack(">HH", 38 + 3 * channels, 0) + sizes + b"\x07\x01\x01" * channels
    return J2K[:4] + marker + J2K[4 + length :]


def box(kind: bytes, content: bytes, long: bool = False) -> bytes:
    if long:
        return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), kind) + content


CHANNELS = {"jpegls": (1,), "webp": (3, 4)}
"""Where a format does not hold 1, 3 and 4."""


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        (kind, channels)
        for kind in ("jpeg", "jpegls", "png", "jpeg2k", "lerc", "webp")
        for channels in CHANNELS.get(kind, (1, 3, 4))
    ],
)
@pytest.mark.parametrize("shape", [(24, 40), (300, 57), (1025, 64)])
def test_the_number_of_values(kind: str, shape: tuple[int, int], channels: int) -> None:
    values = np.zeros(shape if channels == 1 else (*shape, channels), "u1")
    found = claimed_values(bytes(getattr(imagecodecs, f"{kind}_encode")(values)))
    assert found == (values[..., :3].size if kind == "webp" else values.size)


@pytest.mark.parametrize("shape", [(24, 40), (300, 57), (48, 64), (270, 480), (70_000, 3)])
@pytest.mark.parametrize("dtype", ["u1", "f4"])
@pytest.mark.parametrize("kind", ["jpegxl", "jpegxr", "jpegxl in boxes"])
def test_the_number_of_pixels(kind: str, shape: tuple[int, int], dtype: str) -> None:
    options = {"usecontainer": True} if "boxes" in kind else {}
    encode = getattr(imagecodecs, f"{kind.split()[0]}_encode")
    data = bytes(encode(np.zeros(shape, dtype), **options))
    assert claimed_values(data) == shape[0] * shape[1]
    assert all(claimed_values(data[:end]) in (0, shape[0] * shape[1]) for end in range(60))


def test_frames_and_channels_count() -> None:
    still = claimed_values(bytes(imagecodecs.jpegxl_encode(np.zeros((64, 64), "u1"))))
    frames = bytes(imagecodecs.jpegxl_encode(np.zeros((30, 64, 64), "u1")))
    assert claimed_values(frames) >= 30 * still
    lerc = bytes(imagecodecs.lerc_encode(np.zeros((5, 64, 48), "u1"), planar=True))
    assert claimed_values(lerc) == 5 * 64 * 48
    assert claimed_values(j2k(8, 8, 8, 1000)) >= 64_000


def test_the_picture_is_found_behind_other_boxes() -> None:
    start = b"\0\0\0\x0cjP  \r\n\x87\n"
    decoy = box(b"uuid", J2K + bytes(5000))
    for long in (False, True):
        size = read_jpeg2000_size(start + decoy + box(b"jp2c", j2k(9000, 8000, 9000), long))
        assert size is not None
        assert (size.height, size.width, size.channels) == (9000, 8000, 1)
    palette = box(b"jp2h", box(b"ihdr", bytes(14)) + box(b"pclr", b"\0\2\xc8" + bytes(500)))
    size = read_jpeg2000_size(start + palette + box(b"jp2c", J2K))
    assert size is not None
    assert size.channels == 200
    parts = box(b"jxlp", b"\0\0\0\0\xff") + box(b"jxlp", b"\x80\0\0\1\x0a\x4f\x40\x24\x08")
    assert claimed_values(b"\0\0\0\x0cJXL \r\n\x87\n" + parts) > 0


def test_fill_bytes_hide_no_frame() -> None:
    jpeg = bytes(imagecodecs.jpeg_encode(np.zeros((24, 40), "u1")))
    at = jpeg.index(b"\xff\xc0")
    for fill in (b"\xff" * 3, b"\x01\x02", b"\xff\x00", b"\xff\xd0"):
        assert claimed_values(jpeg[:at] + fill + jpeg[at:]) == 24 * 40


def test_a_kilobyte_of_tiles_is_refused(tmp_path: Path) -> None:
    """OpenJPEG makes room for each channel of each of 65,025 tiles: 0.8 GB for this one."""
    path = tmp_path / "a.j2k"
    path.write_bytes(j2k(255, 255, 1, 4))
    with pytest.raises(InputError, match=r"claims 936 MB of pixels in 149 bytes"):
        open_stack(path)
    path.write_bytes(j2k(255, 255, 255, 60))
    with pytest.raises(InputError, match=r"has the shape \(255, 255, 60\)"):
        open_stack(path)


@pytest.mark.parametrize("kind", [b"VP8 ", b"VP8L", b"VP8X"])
def test_a_webp_that_claims_a_gigabyte_is_refused(tmp_path: Path, kind: bytes) -> None:
    size = {
        b"VP8 ": b"\x10\x02\x00\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383),
        b"VP8L": b"\x2f" + struct.pack("<I", 16382 | 16382 << 14),
        b"VP8X": bytes(4) + (16382).to_bytes(3, "little") * 2,
    }[kind]
    path = tmp_path / "a.webp"
    path.write_bytes(b"RIFF" + struct.pack("<I", 60) + b"WEBP" + kind + bytes(4) + size + bytes(50))
    with pytest.raises(InputError, match=r"claims 1\.07 GB of pixels in"):
        open_stack(path)


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path: Path) -> None:
    """Each takes the work of a picture, in C where nothing stops it."""
    out, path = io.BytesIO(), tmp_path / "a.jpg"
    Image.fromarray(np.zeros((64, 64), "u1")).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    frame = data.index(b"\xff\xc2") + 5
    data = data[:frame] + struct.pack(">HH", 8000, 8000) + data[frame + 4 :]
    scan = data[data.rindex(b"\xff\xc4") : -2]
    assert claimed_values(data) == 8000**2
    path.write_bytes(data[:-2] + scan * 1000 + data[-2:])
    with pytest.raises(InputError, match="it is damaged or something else"):
        open_stack(path)
