"""The news of the model store, for all that show its models: what came, and what is used now."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_unet.core.models.store import ModelEntry, list_models


class ModelEvents(QObject):
    """Tells the sections of the window about models.

    Emits `changed` when a model was stored or removed, and `chosen` with the name of the model that
    the user wants to go on with.
    """

    changed = Signal()
    chosen = Signal(str)


_shelf: list[ModelEvents] = []


def get_model_events() -> ModelEvents:
    """Return the window's only shelf; to be asked for in the window's thread."""
    if not _shelf:
        _shelf.append(ModelEvents())
    return _shelf[0]


def offer_models(box: Any, *, usable: bool = False) -> dict[str, ModelEntry]:
    """Let a combo box offer the models of the store; what is chosen stays if it is still there.

    Parameters
    ----------
    usable
        Leave those out whose card cannot be read.

    Returns
    -------
    dict
        The models that it offers, by name.
    """
    entries = [entry for entry in list_models() if entry.card is not None or not usable]
    models, chosen = {entry.name: entry for entry in entries}, box.value
    if tuple(box.choices) != tuple(models):
        box.choices = tuple(models)
    if chosen in models:
        box.value = chosen
    return models
