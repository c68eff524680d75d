"""Training settings with nothing left open, and whether the samples fit the network."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.image.diameters import working_scale
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.settings.tasks import LEAST_MINUTES, TrainSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.training.samples import Samples

CROP = {2: 192, 3: 64}
"""Edge length of a crop in y and x, for planes and volumes."""
BATCH = {2: 8, 3: 2}
"""Crops in a step, for planes and volumes."""
MIN_BATCH, MIN_CROP = {2: 2, 3: 1}, {2: 192, 3: 32}
"""Crops in a step, and edge length of a crop, below which steps are not made any faster."""
OPEN = ("steps", "batch", "crop", "learning_rate", "validate_every")
"""Settings that the user may leave open."""

TUNING_MINUTES = {"cpu": 3.0}
"""Budget of a tuning where none is given; 1 minute on any other device."""
TUNING_RATE = 5e-4
"""Twice this rate learns a little faster, but forgets what the model knew before it learns."""
TUNING_PLAIN = 0.5
"""Share of the crops that a tuning shows as the finished network will see them."""
NORM_TRAINED = 0.7
"""Share of the budget after which a training from scratch freezes the statistics of BatchNorm:
those of a small batch are far from the ones that the network is used with."""
MAX_STEP_S = 0.5
"""Seconds that a step of a tuning may take, so that Cancel takes effect soon."""
OBJECT_SHARE = 0.25
"""Share of an image that objects are assumed to cover, for a model that does not say ..."""
OBJECT_SHARE_LIMITS = (0.15, 0.6)
"""... and the limits within which a model's own statistics are believed."""
WORKING_DIAMETERS = (12.0, 40.0)
"""A new model works at its objects' median diameter, within these limits, in pixels."""


@dataclass(frozen=True)
class TrainConfig(TrainSettings):
    """Every number that `train` works by.

    Attributes
    ----------
    planes
        How many planes a crop of a volume has; None for planes.
    validate_every
        Steps between validations; 0: whenever they have taken a tenth of the time so far.
    freeze_after
        Share of the budget after which the statistics of BatchNorm stay as they are.
    max_step_s
        Seconds; a step that takes longer is the last of its size, see `with_faster_steps`. None:
        steps may take any time.
    """

    steps: int = 4000
    batch: int = 8
    crop: int = 192
    learning_rate: float = 2e-3
    validate_every: int = 250
    planes: int | None = None
    freeze_after: float = 1.0
    max_step_s: float | None = None

    def minutes_of(self, share: float) -> float | None:
        """Return a share of the minutes, not less than may be set; None if steps are counted."""
        return None if self.minutes is None else max(LEAST_MINUTES, share * self.minutes)

    def with_faster_steps(self) -> TrainConfig:
        """Return a config whose steps take at most half the time: fewer crops, then smaller ones.

        Crops of planes keep their size, as the network sees far in them.
        """
        ndim = 2 if self.planes is None else 3
        if self.batch > MIN_BATCH[ndim]:
            return replace(self, batch=self.batch // 2)
        if self.planes is None or self.crop // 2 < MIN_CROP[ndim]:
            return self
        return replace(self, crop=self.crop // 2, planes=max(1, self.planes // 2))


def resolve_config(
    settings: TrainSettings, spec: ModelSpec, samples: Samples, **defaults: Any
) -> TrainConfig:
    """Fill in what the settings leave open.

    Parameters
    ----------
    settings
        A `TrainConfig` is returned as it is.
    spec, samples
        The network, and what it is to be trained on.
    defaults
        Values for what is open, where they differ from those of a training from scratch, and for
        the fields that only `TrainConfig` has.
    """
    if isinstance(settings, TrainConfig):
        return settings
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    usual = {"batch": BATCH[spec.ndim], "crop": CROP[spec.ndim]}
    usual["freeze_after"] = 0 if settings.freeze_norm else 1
    for name in OPEN:
        if values[name] is None:
            del values[name]
    values = {**usual, **defaults, **values}
    if spec.ndim == 3:
        values.setdefault("planes", crop_planes(spec, values["crop"]))
    config = TrainConfig(**values)
    if settings.epochs is not None and settings.minutes is None:
        steps = math.ceil(settings.epochs * epoch_steps(samples, config))
        config = TrainConfig(**{**values, "steps": steps})
    return config


def resolve_tuning_config(
    settings: TrainSettings,
    spec: ModelSpec,
    samples: Samples,
    device: str,
    diameter: float | None,
    *,
    scratch: bool,
) -> TrainConfig:
    """Fill in what the settings leave open, as suits a tuning or a training from scratch.

    Parameters
    ----------
    settings, spec, samples
        As for `resolve_config`.
    device
        Type of the device, such as "cpu" or "cuda".
    diameter
        Of the objects that the model works on in training, in pixels; None if unknown.
    scratch
        Whether the model knows nothing yet.
    """
    if settings.minutes is settings.epochs is settings.steps is None:
        settings = replace(settings, minutes=TUNING_MINUTES.get(device, 1.0))
    if settings.diameter is None:
        settings = replace(settings, diameter=diameter)
    defaults: dict[str, Any] = {"freeze_after": NORM_TRAINED if scratch else 0.0}
    if not scratch:
        defaults["learning_rate"] = TUNING_RATE
    if device == "cpu":
        defaults["batch"] = 4 if spec.ndim == 2 else 1
    if settings.minutes is not None:
        max_step_s = MAX_STEP_S if settings.batch is None else None
        defaults |= {"validate_every": 0, "max_step_s": max_step_s}
    settings = replace(settings, plain=max(settings.plain, TUNING_PLAIN))
    config = resolve_config(settings, spec, samples, **defaults)
    if config.minutes is None and settings.validate_every is None:  # at least 8 validations
        config = replace(config, validate_every=max(1, min(250, config.steps // 8)))
    return config


def crop_planes(spec: ModelSpec, crop: int) -> int:
    """Return how many planes a crop of a volume has: half of what the poolings make of `crop`."""
    z, y = spec.stride[0], spec.stride[-1]
    return max(1, round(crop / y / 2)) * z


def epoch_steps(samples: Samples, config: TrainConfig) -> int:
    """Count the steps in which as many pixels are seen as are known."""
    known = sum(
        np.count_nonzero(item.known)
        * working_scale(item.diameter, config.diameter) ** item.known.ndim
        for item in samples.items
    )
    return max(1, math.ceil(known / (config.batch * config.crop**2 * (config.planes or 1))))


def choose_working_diameter(
    settings: TrainSettings, samples: Samples, known: float | None
) -> float | None:
    """Return the diameter (px) that objects are zoomed to in training; None without any objects.

    `known` is the diameter that the model works on already, if it does.
    """
    diameter = settings.diameter or known
    if diameter is None and (found := [i.diameter for i in samples.items if i.diameter]):
        diameter = float(np.clip(np.median(found), *WORKING_DIAMETERS))
    return diameter


def usual_object_share(training: Mapping[str, Any]) -> float:
    """Return the share of an image that objects usually cover, by a card's entry `training`."""
    statistics = training.get("statistics") or {}
    if "share" not in statistics:
        return OBJECT_SHARE
    return float(np.clip(np.mean(statistics["share"]), *OBJECT_SHARE_LIMITS))


def check_samples(spec: ModelSpec, samples: Samples, *, alone: bool = True) -> None:
    """Raise an error unless a network can learn from the samples.

    Parameters
    ----------
    alone
        Whether the samples are all that it learns from; otherwise there are rehearsal crops, too.

    Raises
    ------
    InputError
        Nothing is known, the samples do not fit the model, or a class has no example.
    """
    if not samples.items:
        raise InputError("There are no corrections yet; correct some objects, then fine-tune.")
    ndim, channels = samples.items[0].known.ndim, samples.items[0].image.shape[0]
    if (ndim, channels) != (spec.ndim, spec.in_channels):
        raise InputError(
            f"The images are {ndim}D with {channels} channels, the model takes "
            f"{spec.ndim}D images with {spec.in_channels}; build the samples with "
            "Samples.from_labels(..., channels=model.spec.in_channels), or choose another model."
        )
    if not any(item.known.any() for item in samples.items):
        raise InputError(
            "Nothing is known: no pixel of any image was marked as checked or corrected; mark "
            "what you have looked at, then fine-tune."
        )
    present = np.unique(np.concatenate([np.unique(i.labels[i.known]) for i in samples.items]))
    if isinstance(samples.head, InstanceHead):
        if alone and not (present > 0).any():
            raise InputError("There is no object in what is known; label at least one, then train.")
        return
    if missing := sorted(set(range(samples.head.classes)) - set(present.tolist())):
        raise InputError(
            f"Class {missing[0]} has no example in what is known; label some of it, or choose "
            f"fewer classes than {samples.head.classes}."
        )
