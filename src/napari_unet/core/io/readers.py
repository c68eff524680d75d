"""Image files of every kind that is read: PNG, JPEG and Zarr here, TIFF in `tiff`.

The libraries that decode are imported by the function that needs them: together they take more
than half a second, which the window must not wait for when its panel opens.
"""

from __future__ import annotations

import lzma
import math
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import (
    TRANSFORMS,
    CoordinateTransform,
    believable,
    combine_transforms,
    to_um,
)

if TYPE_CHECKING:
    from pathlib import Path

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8")
PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg")
SUFFIXES = (*TIFF_SUFFIXES, *PHOTO_SUFFIXES, ".zarr")
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")

UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    SyntaxError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)
"""What the libraries below raise on damaged files; they agree on no common class."""


class Opened(NamedTuple):
    """What a reader found: lazy data, a letter for each axis (S: colour samples), voxel size.

    Also where the data lie in the world, if the file says more of it than the size of a voxel.
    """

    data: Any
    axes: str
    voxel_size_um: tuple[float, float, float] | None
    place: CoordinateTransform | None = None


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    return any((path / name).is_file() for name in _ZARR_FILES)


def read_file(path: Path, level: int = 0) -> Opened:
    """Open an image file or Zarr folder lazily.

    Raises
    ------
    InputError
        A file that is missing, of an unknown kind, damaged, or without an image in it.
    """
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist; check the spelling and the folder.")
        if path.is_dir():
            return read_zarr(path, level)
        if level:
            raise InputError(f"{path} is no OME-Zarr and has no level {level}; choose level 0.")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is an empty file; copy or export it once more.")
        suffix = path.suffix.lower()
        if suffix in TIFF_SUFFIXES:
            from napari_unet.core.io.tiff import read_tiff

            return read_tiff(path)
        if suffix in PHOTO_SUFFIXES:
            return _read_photo(path)
    except PermissionError as error:
        raise InputError(f"{path} may not be read by this user; change its permissions.") from error
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    raise InputError(f"{path} is of no known kind; give one of: {', '.join(SUFFIXES)}.")


def unreadable(path: Path, error: BaseException) -> InputError:
    """Word a library's error in one line."""
    lines = str(error).strip().splitlines()
    reason = lines[0].partition(": header=")[0][:160] if lines else type(error).__name__
    kind = "Zarr" if path.is_dir() else path.suffix.lstrip(".").upper()
    return InputError(
        f"{path} cannot be read as {kind} ({reason}); it is damaged or something else, "
        "copy or export it once more."
    )


def _read_photo(path: Path) -> Opened:
    """Read a PNG or JPEG; palettes become colours, one bit becomes bool."""
    from PIL import Image, JpegImagePlugin, PngImagePlugin

    # Image.open refuses more than 179 MPx as a possible attack; slides are larger than that.
    kinds = [PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile]
    if path.suffix.lower() != ".png":
        kinds.reverse()
    picture: Image.Image
    try:
        picture = kinds[0](path)
    except SyntaxError as error:
        try:
            picture = kinds[1](path)  # a JPEG named .png and the like
        except SyntaxError:
            raise error from None
    with picture:
        x, y = (25400 / dpi if dpi else math.nan for dpi in picture.info.get("dpi", (0, 0)))
        if picture.mode in ("P", "PA"):
            clear = picture.mode == "PA" or "transparency" in picture.info
            values = np.asarray(picture.convert("RGBA" if clear else "RGB"))
        elif picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            values = np.asarray(picture.convert("RGB"))
        elif picture.mode in ("LA", "La"):
            values = np.asarray(picture.convert("LA"))[..., 0]
        else:
            values = np.asarray(picture)
    return Opened(values, "YXS" if values.ndim == 3 else "YX", believable(y, x))


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
    where = path if isinstance(path, str) else str(path.absolute())  # for workers elsewhere
    node: Any = zarr.open(where, mode="r")
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
    """Return how many levels of resolution an image file has: 1, or those of an OME-Zarr."""
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
    """Return axes from the names of the dimensions, or "" when they are no axes of ours."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    letters = "".join(str(name)[:1] for name in names or ()).upper()
    fits = len(letters) == array.ndim == len(set(letters)) and set(letters) <= set("TCZYX")
    return letters if fits and {"Y", "X"} <= set(letters) else ""


def _read_multiscale(group: Any, images: Any, wanted: int, path: Path | str) -> Opened:
    """Read OME-NGFF 0.1 to 0.5 metadata: axes, and the scale of a level in micrometres."""
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
    return Opened(array, letters, size_um, CoordinateTransform.told(letters, axes, steps))
