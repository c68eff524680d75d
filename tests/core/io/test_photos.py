"""PNG, JPEG, GIF, BMP, WebP and JPEG 2000: every value and colour as it was written."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from napari_unet.core.errors import InputError
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from pathlib import Path


def noise(*shape: int, dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_a_png_keeps_all_of_its_bits(tmp_path: Path, samples: int, dtype: str) -> None:
    values = noise(12, 17, samples, dtype=dtype)
    values = values[..., 0] if samples == 1 else values
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(values))
    stack = open_stack(tmp_path / "a.png")
    wanted = values[..., 0] if samples == 2 else values  # grey with alpha
    assert stack.dtype == wanted.dtype
    assert (stack.axes, stack.rgb) == (("YXC", True) if samples > 2 else ("YX", False))
    np.testing.assert_array_equal(np.asarray(stack.data), wanted)


@pytest.mark.parametrize("kind", ["bmp", "gif", "webp", "jp2", "j2k"])
@pytest.mark.parametrize("colour", [False, True])
def test_other_photos(tmp_path: Path, kind: str, colour: bool) -> None:
    values = noise(12, 17, 3) if colour else noise(12, 17)
    if kind == "gif" and colour:
        values = values // 128 * 255  # eight colours
    path = tmp_path / f"a.{kind}"
    if kind in ("jp2", "j2k"):
        path.write_bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat=kind))
    elif kind == "webp":
        path.write_bytes(imagecodecs.webp_encode(values if colour else np.stack([values] * 3, -1),
                                                 lossless=True))  # fmt: skip
    else:
        Image.fromarray(values).save(path)
    stack = open_stack(path)
    if kind == "webp" and not colour:  # it knows no grey
        values = np.stack([values] * 3, -1)
    assert stack.rgb == (values.ndim == 3)
    np.testing.assert_array_equal(np.asarray(stack.data), values)


def test_jpeg_2000_of_16_bits(tmp_path: Path) -> None:
    values = noise(12, 17, dtype="u2")
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0))
    np.testing.assert_array_equal(np.asarray(open_stack(tmp_path / "a.jp2").data), values)


def test_the_frames_of_a_gif_are_planes(tmp_path: Path) -> None:
    values = noise(4, 12, 17)
    first, *others = map(Image.fromarray, values)
    first.save(tmp_path / "a.gif", save_all=True, append_images=others)
    stack = open_stack(tmp_path / "a.gif")
    assert stack.axes == "ZYX"
    np.testing.assert_array_equal(np.asarray(stack.data), values)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_orientation_is_followed(tmp_path: Path, orientation: int, kind: str) -> None:
    path, picture = tmp_path / f"a.{kind}", Image.fromarray(noise(12, 17, 3))
    exif = picture.getexif()
    exif[274] = orientation
    picture.save(path, exif=exif, dpi=(25400 / 0.5, 25400 / 2))
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    stack = open_stack(path)
    assert stack.labels_shape == wanted.shape[:2]
    window = (slice(0, wanted.shape[0]), slice(0, wanted.shape[1]))
    got = stack.read((), window, (0, 1, 2))
    np.testing.assert_array_equal(np.moveaxis(got, 0, -1), wanted)
    if kind == "png":
        size = (1.0, 0.5, 2.0) if orientation > 4 else (1.0, 2.0, 0.5)
        assert stack.voxel_size_um == pytest.approx(size, rel=0.01)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    content = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", content)
        + chunk(b"IEND", b"")
    )


def claiming(kind: str, folder: Path) -> bytes:
    """Return a small file that claims about 40,000 pixels along each side."""
    if kind == "png":
        return png_claiming(40_000, 40_000)
    if kind == "jp2":
        content = bytearray(imagecodecs.jpeg2k_encode(noise(16, 16), codecformat="j2k"))
        content[8:16] = struct.pack(">II", 40_000, 40_000)
        content[24:32] = struct.pack(">II", 40_000, 40_000)
        return bytes(content)
    Image.fromarray(noise(16, 16, 3)).save(folder / f"small.{kind}")
    content = bytearray((folder / f"small.{kind}").read_bytes())
    if kind == "jpg":
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", 40_000, 40_000)
    elif kind == "gif":
        content[6:10] = struct.pack("<HH", 40_000, 40_000)
    elif kind == "bmp":
        content[18:26] = struct.pack("<ii", 40_000, 40_000)
    return bytes(content)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "jp2"])
def test_a_small_file_that_claims_gigabytes_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(claiming(kind, tmp_path))
    assert path.stat().st_size < 3000
    tracemalloc.start()
    with pytest.raises(InputError, match=r"claims .* GB of pixels in .*; it is damaged"):
        open_stack(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_an_image_larger_than_the_memory_is_refused(tmp_path: Path, monkeypatch) -> None:
    from napari_unet.core.io import size_claims

    class Free:
        available = 1000

    monkeypatch.setattr("psutil.virtual_memory", Free)
    monkeypatch.setattr(size_claims, "ALWAYS", 0)
    Image.fromarray(noise(99, 99)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="1 kB of memory are free; save it as a tiled TIFF"):
        open_stack(tmp_path / "a.png")
