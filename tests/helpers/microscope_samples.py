"""Small files as microscopes and slide scanners write them.

LIF, ND2, OIF, LSM and STK have no writers: their bytes are put together here.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from sample_file import NAMES, SIZE_UM, Sample, noise

if TYPE_CHECKING:
    from pathlib import Path


def svs(folder: Path) -> Sample:
    import tifffile

    values = noise("YXS", dtype="u1")
    text = f"Aperio Image Library v11\n20x24|AppMag = 20|MPP = {SIZE_UM['X']}"
    tifffile.imwrite(folder / "a.svs", values, photometric="rgb", tile=(16, 16), description=text,
                     metadata=None)  # fmt: skip
    return Sample(folder / "a.svs", values, "YXS")


def ndpi(folder: Path) -> Sample:
    """Write what Hamamatsu's NanoZoomer writes: the slide in levels, and a picture of all of it."""
    import tifffile

    values, path = noise("YXS", dtype="u1"), folder / "a.ndpi"
    resolution = {"resolution": (1e4 / SIZE_UM["X"], 1e4 / SIZE_UM["Y"]), "resolutionunit": 3}
    with tifffile.TiffWriter(path.with_suffix(".tif")) as writer:
        for number, (level, magnification) in enumerate([(values, 20.0), (values[::4, ::4], -1.0)]):
            tags = [(271, 2, 0, "Hamamatsu", True), (65420, 4, 1, 1, True)]
            tags.append((65421, 11, 1, magnification, True))
            options = resolution if number == 0 else {}
            writer.write(level, photometric="rgb", extratags=tags, metadata=None, **options)
    # Offsets of pages take 8 bytes there; the upper halves of all values follow.
    with tifffile.TiffFile(path.with_suffix(".tif")) as file:
        pages = [(page.offset, len(page.tags)) for page in file.pages]
    content = bytearray(path.with_suffix(".tif").read_bytes())
    moved = len(content)
    for number, (offset, tags) in enumerate(pages):
        following = moved + 10 + 16 * tags if number + 1 < len(pages) else 0
        table = content[offset : offset + 2 + 12 * tags]
        content += table + struct.pack("<Q", following) + bytes(4 * tags)
        if number == 0:  # over the page that lies at 8, of which a copy is used
            struct.pack_into("<Q", content, 4, moved)
        moved = len(content)
    path.write_bytes(content)
    path.with_suffix(".tif").unlink()
    return Sample(path, values, "YXS")


def qptiff(folder: Path) -> Sample:
    """Write what PerkinElmer's Vectra writes: a page for each filter, then a thumbnail."""
    import tifffile

    values, path = noise("CYX"), folder / "a.qptiff"
    resolution = {"resolution": (1e4 / SIZE_UM["X"], 1e4 / SIZE_UM["Y"]), "resolutionunit": 3}
    options = {"software": "PerkinElmer-QPI", "metadata": None, "photometric": "minisblack"}
    with tifffile.TiffWriter(path) as writer:
        for plane, name in zip(values, NAMES, strict=True):
            root = "PerkinElmer-QPI-ImageDescription"
            text = f"<{root}><Name>{name}</Name></{root}>"
            writer.write(plane, description=text, tile=(16, 16), **options, **resolution)
        writer.write(values[0, ::2, ::2], **options)
    return Sample(path, values, "CYX", (), NAMES)


def scn(folder: Path) -> Sample:
    """Write what Leica's SCN400 writes: pages, and an XML that says which channel each is."""
    import tifffile

    values, path = noise("CYX"), folder / "a.scn"
    height, width = values.shape[1:]
    resolution = {"resolution": (1e4 / SIZE_UM["X"], 1e4 / SIZE_UM["Y"]), "resolutionunit": 3}
    places = "".join(
        f'<dimension sizeX="{width}" sizeY="{height}" c="{c}" z="0" r="0" ifd="{c}"/>'
        for c in range(len(values))
    )
    text = (
        '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection><image name="a">'
        f"<pixels>{places}</pixels></image></collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, plane in enumerate(values):
            description = text if number == 0 else None
            writer.write(plane, description=description, photometric="minisblack", tile=(16, 16),
                         metadata=None, **resolution)  # fmt: skip
    return Sample(path, values, "CYX")


def lsm(folder: Path) -> Sample:
    """Write what Zeiss's LSM 510 writes: a page a plane, each followed by its thumbnail."""
    import tifffile

    values = noise("ZCYX")
    depth, channels, height, width = values.shape
    info = struct.pack("<Ii5i", 0x00400494C, 512, width, height, depth, channels, 1)
    sizes = [1e-6 * SIZE_UM[letter] for letter in "XYZ"]
    info += struct.pack("<i2i6d", 2, width // 2, height // 2, *sizes, 0, 0, 0)
    info = (info + bytes(20)).ljust(512, b"\0")  # a scan of z; then the offset of the names
    names = b"".join(struct.pack("<I", len(n) + 1) + n.encode() + b"\0" for n in NAMES)
    path = folder / "a.lsm"
    tags = [(34412, 1, 512, info, True)]
    with tifffile.TiffWriter(path) as writer:
        for number, plane in enumerate(values):
            options = {"photometric": "minisblack", "planarconfig": "separate", "metadata": None}
            writer.write(plane, extratags=tags if number == 0 else (), **options)
            writer.write(plane[:, ::2, ::2], subfiletype=1, **options)
    content = path.read_bytes()
    # The numbers of bits lie elsewhere, even if they are few.
    bits, place = struct.pack("<HHI2H", 258, 3, 2, 16, 16), len(content)
    content = content.replace(bits, struct.pack("<HHII", 258, 3, 2, place))
    content = bytearray(content + struct.pack("<2H", 16, 16))
    at = content.index(info[:20])
    struct.pack_into("<I", content, at + 108, len(content))
    start = 24 + 4 * channels  # after the colours
    head = struct.pack("<6i", start + len(names), channels, channels, 24, start, 0)
    path.write_bytes(bytes(content) + head.ljust(start, b"\0") + names)
    return Sample(path, values, "ZCYX", (), NAMES)


def stk(folder: Path) -> Sample:
    """Write what MetaMorph writes: one page, behind whose strips those of the other planes lie."""
    values, path = noise("ZYX"), folder / "a.stk"
    depth, height, width = values.shape
    pixels = 8 + values.nbytes
    distance = struct.pack("<6I", int(SIZE_UM["Z"] * 1000), 1000, 0, 0, 0, 0) * depth
    numbers = [round(SIZE_UM[letter] * 1000) for letter in "XY"]
    places = {"distance": pixels, "settings": pixels + len(distance)}
    settings_at = places["settings"]
    rational = settings_at + 8 * 4
    unit = rational + 16
    settings = struct.pack("<8I", 1, 1, 4, rational, 5, rational + 8, 6, unit)
    settings += (
        struct.pack("<4I", numbers[0], 1000, numbers[1], 1000) + struct.pack("<I", 3) + b"um\0"
    )
    page = unit + 7
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 2 * height * width),
        (33628, 4, 4, settings_at), (33629, 5, depth, places["distance"]),
    ]  # fmt: skip
    content = b"II*\0" + struct.pack("<I", page) + values.tobytes() + distance + settings
    content += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(content + bytes(4))
    return Sample(path, values, "ZYX")


def czi(folder: Path) -> Sample:
    from pylibCZIrw import czi as library

    values, path = noise("CZYX"), folder / "a.czi"
    with library.create_czi(str(path)) as file:
        for c, z in np.ndindex(values.shape[:2]):
            file.write(data=values[c, z, ..., None], plane={"C": c, "Z": z, "T": 0})
        scale = {f"scale_{letter.lower()}": 1e-6 * value for letter, value in SIZE_UM.items()}
        file.write_metadata("a", channel_names=dict(enumerate(NAMES)), **scale)
    return Sample(path, values, "CZYX", (), NAMES)


def lif(folder: Path) -> Sample:
    images = [("first", noise("CZYX")), ("second", noise("CZYX", 1)[:1])]
    elements, blocks = "", []
    for number, (name, values) in enumerate(images):
        channels, depth, height, width = values.shape
        plane = 2 * height * width
        described = "".join(
            '<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" Min="0" Max="65535" '
            f'NameOfMeasuredQuantity="" Unit="" LUTName="{NAMES[c]}" IsLUTInverted="0" BitInc="0" '
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
    return Sample(folder / "a.lif", images[0][1], "CZYX", (images[1][1][0],), NAMES)


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
    for number, name in enumerate(NAMES, 1):
        text += f"[Channel {number} Parameters]\r\nDyeName={name}\r\n"
    (folder / "a.oif").write_bytes(text.encode("utf-16"))
    return Sample(folder / "a.oif", values, "CZYX", (), NAMES)


def nd2(folder: Path) -> Sample:
    values = noise("ZYXC")  # a frame holds its channels side by side
    depth, height, width, channels = values.shape

    def tree(**items: Any) -> str:
        kinds = {int: "lx_uint32", float: "double", str: "CLxStringW"}
        return "".join(
            f'<{name} runtype="CLxListVariant">{tree(**value)}</{name}>'
            if isinstance(value, dict)
            else f'<{name} runtype="{kinds[type(value)]}" value={json.dumps(str(value))}/>'
            for name, value in items.items()
        )

    attributes = {
        "uiWidth": width, "uiWidthBytes": 2 * width * channels, "uiHeight": height,
        "uiComp": channels, "uiBpcInMemory": 16, "uiBpcSignificant": 16,
        "uiSequenceCount": depth, "eCompression": 2,
    }  # fmt: skip
    spectrum = {"m_ExcitationSpectrum": {"uiCount": 0}, "m_EmissionSpectrum": {"uiCount": 0}}
    plane = {"uiCompCount": 1, "pFluorescentProbe": spectrum}
    planes = {f"a{n}": {**plane, "sDescription": name} for n, name in enumerate(NAMES)}
    picture = {
        "sPicturePlanes": {"uiCount": channels, "sPlaneNew": planes},
        "dCalibration": SIZE_UM["X"], "bCalibrated": "true",
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
    return Sample(folder / "a.nd2", values.transpose(0, 3, 1, 2), "ZCYX", (), NAMES)
