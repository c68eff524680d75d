"""OME-XML in TIFF files: voxel sizes, the files that an image lies in, claims that are checked.

What the text says comes from a file that may be damaged or hostile: before tifffile acts on it, the
planes that it claims are held against the pages that there are, and names of files that lead out
of the folder are dropped.
"""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tifffile

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import to_um
from napari_unet.core.io.files import TIFF_SUFFIXES, UNREADABLE

if TYPE_CHECKING:
    from pathlib import Path

PLANES = 10**6
"""So many planes an image may claim, and a thousand for each page of its file."""
_COMPANION_BYTES = 2**28
"""Size of a file of metadata beside TIFF files, at most."""
_MODULO = 10**5
"""Positions of a modulo axis, at most."""


@dataclass(frozen=True)
class OmeDescription:
    """The OME-XML of one file of a set.

    Attributes
    ----------
    text
        The XML, with what must not be followed left out.
    images
        The ``Pixels`` of each image.
    files
        The files of the set that are there, this one left out.
    missing
        For each image the names of its files that are not there, or lead out of the folder.
    remarks
        What is unusual, in sentences.
    """

    text: str
    images: tuple[ElementTree.Element, ...]
    files: tuple[Path, ...] = ()
    missing: tuple[tuple[str, ...], ...] = ()
    remarks: tuple[str, ...] = ()


def read_ome_xml(path: Path, text: str | None, pages: int) -> OmeDescription | None:
    """Check the OME-XML of a TIFF file; None if there is none, or it is no XML.

    Parameters
    ----------
    pages
        How many pages the file has.

    Raises
    ------
    InputError
        It claims far more planes than there are pages.
    """
    try:
        root = ElementTree.fromstring(text or "")
    except (ElementTree.ParseError, ValueError):
        return None
    companion = next((element for element in root if _name(element) == "BinaryOnly"), None)
    if companion is not None:
        name = str(companion.get("MetadataFile", ""))
        elsewhere = _read_companion(path, name, root.get("UUID"))
        if elsewhere is None:
            remark = (
                f"The metadata of {path.name} lie in {name!r}, which is not beside it or damaged."
            )
            return OmeDescription(text or "", (), remarks=(remark,))
        root = elsewhere
    images = tuple(element for element in root.iter() if _name(element) == "Pixels")
    _check_planes(path, images, pages)
    _drop_modulo(root)
    named = [uuid for image in images for uuid in image.iter() if _name(uuid) == "UUID"]
    own = root.get("UUID")
    names = {str(uuid.get("FileName", "")): str(uuid.text) for uuid in named}
    others = {
        name: text
        for name, text in names.items()
        if name and text != own and name.lower() != path.name.lower()
    }
    there = {name: found for name in others if (found := _beside(path, name)) is not None}
    gone = [name for name in others if name not in there]
    unnamed = any(
        not any(_name(inside) == "UUID" for inside in data)
        for image in images
        for data in image
        if _name(data) == "TiffData"
    )
    if len(gone) == 1 and not unnamed and len(others) == len(names) and own not in names.values():
        # All planes lie in named files, none has this one's name, and one is missing: this one,
        # renamed.
        root.set("UUID", names[gone[0]])
        gone = []
    for uuid in named:
        name = str(uuid.get("FileName", ""))
        if name in gone:  # a name that is not there for sure, and inside the folder
            uuid.set("FileName", f".{path.name}.missing")
        elif name in there:
            uuid.set("FileName", os.path.relpath(there[name], path.parent))
    missing = []
    for image in images:
        wanted = [uuid.text for uuid in image.iter() if _name(uuid) == "UUID"]
        missing.append(tuple(name for name in gone if others[name] in wanted))
    cleaned = ElementTree.tostring(root, encoding="unicode")
    return OmeDescription(cleaned, images, tuple(there.values()), tuple(missing))


def _read_companion(path: Path, name: str, uuid: str | None) -> ElementTree.Element | None:
    """Read the file that holds the metadata of a TIFF file, as if they stood in the file itself."""
    found = _beside(path, name)
    if found is None or found.stat().st_size > _COMPANION_BYTES:
        return None
    try:
        if found.suffix.lower() in TIFF_SUFFIXES:  # another of the set
            with tifffile.TiffFile(found) as file:
                root = ElementTree.fromstring(file.pages.first.description)
        else:
            root = ElementTree.fromstring(found.read_bytes())
    except (ElementTree.ParseError, *UNREADABLE):
        return None
    root.attrib.pop("UUID", None)
    root.attrib.update({} if uuid is None else {"UUID": uuid})
    return root


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _beside(path: Path, name: str) -> Path | None:
    """Return the file of a name in the folder of `path` or below; None if there is none."""
    inside = os.path.normpath(name.replace("\\", "/"))
    if os.path.isabs(inside) or inside.startswith("..") or ":" in inside or "\0" in inside:
        return None
    found = path.parent / inside
    return found if found.is_file() else None


def _check_planes(path: Path, images: tuple[ElementTree.Element, ...], pages: int) -> None:
    claimed = 0
    for image in images:
        with suppress(ValueError):
            planes = math.prod(max(1, int(image.get(f"Size{letter}", 1))) for letter in "CZT")
            claimed += planes
            for data in image:
                if _name(data) != "TiffData":
                    continue
                for key in ("PlaneCount", "NumPlanes"):
                    if int(data.get(key, 0)) > planes:
                        data.set(key, str(planes))
    if claimed > max(PLANES, 1000 * pages):
        raise InputError(
            f"{path} claims {claimed:,} planes in its OME-XML, with {pages:,} pages in the file; "
            "it is damaged, copy or export it once more."
        )


def _drop_modulo(root: ElementTree.Element) -> None:
    """Leave out modulo axes with an absurd number of positions, for which tifffile makes room."""
    for parent in list(root.iter()):
        for along in list(parent):
            if not _name(along)[:-1].endswith("Along"):
                continue
            try:
                start, end = float(along.get("Start", 0)), float(along.get("End", 0))
                count = abs(end - start) / abs(float(along.get("Step", 1)))
            except (ValueError, ZeroDivisionError):
                count = math.inf
            if not count < _MODULO:
                parent.remove(along)


def ome_voxel_size(pixels: ElementTree.Element) -> tuple[float, float, float] | None:
    """Read PhysicalSizeZ, Y and X of one image; sizes without a unit are in micrometres."""
    sizes: list[float | None] = []
    for letter in "ZYX":
        factor = to_um(pixels.get(f"PhysicalSize{letter}Unit", "um"))
        value = pixels.get(f"PhysicalSize{letter}")
        size = math.nan
        with suppress(ValueError):
            size = float(value or "nan")
        sizes.append(size * factor if factor is not None and 0 < size < math.inf else None)
    z, y, x = sizes
    if y is None or x is None:
        return None
    return z or 1.0, y, x


def ome_channel_names(pixels: ElementTree.Element) -> tuple[str, ...]:
    """Read the names of the channels of one image, "" for one without; () if none has a name.

    A channel of several samples, as in a colour image, is a single one.
    """
    names = tuple(element.get("Name", "") for element in pixels if _name(element) == "Channel")
    return names if any(names) else ()
