"""Image files and Zarrs with something wrong in them, OME-XML and NGFF metadata included."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import tifffile
from format_samples import FORMATS
from hypothesis import strategies as st
from mutations import changed_bytes, changed_json, changed_numbers
from PIL import Image

from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.provenance import find_provenance
from napari_unet.core.io.stack import open_stack

VALUES = np.arange(3 * 24 * 32, dtype=np.uint16).reshape(3, 24, 32)


def tiff(**options) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, VALUES, **options)
    return out.getvalue()


def picture(kind: str, values) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


OTHERS = [each for each in FORMATS if ".tif" not in each.suffixes and ".zarr" not in each.suffixes]
"""Formats whose samples are tried in few variants: files of microscopes, arrays, other pictures."""
TIFFS = [
    tiff(photometric="minisblack"),
    tiff(photometric="minisblack", compression="lzw", predictor=True),
    tiff(photometric="minisblack", compression="zlib", tile=(16, 16)),
    tiff(imagej=True, metadata={"axes": "ZYX", "spacing": 2, "unit": "um"}),
    tiff(ome=True, metadata={"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}),
    tiff(bigtiff=True, photometric="minisblack"),
]
COLOURS = np.uint8(VALUES.reshape(24, 32, 3) % 256)
PICTURES = {
    ".png": [picture("PNG", COLOURS), picture("PNG", COLOURS[..., 0]), picture("PNG", VALUES[0])],
    ".jpg": [picture("JPEG", COLOURS)],
}


def read_file(path) -> None:
    """Open an image and read some of it, as a run does."""
    stack = open_stack(path)
    find_provenance(path)
    if np.prod(stack.data.shape, dtype=float) < 2**24:
        for index in stack.indices(2)[:4]:
            window = tuple(slice(0, size) for size in stack.frame_shape(2))
            stack.read(index, window, stack.pick_channels(1))


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_files(fuzz, tmp_path, suffix) -> None:
    path = tmp_path / f"a{suffix}"

    def check(data) -> None:
        path.write_bytes(data)
        read_file(path)

    fuzz(changed_bytes(PICTURES.get(suffix, TIFFS)), check, 200)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize("each", OTHERS, ids=lambda each: each.name)
def test_other_files(fuzz, tmp_path, each) -> None:
    if each.package:
        pytest.importorskip(each.package)
    path = each.write(tmp_path).path

    def check(data) -> None:
        path.write_bytes(data)
        read_file(path)

    fuzz(changed_bytes([path.read_bytes()]), check, 30)


CODECS = ["jpeg", "jpeg2000", "jpegxl", "jpegxr", "lerc", "lzma", "packbits", "png", "webp", "zstd"]
"""Compressions of TIFF, most of which are pictures with a header of their own."""


def test_codecs_of_tiles(fuzz, tmp_path) -> None:
    path = tmp_path / "a.tif"
    values = np.random.default_rng(0).integers(0, 99, (32, 32, 3), "u1")
    options = {"tile": (16, 16), "photometric": "rgb", "planarconfig": "contig"}
    seeds = []
    for codec in CODECS:
        out = io.BytesIO()
        tifffile.imwrite(out, values, compression=codec, **options)
        seeds.append(out.getvalue())

    def check(data) -> None:
        path.write_bytes(data)
        read_file(path)

    fuzz(changed_bytes(seeds), check, 60)


HDF5_OPTIONS = [
    {"data": VALUES},
    {"data": VALUES, "chunks": (1, 8, 8), "compression": "gzip", "shuffle": True},
    {"data": VALUES, "chunks": (2, 24, 16), "compression": "lzf", "fletcher32": True},
    {"data": VALUES, "chunks": (1, 24, 32), "maxshape": (None, None, None)},
    {"data": VALUES.astype("f4"), "chunks": (3, 8, 32), "scaleoffset": 2},
]
"""Ways in which HDF5 stores an array, each of which its library reads by other code."""


def hdf5_files(folder) -> list[bytes]:
    """Return small HDF5 files of old and new layouts, with groups, links and attributes."""
    import h5py

    found = []
    for version in ("earliest", "latest"):
        for options in HDF5_OPTIONS:
            path = folder / "seed.h5"
            with h5py.File(path, "w", libver=version) as file:
                data = file.create_dataset("group/inner/raw", **options)
                data.attrs["element_size_um"] = (2.0, 0.5, 0.5)
                data.attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "zyx"]})
                file["link"] = h5py.SoftLink("/group/inner/raw")
                file["other"] = np.arange(10)
                for label, dimension in zip("zyx", data.dims, strict=True):
                    dimension.label = label
            found.append(path.read_bytes())
    return found


def test_hdf5(fuzz, tmp_path) -> None:
    pytest.importorskip("h5py")
    seeds, path = hdf5_files(tmp_path), tmp_path / "a.h5"

    def check(data) -> None:
        path.write_bytes(data)
        read_file(f"{path}:/group/inner/raw")

    fuzz(st.one_of(changed_bytes(seeds), changed_numbers(seeds)), check, 60)


def test_ome_xml(fuzz, tmp_path) -> None:
    path, whole = tmp_path / "a.ome.tif", TIFFS[4]
    start = whole.index(b"<?xml")
    end = whole.index(b"</OME>") + len(b"</OME>")
    xml = whole[start:end]
    sizes = st.sampled_from([b"0", b"-1", b"1", b"7", b"99999999", b"1e9", b"nan", b"", b"&x;"])
    names = [b"SizeT", b"SizeX", b"SizeC", b"IFD", b"PlaneCount", b"PhysicalSizeX", b"FirstZ"]

    @st.composite
    def described(draw):
        text = draw(changed_bytes([xml], 2))
        for name in draw(st.lists(st.sampled_from(names), max_size=3)):
            before, found, after = text.partition(name + b'="')
            if found:
                text = before + found + draw(sizes) + b'"' + after.partition(b'"')[2]
        # Offsets in the file stay right: the text keeps its length.
        return text[: len(xml)].ljust(len(xml))

    def check(text) -> None:
        path.write_bytes(whole[:start] + text + whole[end:])
        read_file(path)

    fuzz(described(), check, 200)


def test_zarrs(fuzz, tmp_path) -> None:
    good, path = tmp_path / "good.zarr", tmp_path / "a.zarr"
    size_um, provenance = (2.0, 0.5, 0.5), {"model": "nuclei"}
    with create_output(good, VALUES.shape, "ZYX", np.uint16, size_um, provenance) as output:
        output.array[...] = VALUES
    files = sorted(file.relative_to(good) for file in good.rglob("*") if file.is_file())
    metadata = [file for file in files if file.name == "zarr.json"]
    chunks = [file for file in files if file.name != "zarr.json"]

    @st.composite
    def spoiled(draw):
        if draw(st.integers(0, 3)):
            name = draw(st.sampled_from(metadata))
            values = json.loads((good / name).read_text())
            return name, json.dumps(draw(changed_json(values))).encode()
        name = draw(st.sampled_from(chunks))
        return name, draw(changed_bytes([(good / name).read_bytes()]))

    shutil.copytree(good, path)

    def check(drawn) -> None:
        name, data = drawn
        (path / name).write_bytes(data)
        try:
            read_file(path)
        finally:
            (path / name).write_bytes((good / name).read_bytes())

    fuzz(spoiled(), check, 150)
