"""Clicks on objects: which object of a Labels layer lies under a click that is no drag."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Labels
    from qtpy.QtWidgets import QWidget

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
