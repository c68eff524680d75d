"""The key that turns click mode on and off, wherever the user is; it keeps no panel alive."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_unet.gui.click.input import typing

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.gui.click.panel import ClickPanel

KEY = "c"


class ToggleKey:
    """Binds the key to a panel, until it is let go or the panel is gone.

    Parameters
    ----------
    viewer
        The window.
    panel
        What it turns on and off, by its `toggle`.
    """

    def __init__(self, viewer: Any, panel: ClickPanel) -> None:
        self._viewer = weakref.ref(viewer)
        self._pressed = _toggling(weakref.ref(panel))
        self._image: weakref.ref[Image] | None = None
        self._held = False
        panel.destroyed.connect(functools.partial(_unbind, self._viewer, self._pressed))
        self.take()

    def take(self) -> None:
        """Take the key."""
        viewer = self._viewer()
        if viewer is not None:
            self._held = True
            viewer.bind_key(KEY, self._pressed, overwrite=True)
            self.follow(viewer.layers.selection.active)

    def let_go(self) -> None:
        """Give the key back to napari."""
        self.follow(None)
        self._held = False
        _unbind(self._viewer, self._pressed)

    def follow(self, active: Any) -> None:
        """Take the key on the active layer, too, if it is an image: there napari has its own."""
        image = None if self._image is None else self._image()
        if image is not None and image is not active:
            image.bind_key(KEY, None)
            self._image = None
        if self._held and isinstance(active, Image) and self._image is None:
            active.bind_key(KEY, self._pressed, overwrite=True)
            self._image = weakref.ref(active)


def _toggling(panel: weakref.ref[ClickPanel]) -> Callable[[Any], None]:
    def pressed(_: Any) -> None:
        found = panel()
        if found is not None and not typing():
            found.toggle()

    return pressed


def _unbind(viewer: weakref.ref[Any], pressed: Callable[[Any], None], *_: object) -> None:
    """Give the key back, unless another panel has taken it."""
    found = viewer()
    if found is not None and pressed in found.keymap.values():
        found.bind_key(KEY, None, overwrite=True)
