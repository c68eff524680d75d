"""Key C, which turns click mode on and off, and the mouse and keys of click mode.

They are those of its layer, as long as that is the active one.

napari gives a layer's own keys precedence over the window's, so that no other layer loses a key.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from napari.layers import Image

from napari_unet.core.instances.label_edits import DELETE, EDITS, MERGE, SPLIT
from napari_unet.gui.click.target import Pointed
from napari_unet.gui.layers.key_bindings import (
    REDO_KEY,
    UNDO_KEY,
    bind_window_key,
    is_typing,
    weak_callback,
)
from napari_unet.gui.layers.navigation import STILL_PX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari.layers import Labels
    from qtpy.QtWidgets import QWidget

    from napari_unet.core.prompts.clicks import Click
    from napari_unet.gui.click.target import ClickTarget
    from napari_unet.nn.interactive.interaction import Action, Steps
    from napari_unet.nn.interactive.session import ClickSession

LEFT, RIGHT = 1, 2
KEYS = {SPLIT: "s", MERGE: "m", DELETE: "d"}
GROW_KEY = "g"
TOGGLE_KEY = "c"


class _Mode(Protocol):
    """The methods of `ClickMode` that are used here; its module imports this one."""

    changed: Any

    def click(self, pointed: Pointed, *, negative: bool, join: bool) -> None: ...
    def box(self, first: Pointed, second: Pointed) -> None: ...
    def show_box(self, first: Pointed, second: Pointed) -> None: ...
    def stroke(self, several: Sequence[Pointed]) -> None: ...
    def show_stroke(self, several: Sequence[Pointed]) -> None: ...
    def hover(self, pointed: Pointed, *, negative: bool, join: bool) -> None: ...
    def leave(self) -> None: ...
    def keep(self) -> None: ...
    def drop(self) -> None: ...
    def undo(self) -> None: ...
    def redo(self) -> None: ...
    def grow(self) -> None: ...
    def press_edit(self, edit: str) -> None: ...


class ClickInput:
    """Turns clicks, drags, moves and keys into calls of click mode.

    Parameters
    ----------
    layer
        The layer that is to be active.
    mode
        Click mode.
    """

    def __init__(self, viewer: Any, layer: Labels, mode: _Mode) -> None:
        self._viewer, self._layer, self._mode = viewer, layer, mode
        self._zoom: list[Any] = []
        layer.mouse_drag_callbacks.append(self._pressed)
        layer.mouse_move_callbacks.append(self._moved)
        layer.mouse_double_click_callbacks.append(self._double_clicked)
        keys = {
            "Enter": mode.keep, "Escape": mode.drop, UNDO_KEY: mode.undo, REDO_KEY: mode.redo,
            GROW_KEY: mode.grow,
        }  # fmt: skip
        for key, action in keys.items():
            layer.bind_key(key, _pressed(action), overwrite=True)
        for edit, key in KEYS.items():
            layer.bind_key(key, _pressed(mode.press_edit, edit), overwrite=True)
        viewer.events.mouse_over_canvas.connect(self._pointer_left)
        viewer.layers.selection.events.active.connect(self._follow)
        self._follow()

    @property
    def active(self) -> bool:
        """Whether the layer is the active one."""
        return bool(self._viewer.layers.selection.active == self._layer)

    def close(self) -> None:
        """Disconnect from the window, and give its double click back."""
        self._viewer.events.mouse_over_canvas.disconnect(self._pointer_left)
        self._viewer.layers.selection.events.active.disconnect(self._follow)
        self._hold_zoom(False)

    def _follow(self, *_: Any) -> None:
        self._hold_zoom(self.active)
        self._mode.changed.emit()

    def _pointer_left(self, *_: Any) -> None:
        if not self._viewer.mouse_over_canvas:
            self._mode.leave()

    def _hold_zoom(self, held: bool) -> None:
        """Keep napari from zooming at the second of two quick clicks, or let it zoom again.

        napari zooms at a double click even if the layer has a callback that handles it.
        """
        callbacks = self._viewer.mouse_double_click_callbacks
        if held and not self._zoom:
            self._zoom, callbacks[:] = list(callbacks), []
        elif not held and self._zoom:
            callbacks[:], self._zoom = [*self._zoom, *callbacks], []

    def _pressed(self, _: Labels, event: Any) -> Iterator[None]:
        """Wait until the button is released: a click, or a drag.

        A drag with Shift is a box, with Ctrl and Shift a stroke along an object; else of the view.
        """
        if not _is_click(event):
            return
        start, pixel, kind = _pointed(event), np.asarray(event.pos, float), _click_kind(event)
        moved, drawing = False, event.button == LEFT and kind["join"]
        stroke = [start] if drawing and kind["negative"] else []
        yield
        while event.type == "mouse_move":
            moved |= bool(np.abs(np.asarray(event.pos, float) - pixel).max() > STILL_PX)
            if moved and stroke:
                stroke.append(_pointed(event))
                self._mode.show_stroke(stroke)
            elif moved and drawing:
                self._mode.show_box(start, _pointed(event))
            yield
        if moved and stroke:
            self._mode.stroke(stroke)
        elif moved and drawing:
            self._mode.box(start, _pointed(event))
        elif not moved:
            self._mode.click(start, **kind)

    def _double_clicked(self, _: Labels, event: Any) -> None:
        if _is_click(event):
            self._mode.click(_pointed(event), **_click_kind(event))

    def _moved(self, _: Labels, event: Any) -> None:
        self._mode.hover(_pointed(event), **_click_kind(event))


def _pointed(event: Any) -> Pointed:
    in_3d = len(event.dims_displayed) == 3
    return Pointed(tuple(event.position), tuple(event.view_direction) if in_3d else None)


def _is_click(event: Any) -> bool:
    """Return whether a press of the mouse is click mode's; with Alt it is napari's."""
    return event.button in (LEFT, RIGHT) and "Alt" not in event.modifiers


def _click_kind(event: Any) -> dict[str, bool]:
    """Return whether a click takes away, and whether it adds what lies apart."""
    negative = event.button == RIGHT or "Control" in event.modifiers
    return {"negative": negative, "join": "Shift" in event.modifiers}


def _pressed(action: Any, *arguments: Any) -> Any:
    """Return the callback of a key, which napari calls with the layer."""

    def pressed(_: Labels) -> None:
        if not is_typing():
            action(*arguments)

    return pressed


class EditClicks:
    """Collects the clicks that split, merge or delete objects; the last one makes the edit.

    Attributes
    ----------
    edit
        What the next clicks do, of `EDITS`; None: they segment.
    clicks
        Those so far.
    """

    def __init__(self) -> None:
        self.edit: str | None = None
        self.clicks: list[Click] = []

    def begin(self, edit: str) -> None:
        """Begin to collect the clicks of an edit."""
        self.edit, self.clicks = edit, []

    def leave(self) -> None:
        """Forget the edit: clicks segment again."""
        self.edit, self.clicks = None, []

    def take(self, click: Click, target: ClickTarget) -> Action | None:
        """Add a click; with the last one that is needed, return the action and leave."""
        edit = self.edit
        if edit is None:
            return None
        self.clicks.append(click)
        clicks = tuple(self.clicks)
        if len(clicks) < EDITS[edit]:
            return None
        self.leave()

        def apply(session: ClickSession) -> Steps:
            from napari_unet.nn.interactive.interaction import edit_objects

            volume = target.is_volume(clicks[0], session.model.spec.ndim)
            return edit_objects(session, edit, clicks, volume=volume)

        return apply


class ToggleKey:
    """Binds the key that turns click mode on and off, wherever the user is.

    Parameters
    ----------
    panel
        Gives the key back when it is destroyed; it is not kept alive.
    toggle
        The panel's method.
    """

    def __init__(self, viewer: Any, panel: QWidget, toggle: Callable[[], None]) -> None:
        self._viewer = weakref.ref(viewer)
        self._pressed = weak_callback(toggle, while_typing=False)
        self._image: weakref.ref[Image] | None = None
        self._held = False
        self._give_back = bind_window_key(viewer, panel, TOGGLE_KEY, self._pressed)
        self.take()

    def take(self) -> None:
        """Take the key."""
        viewer = self._viewer()
        if viewer is not None:
            self._held = True
            viewer.bind_key(TOGGLE_KEY, self._pressed, overwrite=True)
            self.follow(viewer.layers.selection.active)

    def let_go(self) -> None:
        """Give the key back to napari."""
        self.follow(None)
        self._held = False
        self._give_back()

    def follow(self, active: Any) -> None:
        """Take the key on the active image, too: napari may have one of its own there."""
        image = None if self._image is None else self._image()
        if image is not None and image is not active:
            image.bind_key(TOGGLE_KEY, None)
            self._image = None
        if self._held and isinstance(active, Image) and self._image is None:
            active.bind_key(TOGGLE_KEY, self._pressed, overwrite=True)
            self._image = weakref.ref(active)
