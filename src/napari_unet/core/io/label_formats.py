"""What a label file of each kind holds: the labels, their voxel size and their provenance.

- ``.tif``: an ImageJ hyperstack when the labels are small and fit 16 bit, else a tiled OME-TIFF
  (ImageJ itself knows no 32-bit integers; in Fiji, Bio-Formats opens it). ``.ome.tif``: always
  OME-TIFF. Beyond 4 GB both are BigTIFF.
- ``.zarr``, ``.ome.zarr``: an OME-NGFF 0.5 label image with coarser levels (`ome_zarr_labels`).
- ``.png``: one plane of up to 65,535 objects.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import OutputError
from napari_unet.core.io.coordinate_transform import CoordinateTransform
from napari_unet.core.io.files import TIFF_SUFFIXES
from napari_unet.core.io.ome_zarr_labels import LabelImage
from napari_unet.core.io.provenance import PROVENANCE_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 512
"""Edge of the tiles and chunks of results."""

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")


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


def write_output(output: Output, result: Path, target: Path, big: bool) -> None:
    """Write labels to `result` as a file of the kind that `target` is named as.

    Parameters
    ----------
    big
        Whether they are too large for the memory.
    """
    suffix = target.suffix.lower()
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


def _plain(value: Any) -> Any:
    """Return a value that JSON cannot hold (numpy, path) as one that it can."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
