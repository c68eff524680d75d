"""What a finished tuning still has to settle for its card, in steps that nobody waits for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_unet.core.image.domain_shift import statistic_ranges
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.training.holdout import count_known
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.diameter_estimation import training_statistics
from napari_unet.nn.training.calibrate import (
    MERGES,
    MIN_SIZES,
    THRESHOLDS,
    format_agreement,
    sample_maps,
    scores_by_group,
)
from napari_unet.nn.training.cancellation import run_with_heartbeat
from napari_unet.nn.training.held_out import CORRECTIONS

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy as np

    from napari_unet.core.instances.tile_merger import DecodeSettings
    from napari_unet.core.models.card import ModelCard
    from napari_unet.nn.inference.model import Model

ENOUGH = 20
"""Corrected objects from which on the decoding is calibrated; on fewer it would be fitted to
chance."""
SPARSE = 1.5
"""From this `background_weight` on an image does not show what is found falsely elsewhere in it."""
FEWEST_IMAGES, MOST_IMAGES = 8, 32
"""From how many images on their statistics are taken down, and of how many at most."""
GAIN = 0.02
"""A decoding has to be better by so much than the one before, as an AP: few objects decide."""


def post_training_card(
    model: Model, samples: Samples, held: Samples
) -> Generator[None, None, ModelCard]:
    """Fill in a tuned model's card: decoding, agreement of number formats, statistics.

    Parameters
    ----------
    model
        With the weights to keep.
    samples
        What it was tuned on.
    held
        What it was not; may be empty.
    """
    card = model.card
    if isinstance(samples.head, InstanceHead):
        known = [
            item
            for item in held.items
            if count_known(item, held) and item.background_weight < SPARSE
        ]
        corrected = [item for item in known if item.group == CORRECTIONS]
        if sum(count_known(item, held) for item in corrected) >= ENOUGH:
            decode = yield from _calibrated(model, Samples(known, held.head))
            card = card.replace(decode=decode)
        if statistics := (yield from _statistics(model, samples)):
            card = card.replace(training={**card.training, "statistics": statistics})
    if held.items:
        yield
        few = Samples(held.items[:8], held.head)
        agreement = yield from run_with_heartbeat(partial(format_agreement, model, few))
        card = card.replace(metrics={**card.metrics, "bfloat16_dice": round(agreement, 5)})
    return card


def _calibrated(model: Model, held: Samples) -> Generator[None, None, dict[str, float]]:
    """Choose threshold, merging depth and smallest size one after the other."""
    maps: list[np.ndarray] = []
    seen = []
    for item in held.items:
        maps.append((yield from run_with_heartbeat(partial(sample_maps, model, item))) * item.known)
        seen.append(replace(item, labels=item.known_labels))
        yield
    part = Samples(seen, held.head)

    def quality(settings: DecodeSettings) -> float:
        groups = scores_by_group(maps, part, settings, model.diameter).values()
        return sum(float(scores.ap[0]) for scores in groups) / len(groups)

    best = model.decoding
    top = yield from run_with_heartbeat(partial(quality, best))
    axes = {"threshold": THRESHOLDS, "merge": MERGES, "min_size": MIN_SIZES}
    for name, values in axes.items():
        for value in values:
            yield
            tried = best.updated(**{name: value})
            score = yield from run_with_heartbeat(partial(quality, tried))
            if score > top + GAIN:
                best, top = tried, score
    return {"threshold": best.threshold, "merge": best.merge, "min_size": best.min_size}


def _statistics(model: Model, samples: Samples) -> Generator[None, None, dict[str, Any]]:
    """Widen the parent's ranges of statistics by those of the new images.

    A few images alone say nothing about what is usual.
    """
    before: dict[str, Any] = model.card.training.get("statistics") or {}
    step = -(-len(samples.items) // MOST_IMAGES)
    seen = []
    for item in samples.items[::step]:
        yield
        if item.image.std():  # of a blank image there is nothing to tell
            one = Samples([item], samples.head)
            alone = yield from run_with_heartbeat(partial(training_statistics, model, one))
            seen.append({name: low for name, (low, _) in alone.items()})
    if not seen or (not before and len(seen) < FEWEST_IMAGES):
        return before
    ranges = statistic_ranges(seen)
    for name, (low, high) in before.items():
        if name in ranges:
            ranges[name] = [min(low, ranges[name][0]), max(high, ranges[name][1])]
    return ranges
