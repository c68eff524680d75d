"""How files hold labels: palettes, colours, and compression that keeps values or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import TIFF_SUFFIXES, UNREADABLE
from napari_unet.core.io.label_reader import read_labels_and_axes
from napari_unet.core.settings.tasks import COLOURS, IDS

if TYPE_CHECKING:
    from pathlib import Path


def palette_indices(
    path: Path, axes: str | None, labels_as: str | None
) -> tuple[np.ndarray, str] | None:
    """Return the indices of a file whose colours stand in a palette, and axes; else None.

    Programs such as ImageJ write labels so that other programs show each object in a colour. In a
    TIFF, the indices are the labels; a PNG may as well be a picture with few colours.
    """
    if labels_as == COLOURS:
        return None
    suffix = path.suffix.lower()
    try:
        if suffix in TIFF_SUFFIXES and path.is_file():
            return _tiff_indices(path, axes)
        if suffix == ".png" and labels_as == IDS and path.is_file():
            from PIL import PngImagePlugin

            with PngImagePlugin.PngImageFile(path) as picture:
                return (np.asarray(picture), "YX") if picture.mode == "P" else None
    except UNREADABLE:  # whoever opens it as an image says what is wrong
        return None
    return None


def _tiff_indices(path: Path, axes: str | None) -> tuple[np.ndarray, str] | None:
    import tifffile

    from napari_unet.core.io.tiff_checks import silence_tifffile

    with silence_tifffile(), tifffile.TiffFile(path) as file:
        if file.pages.first.photometric != tifffile.PHOTOMETRIC.PALETTE:
            return None
    return read_labels_and_axes(path, axes)


def colours_to_ids(
    values: np.ndarray, what: str, labels_as: str | None = COLOURS
) -> tuple[np.ndarray, str]:
    """Return a picture's colours as ids, from 1 on in the order of the colours, and a remark.

    Parameters
    ----------
    values
        Integers (..., Y, X, S) with 3 or 4 samples; what is fully transparent is background.

    Returns
    -------
    np.ndarray, str
        Integers (..., Y, X). Black is background, or where there is none the colour of most pixels.

    Raises
    ------
    InputError
        The samples are no integers.
    """
    if values.dtype.kind not in "ui" or values.shape[-1] not in (3, 4):
        raise InputError(f"{what} holds {values.dtype}; give colours of 8 or 16 bits.")
    code = np.zeros(values.shape[:-1], np.uint64)
    for sample in range(3):
        code = code * np.uint64(2**16) + values[..., sample].astype(np.uint64)
    if values.shape[-1] == 4:
        code[values[..., 3] == 0] = 0
    colours, place, counts = np.unique(code, return_inverse=True, return_counts=True)
    ground = 0 if colours[0] == 0 else int(np.argmax(counts))
    ids = np.zeros(len(colours), np.uint32)
    ids[np.arange(len(colours)) != ground] = np.arange(1, len(colours))
    name = "black"
    if colours[ground]:
        name = f"{_rgb(colours[ground])}, the colour of most pixels,"
    whole = labels_as == COLOURS
    kind = "each colour is an object" if whole else "connected pieces of one colour are objects"
    remark = f"{kind} ({len(colours) - 1:,} colours); {name} is background"
    return ids[place].reshape(code.shape), remark


def _rgb(code: Any) -> str:
    parts = (int(code) >> 32, (int(code) >> 16) & 0xFFFF, int(code) & 0xFFFF)
    return "#" + "".join(f"{part if part < 256 else part >> 8:02x}" for part in parts)


def check_lossless(path: Path) -> None:
    """Refuse a file whose compression changes values: JPEG, and lossy WebP, JPEG 2000 and TIFF.

    The content counts, not the name.

    Raises
    ------
    InputError
        Values of such a file are not the labels that were written.
    """
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        kind = _lossy_kind(head)
        if not kind and head[:2] in (b"II", b"MM"):
            kind = _lossy_tiff(path)
    except UNREADABLE:  # whoever opens it as an image says what is wrong
        return
    if kind:
        raise InputError(
            f"{path} is compressed as {kind}, which changes values: its labels are not those that "
            "were drawn. Export them as TIFF or PNG from the program that made them."
        )


def _lossy_kind(head: bytes) -> str:
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8 ":
        return "WebP"
    if head[4:8] == b"jP  " or head.startswith(b"\xff\x4f\xff\x51"):
        style = head.find(b"\xff\x52")  # coding style: its last byte but precincts is the wavelet
        if 0 <= style and head[style + 13 : style + 14] == b"\0":
            return "JPEG 2000"
    return ""


def _lossy_tiff(path: Path) -> str:
    import tifffile

    from napari_unet.core.io.tiff_checks import silence_tifffile

    with silence_tifffile(), tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.compression in (6, 7, 33007) and page.dtype == np.uint8:
            return "JPEG inside a TIFF"
        if page.compression in (33003, 33005, 34712, 50001) and page.dataoffsets[0]:
            file.filehandle.seek(page.dataoffsets[0])
            kind = _lossy_kind(file.filehandle.read(4096))
            return f"{kind} inside a TIFF" if kind else ""
    return ""
