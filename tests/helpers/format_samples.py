"""A small file of each format that napari-unet reads, written with what is known to be in it.

LIF, ND2 and OIF have no writers: their bytes are put together here.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE_UM = {"Z": 2.0, "Y": 0.5, "X": 0.25}
"""Of the voxels in every sample whose format can say so."""


@dataclass(frozen=True)
class Sample:
    """A written file.

    Attributes
    ----------
    path
        Of the file.
    values
        What is in it.
    axes
        A letter for each axis of `values`.
    others
        What is in the other images of the file, as many as it can hold.
    """

    path: Path
    values: np.ndarray
    axes: str
    others: tuple[np.ndarray, ...] = ()


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


def noise(axes: str, seed: int = 0, dtype: str = "u2") -> np.ndarray:
    sizes = {"T": 2, "C": 2, "Z": 3, "Y": 24, "X": 20, "S": 3}
    shape = [sizes[letter] for letter in axes]
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


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
        writer.write(values, photometric="minisblack", metadata={"axes": "TCZYX", **size})
        writer.write(other, photometric="minisblack", metadata={"axes": "YX"})
    return Sample(folder / "a.ome.tif", values, "TCZYX", (other,))


def imagej_tiff(folder: Path) -> Sample:
    import tifffile

    values = noise("TZCYX")
    resolution = (1 / SIZE_UM["X"], 1 / SIZE_UM["Y"])
    metadata = {"axes": "TZCYX", "spacing": SIZE_UM["Z"], "unit": "um"}
    tifffile.imwrite(
        folder / "a.tif", values, imagej=True, resolution=resolution, metadata=metadata
    )
    return Sample(folder / "a.tif", values, "TZCYX")


def svs(folder: Path) -> Sample:
    import tifffile

    values = noise("YXS", dtype="u1")
    text = f"Aperio Image Library v11\n20x24|AppMag = 20|MPP = {SIZE_UM['X']}"
    tifffile.imwrite(folder / "a.svs", values, photometric="rgb", tile=(16, 16), description=text,
                     metadata=None)  # fmt: skip
    return Sample(folder / "a.svs", values, "YXS")


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
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": named, "datasets": datasets}]}


def ome_zarr(folder: Path) -> Sample:
    import zarr

    group = zarr.create_group(str(folder / "a.ome.zarr"))
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    values, other = noise("TCZYX"), noise("YX", 1)
    fill_ome_zarr(group.create_group("0"), values, "TCZYX")
    fill_ome_zarr(group.create_group("1"), other, "YX")
    return Sample(folder / "a.ome.zarr", values, "TCZYX", (other,))


def zipped_ome_zarr(folder: Path) -> Sample:
    sample = ome_zarr(folder)
    with zipfile.ZipFile(folder / "a.ozx", "w") as archive:
        for file in sorted(sample.path.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(sample.path))
    return Sample(folder / "a.ozx", sample.values, sample.axes, sample.others)


def spatialdata(folder: Path) -> Sample:
    import zarr

    root = zarr.create_group(str(folder / "a.zarr"))
    root.attrs["spatialdata_attrs"] = {"version": "0.2"}
    values = noise("CYX")
    fill_ome_zarr(root.create_group("images").create_group("tissue"), values, "CYX")
    return Sample(folder / "a.zarr", values, "CYX")


def czi(folder: Path) -> Sample:
    from pylibCZIrw import czi as library

    values, path = noise("CZYX"), folder / "a.czi"
    with library.create_czi(str(path)) as file:
        for c, z in np.ndindex(values.shape[:2]):
            file.write(data=values[c, z, ..., None], plane={"C": c, "Z": z, "T": 0})
        scale = {f"scale_{letter.lower()}": 1e-6 * value for letter, value in SIZE_UM.items()}
        file.write_metadata("a", **scale)
    return Sample(path, values, "CZYX")


def lif(folder: Path) -> Sample:
    images = [("first", noise("CZYX")), ("second", noise("CZYX", 1)[:1])]
    elements, blocks = "", []
    for number, (name, values) in enumerate(images):
        channels, depth, height, width = values.shape
        plane = 2 * height * width
        described = "".join(
            '<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" Min="0" Max="65535" '
            'NameOfMeasuredQuantity="" Unit="" LUTName="Green" IsLUTInverted="0" BitInc="0" '
            f'BytesInc="{c * plane * depth}"/>'
            for c in range(channels)
        )
        sizes = [(1, width, "X", 2), (2, height, "Y", 2 * width), (3, depth, "Z", plane)]
        extents = "".join(
            f'<DimensionDescription DimID="{key}" NumberOfElements="{count}" Origin="0" '
            f'Length="{SIZE_UM[letter] * 1e-6 * (count - 1)}" Unit="m" BitInc="0" '
            f'BytesInc="{step}"/>'
            for key, count, letter, step in sizes
        )
        elements += (
            f'<Element Name="{name}" Visibility="1" CopyOption="1" UniqueID="u{number}"><Data>'
            f'<Image TextDescription=""><ImageDescription><Channels>{described}</Channels>'
            f"<Dimensions>{extents}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{values.nbytes}" MemoryBlockID="Block_{number}"/><Children/></Element>'
        )
        blocks.append((f"Block_{number}", values.tobytes()))
    text = (
        '<LMSDataContainerHeader Version="2"><Element Name="a.lif" Visibility="1" CopyOption="1" '
        'UniqueID="root"><Data><Experiment IsSavedFlag="1"/></Data><Memory Size="0" '
        f'MemoryBlockID="Block_root"/><Children>{elements}</Children></Element>'
        "</LMSDataContainerHeader>"
    )
    packed = text.encode("utf-16-le")
    content = struct.pack("<IIBI", 0x70, len(packed) + 5, 0x2A, len(text)) + packed
    for name, data in blocks:
        packed = name.encode("utf-16-le")
        head = struct.pack("<BQBI", 0x2A, len(data), 0x2A, len(name)) + packed
        content += struct.pack("<II", 0x70, len(head)) + head + data
    (folder / "a.lif").write_bytes(content)
    return Sample(folder / "a.lif", images[0][1], "CZYX", (images[1][1][0],))


def oif(folder: Path) -> Sample:
    import tifffile

    values, inside = noise("CZYX"), folder / "a.oif.files"
    inside.mkdir()
    for c, z in np.ndindex(values.shape[:2]):
        tifffile.imwrite(inside / f"s_C{c + 1:03d}Z{z + 1:03d}.tif", values[c, z])
    text = (
        "[ProfileSaveInfo]\r\nName=a\r\nVersion=1.0\r\n"
        f"[Reference Image Parameter]\r\nWidthConvertValue={SIZE_UM['X']}\r\n"
        f"HeightConvertValue={SIZE_UM['Y']}\r\nWidthUnit=um\r\nHeightUnit=um\r\n"
        "[Axis 3 Parameters Common]\r\nAxisCode=Z\r\nUnitName=nm\r\n"
        f"Interval={1000 * SIZE_UM['Z']}\r\n"
    )
    (folder / "a.oif").write_bytes(text.encode("utf-16"))
    return Sample(folder / "a.oif", values, "CZYX")


def nd2(folder: Path) -> Sample:
    values = noise("ZYXC")  # a frame holds its channels side by side
    depth, height, width, channels = values.shape

    def tree(**items: Any) -> str:
        kinds = {int: "lx_uint32", float: "double", str: "CLxStringW", bool: "bool"}
        return "".join(
            f'<{name} runtype="CLxListVariant">{tree(**value)}</{name}>'
            if isinstance(value, dict)
            else f'<{name} runtype="{kinds[type(value)]}" value="{str(value).lower()}"/>'
            for name, value in items.items()
        )

    attributes = {
        "uiWidth": width, "uiWidthBytes": 2 * width * channels, "uiHeight": height,
        "uiComp": channels, "uiBpcInMemory": 16, "uiBpcSignificant": 16,
        "uiSequenceCount": depth, "eCompression": 2,
    }  # fmt: skip
    spectrum = {"m_ExcitationSpectrum": {"uiCount": 0}, "m_EmissionSpectrum": {"uiCount": 0}}
    plane = {"uiCompCount": 1, "pFluorescentProbe": spectrum}
    planes = {f"a{n}": {**plane, "sDescription": f"channel {n}"} for n in range(channels)}
    picture = {
        "sPicturePlanes": {"uiCount": channels, "sPlaneNew": planes},
        "dCalibration": SIZE_UM["X"], "bCalibrated": True,
    }  # fmt: skip
    stack = {"eType": 4, "uLoopPars": {"uiCount": depth, "dZStep": SIZE_UM["Z"]}}
    described = {
        "ImageAttributesLV!": tree(SLxImageAttributes=attributes),
        "ImageMetadataSeqLV|0!": tree(SLxPictureMetadata=picture),
        "ImageMetadataLV!": tree(SLxExperiment=stack),
    }
    chunks = [(name, f"<variant>{text}</variant>".encode()) for name, text in described.items()]
    chunks += [(f"ImageDataSeq|{z}!", bytes(8) + values[z].tobytes()) for z in range(depth)]
    chunks.append(("CustomData|AcqTimesCache!", np.arange(depth, dtype="f8").tobytes()))
    content, places = b"", b""

    def pack(name: bytes, data: bytes, room: int) -> bytes:
        head = struct.pack("<IIQ", 0x0ABECEDA, room, len(data))
        return head + name.ljust(room, b"\0") + data

    content += pack(b"ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 32)
    for name, data in chunks:  # the values of a frame begin at 4096 bytes from its chunk
        places += name.encode() + struct.pack("<QQ", len(content), len(data))
        content += pack(name.encode(), data, 4072)
    end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", len(content))
    content += pack(b"ND2 FILEMAP SIGNATURE NAME 0001!", places + end, 32)
    (folder / "a.nd2").write_bytes(content)
    return Sample(folder / "a.nd2", values.transpose(0, 3, 1, 2), "ZCYX")


FORMATS = [
    Format("TIFF", ".tif .tiff .btf .tf2 .tf8", "", plain_tiff, ".tif"),
    Format("OME-TIFF, in one file or many", ".ome.tif", "", ome_tiff, ".ome.tif"),
    Format("ImageJ hyperstack", ".tif", "", imagej_tiff, ".tif"),
    Format("Aperio SVS", ".svs", "", svs),
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
