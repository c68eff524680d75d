"""Provenance: which model, data, settings and versions a result was made with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import math
from contextlib import suppress
from dataclasses import asdict, fields
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet import __version__
from napari_unet.core.errors import InputError
from napari_unet.core.io.files import (
    TIFF_SUFFIXES,
    UNREADABLE,
    check_exists,
    expand_path,
    image_name,
    unreadable_error,
)
from napari_unet.core.settings.tasks import EARLIER_DEFAULTS, is_other_setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings

PROVENANCE_KEY = "napari_unet"
"""Name of the provenance in the metadata of a result."""
WHOLE = 64 * 2**20
"""Stacks of up to this many bytes are hashed whole, larger ones by a grid of samples."""
SAMPLED = "sha256-sampled:"
"""How a hash of samples begins."""
SAMPLES, EDGE = 5, 64
"""Samples along each axis of a large stack, and their edge length along Y and X, in pixels."""


def make_provenance(
    stack: Stack, model: Mapping[str, Any], settings: PredictSettings, *, hashed: bool = True
) -> dict[str, Any]:
    """Return the provenance of a run as plain JSON values.

    Parameters
    ----------
    model
        What the model is known by: `ModelCard.identity`.
    hashed
        Whether with a hash of the data.
    """
    versions = {name: _version(name) for name in ("torch", "numpy")}
    return {
        **model,
        "data_hash": hash_stack(stack) if hashed else None,
        "image": describe_image(stack),
        "voxel_size_um": list(stack.voxel_size_um) if stack.voxel_size_um else None,
        "settings": asdict(settings),
        **({} if stack.series is None else {"series": stack.series}),
        "versions": {"napari-unet": __version__, **versions},
    }


@cache
def _version(package: str) -> str:
    """Return the version of a package; to look it up takes as long as a small plane's decoding."""
    return importlib.metadata.version(package)


def describe_image(stack: Stack) -> dict[str, Any]:
    """Return what an image is known by again: the name of its file, its axes and its level.

    No path: results are passed on, and paths tell who made them where.
    """
    name = image_name(stack.path) if stack.path else PurePath(stack.address or stack.name).name
    return {"name": name, "axes": stack.axes, "level": stack.level}


def hash_stack(stack: Stack) -> str | None:
    """Hash a stack's type, shape and values; of large stacks a fixed grid of samples (`WHOLE`).

    None if a part that the segmentation did not read, such as another channel, is damaged.
    """
    try:
        return _hash_values(stack)
    except UNREADABLE:
        return None


def _hash_values(stack: Stack) -> str:
    data, shape = stack.data, tuple(int(n) for n in stack.data.shape)
    dtype = np.dtype(data.dtype)
    digest = hashlib.sha256(f"{stack.axes} {shape} {dtype.str}".encode())
    if int(np.prod(shape)) * dtype.itemsize <= WHOLE:
        digest.update(np.ascontiguousarray(data[(slice(None),) * len(shape)]).tobytes())
        return f"sha256:{digest.hexdigest()}"
    edges = [EDGE if letter in "YX" else 1 for letter in stack.axes]
    for corner in itertools.product(*map(_starts, shape, edges)):
        part = data[tuple(slice(c, c + edge) for c, edge in zip(corner, edges, strict=True))]
        digest.update(np.ascontiguousarray(part).tobytes())
    return f"{SAMPLED}{digest.hexdigest()}"


def _starts(size: int, edge: int) -> list[int]:
    """Return where samples begin along an axis; several fall together on a thin axis."""
    room = max(0, size - edge)
    return sorted({room * k // (SAMPLES - 1) for k in range(SAMPLES)})


def hash_labels(labels: Any, *, sampled: bool = False) -> str:
    """Hash labels by their shape and values, whatever their type; large ones plane by plane.

    It tells whether a file still holds the labels as they were made; see `are_labels`.

    Parameters
    ----------
    sampled
        Whether of large labels (`WHOLE`, as uint32) a fixed grid of samples is hashed: they may be
        larger than anybody wants to read once more.
    """
    shape = tuple(int(n) for n in labels.shape)
    digest = hashlib.sha256(str(shape).encode())
    if sampled and math.prod(shape) * 4 > WHOLE:
        edges = [*[1] * (len(shape) - 2), EDGE, EDGE]
        for corner in itertools.product(*map(_starts, shape, edges)):
            part = labels[tuple(slice(c, c + e) for c, e in zip(corner, edges, strict=True))]
            digest.update(np.ascontiguousarray(part, dtype="<u4").tobytes())
        return f"{SAMPLED}{digest.hexdigest()}"
    if sampled:  # chunks of several planes are read once
        labels = np.asarray(labels[(slice(None),) * len(shape)])
    for index in itertools.product(*map(range, shape[:-2])):
        digest.update(np.ascontiguousarray(labels[index], dtype="<u4").tobytes())
    return f"sha256:{digest.hexdigest()}"


def are_labels(labels: Any, wanted: str) -> bool:
    """Return whether labels have a hash that `hash_labels` gave."""
    return hash_labels(labels, sampled=wanted.startswith(SAMPLED)) == wanted


def read_provenance(path: str | Path) -> dict[str, Any]:
    """Read the provenance of a result file of any kind.

    Raises
    ------
    InputError
        The file cannot be read, or napari-unet did not write it.
    """
    path = expand_path(path)
    check_exists(path)
    try:
        text = _find_json(path)
    except UNREADABLE as error:
        raise unreadable_error(path, error) from error
    provenance = None
    with suppress(ValueError):  # other programs keep texts of theirs in the same place
        provenance = json.loads(text or "")
    if not isinstance(provenance, dict):
        raise InputError(f"{path} has no provenance; give a result that napari-unet wrote.")
    return provenance


def find_provenance(path: Path | None) -> dict[str, Any]:
    """Return the provenance of a label file; empty for labels that come from elsewhere."""
    with suppress(InputError):
        return {} if path is None else read_provenance(path)
    return {}


def differing_settings(
    provenance: Mapping[str, Any], model_hash: str, settings: PredictSettings
) -> Iterator[str]:
    """Yield in what a result was made otherwise: "another model", settings then and now.

    Settings that do not change labels do not count, and those that an older version did not know
    had their default.
    """
    if provenance.get("model_hash") != model_hash:
        yield "another model"
    before = EARLIER_DEFAULTS | (provenance.get("settings") or {})
    for item in fields(settings):
        then, now = before.get(item.name, item.default), getattr(settings, item.name)
        if is_other_setting(item.name, then, now):
            yield f"{item.name} {then!r}, now {now!r}"


def table_provenance_path(table: Path) -> Path:
    """Return the file beside a table that says what it was made of."""
    return table.with_name(f"{table.name}.provenance.json")


def _find_json(path: Path) -> str | None:
    """Return the provenance in a file of any kind, as JSON; None if there is none."""
    if path.suffix.lower() == ".csv":
        beside = table_provenance_path(path)
        return beside.read_text(encoding="utf-8") if beside.is_file() else None
    if path.is_dir():
        import zarr

        provenance = zarr.open(str(path), mode="r").attrs.get(PROVENANCE_KEY)
        return None if provenance is None else json.dumps(provenance)
    if path.suffix.lower() == ".png":
        from PIL import PngImagePlugin

        with PngImagePlugin.PngImageFile(path) as picture:
            return picture.text.get(PROVENANCE_KEY)
    if path.suffix.lower() not in TIFF_SUFFIXES:  # results are no files of any other kind
        return None
    from xml.etree.ElementTree import fromstring

    import tifffile

    from napari_unet.core.io.tiff_checks import silence_tifffile

    with silence_tifffile(), tifffile.TiffFile(path) as file:
        if not file.is_ome:
            return (file.imagej_metadata or {}).get("Info")
        for element in fromstring(file.ome_metadata or "<none/>").iter():
            if element.tag.rpartition("}")[2] == "M" and element.get("K") == PROVENANCE_KEY:
                return element.text
    return None
