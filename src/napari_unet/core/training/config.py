"""Train settings with nothing left open: what was asked for, resolved with the data."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.image.diameters import working_scale
from napari_unet.core.settings.tasks import TrainSettings

if TYPE_CHECKING:
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.training.samples import Samples

CROP = {2: 192, 3: 64}
"""Edge length of a crop in y and x, for planes and volumes."""
BATCH = {2: 8, 3: 2}
FEWEST, SMALLEST = {2: 2, 3: 1}, {2: 192, 3: 32}
"""Crops a step, and edge length of a crop, below which a training does not go to be faster."""
OPEN = ("steps", "batch", "crop", "learning_rate", "validate_every")
"""Settings that may be left open."""


@dataclass(frozen=True)
class TrainConfig(TrainSettings):
    """What `train` works by.

    Attributes
    ----------
    planes
        How many planes a crop of a volume has; None for planes.
    validate_every
        Steps between validations; 0: whenever they have taken a tenth of the time so far.
    freeze_after
        Share of the budget after which the statistics of BatchNorm stay as they are.
    pace
        Seconds; a step that takes longer is the last of its size, see `lighter`. None: whatever it
        takes.
    """

    steps: int = 4000
    batch: int = 8
    crop: int = 192
    learning_rate: float = 2e-3
    validate_every: int = 250
    planes: int | None = None
    freeze_after: float = 1.0
    pace: float | None = None

    def lighter(self) -> TrainConfig:
        """Return a recipe whose steps take half the time, or less: fewer crops, then smaller ones.

        The crops of planes stay as large as they are, for the network sees far in them.
        """
        ndim = 2 if self.planes is None else 3
        if self.batch > FEWEST[ndim]:
            return replace(self, batch=self.batch // 2)
        if self.planes is None or self.crop // 2 < SMALLEST[ndim]:
            return self
        return replace(self, crop=self.crop // 2, planes=max(1, self.planes // 2))


def resolve_config(
    settings: TrainSettings, spec: ModelSpec, samples: Samples, **chosen: Any
) -> TrainConfig:
    """Fill in what the settings leave open.

    Parameters
    ----------
    settings
        A recipe is returned as it is.
    spec, samples
        The network, and what it is to be trained on.
    chosen
        Values for what is open, where they are not those of a training from scratch, and what
        settings cannot say.
    """
    if isinstance(settings, TrainConfig):
        return settings
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    usual = {"batch": BATCH[spec.ndim], "crop": CROP[spec.ndim]}
    usual["freeze_after"] = 0 if settings.freeze_norm else 1
    for name in OPEN:
        if values[name] is None:
            del values[name]
    values = {**usual, **chosen, **values}
    if spec.ndim == 3:
        values.setdefault("planes", crop_planes(spec, values["crop"]))
    recipe = TrainConfig(**values)
    if settings.epochs is not None and settings.minutes is None:
        steps = math.ceil(settings.epochs * epoch_steps(samples, recipe))
        recipe = TrainConfig(**{**values, "steps": steps})
    return recipe


def crop_planes(spec: ModelSpec, crop: int) -> int:
    """Return how many planes a crop of a volume has: half of what the poolings make of `crop`."""
    z, y = spec.stride[0], spec.stride[-1]
    return max(1, round(crop / y / 2)) * z


def epoch_steps(samples: Samples, recipe: TrainConfig) -> int:
    """Return in how many steps as much is seen as is known."""
    known = sum(
        np.count_nonzero(item.known)
        * working_scale(item.diameter, recipe.diameter) ** item.known.ndim
        for item in samples.items
    )
    return max(1, math.ceil(known / (recipe.batch * recipe.crop**2 * (recipe.planes or 1))))
