"""The key that turns click mode on and off, wherever the user is; it keeps no panel alive."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

from napari.layers import Image

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.gui.click import ClickPanel

KEY = "c"


class ToggleKey:
    """Binds the key to a panel until that is gone.

    Parameters
    ----------
    viewer
        The window.
    panel
        What it turns on and off, by its `toggle`.
    """

    def __init__(self, viewer: Any, panel: ClickPanel) -> None:
        self._pressed = _toggling(weakref.ref(panel))
        self._image: weakref.ref[Image] | None = None
        viewer.bind_key(KEY, self._pressed, overwrite=True)
        panel.destroyed.connect(functools.partial(_unbind, weakref.ref(viewer)))

    def follow(self, active: Any) -> None:
        """Take the key on the active layer, too, if it is an image: there napari has its own."""
        image = None if self._image is None else self._image()
        if image is not None and image is not active:
            image.bind_key(KEY, None)
            self._image = None
        if isinstance(active, Image) and self._image is None:
            active.bind_key(KEY, self._pressed, overwrite=True)
            self._image = weakref.ref(active)


def _toggling(panel: weakref.ref[ClickPanel]) -> Callable[[Any], None]:
    def pressed(_: Any) -> None:
        found = panel()
        if found is not None:
            found.toggle()

    return pressed


def _unbind(viewer: weakref.ref[Any], *_: object) -> None:
    found = viewer()
    if found is not None:
        found.bind_key(KEY, None, overwrite=True)
