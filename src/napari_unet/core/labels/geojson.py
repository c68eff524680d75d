"""Outlines as GeoJSON, as QuPath reads and writes them, in pixels of the full resolution."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import write_text
from napari_unet.core.labels.json_file import is_count, read_json
from napari_unet.core.labels.outlines import ObjectRegion, Ring
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LABEL = "label"
"""Name of the property that holds an object's id."""


def read_geojson(path: Path) -> tuple[list[ObjectRegion], list[str]]:
    """Read the polygons of a GeoJSON file.

    Features keep the ids of their property `LABEL` if all have one; otherwise they are numbered in
    their order.

    Returns
    -------
    regions, remarks
        Points and lines are no objects, and left out with a remark.

    Raises
    ------
    InputError
        The file is damaged, or no GeoJSON.
    """
    values = read_json(path)
    try:
        features = _features(values)
        found = [_region(feature) for feature in features]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} cannot be read as GeoJSON ({error}); export it again.") from error
    regions = [region for region in found if region is not None]
    if found and not regions:
        raise InputError(f"{path} holds no polygon; export the objects' outlines.")
    if not all(region.label for region in regions):
        regions = [ObjectRegion(region.parts, 0, region.plane) for region in regions]
    lines = len(found) - len(regions)
    return regions, [f"{pluralise(lines, 'feature')} that are no areas, left out"] * bool(lines)


def write_geojson(path: Path, regions: Iterable[ObjectRegion]) -> int:
    """Write outlines as a FeatureCollection for QuPath; return how many.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    features = [_feature(region) for region in regions]
    text = json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":"))
    write_text(path, text)
    return len(features)


def _features(values: Any) -> list[Any]:
    if isinstance(values, list):  # older versions of QuPath
        return values
    if values["type"] == "FeatureCollection":
        found: list[Any] = values["features"]
        return found
    return [values if values["type"] == "Feature" else {"geometry": values}]


def _region(feature: Any) -> ObjectRegion | None:
    geometry = feature["geometry"]
    kind = None if geometry is None else geometry["type"]
    if kind == "Polygon":
        polygons = [geometry["coordinates"]]
    elif kind == "MultiPolygon":
        polygons = geometry["coordinates"]
    else:
        return None
    parts = [[_ring(ring) for ring in polygon] for polygon in polygons]
    properties = feature.get("properties") or {}
    found: Any = properties.get(LABEL)
    label = found if is_count(found, 2**32) else 0
    at = geometry.get("plane") or {}
    plane = {letter: int(at[letter.lower()]) for letter in "TZ" if at.get(letter.lower(), -1) >= 0}
    return ObjectRegion(parts, label, plane)


def _ring(corners: Any) -> Ring:
    ring = np.array([corner[:2] for corner in corners], float)[:, ::-1]
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError("a polygon has corners that are none")
    return ring[:-1] if (ring[0] == ring[-1]).all() else ring


def _feature(region: ObjectRegion) -> dict[str, Any]:
    parts = [[_corners(ring) for ring in part] for part in region.parts]
    geometry: dict[str, Any] = (
        {"type": "Polygon", "coordinates": parts[0]}
        if len(parts) == 1
        else {"type": "MultiPolygon", "coordinates": parts}
    )
    if region.plane:
        place = {letter.lower(): region.plane.get(letter, 0) for letter in "ZT"}
        geometry["plane"] = {"c": -1, **place}
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {
            "objectType": "detection",
            "name": str(region.label),
            LABEL: region.label,
        },
    }


def _corners(ring: Ring) -> list[list[float]]:
    points: list[list[float]] = ring[:, ::-1].tolist()
    return [*points, points[0]]
