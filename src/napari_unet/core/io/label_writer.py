"""Label files, written whole or not at all, each with its provenance inside.

A result is built in a hidden folder beside its target and moved into place when it is complete;
an error or interrupt leaves neither half a file nor a changed old one. What a file of each kind
holds is in `label_formats`.
"""

from __future__ import annotations

import errno
import math
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import expand_path, is_zarr
from napari_unet.core.io.label_formats import CHUNK, Output, write_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_unet.core.io.coordinate_transform import CoordinateTransform

IN_MEMORY = 2**28
"""Results of more bytes than this are kept in a scratch Zarr beside their target."""

OUTPUT_SUFFIXES = (".tif", ".tiff", ".png", ".zarr")

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

DISK_ERRORS = {*_FULL, errno.EFBIG, errno.EROFS}
"""Error numbers of a full disk, too large a file and a file system that is read-only."""


@contextmanager
def create_output(
    path: str | Path,
    shape: Sequence[int],
    axes: str,
    dtype: Any,
    voxel_size_um: tuple[float, float, float] | None = None,
    provenance: dict[str, Any] | None = None,
    overwrite: bool = False,
    transform: CoordinateTransform | None = None,
) -> Iterator[Output]:
    """Create a label file, which appears when the block ends without an exception.

    Parameters
    ----------
    path
        The file's kind follows from its suffix, one of `OUTPUT_SUFFIXES`.
    shape, axes
        Shape of the result and a letter for each axis, in the order of "TZYX".
    dtype
        Type while it is made, such as uint32; `Output.finish` may narrow it.
    voxel_size_um
        (z, y, x), None if unknown.
    provenance
        How the result was made: plain JSON values.
    overwrite
        Whether an existing file is replaced.
    transform
        World coordinates of the result, if more than the voxel size is known of them.

    Raises
    ------
    OutputError
        An unknown kind, a folder that is missing or may not be written, an existing file without
        `overwrite`, a full disk.
    """
    target, shape, dtype = expand_path(path), tuple(map(int, shape)), np.dtype(dtype)
    big = math.prod(shape) * dtype.itemsize > IN_MEMORY
    check_output(target, shape, dtype, overwrite=overwrite)
    work = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.partial")
    try:
        with _disk_errors(target):
            work.mkdir()
        with _disk_errors(target, DISK_ERRORS):
            array = _scratch(work / "scratch", shape, dtype) if big else np.zeros(shape, dtype)
            output = Output(array, axes, dtype, voxel_size_um, provenance or {}, transform)
            yield output
        with _disk_errors(target):
            write_output(output, work / "result", target, big)
            _move(work, target, overwrite)
    finally:
        _remove(work)


def check_output(
    target: Path, shape: tuple[int, ...], dtype: Any = np.uint32, *, overwrite: bool = False
) -> None:
    """Refuse a place for labels before the work whose result they are; see `create_output`."""
    big = math.prod(shape) * np.dtype(dtype).itemsize > IN_MEMORY
    with _disk_errors(target):
        _check_target(target, shape, big, overwrite)


def _remove(folder: Path) -> None:
    """Delete a folder into which threads of Zarr may still be writing when one of them failed."""
    for pause_s in (0, 0.05, 0.1, 0.2, 0.4):
        time.sleep(pause_s)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _check_target(target: Path, shape: tuple[int, ...], big: bool, overwrite: bool) -> None:
    suffix = target.suffix.lower()
    problem = ""
    if suffix not in OUTPUT_SUFFIXES:
        problem = f"is of no known kind; end it with one of: {', '.join(OUTPUT_SUFFIXES)}"
    elif suffix != ".zarr" and 0 in shape:
        problem = f"cannot hold an empty image (shape {shape}); write a .zarr"
    elif suffix == ".png" and len(shape) != 2:
        problem = f"cannot hold the shape {shape}, only one plane; write a .tif or .zarr"
    elif suffix == ".png" and big:
        problem = f"cannot hold {shape[0]} x {shape[1]} px; write a .tif or .zarr"
    elif not target.parent.exists():
        problem = f"cannot be written: there is no folder {target.parent}; create it first"
    elif not target.parent.is_dir():
        problem = f"cannot be written: {target.parent} is no folder; choose another place"
    elif target.exists() and not overwrite:
        problem = "exists already; choose another name, or overwrite it (--overwrite)"
    elif target.is_dir() and (suffix != ".zarr" or (any(target.iterdir()) and not is_zarr(target))):
        problem = "is a folder, which is not overwritten; choose another name"
    if problem:
        raise OutputError(f"{target} {problem}.")


@contextmanager
def _disk_errors(target: Path, codes: set[int] | None = None) -> Iterator[None]:
    """Raise OutputError for errors of the operating system; `codes` None: for all of them."""
    try:
        yield
    except OSError as error:
        if codes is not None and error.errno not in codes:
            raise
        reason = error.strerror or str(error) or type(error).__name__
        advice = "choose another place"
        if error.errno in _FULL:
            advice = "free some space, or choose another place"
        raise OutputError(f"{target} cannot be written: {reason}; {advice}.") from error


def _scratch(folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    import zarr
    from zarr.codecs import BloscCodec

    chunks = tuple(1 if axis < len(shape) - 2 else CHUNK for axis in range(len(shape)))
    # Labels shrink to a few percent with the fastest of codecs: less to write, less to sync.
    codec = BloscCodec(cname="lz4", clevel=1, shuffle="shuffle")
    return zarr.create_array(
        str(folder), shape=shape, dtype=dtype, chunks=chunks, compressors=codec, fill_value=0
    )


def _move(work: Path, target: Path, overwrite: bool) -> None:
    """Sync the result to the disk, then put it in the target's place in one step."""
    result = work / "result"
    for file in [result] if result.is_file() else [f for f in result.rglob("*") if f.is_file()]:
        with open(file, "rb+") as handle:
            os.fsync(handle.fileno())
    if target.exists() and not overwrite:
        raise FileExistsError(errno.EEXIST, "a file of that name has appeared meanwhile")
    if result.is_file() and not target.is_dir():
        os.replace(result, target)
    elif not target.exists():
        os.rename(result, target)
    else:
        # A folder cannot be replaced in one step: keep the old one until the new one is there.
        os.rename(target, work / "old")
        try:
            os.rename(result, target)
        except OSError:
            os.rename(work / "old", target)
            raise
    # Not every system can sync a folder; the file itself is safe by now.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
