"""What a TIFF file says of its image: the size of a voxel, the names of the channels.

Each program writes it in a way of its own: OME as XML, ImageJ as text, microscopes and slide
scanners into tags of their own, and the rest as the resolution of a print.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_unet.core.io.coordinate_transform import plausible_voxel_size, to_um
from napari_unet.core.io.ome_xml import ome_channel_names, ome_voxel_size

if TYPE_CHECKING:
    from napari_unet.core.io.tiff_checks import CheckedTiff


def voxel_size(file: CheckedTiff, series: int) -> tuple[float, float, float] | None:
    """Return the size of a voxel (z, y, x) of an image in um; None if the file does not say."""
    if file.is_ome and file.described is not None:
        pixels = _ome_pixels(file, series)
        return None if pixels is None else ome_voxel_size(pixels)
    page = file.series[series].keyframe  # each image of a file has tags of its own
    if file.is_lsm:
        meta = file.lsm_metadata or {}
        return _in_um([meta.get(f"VoxelSize{letter}") for letter in "ZYX"], 1e6)
    if file.is_stk:
        return _stk_voxel_size(file.stk_metadata or {})
    if file.is_svs and (found := re.search(r"MPP\s*=\s*([\d.]+)", page.description)):
        with suppress(ValueError):
            size = float(found[1])
            return plausible_voxel_size(size, size)
    steps = []
    for tag in ("YResolution", "XResolution"):
        value = page.tags.valueof(tag) or (0, 1)
        top, bottom = value if isinstance(value, tuple) else (value, 1)
        steps.append(bottom / top if top else math.nan)
    if file.is_imagej:
        meta = file.imagej_metadata or {}
        unit = to_um(meta.get("unit"))
        if unit is None or not all(0 < step < math.inf for step in steps):
            return None
        # ImageJ leaves `spacing` out when it is 1.
        return abs(float(meta.get("spacing", 1.0))) * unit or 1.0, steps[0] * unit, steps[1] * unit
    # Tag 296: inch, centimetre; tifffile adds millimetre and micrometre.
    factor = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}.get(int(page.resolutionunit or 1))
    if factor is None:
        return None
    return plausible_voxel_size(steps[0] * factor, steps[1] * factor)


def channel_names(file: CheckedTiff, series: int) -> tuple[str, ...]:
    """Return the names of an image's channels, "" for one without; () if the file names none."""
    if file.is_ome and file.described is not None:
        pixels = _ome_pixels(file, series)
        return () if pixels is None else ome_channel_names(pixels)
    if file.is_lsm:
        colours = (file.lsm_metadata or {}).get("ChannelColors") or {}
        return tuple(map(str, colours.get("ColorNames") or ()))
    if file.is_imagej:
        axes, meta = file.series[series].axes, file.imagej_metadata or {}
        labels = meta.get("Labels") or ()  # of the slices, which are the channels if all else is 1
        return tuple(map(str, labels)) if "C" in axes and not set(axes) & set("TZ") else ()
    if file.is_qpi:
        pages = file.series[series].pages
        return tuple(_qpi_name(str(getattr(page, "description", ""))) for page in pages)
    if file.is_micromanager:
        summary = (file.micromanager_metadata or {}).get("Summary") or {}
        names = summary.get("ChNames") or ()
        return tuple(map(str, names)) if isinstance(names, list) else ()
    return ()


def _ome_pixels(file: CheckedTiff, series: int) -> ElementTree.Element | None:
    """Return what OME-XML says of the pixels of an image."""
    images = file.described.images if file.described is not None else ()
    same = len(images) == len(file.series)
    return images[series if same else 0] if images else None


def _in_um(sizes: list[Any], factor: float) -> tuple[float, float, float] | None:
    """Return sizes (z, y, x) in um, z as 1 where it is unknown; None without y and x."""
    z, y, x = (
        float(size) * factor if isinstance(size, int | float) and 0 < size < math.inf else None
        for size in sizes
    )
    return None if y is None or x is None else (z or 1.0, y, x)


def _stk_voxel_size(meta: dict[str, Any]) -> tuple[float, float, float] | None:
    """Return the voxel size that MetaMorph has written, if the microscope was calibrated."""
    factor = to_um(str(meta.get("CalibrationUnits") or ""))
    if factor is None or not meta.get("SpatialCalibration", 1):
        return None
    steps = np.asarray(meta.get("ZDistance", 0.0), float)
    z = abs(float(np.median(steps))) if steps.size else 0.0
    return _in_um([z, meta.get("YCalibration"), meta.get("XCalibration")], factor)


def _qpi_name(description: str) -> str:
    """Return the name of a page of a QPTIFF file: that of its biomarker, else of its filter."""
    with suppress(ElementTree.ParseError):
        root = ElementTree.fromstring(description)
        return (root.findtext("Biomarker") or root.findtext("Name") or "").strip()
    return ""
