"""From a napari image layer to a Stack: its axes, its voxel size, its place in the world.

A layer does not say which of its axes is time and which is depth. These rules decide:

- RGB(A): the last axis of the data is C.
- As the user says, in the panel's row *axes*.
- `layer.axis_labels`, where each is a name such as "t", "time", "z", "c", "channel", "y" or "x".
- Of a layer in pixels that shows an OME-Zarr of this computer: as its metadata say, for napari's
  own reader leaves them out. The voxel size comes from there, too.
- Of a layer that shows an OME or ImageJ TIFF: as the file says.
- A last axis of 1 to 5 pixels is C; axes before the last two are T or Z if all of them have a time
  or a length as unit.
- Otherwise by number: 2 axes are YX, 3 are ZYX, 4 are TZYX, 5 are TCZYX. More than 2 are a guess,
  which the panel shows as a question, and asks again before a run.

Of a multiscale layer, the full resolution (level 0) is used.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import CoordinateTransform
from napari_unet.core.io.files import Opened, is_zarr
from napari_unet.core.io.ome_zarr import containing_ome_zarr
from napari_unet.core.io.readers import read_file
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.io.zarr_groups import zarr_path
from napari_unet.gui.layers.file_axes import file_of, read_file_axes
from napari_unet.gui.layers.image_settings import get_image_settings

if TYPE_CHECKING:
    from napari.layers import Image, Labels


_LETTER_BY_NAME = {
    **dict.fromkeys(("t", "time", "frame", "frames"), "T"),
    **dict.fromkeys(("c", "channel", "channels"), "C"),
    **dict.fromkeys(("z", "depth", "plane", "slice"), "Z"),
    **dict.fromkeys(("y", "row"), "Y"),
    **dict.fromkeys(("x", "column"), "X"),
}
_BY_NDIM = {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TCZYX"}
_NARROW = 5
"""A last axis of up to so many pixels, after longer ones, holds channels."""
MOST_CHANNELS = 64
"""An axis of more pixels is not offered as one of channels."""
_OTHERS = {count + 2: list(itertools.permutations("TZC", count)) for count in (1, 2, 3)}
"""What the axes before Y and X may be, by how many axes there are."""


def unwrap(proxy: Any) -> Any:
    """Return a layer or viewer itself: npe2 hands a plugin proxies of both."""
    return getattr(proxy, "__wrapped__", proxy)


def full_resolution(layer: Image | Labels) -> Any:
    """Return a layer's data; of a multiscale layer, those of level 0."""
    return layer.data[0] if layer.multiscale else layer.data


class AxesReading(NamedTuple):
    """One letter for each axis of a layer, and whether that is known, or only a guess."""

    axes: str
    certain: bool


def layer_axes(layer: Image | Labels) -> str:
    """Return one letter for each axis of a layer, an RGB layer's colours not counted.

    Raises
    ------
    InputError
        The layer has more axes than can be told apart without names.
    """
    return read_axes(layer).axes


def read_axes(layer: Image | Labels) -> AxesReading:
    """Return the axes of a layer, and whether they are a guess.

    Raises
    ------
    InputError
        As `layer_axes`.
    """
    axes, certain = _named_axes(layer), True
    if not axes and layer.ndim in _BY_NDIM:
        axes, certain = _guess_axes(layer)
    if not axes:
        raise InputError(
            f"The layer {layer.name!r} has {layer.ndim} axes; name them t, c, z, y, x in its "
            "axis labels, or split it."
        )
    if "C" in axes and getattr(layer, "rgb", False):
        raise InputError(
            f"The layer {layer.name!r} has colours and a channel axis ({axes}); split its channels."
        )
    return AxesReading(axes, certain)


def letters_of_names(names: Any) -> str:
    """Return axes that are named, such as ("time", "y", "x"); "" where they are not."""
    letters = [_LETTER_BY_NAME.get(str(name).strip().casefold(), "") for name in names]
    named = all(letters) and len(set(letters)) == len(letters) and {"Y", "X"} <= set(letters)
    return "".join(letters) if named else ""


def possible_axes(layer: Image | Labels) -> list[str]:
    """Return the readings of a layer's axes that make sense, the likeliest first."""
    data = full_resolution(layer)
    sizes = [int(n) for n in data.shape[: layer.ndim]]
    found = [read_axes(layer).axes] if layer.ndim in _BY_NDIM or _named_axes(layer) else []
    for others in _OTHERS.get(layer.ndim, ()):
        orders = [(*others, "Y", "X")]
        if "C" in others:  # interleaved
            orders.append((*(x for x in others if x != "C"), "Y", "X", "C"))
        for order in orders:
            of = dict(zip(order, sizes, strict=True))
            most = _NARROW if order[-1] == "C" else MOST_CHANNELS
            if of.get("C", 1) <= most and min(of["Y"], of["X"]) > 1:
                found.append("".join(order))
    if getattr(layer, "rgb", False):
        found = [axes for axes in found if "C" not in axes]
    return list(dict.fromkeys(found))


def _named_axes(layer: Image | Labels) -> str:
    """Return the axes that somebody has named: the user, the layer or its file; else ""."""
    chosen = get_image_settings(layer).axes
    if chosen and len(chosen) == layer.ndim:
        return chosen
    if named := letters_of_names(layer.axis_labels):
        return named
    if (source := _read_source(layer)) is not None and len(source.axes) == layer.ndim:
        return source.axes
    if (file := read_file_axes(layer)) is not None:
        axes = file.axes.removesuffix("S") if getattr(layer, "rgb", False) else file.axes
        axes = axes.replace("S", "C")
        if len(axes) == layer.ndim and len(set(axes)) == len(axes):
            return axes
    return ""


def _guess_axes(layer: Image | Labels) -> AxesReading:
    """Return the axes by their number, their sizes and units."""
    sizes = [int(n) for n in full_resolution(layer).shape[: layer.ndim]]
    colours = getattr(layer, "rgb", False)
    if layer.ndim > 2 and not colours and sizes[-1] <= _NARROW < min(sizes[-3:-1]):
        # No image is so narrow; before its planes there may still be time or depth.
        axes = _BY_NDIM[layer.ndim - 1].replace("C", "") + "C"
        return AxesReading(axes, layer.ndim == 3)
    leading = "".join(_letter_of_unit(unit) for unit in layer.units[:-2])
    if len(leading) == layer.ndim - 2 and len(set(leading)) == len(leading):
        return AxesReading(leading + "YX", True)
    return AxesReading(_BY_NDIM[layer.ndim], False)


def _letter_of_unit(unit: Any) -> str:
    """Return the axis that a unit is of: a time, or a length; "" for another, such as pixels."""
    kinds = {"T": "[time]", "Z": "[length]"}
    return next((letter for letter, kind in kinds.items() if (1 * unit).check(kind)), "")


def _read_source(layer: Image | Labels, axes: str | None = None) -> Opened | None:
    """Return what the metadata of an OME-Zarr say that a layer shows in pixels.

    None for other layers, and where `axes` are given and the file has others.
    """
    if getattr(layer, "rgb", False) or not np.all(np.asarray(layer.scale) == 1):
        return None
    if any(unit != "pixel" for unit in map(str, layer.units)):
        return None
    data = full_resolution(layer)
    array, path = zarr_path(data), file_of(layer)
    folder = array and containing_ome_zarr(array)
    if folder is None and path is not None and is_zarr(found := Path(path)):
        folder = found
    opened = _read(str(folder.absolute())) if folder is not None else None
    if opened is None or opened.data.shape != tuple(data.shape):
        return None
    return opened if axes in (None, opened.axes) else None


@lru_cache(32)  # the axes of a layer are asked for at each move of a slider
def _read(folder: str) -> Opened | None:
    with suppress(InputError):
        return read_file(Path(folder))
    return None


def layer_channel_names(layer: Image, axes: str) -> tuple[str, ...]:
    """Return the names of a layer's channels, from the layer or its file; () where there are none.

    Parameters
    ----------
    axes
        Of the layer, with a C.
    """
    if "C" not in axes:
        return ()
    named = layer.metadata.get("channel_names")  # as some readers leave them
    if not named:
        file, source = read_file_axes(layer), _read_source(layer, axes)
        named = file.channels if file is not None else source and source.channel_names
    names = tuple(map(str, named)) if isinstance(named, list | tuple) else ()
    return names if len(names) == full_resolution(layer).shape[axes.index("C")] else ()


def layer_stack(layer: Image) -> Stack:
    """Return the stack that a layer shows: its data, axes and voxel size.

    Raises
    ------
    InputError
        The axes or the data cannot be used.
    """
    axes = layer_axes(layer)
    stack = open_stack(full_resolution(layer), axes + "S" * layer.rgb, voxel_size_um(layer, axes))
    names = layer_channel_names(layer, axes)
    transform = _get_transform(layer, axes)
    return replace(stack, name=layer.name, transform=transform, channel_names=names)


def _get_transform(layer: Image, axes: str) -> CoordinateTransform | None:
    """Return where a layer lies in the world, as scale and translation.

    None if it is rotated or sheared.
    """
    straight = (layer.rotate, layer.affine.affine_matrix)
    if np.any(layer.shear) or not all(np.array_equal(m, np.eye(len(m))) for m in straight):
        return None
    if not np.any(layer.translate) and (source := _read_source(layer, axes)) is not None:
        return source.transform
    scale, translation, described = [], [], []
    for letter, step, at, unit in zip(axes, layer.scale, layer.translate, layer.units, strict=True):
        name, factor = _file_unit(unit)
        described.append({"name": letter.lower()} | ({"unit": name} if name else {}))
        scale.append(float(step) * factor)
        translation.append(float(at) * factor)
    steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
    return CoordinateTransform.from_metadata(axes, described, steps)


def _file_unit(unit: Any) -> tuple[str, float]:
    """Return the unit to write to files, and how many of it one `unit` is; "" if there is none."""
    for dimension, name in (("[length]", "micrometer"), ("[time]", "second")):
        if (1 * unit).check(dimension):
            return name, float((1 * unit).to(name).magnitude)
    return "", 1.0


def voxel_size_um(layer: Image, axes: str) -> tuple[float, float, float] | None:
    """Return the size of a voxel (z, y, x) in micrometres; None if the layer is in pixels.

    A layer without Z counts as 1 um thick.
    """
    size = {"Z": 1.0}
    for letter, step, unit in zip(axes, layer.scale, layer.units, strict=True):
        if letter not in "ZYX":
            continue
        quantity = abs(float(step)) * unit
        if not quantity.check("[length]"):
            source = _read_source(layer, axes)
            return None if source is None else source.voxel_size_um
        size[letter] = float(quantity.to("micrometer").magnitude)
    return size["Z"], size["Y"], size["X"]
