"""A small file of each format that napari-unet reads, written with what is known to be in it."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from microscope_samples import czi, lif, lsm, nd2, ndpi, oif, qptiff, scn, stk, svs
from sample_file import NAMES, SIZE_UM, Sample, noise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Format:
    """A format of images.

    Attributes
    ----------
    name
        What it is called.
    suffixes
        Its usual suffixes, and other text in backticks.
    package
        What reads it and has to be there; "" for what napari-unet brings along.
    write
        Writes a sample into a folder.
    output
        Suffix of the labels that are written in this format; "" for none.
    """

    name: str
    suffixes: str
    package: str
    write: Callable[[Path], Sample]
    output: str = ""


def plain_tiff(folder: Path) -> Sample:
    import tifffile

    values, other = noise("ZYX"), noise("YX", 1)
    with tifffile.TiffWriter(folder / "a.tif") as writer:
        resolution = {"resolution": (1e4 / SIZE_UM["X"], 1e4 / SIZE_UM["Y"]), "resolutionunit": 3}
        writer.write(values, photometric="minisblack", **resolution)
        writer.write(other[:, :-1], photometric="minisblack")
    return Sample(folder / "a.tif", values, "ZYX", (other[:, :-1],))


def ome_tiff(folder: Path) -> Sample:
    import tifffile

    values, other = noise("TCZYX"), noise("YX", 1)
    size = {f"PhysicalSize{letter}": value for letter, value in SIZE_UM.items()}
    with tifffile.TiffWriter(folder / "a.ome.tif", ome=True) as writer:
        metadata = {"axes": "TCZYX", "Channel": {"Name": list(NAMES)}, **size}
        writer.write(values, photometric="minisblack", metadata=metadata)
        writer.write(other, photometric="minisblack", metadata={"axes": "YX"})
    return Sample(folder / "a.ome.tif", values, "TCZYX", (other,), NAMES)


def imagej_tiff(folder: Path) -> Sample:
    import tifffile

    values = noise("TZCYX")
    resolution = (1 / SIZE_UM["X"], 1 / SIZE_UM["Y"])
    metadata = {"axes": "TZCYX", "spacing": SIZE_UM["Z"], "unit": "um"}
    tifffile.imwrite(
        folder / "a.tif", values, imagej=True, resolution=resolution, metadata=metadata
    )
    return Sample(folder / "a.tif", values, "TZCYX")


def photo(suffix: str, grey: bool = True) -> Callable[[Path], Sample]:
    def write(folder: Path) -> Sample:
        from PIL import Image

        values = noise("YX" if grey else "YXS", dtype="u1")
        options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
        if suffix in (".png", ".bmp"):
            options["dpi"] = (25400 / SIZE_UM["X"], 25400 / SIZE_UM["Y"])
        Image.fromarray(values).save(folder / f"a{suffix}", **options)
        if suffix == ".jpg":  # what the lossy codec made of it
            values = np.asarray(Image.open(folder / "a.jpg"))
        return Sample(folder / f"a{suffix}", values, "YX" if grey else "YXS")

    return write


def jpeg_2000(folder: Path) -> Sample:
    import imagecodecs

    values = noise("YX")
    (folder / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0))
    return Sample(folder / "a.jp2", values, "YX")


def npy(folder: Path) -> Sample:
    values = noise("ZYX")
    np.save(folder / "a.npy", values)
    return Sample(folder / "a.npy", values, "ZYX")


def npz(folder: Path) -> Sample:
    values = noise("ZYX")
    np.savez_compressed(folder / "a.npz", image=values)
    return Sample(folder / "a.npz", values, "ZYX")


def hdf5(folder: Path) -> Sample:
    import h5py

    values = noise("CZYX")
    with h5py.File(folder / "a.h5", "w") as file:
        data = file.create_dataset("raw", data=values, chunks=(1, 1, 8, 8), compression="gzip")
        data.attrs["element_size_um"] = tuple(SIZE_UM.values())
        for dimension, letter in zip(data.dims, "czyx", strict=True):
            dimension.label = letter
    return Sample(folder / "a.h5", values, "CZYX")


def zarr_array(folder: Path) -> Sample:
    import zarr

    values = noise("ZYX")
    zarr.create_array(str(folder / "a.zarr"), data=values, dimension_names=["z", "y", "x"])
    return Sample(folder / "a.zarr", values, "ZYX")


def fill_ome_zarr(group: Any, values: np.ndarray, axes: str) -> None:
    """Make a group an OME-Zarr image (0.5)."""
    group.create_array("0", data=values)
    kinds: dict[str, dict[str, str]] = {"T": {"type": "time"}, "C": {"type": "channel"}}
    space = {"type": "space", "unit": "micrometer"}
    named = [{"name": letter.lower(), **kinds.get(letter, space)} for letter in axes]
    scale = [SIZE_UM.get(letter, 1.0) for letter in axes]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [{"axes": named, "datasets": datasets}]}
    if "C" in axes:
        ome["omero"] = {"channels": [{"label": name} for name in NAMES]}
    group.attrs["ome"] = ome


def ome_zarr(folder: Path) -> Sample:
    import zarr

    group = zarr.create_group(str(folder / "a.ome.zarr"))
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    values, other = noise("TCZYX"), noise("YX", 1)
    fill_ome_zarr(group.create_group("0"), values, "TCZYX")
    fill_ome_zarr(group.create_group("1"), other, "YX")
    return Sample(folder / "a.ome.zarr", values, "TCZYX", (other,), NAMES)


def zipped_ome_zarr(folder: Path) -> Sample:
    sample = ome_zarr(folder)
    with zipfile.ZipFile(folder / "a.ozx", "w") as archive:
        for file in sorted(sample.path.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(sample.path))
    return Sample(folder / "a.ozx", sample.values, sample.axes, sample.others, NAMES)


def spatialdata(folder: Path) -> Sample:
    import zarr

    root = zarr.create_group(str(folder / "a.zarr"))
    root.attrs["spatialdata_attrs"] = {"version": "0.2"}
    values = noise("CYX")
    fill_ome_zarr(root.create_group("images").create_group("tissue"), values, "CYX")
    return Sample(folder / "a.zarr", values, "CYX", (), NAMES)


FORMATS = [
    Format("TIFF", ".tif .tiff .btf .tf2 .tf8", "", plain_tiff, ".tif"),
    Format("OME-TIFF, in one file or many", ".ome.tif", "", ome_tiff, ".ome.tif"),
    Format("ImageJ hyperstack", ".tif", "", imagej_tiff, ".tif"),
    Format("Aperio SVS", ".svs", "", svs),
    Format("Hamamatsu NDPI", ".ndpi", "", ndpi),
    Format("PerkinElmer QPTIFF", ".qptiff", "", qptiff),
    Format("Leica SCN", ".scn", "", scn),
    Format("Zeiss LSM", ".lsm", "", lsm),
    Format("MetaMorph STK", ".stk", "", stk),
    Format("PNG", ".png", "", photo(".png"), ".png"),
    Format("JPEG", ".jpg .jpeg", "", photo(".jpg")),
    Format("BMP", ".bmp", "", photo(".bmp", grey=False)),
    Format("GIF", ".gif", "", photo(".gif")),
    Format("WebP", ".webp", "", photo(".webp", grey=False)),
    Format("JPEG 2000", ".jp2 .j2k", "", jpeg_2000),
    Format("numpy", ".npy", "", npy),
    Format("numpy, several arrays", ".npz `FILE.npz:NAME`", "", npz),
    Format("HDF5", ".h5 .hdf5 `FILE.h5:/PATH`", "h5py", hdf5),
    Format("Zarr 2 and 3", ".zarr", "", zarr_array),
    Format("OME-Zarr 0.1 to 0.5", ".zarr .ome.zarr", "", ome_zarr, ".ome.zarr"),
    Format("OME-Zarr, zipped", ".ozx .zip", "", zipped_ome_zarr),
    Format("SpatialData", ".zarr", "", spatialdata),
    Format("Zeiss CZI", ".czi", "bioio_czi", czi),
    Format("Leica LIF", ".lif", "bioio_lif", lif),
    Format("Nikon ND2", ".nd2", "bioio_nd2", nd2),
    Format("Olympus OIF and OIB", ".oif .oib", "oiffile", oif),
]
