"""Events of the model store, for all panels that show its models."""

from __future__ import annotations

import functools
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_unet.core.models.store import ModelEntry, list_models


class ModelEvents(QObject):
    """Connects the panels that store, remove or choose a model with those that offer models.

    Emits `changed` when a model was stored or removed, and `chosen` with the name of the model that
    the user wants to go on with.
    """

    changed = Signal()
    chosen = Signal(str)


@functools.cache
def get_model_events() -> ModelEvents:
    """Return the only instance of the process; to be called in the window's thread."""
    return ModelEvents()


def offer_models(box: Any, *, usable: bool = False) -> dict[str, ModelEntry]:
    """Update a combo box of the models in the store; what is chosen stays if it is still there.

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
