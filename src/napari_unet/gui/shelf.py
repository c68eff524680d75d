"""The news of the model store, for all that show its models: what came, and what is used now."""

from __future__ import annotations

from qtpy.QtCore import QObject, Signal


class Shelf(QObject):
    """Tells the sections of the window about models.

    Emits `changed` when a model was stored or removed, and `chosen` with the name of the model that
    the user wants to go on with.
    """

    changed = Signal()
    chosen = Signal(str)


_shelf: list[Shelf] = []


def shelf() -> Shelf:
    """Return the window's only shelf; to be asked for in the window's thread."""
    if not _shelf:
        _shelf.append(Shelf())
    return _shelf[0]
