"""Outlines as ROIs of ImageJ and Fiji: a .zip of the ROI Manager, or a single .roi."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import UNREADABLE, atomic_file, first_line
from napari_unet.core.labels.outlines import POSITION, ObjectRegion, Ring
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LARGEST_ROI = 2**26
"""Bytes of a ROI, at most."""
MOST_ROIS = 10**6
OVAL_CORNERS = 180
"""Corners of the polygon that an oval is drawn as; ImageJ's own is of no more."""

_NUMBERED = re.compile(r"(?:object )?(\d{1,9})")


def read_rois(path: Path) -> tuple[list[ObjectRegion], list[str]]:
    """Read the areas of a ROI file.

    ROIs that are named by numbers ("7" or "object 7") keep them as ids if all are; otherwise they
    are numbered in their order.

    Returns
    -------
    regions, remarks
        Lines, points and texts are no objects, and left out with a remark.

    Raises
    ------
    InputError
        The file is damaged, or no ROI of ImageJ.
    """
    logging.getLogger("roifile").addHandler(logging.NullHandler())
    try:
        found = [(name, _region(data)) for name, data in _read_parts(path)]
    except (zipfile.BadZipFile, UnicodeError, *UNREADABLE) as error:
        raise InputError(
            f"{path} cannot be read as ROIs of ImageJ ({first_line(error)}); save them once more."
        ) from error
    areas = [(name, region) for name, region in found if region is not None]
    if found and not areas:
        raise InputError(f"{path} holds no ROI that is an area; save the objects' outlines.")
    names = [_NUMBERED.fullmatch(name.removesuffix(".roi")) for name, _ in areas]
    regions = [region for _, region in areas]
    ids = [int(match[1]) if match else 0 for match in names]
    if ids and all(ids):
        regions = [
            ObjectRegion(region.parts, number, region.plane)
            for number, region in zip(ids, regions, strict=True)
        ]
    lines = len(found) - len(areas)
    remarks = [f"{pluralise(lines, 'ROI')} that are lines, points or text, left out"]
    return regions, remarks if lines else []


def write_rois(path: Path, regions: Iterable[ObjectRegion]) -> int:
    """Write outlines as a .zip for the ROI Manager, each named by its object's id; return how many.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    count = 0
    names: set[str] = set()
    with atomic_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for region in regions:
            where = "".join(f"-{letter.lower()}{at}" for letter, at in region.plane.items())
            name = f"{region.label}{where}"
            if name in names:
                name += f"-{count}"
            names.add(name)
            info = zipfile.ZipInfo(f"{name}.roi")
            archive.writestr(info, _roi_bytes(region), zipfile.ZIP_DEFLATED)
            count += 1
    return count


def _read_parts(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix.lower() == ".roi":
        with path.open("rb") as file:
            yield "", file.read(LARGEST_ROI)
        return
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.lower().endswith(".roi")]
        infos = [info for info in infos if not info.filename.startswith("__MACOSX")]
        if len(infos) > MOST_ROIS or sum(info.file_size for info in infos) > 16 * LARGEST_ROI:
            raise ValueError("it unpacks to more than any image holds")
        for info in infos:
            with archive.open(info) as file:
                yield info.filename.rpartition("/")[2], file.read(LARGEST_ROI)


def _region(data: bytes) -> ObjectRegion | None:
    """Return the area of a ROI; None for lines, points and text."""
    from roifile import ROI_SUBTYPE, ROI_TYPE, ImagejRoi

    roi = ImagejRoi.frombytes(data)
    areas = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED, ROI_TYPE.RECT, ROI_TYPE.OVAL)
    if roi.roitype not in areas or roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE):
        return None
    plane = {}
    if roi.z_position > 0:
        plane["Z"] = roi.z_position - 1
    if roi.t_position > 0:
        plane["T"] = roi.t_position - 1
    if not plane and roi.position > 0:
        plane[POSITION] = roi.position - 1
    if roi.roitype == ROI_TYPE.OVAL and not roi.composite:
        rings = [_oval(roi)]
    else:
        rings = [np.asarray(ring, float)[:, ::-1] for ring in roi.coordinates(multi=True)]
    number = _NUMBERED.fullmatch(roi.name.partition("-")[0]) if roi.name else None
    return ObjectRegion([[ring] for ring in rings], int(number[1]) if number else 0, plane)


def _oval(roi: Any) -> Ring:
    middle = np.array([roi.top + roi.bottom, roi.left + roi.right]) / 2
    radii = np.array([roi.bottom - roi.top, roi.right - roi.left]) / 2
    angle = np.linspace(0, 2 * np.pi, OVAL_CORNERS, endpoint=False)
    return np.asarray(middle + radii * np.stack([np.sin(angle), np.cos(angle)], 1))


def _roi_bytes(region: ObjectRegion) -> bytes:
    """Return a region as a ROI: a traced polygon, or a composite one if it has holes or parts."""
    from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

    rings = [ring[:, ::-1] for ring in region.rings]
    simple = len(rings) == 1 and max(rings[0].max(), 0) < 60_000
    if simple:
        roi = ImagejRoi.frompoints(rings[0].astype(np.int64), name=str(region.label))
        roi.roitype, roi.options = ROI_TYPE.TRACED, ROI_OPTIONS.NONE
    else:
        every = np.concatenate(rings)
        path = [
            value
            for ring in rings
            for step, (x, y) in enumerate(ring.tolist())
            for value in (float(step > 0), x, y, *([4.0] if step == len(ring) - 1 else ()))
        ]
        roi = ImagejRoi(roitype=ROI_TYPE.RECT, name=str(region.label))
        (roi.left, roi.top), (roi.right, roi.bottom) = every.min(0).tolist(), every.max(0).tolist()
        roi.multi_coordinates = np.array(path, np.float32)
        roi.shape_roi_size = len(path)
    roi.z_position = region.plane.get("Z", -1) + 1
    roi.t_position = region.plane.get("T", -1) + 1
    one = [at for at in (roi.z_position, roi.t_position) if at]
    roi.position = one[0] if len(one) == 1 else 0
    stream = io.BytesIO()
    stream.write(roi.tobytes())
    return stream.getvalue()
