"""Zarr arrays and OME-Zarr images read lazily, from folders and through fsspec from addresses.

The metadata of NGFF 0.1 to 0.5 are read by hand and not by a library that validates them: files of
many writers break the specification in ways that do not matter here. zarr takes a third of a
second to import, so the functions import it.
"""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import (
    TRANSFORMS,
    CoordinateTransform,
    combine_transforms,
    to_um,
)
from napari_unet.core.io.files import SUFFIXES, UNREADABLE, ZARR_FILES, Opened, first_line, is_zarr
from napari_unet.core.io.size_claims import ALWAYS, check_claim
from napari_unet.core.io.zarr_groups import (
    choose_image,
    count_levels,
    naming_damage,
    ome_attributes,
    open_node,
    zarr_path,
)

_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs"}
"""What fsspec needs for each kind of address."""


def read_zarr(path: Path | str, level: int = 0, series: int | None = None) -> Opened:
    """Open a Zarr array, or a level of an image of an OME-Zarr.

    Parameters
    ----------
    path
        A folder, a ``.zip`` or ``.ozx`` file, or an address that fsspec knows.
    level
        0 is the full resolution.
    series
        Which image of a group that holds several, counted from 0. None: the only one, or the first
        of those that bioformats2raw has converted.
    """
    import zarr

    if isinstance(path, Path) and path.is_dir() and not is_zarr(path):
        raise InputError(
            f"{path} is a folder without a Zarr in it; give an image ({', '.join(SUFFIXES)})."
        )
    node = open_node(path)
    if isinstance(node, zarr.Array):
        return _read_array(node, path, level, series)
    chosen = choose_image(node, path, series)
    image = node[chosen.path] if chosen.path else node
    if isinstance(image, zarr.Array):
        return _read_array(image, path, level, None)._replace(remarks=chosen.remarks)
    where = f"{path}/{chosen.path}" if chosen.path else path
    opened = _read_multiscale(image, ome_attributes(image)["multiscales"], level, where)
    return opened._replace(remarks=chosen.remarks, series=chosen.number)


def _read_array(array: Any, path: Path | str, level: int, series: int | None) -> Opened:
    """Return a bare array; the axes and the voxel size of a level are those of its OME-Zarr."""
    if level or series:
        asked = f"level {level}" if level else f"series {series}"
        raise InputError(f"{path} is no OME-Zarr and has no {asked}; choose 0.")
    _check_chunks(array, path)
    if isinstance(path, Path) and path.is_dir():
        with suppress(*UNREADABLE, InputError):
            for group in path.absolute().parents[:2]:  # "image.zarr/0", rarely "image.zarr/a/0"
                if not is_zarr(group):
                    continue
                node = open_node(group)
                inside = path.absolute().relative_to(group).as_posix()
                images = ome_attributes(node).get("multiscales") or [{}]
                for number, dataset in enumerate(images[0].get("datasets", ())):
                    if dataset.get("path") == inside:
                        return _read_multiscale(node, images, number, group)
    return Opened(array, _dimension_names(array), None)


def _check_chunks(array: Any, path: Path | str) -> None:
    """Check that a chunk can be as large as the array's metadata say."""
    decoded = math.prod(array.chunks) * np.dtype(array.dtype).itemsize
    if decoded <= ALWAYS:
        return
    stored, folder = decoded, zarr_path(array)
    if folder is not None:
        files = (file for file in folder.rglob("*") if file.is_file())
        sizes = (file.stat().st_size for file in files if file.name not in ZARR_FILES)
        stored = max(itertools.islice((size for size in sizes if size), 100), default=0)
    check_claim(Path(str(path)), decoded, stored)


def _dimension_names(array: Any) -> str:
    """Return the axes that an array's dimension names say, or "" if they are no letters of ours."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    letters = "".join(str(name)[:1] for name in names or ()).upper()
    fits = len(letters) == array.ndim == len(set(letters)) and set(letters) <= set("TCZYX")
    return letters if fits and {"Y", "X"} <= set(letters) else ""


def _read_multiscale(group: Any, images: Any, wanted: int, path: Path | str) -> Opened:
    """Read the metadata of OME-NGFF 0.1 to 0.5: axes, and the scale of a level."""
    image = images[0] if images else {}
    levels = image.get("datasets", ())
    if not levels:
        raise InputError(
            f"{path} names no image in its OME metadata; give the path of one array, such as "
            f"{path}/0."
        )
    if not 0 <= wanted < len(levels):
        choice = f"0 to {len(levels) - 1}" if len(levels) > 1 else "only 0"
        raise InputError(f"level {wanted} is not in the image; choose {choice}.")
    level = levels[wanted]
    if level.get("path") not in group:
        raise InputError(
            f"{path} has no array {level.get('path')!r}, which its OME metadata name; copy or "
            "export it once more."
        )
    array = group[level["path"]]
    _check_chunks(array, path)
    # Before 0.3 the axes were fixed, in 0.3 they were plain letters.
    old = "tczyx" if array.ndim == 5 else ""
    axes = [a if isinstance(a, dict) else {"name": a} for a in image.get("axes") or old]
    if not axes:
        return Opened(array, "", None)
    kinds = {"time": "T", "channel": "C"}
    letters = "".join(kinds.get(a.get("type", ""), str(a["name"])[:1]) for a in axes).upper()
    if len(letters) != array.ndim:
        raise InputError(
            f"{path} names {len(letters)} axes ({letters}) in its OME metadata for an array of "
            f"{array.ndim}; give the array itself, {path}/{level['path']}, and its axes."
        )
    steps = (*level.get(TRANSFORMS, ()), *image.get(TRANSFORMS, ()))
    sizes = {}
    for letter, axis, size in zip(
        letters, axes, combine_transforms(steps, len(axes))[0], strict=True
    ):
        factor = to_um(axis.get("unit"))
        if factor is not None and 0 < abs(size) < math.inf:
            sizes[letter] = abs(float(size)) * factor
    known = {"Y", "X"} <= set(sizes)
    size_um = (sizes.get("Z", 1.0), sizes["Y"], sizes["X"]) if known else None
    transform = CoordinateTransform.from_metadata(letters, axes, steps)
    names = _channel_names(ome_attributes(group).get("omero"))
    return Opened(array, letters, size_um, transform, channel_names=names)


def _channel_names(omero: Any) -> tuple[str, ...]:
    """Return the labels of the channels; () if the metadata say none, or not as they should."""
    channels = omero.get("channels") if isinstance(omero, dict) else None
    channels = channels if isinstance(channels, list) else []
    named = (c.get("label") if isinstance(c, dict) else None for c in channels)
    names = tuple(name if isinstance(name, str) else "" for name in named)
    return names if any(names) else ()


def is_address(source: object) -> bool:
    """Return whether a source is the address of data on another computer."""
    return isinstance(source, str) and "://" in source


def read_address(address: str, level: int = 0, series: int | None = None) -> Opened:
    """Open a Zarr array or a level of an OME-Zarr at an address; needs the extra ``remote``.

    Raises
    ------
    InputError
        An unknown kind of address, a package that is not installed, or nothing readable there.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in _PACKAGES:
        raise InputError(f"{address} is of no known kind; give http://, https:// or s3://.")
    try:
        import importlib

        importlib.import_module("fsspec")
        importlib.import_module(_PACKAGES[scheme])
    except ImportError as error:
        raise InputError(
            f"{address} needs {error.name}; install it: pip install 'napari-unet[remote]'."
        ) from error
    try:
        return read_zarr(address.rstrip("/"), level, series)
    except InputError:
        raise
    except Exception as error:  # stores of fsspec share no base class of errors
        raise InputError(
            f"{address} cannot be read as Zarr ({first_line(error)}); check the address and the "
            "network."
        ) from error


def find_labels_transform(
    image: Path, axes: str, shape: tuple[int, ...]
) -> CoordinateTransform | None:
    """Return the world coordinates of labels of an OME-Zarr, from the level of their shape.

    Parameters
    ----------
    axes, shape
        Of the labels: the image's without C.

    Returns
    -------
    CoordinateTransform or None
        None where the metadata do not say.
    """
    with suppress(*UNREADABLE, InputError):  # metadata that break the specification
        for level in range(count_levels(image)):
            found = read_zarr(image, level)
            sizes = dict(zip(found.axes, found.data.shape, strict=False))
            if tuple(map(sizes.get, axes)) == shape:
                return None if found.transform is None else found.transform.select_axes(axes)
    return None


def fits_no_level(image: Path, axes: str, shape: tuple[int, ...]) -> bool:
    """Return whether labels have the shape of no level of an OME-Zarr, to which they belong.

    False where the metadata do not say.
    """
    with suppress(*UNREADABLE, InputError):
        levels = [read_zarr(image, level) for level in range(count_levels(image))]
        sizes = [dict(zip(found.axes, found.data.shape, strict=False)) for found in levels]
        known = [each for each in sizes if set(axes) <= set(each)]
        return bool(known) and shape not in [tuple(each[a] for a in axes) for each in known]
    return False


def containing_ome_zarr(path: Path) -> Path | None:
    """Return the OME-Zarr whose full resolution is the array at `path`; None if there is none."""
    import zarr

    for group in path.parents[:2]:  # datasets are named "0", rarely "images/0"
        if is_zarr(group):
            with naming_damage(group):
                node = zarr.open(str(group), mode="r")
                if isinstance(node, zarr.Group) and {"ome", "multiscales"} & set(node.attrs):
                    array = read_zarr(group).data
                    return group if zarr_path(array) == path.absolute() else None
    return None
