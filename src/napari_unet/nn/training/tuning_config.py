"""By which recipe a model is tuned, and at which size of object it works meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.training.config import TrainConfig, resolve_config

if TYPE_CHECKING:
    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.settings.tasks import TrainSettings
    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.model import Model

MINUTES = {"cpu": 3.0}
"""Budget where none is given; 1 minute on any other device."""
TUNING_RATE = 5e-4
"""Twice as much learns a little faster, but forgets all it knew before it learns again."""
PLAIN = 0.5
"""Share of crops that a tuning shows as the finished network will see them."""
NORM_TRAINED = 0.7
"""Share of the budget after which a training from scratch freezes the statistics of BatchNorm:
those of a small batch are far from the ones that the network is used with."""
PACE = 0.5
"""Seconds that a step may take on a processor, so that Cancel is not waited for."""
SHARE = 0.25
"""Share of an image that objects are taken to cover, for a model that does not say ..."""
SHARES = (0.15, 0.6)
"""... and within which limits others are believed."""
SIZES = (12.0, 40.0)
"""A new model works at its objects' median diameter, within these limits (pixels)."""


def tuning_config(
    model: Model,
    settings: TrainSettings,
    training: Samples,
    diameter: float | None,
    *,
    scratch: bool,
) -> TrainConfig:
    """Fill in what the settings leave open, as befits a tuning or a training from scratch.

    Parameters
    ----------
    training
        What is trained on.
    diameter
        Of the objects that the model works on in training, in pixels; None if unknown.
    scratch
        Whether the model knows nothing yet.
    """
    device = model.device.type
    if settings.minutes is settings.epochs is settings.steps is None:
        settings = replace(settings, minutes=MINUTES.get(device, 1.0))
    if settings.diameter is None:
        settings = replace(settings, diameter=diameter)
    chosen: dict[str, Any] = {"freeze_after": NORM_TRAINED if scratch else 0.0}
    if not scratch:
        chosen["learning_rate"] = TUNING_RATE
    if device == "cpu":
        chosen["batch"] = 4 if model.spec.ndim == 2 else 1
    if settings.minutes is not None:
        chosen |= {"validate_every": 0, "pace": PACE if settings.batch is None else None}
    settings = replace(settings, plain=max(settings.plain, PLAIN))
    recipe = resolve_config(settings, model.spec, training, **chosen)
    if recipe.minutes is None and settings.validate_every is None:
        recipe = replace(recipe, validate_every=max(1, min(250, recipe.steps // 8)))
    return recipe


def working_card(model: Model, samples: Samples, settings: TrainSettings) -> ModelCard:
    """Return the card by which the model is run in training: it knows its working diameter."""
    diameter = settings.diameter or model.diameter
    if diameter is None and (found := [i.diameter for i in samples.items if i.diameter]):
        diameter = float(np.clip(np.median(found), *SIZES))
    if diameter is None:
        return model.card
    training = {**model.card.training, "working_diameter_px": round(diameter, 2)}
    return model.card.replace(training=training)


def usual_share(card: ModelCard) -> float:
    """Return which share of an image objects usually cover, by the images that a model knows."""
    statistics = card.training.get("statistics") or {}
    if "share" not in statistics:
        return SHARE
    return float(np.clip(np.mean(statistics["share"]), *SHARES))
