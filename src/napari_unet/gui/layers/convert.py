"""From a napari image layer to a Stack, and from what the user looks at to planes and windows.

A layer does not say which of its axes is time and which is depth. These rules decide:

- RGB(A): the last axis of the data is C.
- `layer.axis_labels`, where each is a name such as "t", "time", "z", "c", "channel", "y" or "x".
- Of a layer in pixels that shows an OME-Zarr of this computer: as its metadata say, which napari's
  own reader leaves out. So does the size of a voxel come from there.
- Otherwise by number: 2 axes are YX, 3 are ZYX, 4 are TZYX, 5 are TCZYX.

Of a multiscale layer, the full resolution (level 0) is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import CoordinateTransform
from napari_unet.core.io.files import Opened, expand_path, is_zarr
from napari_unet.core.io.ome_zarr import containing_ome_zarr, zarr_path
from napari_unet.core.io.readers import read_file
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.tiles import Index, Window

if TYPE_CHECKING:
    from napari.layers import Image, Labels

SEEN, SLICE, WHOLE = "what I see now", "current slice", "whole stack"
REGIONS = (SEEN, SLICE, WHOLE)


_LETTERS = {
    **dict.fromkeys(("t", "time", "frame", "frames"), "T"),
    **dict.fromkeys(("c", "channel", "channels"), "C"),
    **dict.fromkeys(("z", "depth", "plane", "slice"), "Z"),
    **dict.fromkeys(("y", "row"), "Y"),
    **dict.fromkeys(("x", "column"), "X"),
}
_BY_NUMBER = {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TCZYX"}


def full_resolution(layer: Image | Labels) -> Any:
    """Return a layer's data; of a multiscale layer, those of level 0."""
    return layer.data[0] if layer.multiscale else layer.data


def layer_axes(layer: Image | Labels) -> str:
    """Return one letter for each axis of a layer, an RGB layer's colours not counted.

    Raises
    ------
    InputError
        The layer has more axes than can be told apart without names.
    """
    letters = [_LETTERS.get(label.strip().casefold(), "") for label in layer.axis_labels]
    if all(letters) and len(set(letters)) == len(letters) and {"Y", "X"} <= set(letters):
        axes = "".join(letters)
    elif (told := _told(layer)) is not None and len(told.axes) == layer.ndim:
        axes = told.axes
    elif layer.ndim in _BY_NUMBER:
        axes = _BY_NUMBER[layer.ndim]
    else:
        raise InputError(
            f"The layer {layer.name!r} has {layer.ndim} axes; name them t, c, z, y, x in its "
            "axis labels, or split it."
        )
    if "C" in axes and getattr(layer, "rgb", False):
        raise InputError(
            f"The layer {layer.name!r} has colours and a channel axis ({axes}); split its channels."
        )
    return axes


def _told(layer: Image | Labels) -> Opened | None:
    """Return what the OME-Zarr that a layer shows in pixels says of it; None for other layers."""
    if getattr(layer, "rgb", False) or not np.all(np.asarray(layer.scale) == 1):
        return None
    if any(unit != "pixel" for unit in map(str, layer.units)):
        return None
    data = full_resolution(layer)
    source, path = zarr_path(data), layer.source.path
    folder = source and containing_ome_zarr(source)
    if folder is None and path is not None and is_zarr(found := expand_path(path)):
        folder = found
    opened = _read(str(folder.absolute())) if folder is not None else None
    return opened if opened is not None and opened.data.shape == tuple(data.shape) else None


@lru_cache(32)
def _read(folder: str) -> Opened | None:
    with suppress(InputError):
        return read_file(Path(folder))
    return None


def layer_stack(layer: Image) -> Stack:
    """Return the stack that a layer shows: its data, axes and voxel size.

    Raises
    ------
    InputError
        The axes or the data cannot be used.
    """
    axes = layer_axes(layer)
    stack = open_stack(full_resolution(layer), axes + "S" * layer.rgb, voxel_size_um(layer, axes))
    return replace(stack, name=layer.name, transform=_layer_transform(layer, axes))


def _layer_transform(layer: Image, axes: str) -> CoordinateTransform | None:
    """Return where a layer lies: by what it says, or else the OME-Zarr that it shows in pixels.

    None if it is turned, or otherwise where no scale and translation puts it.
    """
    straight = (layer.rotate, layer.affine.affine_matrix)
    if np.any(layer.shear) or not all(np.array_equal(m, np.eye(len(m))) for m in straight):
        return None
    if (told := _told(layer)) is not None and told.axes == axes and not np.any(layer.translate):
        return told.transform
    scale, translation, described = [], [], []
    for letter, step, at, unit in zip(axes, layer.scale, layer.translate, layer.units, strict=True):
        name, factor = _written_unit(unit)
        described.append({"name": letter.lower()} | ({"unit": name} if name else {}))
        scale.append(float(step) * factor)
        translation.append(float(at) * factor)
    steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]
    return CoordinateTransform.from_metadata(axes, described, steps)


def _written_unit(unit: Any) -> tuple[str, float]:
    """Return a unit that files know, and how many of it one `unit` is; "" where there is none."""
    for dimension, name in (("[length]", "micrometer"), ("[time]", "second")):
        if (1 * unit).check(dimension):
            return name, float((1 * unit).to(name).magnitude)
    return "", 1.0


def voxel_size_um(layer: Image, axes: str) -> tuple[float, float, float] | None:
    """Return the size of a voxel (z, y, x) in micrometres; None where the layer knows no lengths.

    A layer without Z counts as 1 um thick.
    """
    size = {"Z": 1.0}
    for letter, step, unit in zip(axes, layer.scale, layer.units, strict=True):
        if letter not in "ZYX":
            continue
        quantity = abs(float(step)) * unit
        if not quantity.check("[length]"):
            told = _told(layer)
            return told.voxel_size_um if told is not None and told.axes == axes else None
        size[letter] = float(quantity.to("micrometer").magnitude)
    return size["Z"], size["Y"], size["X"]


@dataclass(frozen=True)
class VisibleRegion:
    """What the user looks at, in an image's own pixels.

    Attributes
    ----------
    position
        Where the sliders are: T and Z, of those that the image has.
    window
        The part of Y and X that is in view; None if the image is out of view.
    centre
        (y, x) in the middle of the view.
    volume
        The view is 3D.
    planar
        A 2D view shows Y and X, not a cut across the stack.
    """

    position: dict[str, int]
    window: tuple[slice, slice] | None
    centre: tuple[float, float]
    volume: bool = False
    planar: bool = True


def look(viewer: Any, layer: Image, axes: str) -> VisibleRegion:
    """Find out what the user looks at.

    The canvas, the camera and the sliders are asked themselves, so that the answer is right before
    the next drawing, too (a layer's own `corner_pixels` is not).
    """
    sizes = dict(zip(axes, full_resolution(layer).shape, strict=False))
    point = np.asarray(viewer.dims.point, dtype=float)
    shown = list(viewer.dims.displayed)
    camera = viewer.scene.camera
    point[shown] = np.asarray(camera.center, dtype=float)[-len(shown) :]
    here = dict(zip(axes, layer.world_to_data(point), strict=True))
    position = {
        letter: int(np.clip(round(here[letter]), 0, sizes[letter] - 1))
        for letter in "TZ"
        if letter in axes
    }
    first = viewer.dims.ndim - layer.ndim
    volume = len(shown) == 3
    planar = volume or {axes[axis - first] for axis in shown if axis >= first} == {"Y", "X"}
    window: tuple[slice, slice] | None = (slice(0, sizes["Y"]), slice(0, sizes["X"]))
    if planar and not volume and not viewer.canvas.grid.enabled:
        half = np.asarray(viewer.canvas.size, dtype=float) / 2 / camera.zoom
        window = _in_view(layer, axes, point, shown, half, sizes)
    return VisibleRegion(position, window, (float(here["Y"]), float(here["X"])), volume, planar)


def _in_view(
    layer: Image,
    axes: str,
    point: np.ndarray,
    shown: list[int],
    half: np.ndarray,
    sizes: dict[str, int],
) -> tuple[slice, slice] | None:
    """Return the part of Y and X inside the canvas, whose half size is `half` in world units."""
    corners = []
    for signs in itertools.product((-1, 1), repeat=2):
        corner = point.copy()
        corner[shown] += half * signs
        there = dict(zip(axes, layer.world_to_data(corner), strict=True))
        corners.append((there["Y"], there["X"]))
    low = np.floor(np.min(corners, axis=0) + 0.5).astype(int)
    high = np.floor(np.max(corners, axis=0) + 0.5).astype(int) + 1
    limits = (sizes["Y"], sizes["X"])
    low, high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    if np.any(low >= high):
        return None
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def plan_region(
    region: str, view: VisibleRegion, stack: Stack, ndim: int, name: str
) -> tuple[list[Index], Window | None]:
    """Turn "what I see now", "current slice" or "whole stack" into frames and a window.

    Parameters
    ----------
    ndim
        The model's: its frames are planes (2) or volumes (3). The slice of a volume model is the
        whole volume at the current time, for it cannot judge one plane alone.
    name
        The image's, for the message.

    Returns
    -------
    frames
        Positions along the leading axes of the labels.
    window
        The part of each frame to segment; None: all of it.

    Raises
    ------
    InputError
        Nothing of the image is in view, or the view is a cut across the stack.
    """
    frames = stack.indices(ndim)
    if region == WHOLE:
        return frames, None
    if not view.planar:
        raise InputError(
            f"The view cuts across the planes of {name!r}; show y and x again (the button that "
            f"rolls the dimensions), or choose {WHOLE!r}."
        )
    letters = stack.labels_axes[: len(frames[0])] if frames else ""
    here = tuple(view.position[letter] for letter in letters)
    if region == SEEN and view.volume:
        depth = letters.find("Z")
        return [
            f for f in frames if all(f[i] == here[i] for i in range(len(f)) if i != depth)
        ], None
    if region == SLICE:
        return [here], None
    if view.window is None:
        raise InputError(
            f"Nothing of {name!r} is in view; move it into view (Home key), or choose {SLICE!r}."
        )
    return [here], _part(stack.frame_shape(ndim), view.window)


def _part(size: tuple[int, ...], window: tuple[slice, slice]) -> Window | None:
    """Return the window with all of Z before it, if the frame has Z; None if it is everything."""
    part = (*(slice(0, n) for n in size[:-2]), *window)
    whole = all((w.start, w.stop) == (0, n) for w, n in zip(part, size, strict=True))
    return None if whole else part


class NearestFirst(Sequence[Index]):
    """Frames in the order in which the user wants them, asked anew before each one.

    Iterating gives every frame once; the next one is always the nearest to ``here()``, which may
    have moved meanwhile.
    """

    def __init__(self, frames: Sequence[Index], here: Any) -> None:
        self._frames = list(frames)
        self._here = here

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, at: Any) -> Any:
        return self._frames[at]

    def __iter__(self) -> Any:
        left = list(self._frames)
        while left:
            here = self._here()
            nearest = min(left, key=lambda f: [abs(a - b) for a, b in zip(f, here, strict=False)])
            left.remove(nearest)
            yield nearest


def open_fluorescence_sample() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """Return the bundled fluorescence image as napari's layer data."""
    return _sample("fluorescence")


def open_histology_sample() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """Return the bundled stained tissue image as napari's layer data."""
    return _sample("histology")


def _sample(name: str) -> list[tuple[np.ndarray, dict[str, Any], str]]:
    from skimage.io import imread

    from napari_unet.core.io.sample_images import sample_path

    image = imread(sample_path(name))
    return [(image, {"name": name, "rgb": image.ndim == 3}, "image")]
