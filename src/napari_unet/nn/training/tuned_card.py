"""The card of a tuned model: by which it is run in training, and what it says afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.core.training.config import choose_working_diameter
from napari_unet.core.training.model_comparison import add_round, count_taught
from napari_unet.core.training.samples import find_voxel_ratio

if TYPE_CHECKING:
    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.settings.tasks import TrainSettings
    from napari_unet.core.training.model_comparison import ModelComparison
    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.model import Model

SMALL_SHARE = 0.5
"""Objects down to this share of the size of small taught ones are never dropped as debris."""


def working_card(model: Model, samples: Samples, settings: TrainSettings) -> ModelCard:
    """Return the card by which the model is run in training: it knows its working diameter."""
    diameter = choose_working_diameter(settings, samples, model.diameter)
    if diameter is None:
        return model.card
    training = {**model.card.training, "working_diameter_px": round(diameter, 2)}
    return model.card.replace(training=training)


def tuned_card(
    model: Model,
    working: ModelCard,
    samples: Samples,
    comparison: ModelComparison,
    *,
    steps: int,
    seconds: float,
    seed: int,
) -> ModelCard:
    """Return the card of a tuned model, without what `complete_card` measures.

    Parameters
    ----------
    model
        The model that it was tuned from.
    working
        The card by which it was run in training, see `working_card`.
    samples
        What was corrected.
    comparison
        Of both models.
    steps, seconds, seed
        Of the training.
    """
    before = model.card.training
    diameter: float | None = working.training.get("working_diameter_px")
    training: dict[str, Any] = {
        **samples.card(),
        "steps": steps,
        "seconds": round(seconds),
        "seed": seed,
        "working_diameter_px": diameter,
        "taught_diameter": samples.taught_diameter() or None,
        "voxel_ratio": find_voxel_ratio(samples),
    }
    training |= {name: before[name] for name in ("statistics", "sources") if name in before}
    if comparison.after is not None:
        taught = count_taught(training, comparison.metric)
        training["rounds"] = add_round(before, taught, comparison)
    return working.replace(
        training={name: value for name, value in training.items() if value is not None},
        decode=_decoding(model, working, samples, diameter),
        metrics={"tuning": comparison.to_json()},
        licence=model.card.licence_of_tuned,
        parent=model.card.hash or None,
        hash="",
        replay="",
    )


def _decoding(
    model: Model, working: ModelCard, samples: Samples, diameter: float | None
) -> dict[str, Any]:
    """Return how maps become objects: as before, but objects as small as taught ones stay."""
    small = samples.small_objects(diameter) if diameter else None
    if small is None or SMALL_SHARE * small >= model.decoding.min_size:
        return working.decode
    return {**working.decode, "min_size": max(1, round(SMALL_SHARE * small))}
