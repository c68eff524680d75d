"""Label files of other programs that are no images: which one it is, and the labels in it.

Outlines (ROIs of ImageJ, GeoJSON) do not say how large their image is: it has to be given.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import UNREADABLE
from napari_unet.core.labels.cellpose_seg import read_cellpose_seg
from napari_unet.core.labels.coco import read_coco
from napari_unet.core.labels.geojson import read_geojson
from napari_unet.core.labels.imagej_rois import read_rois
from napari_unet.core.labels.json_file import read_json
from napari_unet.core.labels.outlines import draw_regions

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

ROIS, GEOJSON, COCO, CELLPOSE = FOREIGN = ("rois", "geojson", "coco", "cellpose")
"""Kinds of label files that are no images."""
FOREIGN_ENDINGS = {
    ROIS: ("_rois.zip", ".roi.zip", ".roi", ".zip"),
    GEOJSON: (".geojson",),
    COCO: (".json",),
    CELLPOSE: ("_seg.npy",),
}
"""How the names of such files end."""


def foreign_kind(path: Path) -> str:
    """Return which of `FOREIGN` a file is, by its name and content; "" for images."""
    name = path.name.lower()
    if not path.is_file():
        return ""
    if name.endswith("_seg.npy"):
        return CELLPOSE
    if name.endswith(".geojson"):
        return GEOJSON
    if name.endswith(".json"):
        return _json_kind(path)
    if name.endswith(".roi") or (name.endswith(".zip") and _holds_rois(path)):
        return ROIS
    return ""


def read_foreign(
    path: Path, kind: str, image: tuple[tuple[int, ...], str] | None = None, name: str | None = None
) -> tuple[np.ndarray, str, list[str]]:
    """Read a label file of another program.

    Parameters
    ----------
    kind
        One of `FOREIGN`.
    image
        Shape and axes that the labels have, in the order of "TZYX"; for outlines.
    name
        The image's file name, to find it in a file with the labels of many.

    Returns
    -------
    values, axes, remarks
        Integers, 0 is background.

    Raises
    ------
    InputError
        The file cannot be read, or the size of its image is not known.
    """
    if kind == CELLPOSE:
        values = read_cellpose_seg(path)
        return values, "ZYX"[-values.ndim :], []
    if kind == COCO:
        values, remarks = read_coco(path, name)
        return values, "YX", remarks
    regions, remarks = read_rois(path) if kind == ROIS else read_geojson(path)
    if image is None:
        raise InputError(
            f"{path} holds outlines and not the size of their image; give the image, too "
            "(convert: --image)."
        )
    values, more = draw_regions(regions, *image)
    return values, image[1], [*remarks, *more]


def _json_kind(path: Path) -> str:
    """Return what a JSON file holds; "" for what has nothing to do with labels."""
    try:
        values = read_json(path)
    except InputError:
        return GEOJSON  # who reads it says that it is damaged
    if isinstance(values, dict) and {"images", "annotations"} <= set(values):
        return COCO
    is_geojson = isinstance(values, list) or (isinstance(values, dict) and "type" in values)
    return GEOJSON if is_geojson else ""


def _holds_rois(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # One without anything in it is of an image without objects, by its name.
            empty = not names and path.name.lower().endswith(FOREIGN_ENDINGS[ROIS][:2])
            return empty or any(name.lower().endswith(".roi") for name in names)
    except (zipfile.BadZipFile, *UNREADABLE):
        return True  # who reads it as ROIs says that it is damaged
