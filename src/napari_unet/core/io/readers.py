"""Image files of every kind: which reader opens which.

TIFF is read in `tiff`, photos (PNG, JPEG and the like) in `photos`, Zarr in `ome_zarr`, arrays of
numpy in `array_files`, HDF5 in `hdf5_files`, files of microscopes in `vendor_files`, some of them
in a process of their own. Decoding libraries are
imported by the functions that need them: together they take more than half a second, which the
window must not wait for when its panel opens.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import (
    APART_SUFFIXES,
    ARRAY_SUFFIXES,
    HDF5_SUFFIXES,
    PHOTO_SUFFIXES,
    SUFFIXES,
    TIFF_SUFFIXES,
    VENDOR_SUFFIXES,
    ZIP_SUFFIXES,
    Opened,
    check_exists,
    split_inner,
    unreadable_error,
)
from napari_unet.core.io.ome_zarr import read_zarr
from napari_unet.core.io.time_limit import time_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def read_file(path: Path, level: int = 0, series: int | None = None, raw: bool = False) -> Opened:
    """Open an image file or Zarr folder lazily.

    Parameters
    ----------
    path
        Of the file; of one array in an HDF5 or .npz file, ``file.h5:/path/of/array``.
    level
        Of an OME-Zarr; 0 is the full resolution.
    series
        Which image of a file that holds several, counted from 0.
    raw
        Whether indices of a palette stay as they are, not turned into colours: for labels.

    Raises
    ------
    InputError
        A file that is missing, of an unknown kind, damaged, or without an image in it; or one that
        takes too long, see `time_limit`.
    """
    try:
        check_exists(path)
        file, inner = split_inner(path)
        if not file.is_dir() and not file.is_file():  # a pipe would be waited for
            raise InputError(f"{path} is no file; copy or export the image once more.")
        read = _find_reader(file, inner, level, series, raw)
        unlimited = file.is_dir() or file.suffix.lower() in APART_SUFFIXES
        with nullcontext() if unlimited else time_limit(file):
            return read()
    except PermissionError as error:
        raise InputError(f"{path} may not be read by this user; change its permissions.") from error
    except InputError:
        raise
    except Exception as error:  # the libraries below share no base class of errors
        raise unreadable_error(path, error) from error


def _find_reader(
    file: Path, inner: str, level: int, series: int | None, raw: bool
) -> Callable[[], Opened]:
    """Return what opens a file; its libraries are imported, which may take longer than reading."""
    suffix = file.suffix.lower()
    if file.is_dir() or suffix in ZIP_SUFFIXES:
        return partial(read_zarr, file, level, series)
    if level:
        raise InputError(f"{file} is no OME-Zarr and has no level {level}; choose level 0.")
    if file.stat().st_size == 0:
        raise InputError(f"{file} is an empty file; copy or export it once more.")
    if suffix in TIFF_SUFFIXES:
        from napari_unet.core.io.tiff import read_tiff

        return partial(read_tiff, file, series, raw)
    if suffix in VENDOR_SUFFIXES:
        from napari_unet.core.io.vendor_files import find_vendor_reader

        return find_vendor_reader(file, series)
    if series:
        raise InputError(f"{file} holds one image and no series {series}; choose only 0.")
    if suffix in PHOTO_SUFFIXES:
        from napari_unet.core.io.photos import read_photo

        return partial(read_photo, file, raw)
    if suffix in ARRAY_SUFFIXES:
        from napari_unet.core.io.array_files import read_numpy

        return partial(read_numpy, file, inner)
    if suffix in HDF5_SUFFIXES:
        from napari_unet.core.io.hdf5_files import find_hdf5_reader

        return find_hdf5_reader(file, inner)
    raise InputError(f"{file} is of no known kind; give one of: {', '.join(SUFFIXES)}.")
