"""PNG, JPEG, GIF, BMP, WebP and JPEG 2000, decoded whole.

Pillow decodes what has 8 bits, imagecodecs the rest: Pillow cuts colours of 16 bits down to 8.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.array_views import turn_upright
from napari_unet.core.io.coordinate_transform import plausible_voxel_size
from napari_unet.core.io.files import Opened
from napari_unet.core.io.picture_headers import claimed_values, read_jpeg2000_size, webp_pixels
from napari_unet.core.io.size_claims import check_claim

if TYPE_CHECKING:
    from pathlib import Path

_STARTS = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "jpeg2k",
    b"\xff\x4f\xff\x51": "jpeg2k",
}
_EXIF_ORIENTATION = 274


def read_photo(path: Path, raw: bool = False) -> Opened:
    """Read a photo; palettes become colours, one bit becomes bool, alpha of grey is left out.

    Parameters
    ----------
    raw
        Whether a palette's indices stay as they are: for labels.

    Raises
    ------
    InputError
        It claims more pixels than it can hold.
    Exception
        A damaged file; the caller makes an InputError of it.
    """
    with open(path, "rb") as file:
        head = file.read(32)
    kind = next((name for start, name in _STARTS.items() if head.startswith(start)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        kind = "webp"
    if kind == "jpeg2k":
        return _read_jpeg2k(path)
    if not kind:
        raise ValueError("not an image of this kind")
    return _read_with_pillow(path, kind, raw)


def _read_with_pillow(path: Path, kind: str, raw: bool) -> Opened:
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    # Image.open refuses more than 179 MPx as a possible attack; slides are larger than that. What a
    # file of its size can hold is checked here.
    classes: dict[str, Any] = {
        "png": PngImagePlugin.PngImageFile,
        "jpeg": JpegImagePlugin.JpegImageFile,
        "gif": GifImagePlugin.GifImageFile,
        "bmp": BmpImagePlugin.BmpImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
    }
    stored = path.stat().st_size
    _check_header(path, kind, stored)
    with classes[kind](path) as picture:
        deep = kind == "png" and _is_deep(path)
        count = 1 if kind == "png" else int(getattr(picture, "n_frames", 1))
        pixels = math.prod(picture.size) * count
        # Pillow decodes to one byte a sample, and one for each bit; imagecodecs to two.
        check_claim(path, pixels * len(picture.getbands()) * (2 if deep else 1), stored, kind)
        orientation = picture.getexif().get(_EXIF_ORIENTATION, 1) if kind != "gif" else 1
        if deep:
            values = _decode_deep(path)
        elif count > 1:
            values = _all_frames(picture, count)
        else:
            values = _values(picture, raw)
        y, x = _pixel_size(picture)
    axes = "Z" * (count > 1 and not deep) + "YX"
    axes += "S" * (values.ndim > len(axes))
    data, upright = turn_upright(values, axes, int(orientation or 1))
    if upright != axes:
        y, x = x, y
    return Opened(np.asarray(data), upright, plausible_voxel_size(y, x))


def _pixel_size(picture: Any) -> tuple[float, float]:
    x, y = (25400 / dpi if dpi else math.nan for dpi in picture.info.get("dpi", (0, 0)))
    return y, x


def _values(picture: Any, raw: bool) -> np.ndarray:
    if picture.mode in ("P", "PA") and not raw:
        clear = picture.mode == "PA" or "transparency" in picture.info
        return _grey_if_equal(np.asarray(picture.convert("RGBA" if clear else "RGB")), picture)
    if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(picture.convert("RGB"))
    if picture.mode in ("LA", "La", "PA"):
        return np.asarray(picture.convert("LA") if picture.mode == "La" else picture)[..., 0]
    return np.asarray(picture)


def _grey_if_equal(values: np.ndarray, picture: Any) -> np.ndarray:
    """Return the grey values of an image of a GIF or BMP, which know greys only as a palette."""
    grey = picture.format in ("GIF", "BMP") and values.shape[-1] == 3
    if grey and (values == values[..., :1]).all():
        return values[..., 0]
    return values


def _all_frames(picture: Any, count: int) -> np.ndarray:
    frames = []
    for number in range(count):
        picture.seek(number)
        frames.append(np.asarray(picture.convert("RGB")))
    values = np.stack(frames)
    return values[..., 0] if (values == values[..., :1]).all() else values


def _is_deep(path: Path) -> bool:
    """Return whether a PNG has 16 bits, and colours or alpha."""
    with open(path, "rb") as file:
        head = file.read(26)
    return len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)


def _decode_deep(path: Path) -> np.ndarray:
    import imagecodecs

    values = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    return values[..., 0] if values.shape[-1] == 2 else values


def _check_header(path: Path, kind: str, stored: int) -> None:
    """Check what Pillow believes as soon as it opens a WebP, or when it decodes a JPEG."""
    if kind == "webp":
        with open(path, "rb") as file:
            check_claim(path, 4 * webp_pixels(file.read(40)), stored)
    elif kind == "jpeg":
        check_claim(path, claimed_values(path.read_bytes()), stored, kind)


def _read_jpeg2k(path: Path) -> Opened:
    import imagecodecs

    content = path.read_bytes()
    size = read_jpeg2000_size(content)
    if size is None:
        raise ValueError("no JPEG 2000 stream in it")
    shape = (size.height, size.width, size.channels)
    if size.channels > 4:
        raise InputError(f"{path} has the shape {shape}; save it as a TIFF.")
    decoded = math.prod(shape) * (1 + (size.bits > 8) + 2 * (size.bits > 16))
    check_claim(path, max(decoded, size.work_bytes), len(content))
    values = np.asarray(imagecodecs.jpeg2k_decode(content))
    if values.ndim not in (2, 3):
        raise InputError(f"{path} has the shape {values.shape}; save it as a TIFF.")
    if values.ndim == 3 and values.shape[-1] == 2:
        values = values[..., 0]
    return Opened(values, "YXS" if values.ndim == 3 else "YX", None)
