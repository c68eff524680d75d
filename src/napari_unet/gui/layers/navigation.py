"""What the user works on, and showing them a place of it."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import UnetError
from napari_unet.gui.layers.combos import image_layers
from napari_unet.gui.layers.convert import layer_axes, layer_stack
from napari_unet.gui.layers.result_info import RESULT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Image, Labels
    from qtpy.QtWidgets import QWidget

    from napari_unet.core.io.stack import Stack


NEAR, FAR, USUAL = 1 / 2, 1 / 25, 1 / 6
"""Share of the view that a place may have, and that it gets where it has more or less."""


def image_in_view(viewer: Any) -> Image | None:
    """Return the image that the user works on: the active one, or the topmost that can be seen.

    Where a result is active, it is the image that the result is of.
    """
    active = viewer.layers.selection.active
    images = image_layers(viewer)
    if active in images:
        return images[images.index(active)]
    base = str(active.metadata.get(RESULT_KEY, {}).get("base", "")) if active is not None else ""
    named = [image for image in images if base.startswith(f"{image.name} ")]
    seen = [image for image in images if image.visible]
    return next(reversed(named or seen), None)


def open_stacks(viewer: Any) -> list[Stack]:
    """Return the stacks of the image layers, as far as they can be used."""
    found = []
    for image in image_layers(viewer):
        try:
            found.append(layer_stack(image))
        except UnetError:
            continue
    return found


def go_to(
    viewer: Any,
    image: Image,
    place: dict[str, float],
    extent: float,
) -> None:
    """Bring a place of an image into the middle of the view, and near enough to be seen.

    Parameters
    ----------
    place
        Position along the image's axes, by letter, in its pixels; along others it stays.
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
    if not FAR <= share <= NEAR:
        camera.zoom = USUAL * room / max(1e-9, extent * pixel)


def bring_into_view(viewer: Any, layer: Labels, place: tuple[slice, ...]) -> None:
    """Move the sliders to a place in a layer's data, unless it is in view."""
    here = layer.world_to_data(viewer.dims.point)
    middle = np.array(here, float)
    hidden = [axis for axis in range(layer.ndim) if _slider_of(viewer, layer, axis) is not None]
    for axis in hidden:
        span = place[axis]
        if not span.start <= round(float(here[axis])) < span.stop:
            middle[axis] = span.start
    there = layer.data_to_world(middle)
    for axis in hidden:
        if middle[axis] != here[axis]:
            viewer.dims.set_point(_slider_of(viewer, layer, axis), there[axis])


def _slider_of(viewer: Any, layer: Labels, axis: int) -> int | None:
    """Return which slider moves along an axis of a layer; None if the axis is displayed."""
    found = viewer.dims.ndim - layer.ndim + axis
    return None if found in viewer.dims.displayed else found


STILL = 4
"""Pixels of the canvas that the mouse may move during a click."""
HARMLESS = ("pan_zoom", "pick")
"""Modes of a Labels layer in which a click changes nothing."""


def watch_clicks(viewer: Any, owner: QWidget, clicked: Callable[[Any], object]) -> None:
    """Call `clicked` with the event of each left click, as long as the owner lives.

    Parameters
    ----------
    clicked
        A method of the owner; neither is kept alive.
    """
    method: Any = weakref.WeakMethod(clicked)

    def callback(_: Any, event: Any) -> Generator[None, None, None]:
        if event.button != 1:
            return
        began, still = np.asarray(event.pos), True
        yield
        while event.type == "mouse_move":
            still = still and float(np.abs(np.asarray(event.pos) - began).max()) <= STILL
            yield
        found = method()
        if still and found is not None:
            found(event)

    viewer.mouse_drag_callbacks.append(callback)
    there = weakref.ref(viewer)

    def forget(*_: object) -> None:
        found = there()
        if found is not None and callback in found.mouse_drag_callbacks:
            found.mouse_drag_callbacks.remove(callback)

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
