"""Whether the computer is free for learning: the user rests, and it is plugged in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import psutil

from napari_unet.gui.layers.navigation import watch_presses

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QWidget

QUIET_S = 2.0
"""The user rests when the mouse has not been pressed in the window for so long."""


class UserActivity:
    """Hears the mouse in a window.

    Parameters
    ----------
    viewer, owner
        The window, and the widget that it is heard for.
    on_activity
        Called when the user does something.
    """

    def __init__(self, viewer: Any, owner: QWidget, on_activity: Callable[[], None]) -> None:
        self._down, self._at, self._on_activity = False, 0.0, on_activity
        watch_presses(viewer, owner, self._pressed)

    @property
    def quiet(self) -> bool:
        """Whether the user has done nothing for a while."""
        return not self._down and time.monotonic() - self._at > QUIET_S

    def note(self) -> None:
        """Take in that the user does something."""
        self._at = time.monotonic()
        self._on_activity()

    def _pressed(self, down: bool) -> None:
        """Take in that a mouse button was pressed or released."""
        self._down = down
        self.note()


def on_battery() -> bool:
    """Return whether the computer runs on its battery, as far as that can be known."""
    find = getattr(psutil, "sensors_battery", None)  # not there on every system
    state = None if find is None else find()
    return state is not None and state.power_plugged is False
