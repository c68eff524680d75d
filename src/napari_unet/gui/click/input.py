"""Mouse and keys of click mode: they are those of its layer, as long as that is the active one.

napari gives a layer's own keys precedence over the window's, so that no other layer loses a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QLineEdit, QPlainTextEdit, QTextEdit

from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT
from napari_unet.gui.layers.key_bindings import REDO_KEY, UNDO_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Labels

    from napari_unet.gui.click.mode import ClickMode

STILL = 4
"""A button that is let go within so many pixels of the screen was clicked."""
LEFT, RIGHT = 1, 2
KEYS = {SPLIT: "s", MERGE: "m", DELETE: "d"}
GROW_KEY = "g"
_FIELDS = (QLineEdit, QAbstractSpinBox, QTextEdit, QPlainTextEdit)


class ClickInput:
    """Turns clicks, drags, moves and keys into what they mean in click mode.

    Parameters
    ----------
    viewer
        The window.
    layer
        The layer that is to be active.
    mode
        Is told.
    """

    def __init__(self, viewer: Any, layer: Labels, mode: ClickMode) -> None:
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
        viewer.events.mouse_over_canvas.connect(self._crossed)
        viewer.layers.selection.events.active.connect(self._follow)
        self._follow()

    @property
    def active(self) -> bool:
        """Whether the layer is the active one."""
        return bool(self._viewer.layers.selection.active == self._layer)

    def close(self) -> None:
        """Give the window back its double click."""
        self._viewer.events.mouse_over_canvas.disconnect(self._crossed)
        self._viewer.layers.selection.events.active.disconnect(self._follow)
        self._hold_zoom(False)

    def _follow(self, *_: Any) -> None:
        self._hold_zoom(self.active)
        self._mode.changed.emit()

    def _crossed(self, *_: Any) -> None:
        if not self._viewer.mouse_over_canvas:
            self._mode.leave()

    def _hold_zoom(self, held: bool) -> None:
        """Keep the window from zooming at the second of two quick clicks, or let it zoom again."""
        callbacks = self._viewer.mouse_double_click_callbacks
        if held and not self._zoom:
            self._zoom, callbacks[:] = list(callbacks), []
        elif not held and self._zoom:
            callbacks[:], self._zoom = [*self._zoom, *callbacks], []

    def _pressed(self, _: Labels, event: Any) -> Iterator[None]:
        """Wait until the button is let go: a click, a box (with Shift), or a drag as ever."""
        button, held = event.button, set(event.modifiers)
        if not _counts(event):
            return
        start, pixel = tuple(event.position), np.asarray(event.pos, float)
        moved, boxing = False, button == LEFT and "Shift" in held
        yield
        while event.type == "mouse_move":
            moved |= bool(np.abs(np.asarray(event.pos, float) - pixel).max() > STILL)
            if moved and boxing:
                self._mode.show_box(start, tuple(event.position))
            yield
        if moved and boxing:
            self._mode.box(start, tuple(event.position))
        elif not moved:
            self._mode.click(start, away=button == RIGHT or "Control" in held, join="Shift" in held)

    def _double_clicked(self, _: Labels, event: Any) -> None:
        if _counts(event):
            held, away = set(event.modifiers), event.button == RIGHT
            place = tuple(event.position)
            self._mode.click(place, away=away or "Control" in held, join="Shift" in held)

    def _moved(self, _: Labels, event: Any) -> None:
        held = set(event.modifiers)
        self._mode.hover(tuple(event.position), away="Control" in held, join="Shift" in held)


def _counts(event: Any) -> bool:
    """Tell whether a button of the mouse is one that clicks, and no other key makes it napari's."""
    return event.button in (LEFT, RIGHT) and "Alt" not in event.modifiers


def typing() -> bool:
    """Tell whether keys are for a field: what it does not take itself, napari hands on."""
    return isinstance(QApplication.focusWidget(), _FIELDS)


def _pressed(action: Any, *arguments: Any) -> Any:
    """Return what a key does, which napari calls with the layer."""

    def pressed(_: Labels) -> None:
        if not typing():
            action(*arguments)

    return pressed
