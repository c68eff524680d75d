"""Label files, written whole or not at all, each with its provenance inside.

A result is built in a hidden folder beside its target and moved into place when it is complete;
an error or interrupt leaves neither half a file nor a changed old one. Kinds:

- ``.tif``: an ImageJ hyperstack when the labels are small and fit 16 bit, else a tiled OME-TIFF
  (ImageJ itself knows no 32-bit integers; in Fiji, Bio-Formats opens it). ``.ome.tif``: always
  OME-TIFF. Beyond 4 GB both are BigTIFF.
- ``.zarr``, ``.ome.zarr``: an OME-NGFF 0.5 label image with coarser levels (`ome_zarr_labels`).
- ``.png``: one plane of up to 65,535 objects.
"""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import OutputError
from napari_unet.core.io.coordinate_transform import CoordinateTransform
from napari_unet.core.io.files import TIFF_SUFFIXES, expand_path, is_zarr
from napari_unet.core.io.ome_zarr_labels import LabelImage
from napari_unet.core.io.provenance import PROVENANCE_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

IN_MEMORY = 2**28
"""Results of more bytes than this are kept in a scratch Zarr beside their target."""

CHUNK = 512
"""Edge of the tiles and chunks of results."""

OUTPUT_SUFFIXES = (".tif", ".tiff", ".png", ".zarr")

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

DISK_ERRORS = {*_FULL, errno.EFBIG, errno.EROFS}
"""Error numbers of a full disk, too large a file and a file system that is read-only."""


class Output:
    """A label file in the making.

    Attributes
    ----------
    array
        What to fill, zeros at first: a numpy array, or a Zarr array for big results.
    axes
        One letter of "TCZYX" for each axis of `array`.
    voxel_size_um
        (z, y, x), or None.
    dtype, provenance
        What the file will hold; see `finish`.
    transform
        World coordinates of the result, which only a Zarr records.
    """

    def __init__(
        self,
        array: Any,
        axes: str,
        dtype: np.dtype[Any],
        voxel_size_um: tuple[float, float, float] | None,
        provenance: dict[str, Any],
        transform: CoordinateTransform | None = None,
    ) -> None:
        self.array, self.axes, self.dtype = array, axes, dtype
        self.voxel_size_um, self.provenance = voxel_size_um, provenance
        self.transform = transform or CoordinateTransform.from_voxel_size(axes, voxel_size_um)

    @property
    def provenance_text(self) -> str:
        """The provenance as JSON."""
        return json.dumps(self.provenance, default=_plain)

    def finish(self, dtype: Any = None, provenance: dict[str, Any] | None = None) -> None:
        """Set what is known at the end only: the type in the file, and the provenance.

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
            _write(output, target, work, big)
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


def _write(output: Output, target: Path, work: Path, big: bool) -> None:
    result, suffix = work / "result", target.suffix.lower()
    if suffix in TIFF_SUFFIXES:
        shape = output.array.shape
        column = len(shape) > 2 and shape[-1] == 1  # which tifffile takes for colours of one sample
        ome = big or column or target.stem.lower().endswith(".ome")
        ome |= output.dtype.name not in _IMAGEJ_TYPES
        _write_tiff(output, result, ome)
    elif suffix == ".png":
        _write_png(output, result)
    else:
        _write_zarr(output, result, target.name)


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
    """Return a value that JSON cannot hold (numpy, path) as one that it can."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _write_tiff(output: Output, path: Path, ome: bool) -> None:
    """Write an ImageJ hyperstack from memory, or a tiled OME-TIFF tile by tile."""
    import tifffile

    from napari_unet.core.io.tiff_checks import silence_tifffile

    shape, axes = tuple(output.array.shape), output.axes
    size = output.voxel_size_um
    metadata: dict[str, Any] = {"axes": axes}
    common: dict[str, Any] = {"photometric": "minisblack", "compression": "zlib"}
    if not ome:
        metadata["Info"] = output.provenance_text
        if size is not None:
            metadata |= {"unit": "um", "spacing": size[0]}
            common["resolution"] = (1 / size[2], 1 / size[1])
        values = output.block((slice(None),) * len(shape))
        with silence_tifffile(), tifffile.TiffWriter(path, imagej=True) as writer:
            writer.write(values, metadata=metadata, **common)
        return
    metadata["MapAnnotation"] = {
        "Namespace": PROVENANCE_KEY,
        PROVENANCE_KEY: output.provenance_text,
    }
    if size is not None:
        for letter, value in zip("ZYX", size, strict=True):
            if letter in axes:
                metadata |= {f"PhysicalSize{letter}": value, f"PhysicalSize{letter}Unit": "µm"}
    total = math.prod(shape) * output.dtype.itemsize
    with (
        silence_tifffile(),
        # A TIFF ends at 4 GB; 32 MB are left for its metadata, as tifffile does by itself.
        tifffile.TiffWriter(path, bigtiff=total > 2**32 - 2**25, ome=True) as writer,
    ):
        writer.write(
            map(np.ascontiguousarray, map(output.block, _windows(shape))),
            shape=shape,
            dtype=output.dtype,
            tile=(CHUNK, CHUNK),
            metadata=metadata,
            **common,
        )


def _write_png(output: Output, path: Path) -> None:
    """Write one plane, 16 bit unless it is 8 bit already."""
    from PIL import Image, PngImagePlugin

    if output.dtype != np.uint8:
        output.finish(np.uint16)
    text = PngImagePlugin.PngInfo()
    text.add_text(PROVENANCE_KEY, output.provenance_text, zip=True)
    options: dict[str, Any] = {}
    if output.voxel_size_um is not None:
        _, y, x = output.voxel_size_um
        options["dpi"] = (25400 / x, 25400 / y)
    picture = Image.fromarray(output.block((slice(None), slice(None))))
    picture.save(path, format="PNG", pnginfo=text, **options)


def _write_zarr(output: Output, path: Path, name: str) -> None:
    """Write an OME-NGFF 0.5 label image, chunk by chunk, with coarser levels."""
    shape = tuple(output.array.shape)
    chunks = (1,) * (len(shape) - 2) + (CHUNK, CHUNK)
    image = LabelImage(path, output.axes, shape, chunks)
    image.create(output.dtype)
    full = image.open()
    for window in _windows(shape):
        full[window] = output.block(window)
    for level in range(1, image.levels):
        for window in _windows(image.level_shape(level)):
            image.coarsen(level, window)
    provenance = {PROVENANCE_KEY: json.loads(output.provenance_text)}
    image.describe(name.split(".")[0], output.transform, provenance)


def _windows(shape: tuple[int, ...]) -> Iterator[tuple[int | slice, ...]]:
    """Yield the windows of all chunks, plane by plane; those at the border are cut off."""
    *leading, height, width = shape
    for plane in itertools.product(*(range(count) for count in leading)):
        for top, left in itertools.product(range(0, height, CHUNK), range(0, width, CHUNK)):
            rows = slice(top, min(top + CHUNK, height))
            yield (*plane, rows, slice(left, min(left + CHUNK, width)))
