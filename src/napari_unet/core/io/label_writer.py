"""Results on disk: labels that appear whole or not at all, each with its provenance inside.

A result is built in a hidden folder beside its target and moved into place when it is complete;
whatever goes wrong, also an interrupt, leaves neither half a file nor a changed old one. Kinds:

- ``.tif``: an ImageJ hyperstack when the labels are small and fit 16 bit, else a tiled OME-TIFF
  (ImageJ itself knows no 32-bit integers; in Fiji, Bio-Formats opens it). ``.ome.tif``: always
  OME-TIFF. Beyond 4 GB both are BigTIFF.
- ``.zarr``, ``.ome.zarr``: an OME-NGFF 0.5 label image with coarser levels.
- ``.png``: one plane of up to 65,535 objects.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.atomic import user_path
from napari_unet.core.io.coordinate_transform import CoordinateTransform
from napari_unet.core.io.readers import TIFF_SUFFIXES, UNREADABLE, is_zarr, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

IN_MEMORY = 2**28
"""Results of more bytes than this are kept in a scratch Zarr beside their target."""

CHUNK = 512
"""Edge of the tiles and chunks of results."""

PROVENANCE_KEY = "napari_unet"
"""Name under which the provenance stands in a result."""

OUTPUT_SUFFIXES = (".tif", ".tiff", ".png", ".zarr")
_IMAGEJ = ("uint8", "uint16", "float32")
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
DISK_ERRORS = {*_FULL, errno.EFBIG, errno.EROFS}
"""By which the operating system says that there is no room, or that nothing may be written."""


class Output:
    """A result that is being made.

    Attributes
    ----------
    array
        Where the values go, zeros at first: a numpy array, or a Zarr array for big results.
    axes
        One letter of "TCZYX" for each axis of `array`.
    voxel_size_um
        (z, y, x), or None.
    dtype, provenance
        What the file will hold; see `finish`.
    place
        Where the result lies in the world; a Zarr says so.
    """

    def __init__(
        self,
        array: Any,
        axes: str,
        dtype: np.dtype[Any],
        voxel_size_um: tuple[float, float, float] | None,
        provenance: dict[str, Any],
        place: CoordinateTransform | None = None,
    ) -> None:
        self.array, self.axes, self.dtype = array, axes, dtype
        self.voxel_size_um, self.provenance = voxel_size_um, provenance
        self.place = place or CoordinateTransform.of_voxels(axes, voxel_size_um)

    @property
    def provenance_text(self) -> str:
        """The provenance as JSON."""
        return json.dumps(self.provenance, default=_plain)

    def finish(self, dtype: Any = None, provenance: dict[str, Any] | None = None) -> None:
        """Decide what is known at the end only: the type in the file, and the provenance.

        A type narrower than the array's saves space; the values must fit it.
        """
        if dtype is not None:
            self.dtype = np.dtype(dtype)
        if provenance is not None:
            self.provenance = provenance

    def block(self, window: tuple[Any, ...]) -> np.ndarray:
        """Return a window of the array in the file's type.

        Raises
        ------
        OutputError
            Values that the type cannot hold.
        """
        values = np.asarray(self.array[window])
        if self.dtype.kind in "iu" and values.size and values.max() > np.iinfo(self.dtype).max:
            raise OutputError(
                f"The result holds {values.max()}, more than {self.dtype} can; "
                "write a .tif or .zarr instead."
            )
        return values.astype(self.dtype, copy=False)


@contextmanager
def create_output(
    path: str | Path,
    shape: Sequence[int],
    axes: str,
    dtype: Any,
    voxel_size_um: tuple[float, float, float] | None = None,
    provenance: dict[str, Any] | None = None,
    overwrite: bool = False,
    place: CoordinateTransform | None = None,
) -> Iterator[Output]:
    """Make a result file; it appears when the block ends without an exception.

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
        How the result came about: plain JSON values.
    overwrite
        Whether a file of that name is replaced.
    place
        Where the result lies in the world, if more is known of it than the size of a voxel.

    Raises
    ------
    OutputError
        An unknown kind, a folder that is missing or may not be written, an existing file without
        `overwrite`, a full disk.
    """
    target, shape, dtype = user_path(path), tuple(map(int, shape)), np.dtype(dtype)
    big = math.prod(shape) * dtype.itemsize > IN_MEMORY
    with _disk_errors(target):
        _check_target(target, shape, big, overwrite)
    work = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}.partial")
    try:
        with _disk_errors(target):
            work.mkdir()
        with _disk_errors(target, DISK_ERRORS):
            array = _scratch(work / "scratch", shape, dtype) if big else np.zeros(shape, dtype)
            output = Output(array, axes, dtype, voxel_size_um, provenance or {}, place)
            yield output
        with _disk_errors(target):
            _write(output, target, work, big)
            _move(work, target, overwrite)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Return the provenance of a result of any kind.

    Raises
    ------
    InputError
        A file that cannot be read, or that napari-unet did not write.
    """
    from napari_unet.core.io.label_formats import provenance_text

    path = user_path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; check the spelling and the folder.")
    try:
        text = provenance_text(path)
        provenance = json.loads(text) if text else None
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if not isinstance(provenance, dict):
        raise InputError(f"{path} has no passport; give a result that napari-unet wrote.")
    return provenance


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
    """Word what the operating system refuses; None stands for all codes."""
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


def _write(output: Output, target: Path, work: Path, big: bool) -> None:
    from napari_unet.core.io.label_formats import write_png, write_tiff, write_zarr

    result, suffix = work / "result", target.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        ome = big or target.stem.lower().endswith(".ome") or output.dtype.name not in _IMAGEJ
        write_tiff(output, result, ome)
    elif suffix == ".png":
        write_png(output, result)
    else:
        write_zarr(output, result, target.name)


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


def _plain(value: Any) -> Any:
    """Turn what JSON does not know into something that it does: numpy values, paths."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
