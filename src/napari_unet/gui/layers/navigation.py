"""What the user works on and looks at, and moving the view there.

Also "what I see now", "current slice" and "whole stack": the regions that a run can be limited to.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.tiles import Index, Window
from napari_unet.gui.layers.combos import image_layers
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack, unwrap
from napari_unet.gui.layers.result_info import ResultInfo, find_source_image

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Image, Labels
    from qtpy.QtWidgets import QWidget

    from napari_unet.core.io.stack import Stack


SEEN, SLICE, WHOLE = "what I see now", "current slice", "whole stack"
REGIONS = (SEEN, SLICE, WHOLE)
MAX_SHARE, MIN_SHARE, GOOD_SHARE = 1 / 2, 1 / 25, 1 / 6
"""How much of the view an object may fill, at most and at least, and what it gets otherwise."""


def image_in_view(viewer: Any) -> Image | None:
    """Return the image that the user works on: the active one, or the topmost that can be seen.

    Where a result is active, it is the image that the result is of.
    """
    active = viewer.layers.selection.active
    images = image_layers(viewer)
    if active in images:
        return images[images.index(active)]
    if active is not None:
        if (source := find_source_image(active, images)) is not None:
            return source
        # Of an image that was opened again, which has another id: by its name.
        base = ResultInfo.from_layer(active).base or ""
        if named := [image for image in images if base.startswith(f"{image.name} ")]:
            return named[-1]
    return next((image for image in reversed(images) if image.visible), None)


def open_stacks(viewer: Any) -> list[Stack]:
    """Return the stacks of the image layers, as far as they can be used."""
    found = []
    for image in image_layers(viewer):
        try:
            found.append(layer_stack(image))
        except UnetError:
            continue
    return found


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


def get_visible_region(viewer: Any, layer: Image, axes: str) -> VisibleRegion:
    """Return what the user looks at.

    It is computed from the canvas, the camera and the sliders: a layer's own `corner_pixels` are
    updated at the next drawing only, and never those of a hidden layer.
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
            f"Nothing of {name!r} is in view; move it into view (Ctrl+R), or choose {SLICE!r}."
        )
    return [here], _part(stack.frame_shape(ndim), view.window)


def _part(size: tuple[int, ...], window: tuple[slice, slice]) -> Window | None:
    """Return the window with all of Z before it, if the frame has Z; None if it is everything."""
    part = (*(slice(0, n) for n in size[:-2]), *window)
    whole = all((w.start, w.stop) == (0, n) for w, n in zip(part, size, strict=True))
    return None if whole else part


class NearestFirst(Sequence[Index]):
    """Frames, those first that are nearest to what the user looks at.

    Iterating gives every frame once. The next one is always the nearest to ``here()``, which is
    called before each, for the user may have moved the sliders meanwhile.
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


def go_to(viewer: Any, image: Image, place: dict[str, float], extent: float) -> None:
    """Centre the view on a place of an image, and zoom where that is too small or too large.

    Parameters
    ----------
    place
        Position by the letters of the image's axes, in pixels; along other axes the view stays.
    extent
        How large the place is in y and x, in pixels.
    """
    axes = layer_axes(image)
    first = viewer.dims.ndim - image.ndim
    point = np.asarray(viewer.dims.point, dtype=float)[first:]
    here = np.asarray(image.world_to_data(point), dtype=float)
    there = [place.get(letter, at) for letter, at in zip(axes, here, strict=True)]
    world = np.asarray(image.data_to_world(there), dtype=float)
    shown = [axis - first for axis in viewer.dims.displayed]
    for axis in range(image.ndim):
        if axis not in shown:
            viewer.dims.set_point(axis + first, float(world[axis]))
    camera = viewer.scene.camera
    centre = [float(world[axis]) if axis >= 0 else 0.0 for axis in shown]
    camera.center = (0.0,) * (3 - len(centre)) + tuple(centre)
    pixel = float(np.abs(np.asarray(image.scale)[-2:]).max())
    room = float(min(viewer.canvas.size))
    share = extent * pixel * camera.zoom / max(1.0, room)
    if not MIN_SHARE <= share <= MAX_SHARE:
        camera.zoom = GOOD_SHARE * room / max(1e-9, extent * pixel)


def bring_into_view(viewer: Any, layer: Labels, place: tuple[slice, ...]) -> None:
    """Move the sliders to a place in a layer's data, unless it is in view."""
    here = layer.world_to_data(viewer.dims.point)
    middle = np.array(here, float)
    hidden = [axis for axis in range(layer.ndim) if _get_slider(viewer, layer, axis) is not None]
    for axis in hidden:
        span = place[axis]
        if not span.start <= round(float(here[axis])) < span.stop:
            middle[axis] = span.start
    there = layer.data_to_world(middle)
    for axis in hidden:
        if middle[axis] != here[axis]:
            viewer.dims.set_point(_get_slider(viewer, layer, axis), there[axis])


def _get_slider(viewer: Any, layer: Labels, axis: int) -> int | None:
    """Return the slider of a layer's axis; None if the axis is displayed."""
    found = viewer.dims.ndim - layer.ndim + axis
    return None if found in viewer.dims.displayed else found


STILL_PX = 4
"""The mouse may move so many pixels of the canvas between press and release of a click."""
READ_ONLY_MODES = ("pan_zoom", "pick")
"""Modes of a Labels layer in which a click changes nothing."""


def watch_clicks(viewer: Any, owner: QWidget, clicked: Callable[[Any], object]) -> None:
    """Call a method with the event of each left click in the window, as long as its owner lives.

    A viewer's callbacks run first and whichever layer is active; napari goes on with the click.

    Parameters
    ----------
    clicked
        A method of the owner; neither is kept alive by the viewer.
    """

    def handle(event: Any, call: Callable[..., None]) -> Generator[None, None, None]:
        if event.button != 1:
            return
        began, still = np.asarray(event.pos), True
        yield
        while event.type == "mouse_move":
            still = still and float(np.abs(np.asarray(event.pos) - began).max()) <= STILL_PX
            yield
        if still:
            call(event)

    _watch_mouse(viewer, owner, clicked, handle)


def watch_presses(viewer: Any, owner: QWidget, pressed: Callable[[bool], object]) -> None:
    """Call a method with True when any mouse button is pressed in the window, False on release.

    The parameters are those of `watch_clicks`.
    """

    def handle(event: Any, call: Callable[..., None]) -> Generator[None, None, None]:
        call(True)
        yield
        while event.type == "mouse_move":
            yield
        call(False)

    _watch_mouse(viewer, owner, pressed, handle)


def _watch_mouse(
    viewer: Any,
    owner: QWidget,
    bound: Callable[..., object],
    handle: Callable[[Any, Callable[..., None]], Generator[None, None, None]],
) -> None:
    """Hand each press of the mouse to `handle`, with a function that calls the owner's method."""
    there = weakref.ref(unwrap(viewer))  # a plugin's proxy is gone with the panel

    def forget(*_: object) -> None:
        found = there()
        if found is not None and callback in found.mouse_drag_callbacks:
            found.mouse_drag_callbacks.remove(callback)

    # Of an owner that Python deletes, and not Qt, `destroyed` reaches nobody.
    method: Any = weakref.WeakMethod(bound, forget)

    def call(*arguments: Any) -> None:
        found = method()
        if found is not None:
            found(*arguments)

    def callback(_: Any, event: Any) -> Generator[None, None, None]:
        yield from handle(event, call)

    viewer.mouse_drag_callbacks.append(callback)
    owner.destroyed.connect(forget)


def object_under(layer: Labels, event: Any) -> tuple[int, np.ndarray] | None:
    """Return the label under a click, and where it is in the layer's data; None for background.

    In a 3D view that is the object in front.
    """
    shown = list(event.dims_displayed)
    position = np.asarray(event.position, float)
    if len(shown) == 3:
        value = layer.get_value(
            position, view_direction=event.view_direction, dims_displayed=shown, world=True
        )
    else:
        value = layer.get_value(position, world=True)
    value = value[1] if isinstance(value, tuple) else value  # multiscale: (level, label)
    if not value:
        return None
    return int(value), np.round(layer.world_to_data(position)).astype(int)
