"""Writers of each kind of result, and where each kind keeps its provenance."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import zarr
from PIL import Image, PngImagePlugin
from zarr.codecs import BloscCodec

from napari_unet.core.io.label_writer import CHUNK, PROVENANCE_KEY
from napari_unet.core.io.ome_zarr import COARSEST, VERSIONS, label_attributes
from napari_unet.core.io.readers import PHOTO_SUFFIXES
from napari_unet.core.io.tiff import silence_tifffile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_unet.core.io.label_writer import Output


def write_tiff(output: Output, path: Path, ome: bool) -> None:
    """Write an ImageJ hyperstack from memory, or a tiled OME-TIFF tile by tile."""
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
    total = int(np.prod(shape)) * output.dtype.itemsize
    with (
        silence_tifffile(),
        tifffile.TiffWriter(path, bigtiff=total > 2**32 - 2**25, ome=True) as writer,
    ):
        writer.write(
            _tiles(output),
            shape=shape,
            dtype=output.dtype,
            tile=(CHUNK, CHUNK),
            metadata=metadata,
            **common,
        )


def _tiles(output: Output) -> Iterator[np.ndarray]:
    """Yield the tiles of every page in the order of the file, cut off at the borders."""
    *leading, height, width = output.array.shape
    for page in itertools.product(*(range(count) for count in leading)):
        for top, left in itertools.product(range(0, height, CHUNK), range(0, width, CHUNK)):
            rows = slice(top, min(top + CHUNK, height))
            columns = slice(left, min(left + CHUNK, width))
            yield np.ascontiguousarray(output.block((*page, rows, columns)))


def write_png(output: Output, path: Path) -> None:
    """Write one plane, 16 bit unless it is 8 bit already."""
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


def write_zarr(output: Output, path: Path, name: str) -> None:
    """Write an OME-NGFF 0.5 label image, chunk by chunk, with coarser levels."""
    group = zarr.create_group(str(path), zarr_format=3)
    levels, source = 0, output.array
    while not levels or max(source.shape[-2:]) > COARSEST:
        source = _write_level(group, str(levels), source, 2 if levels else 1, output)
        levels += 1
    ome = label_attributes(name.split(".")[0], output.place, levels, VERSIONS[3])
    group.attrs.update({"ome": ome, PROVENANCE_KEY: json.loads(output.provenance_text)})


def _write_level(group: Any, name: str, source: Any, step: int, output: Output) -> Any:
    """Copy every `step`-th voxel of a plane of `source` into a new array, chunk by chunk."""
    *leading, height, width = source.shape
    shape = (*leading, -(-height // step), -(-width // step))
    edges = (min(CHUNK, max(1, n)) for n in shape[-2:])
    level = group.create_array(
        name,
        shape=shape,
        dtype=output.dtype,
        chunks=(1,) * len(leading) + tuple(edges),
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
        dimension_names=[letter.lower() for letter in output.axes],
        fill_value=0,
    )
    for page in itertools.product(*(range(count) for count in leading)):
        for top, left in itertools.product(range(0, shape[-2], CHUNK), range(0, shape[-1], CHUNK)):
            rows = slice(top * step, min((top + CHUNK) * step, height))
            columns = slice(left * step, min((left + CHUNK) * step, width))
            window = (*page, rows, columns)
            values = output.block(window) if step == 1 else np.asarray(source[window])
            values = values[::step, ::step]
            end = (top + values.shape[0], left + values.shape[1])
            level[(*page, slice(top, end[0]), slice(left, end[1]))] = values
    return level


def provenance_text(path: Path) -> str | None:
    """Find the provenance's JSON in a file of any kind; None when there is none."""
    if path.is_dir():
        provenance = zarr.open_group(str(path), mode="r").attrs.get(PROVENANCE_KEY)
        return None if provenance is None else json.dumps(provenance)
    if path.suffix.lower() in PHOTO_SUFFIXES:
        with PngImagePlugin.PngImageFile(path) as picture:
            return picture.text.get(PROVENANCE_KEY)
    with silence_tifffile(), tifffile.TiffFile(path) as file:
        if not file.is_ome:
            return (file.imagej_metadata or {}).get("Info")
        for element in ElementTree.fromstring(file.ome_metadata or "<none/>").iter():
            if element.tag.rpartition("}")[2] == "M" and element.get("K") == PROVENANCE_KEY:
                return element.text
    return None
