"""Image files of every kind: PNG and JPEG are read here, TIFF in `tiff`, Zarr in `ome_zarr`.

Decoding libraries are imported by the functions that need them: together they take more than half a
second, which the window must not wait for when its panel opens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import plausible_voxel_size
from napari_unet.core.io.files import (
    PHOTO_SUFFIXES,
    SUFFIXES,
    TIFF_SUFFIXES,
    UNREADABLE,
    Opened,
    check_exists,
    unreadable_error,
)
from napari_unet.core.io.ome_zarr import read_zarr

if TYPE_CHECKING:
    from pathlib import Path


def read_file(path: Path, level: int = 0) -> Opened:
    """Open an image file or Zarr folder lazily.

    Raises
    ------
    InputError
        A file that is missing, of an unknown kind, damaged, or without an image in it.
    """
    try:
        check_exists(path)
        if path.is_dir():
            return read_zarr(path, level)
        if level:
            raise InputError(f"{path} is no OME-Zarr and has no level {level}; choose level 0.")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is an empty file; copy or export it once more.")
        suffix = path.suffix.lower()
        if suffix in TIFF_SUFFIXES:
            from napari_unet.core.io.tiff import read_tiff

            return read_tiff(path)
        if suffix in PHOTO_SUFFIXES:
            return _read_photo(path)
    except PermissionError as error:
        raise InputError(f"{path} may not be read by this user; change its permissions.") from error
    except UNREADABLE as error:
        raise unreadable_error(path, error) from error
    raise InputError(f"{path} is of no known kind; give one of: {', '.join(SUFFIXES)}.")


def _read_photo(path: Path) -> Opened:
    """Read a PNG or JPEG; palettes become colours, one bit becomes bool."""
    from PIL import Image, JpegImagePlugin, PngImagePlugin

    # Image.open refuses more than 179 MPx as a possible attack; slides are larger than that.
    kinds = [PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile]
    if path.suffix.lower() != ".png":
        kinds.reverse()
    picture: Image.Image
    try:
        picture = kinds[0](path)
    except SyntaxError as error:
        try:
            picture = kinds[1](path)  # a JPEG named .png and the like
        except SyntaxError:
            raise error from None
    with picture:
        x, y = (25400 / dpi if dpi else math.nan for dpi in picture.info.get("dpi", (0, 0)))
        if picture.mode in ("P", "PA"):
            clear = picture.mode == "PA" or "transparency" in picture.info
            values = np.asarray(picture.convert("RGBA" if clear else "RGB"))
        elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            values = np.asarray(picture.convert("RGB"))
        elif picture.mode in ("LA", "La"):
            values = np.asarray(picture.convert("LA"))[..., 0]
        else:
            values = np.asarray(picture)
    return Opened(values, "YXS" if values.ndim == 3 else "YX", plausible_voxel_size(y, x))
