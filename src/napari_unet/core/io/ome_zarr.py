"""Zarr arrays and OME-Zarr images read lazily, from folders and through fsspec from addresses.

The metadata of NGFF 0.1 to 0.5 are read by hand and not by a library that validates them: files of
many writers break the specification in ways that do not matter here. zarr takes a third of a
second to import, so the functions import it.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import (
    TRANSFORMS,
    CoordinateTransform,
    combine_transforms,
    to_um,
)
from napari_unet.core.io.files import (
    SUFFIXES,
    UNREADABLE,
    Opened,
    first_line,
    is_zarr,
    unreadable_error,
)

LABELS = "labels"
"""The group of an OME-Zarr that holds its label images."""
_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs"}
"""What fsspec needs for each kind of address."""


def read_zarr(path: Path | str, level: int = 0) -> Opened:
    """Open a Zarr array, or a level of the first image of an OME-Zarr.

    Parameters
    ----------
    path
        A folder, or an address that fsspec knows.
    level
        0 is the full resolution.
    """
    import zarr

    if not isinstance(path, str) and not is_zarr(path):
        raise InputError(
            f"{path} is a folder without a Zarr in it; give an image ({', '.join(SUFFIXES)})."
        )
    # Absolute, since workers of a cluster open the array in another working directory.
    where = path if isinstance(path, str) else str(path.absolute())
    options = None
    if isinstance(path, str):
        from napari_unet.core.io.remote import storage_options

        options = storage_options(path)
    node: Any = zarr.open(where, mode="r", storage_options=options)
    node, attributes = (node, {}) if isinstance(node, zarr.Array) else _image_in(node)
    if "plate" in attributes or "well" in attributes:
        raise InputError(f"{path} is a plate of many images; give one of them: {path}/A/1/0.")
    if "multiscales" in attributes:
        return _read_multiscale(node, attributes["multiscales"], level, path)
    if level:
        raise InputError(f"{path} is no OME-Zarr and has no level {level}; choose level 0.")
    if isinstance(node, zarr.Array):
        return Opened(node, _dimension_names(node), None)
    arrays = [array for _, array in node.arrays()]
    if len(arrays) != 1:
        names = ", ".join(sorted(node.keys())) or "nothing"
        raise InputError(f"{path} is no OME-Zarr and holds {names}; give the path of one array.")
    return Opened(arrays[0], _dimension_names(arrays[0]), None)


def count_levels(path: Path) -> int:
    """Return the number of resolution levels of an OME-Zarr; 1 for other image files."""
    import zarr

    if not is_zarr(path):
        return 1
    node: Any = zarr.open(str(path), mode="r")
    images = () if isinstance(node, zarr.Array) else _image_in(node)[1].get("multiscales", ())
    return max(1, len(images[0].get("datasets", ()))) if images else 1


def _image_in(group: Any) -> tuple[Any, dict[str, Any]]:
    """Return the group of the first image in a group, and its attributes."""
    attributes = _ome_attributes(group)
    if "multiscales" not in attributes and "bioformats2raw.layout" in attributes:
        group = group["0"]
        attributes = _ome_attributes(group)
    return group, attributes


def _ome_attributes(group: Any) -> dict[str, Any]:
    attributes = dict(group.attrs)
    return {**attributes, **attributes.get("ome", {})}


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
        if factor is not None and 0 < size < math.inf:
            sizes[letter] = float(size) * factor
    known = {"Y", "X"} <= set(sizes)
    size_um = (sizes.get("Z", 1.0), sizes["Y"], sizes["X"]) if known else None
    return Opened(array, letters, size_um, CoordinateTransform.from_metadata(letters, axes, steps))


def is_address(source: object) -> bool:
    """Return whether a source is the address of data on another computer."""
    return isinstance(source, str) and "://" in source


def read_address(address: str, level: int = 0) -> Opened:
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
        return read_zarr(address.rstrip("/"), level)
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


def registered_labels(image: Path) -> list[Path]:
    """List the label images that an OME-Zarr names; empty for other files."""
    import zarr

    labels = image / LABELS
    if not is_zarr(image) or not is_zarr(labels):
        return []
    try:
        attributes: dict[str, Any] = dict(zarr.open_group(str(labels), mode="r").attrs)
    except UNREADABLE as error:
        raise unreadable_error(labels, error) from error
    names = attributes.get("ome", attributes).get("labels") or []
    return [labels / str(name) for name in names]


def zarr_path(data: Any) -> Path | None:
    """Return the folder of the Zarr array that an array is, or is read from.

    Parameters
    ----------
    data
        A Zarr array, or a dask array whose graph holds exactly one Zarr array of its own shape.
        Results of an array that was cropped, or joined from several, do not belong beside those.

    Returns
    -------
    Path or None
        None for other data, and for stores that are no folders of this computer.
    """
    import zarr

    if not isinstance(data, zarr.Array):
        found = [v for v in dict(getattr(data, "dask", {})).values() if isinstance(v, zarr.Array)]
        if len(found) != 1 or found[0].shape != tuple(data.shape):
            return None
        data = found[0]
    root = getattr(data.store, "root", None)  # of a LocalStore
    return Path(root).absolute() / data.path if isinstance(root, Path) else None


def containing_ome_zarr(path: Path) -> Path | None:
    """Return the OME-Zarr whose full resolution is the array at `path`; None if there is none."""
    import zarr

    for group in path.parents[:2]:  # datasets are named "0", rarely "images/0"
        if is_zarr(group):
            node = zarr.open(str(group), mode="r")
            if isinstance(node, zarr.Group) and {"ome", "multiscales"} & set(node.attrs):
                array = read_zarr(group).data
                return group if zarr_path(array) == path.absolute() else None
    return None
