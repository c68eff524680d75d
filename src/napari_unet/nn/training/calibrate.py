"""What is measured once a training is finished: decoding, number format and statistics.

Everything here is measured on validation samples and written into the model's card.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.evaluation.metrics import Scores, evaluate, evaluate_known
from napari_unet.core.image.domain_shift import statistic_ranges
from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.settings.tasks import DecodeSettings, PredictSettings
from napari_unet.core.training.holdout import count_known
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.diameter_estimation import (
    LEAST_EDGE,
    sample_frame,
    try_sample,
)
from napari_unet.nn.inference.scale_trials import CONCLUSIVE_COUNT, try_scale
from napari_unet.nn.inference.size_regression import SizeRegressor
from napari_unet.nn.training.cancellation import StopHook, run_cancellable
from napari_unet.nn.training.held_out import CORRECTIONS, LOOKED_AT, decode_sample, sample_maps

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.training.training_sample import Sample
    from napari_unet.nn.inference.model import Model


THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8)
MERGES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
MIN_SIZES = (10, 20, 30, 50, 70, 100)
LEVELS = (0.5, 0.75, 0.9)


def scores_by_group(
    maps: Sequence[np.ndarray],
    samples: Samples,
    settings: DecodeSettings,
    diameter: float | None = None,
) -> dict[str, Scores]:
    """Score the objects in maps against the samples' labels, pooled over each group.

    `diameter` is the model's working diameter in network pixels, the unit of `settings.min_size`.
    """
    groups: dict[str, list[Scores]] = {}
    for values, sample in zip(maps, samples.items, strict=True):
        labels = decode_sample(values, sample, settings, diameter)
        groups.setdefault(sample.group, []).append(evaluate(labels, sample.labels, LEVELS))
    return {group: Scores.pooled(several) for group, several in sorted(groups.items())}


def calibrate(
    maps: Sequence[np.ndarray], samples: Samples, diameter: float | None = None
) -> DecodeSettings:
    """Choose threshold, merging depth and smallest size by AP at IoU 0.5, averaged over groups.

    `diameter` is the model's working diameter.
    """

    def quality(settings: DecodeSettings) -> float:
        groups = scores_by_group(maps, samples, settings, diameter).values()
        return float(np.mean([scores.ap[0] for scores in groups]))

    grid = itertools.product(THRESHOLDS, MERGES)
    best = max((DecodeSettings(t, m, MIN_SIZES[2]) for t, m in grid), key=quality)
    return max((best.updated(min_size=size) for size in MIN_SIZES), key=quality)


def format_agreement(model: Model, samples: Samples, precision: str = "bfloat16") -> float:
    """Return the foreground's Dice of a shorter number format against float32, pooled.

    Of classes it is the share of the pixels that are of the same class in both.
    """
    both = total = 0
    for sample in samples.items:
        maps = [sample_maps(model, sample, p) for p in ("float32", precision)]
        if isinstance(samples.head, SemanticHead):
            both += int(np.sum(maps[0].argmax(0) == maps[1].argmax(0)))
            total += maps[0][0].size
            continue
        exact, short = (decode_instances(values, model.decoding) > 0 for values in maps)
        both += 2 * int(np.sum(exact & short))
        total += int(exact.sum() + short.sum())
    return both / total if total else 1.0


ZOOMS, FAR, NEAR = 6, 3.0, 0.5
"""Zooms at which an image is looked at to fit a size regressor: half of them up to 2 to the power
of `FAR` from the right one, half close to it, with that standard deviation of the power."""
ZOOM_LIMITS = (0.05, 8.0)
"""Zooms at which images are looked at, if `LEAST_EDGE` pixels are left of them."""


def fit_size_regressor(model: Model, samples: Samples, seed: int = 0) -> SizeRegressor:
    """Teach how large objects are by the look of an image, from images at right and wrong zooms.

    Parameters
    ----------
    model
        With a working diameter.
    samples
        Labelled images; each group counts by the square root of its size.
    seed
        Of the zooms.
    """
    rng, settings, wanted = np.random.default_rng(seed), PredictSettings(), model.diameter or 0.0
    features, errors, groups = [], [], []
    for sample in samples.items:
        if not sample.diameter:
            continue
        frame = sample_frame(model, sample)
        powers = [*rng.uniform(-FAR, FAR, ZOOMS // 2), *rng.normal(0, NEAR, ZOOMS - ZOOMS // 2)]
        for power in powers:
            zoom = wanted / sample.diameter * 2**power
            in_limits = ZOOM_LIMITS[0] < zoom <= ZOOM_LIMITS[1]
            if in_limits and zoom * max(sample.labels.shape) >= LEAST_EDGE:
                features.append(try_scale(frame, zoom, model, settings).features)
                errors.append(power * math.log(2))
                groups.append(sample.group)
    counts = Counter(groups)
    weights = np.array([counts[group] ** -0.5 for group in groups])
    return SizeRegressor.fit(np.array(features), np.array(errors), weights)


MIN_OBJECTS = 20
"""Corrected objects needed to calibrate the decoding; on fewer it would be fitted to chance."""
PARTIAL_WEIGHT = 1.5
"""Images with this `background_weight` or more are left out: so little of their background is known
that they do not show false objects."""
MIN_IMAGES, MAX_IMAGES = 8, 32
"""Images needed to record their statistics, and the number that is measured at most."""
MAX_SEEN = 2.0
"""Objects that look larger or smaller to a tuned model than they were taught by more than this
ratio are clumps or fragments."""
MIN_GAIN = 0.02
"""A decoding must raise AP by this much to be preferred: few objects decide."""
MERGE_OBJECTS, MERGE_GAIN, PRIOR_OBJECTS = 10, 2, 20
"""Corrected objects needed to choose another merging depth, how many errors it has to save, and for
how many objects the depth of before speaks."""
MAX_LOSS = 0.01
"""So much AP of what the model could do before may be lost by another merging depth."""
SCORED_PIXELS = 2**20
"""Of each corrected image at most so many pixels are looked at for its merging depth, and of all
images twice as many: it is done while the user waits."""


def complete_card(
    model: Model, samples: Samples, held: Samples, *, scratch: bool = False
) -> Generator[None, None, ModelCard]:
    """Measure what a tuned model's card lacks: decoding, number format and statistics.

    Parameters
    ----------
    model
        The tuned model.
    samples
        What it was tuned on.
    held
        What was held out; may be empty.
    scratch
        Whether the model knew nothing before.
    """
    card = model.card
    if isinstance(samples.head, InstanceHead):
        merge = yield from _merging_depth(model, samples, held, scratch)
        if merge != model.decoding.merge:
            card = card.replace(decode={**card.decode, "merge": merge})
        known = [
            item
            for item in held.items
            if count_known(item, held) and item.background_weight < PARTIAL_WEIGHT
        ]
        corrected = [item for item in known if item.group == CORRECTIONS]
        if sum(count_known(item, held) for item in corrected) >= MIN_OBJECTS:
            divided = replace(model, card=card)
            decode = yield from _calibrated(divided, Samples(known, held.head))
            card = card.replace(decode=decode)
        notes = yield from _looked_at(model, samples)
        card = card.replace(training={**card.training, **notes})
    if held.items:
        yield
        few = Samples(held.items[:8], held.head)
        agreement = yield from run_cancellable(partial(format_agreement, model, few))
        card = card.replace(metrics={**card.metrics, "bfloat16_dice": round(agreement, 5)})
    return card


def _merging_depth(
    model: Model, samples: Samples, held: Samples, scratch: bool
) -> Generator[None, None, float]:
    """Choose how deep a valley has to be to divide an object, on all that was corrected.

    What was trained on counts, too: a few minutes do not teach single valleys by heart; what a long
    training from scratch was shown would not do, so there it is what was held out. From the depth
    of before, the next ones are tried as long as more objects are found, and what the model could
    do before stays.
    """
    best = model.decoding.merge
    known = [item for item in held.items if item.group == CORRECTIONS] if scratch else samples.items
    corrected: list[Sample] = []
    for item in known[:: -(-len(known) // LOOKED_AT) or 1]:
        if sum(i.labels.size for i in corrected) < 2 * SCORED_PIXELS and count_known(item, samples):
            corrected.append(_middle(item))
    count = sum(count_known(item, samples) for item in corrected)
    if count < MERGE_OBJECTS:
        return best
    replay = [item for item in held.items if item.group != CORRECTIONS]
    maps, precision = [], model.choose_precision()
    stop_hook = StopHook(model.runner(precision).net)
    for item in (*corrected, *replay):
        predict = partial(sample_maps, model, item, precision)
        maps.append((yield from run_cancellable(predict, stop_hook)))
        yield

    def found(merge: float) -> Generator[None, None, tuple[Scores, float]]:
        scores, settings = [], model.decoding.updated(merge=merge)
        for values, item in zip(maps, (*corrected, *replay), strict=True):
            decode = partial(decode_sample, values, item, settings, model.diameter)
            labels = yield from run_cancellable(decode)
            scores.append(evaluate_known(labels, item.labels, item.known, (0.5,)))
            yield
        taught, before = scores[: len(corrected)], scores[len(corrected) :]
        return Scores.pooled(taught), float(Scores.pooled(before).ap[0]) if before else 0.0

    def errors(scores: Scores) -> int:
        return scores.objects + scores.true_objects - 2 * int(scores.tp[0])

    first, least = yield from found(best)
    top = first.ap[0] + MIN_GAIN * (1 + PRIOR_OBJECTS / count)
    deeper = [merge for merge in MERGES if merge > best]
    shallower = [merge for merge in reversed(MERGES) if merge < best]
    for candidates in (deeper, shallower):
        last = first
        for merge in candidates:
            taught, before = yield from found(merge)
            if taught.ap[0] < last.ap[0] or before < least - MAX_LOSS:
                break
            last = taught
            if taught.ap[0] > top and errors(taught) <= errors(first) - MERGE_GAIN:
                best, top = merge, taught.ap[0]
    return best


def _middle(item: Sample) -> Sample:
    """Cut `SCORED_PIXELS` out of a sample, around the middle of its known objects."""
    edge = int(SCORED_PIXELS ** (1 / item.labels.ndim))
    middle = np.median(np.argwhere(item.known_labels), axis=0)
    window = tuple(
        slice(start := int(np.clip(at - edge / 2, 0, max(0, size - edge))), start + edge)
        for at, size in zip(middle, item.labels.shape, strict=True)
    )
    inner = (slice(None), *window)
    return replace(
        item,
        image=item.image[inner],
        labels=item.labels[window],
        targets=item.targets[inner],
        known=item.known[window],
    )


def _calibrated(model: Model, held: Samples) -> Generator[None, None, dict[str, float]]:
    """Choose threshold and smallest size one after the other."""
    maps: list[np.ndarray] = []
    seen = []
    for item in held.items:
        maps.append((yield from run_cancellable(partial(sample_maps, model, item))) * item.known)
        seen.append(replace(item, labels=item.known_labels))
        yield
    part = Samples(seen, held.head)

    def quality(settings: DecodeSettings) -> float:
        groups = scores_by_group(maps, part, settings, model.diameter).values()
        return sum(float(scores.ap[0]) for scores in groups) / len(groups)

    best = model.decoding
    top = yield from run_cancellable(partial(quality, best))
    axes = {"threshold": THRESHOLDS, "min_size": MIN_SIZES}
    for name, values in axes.items():
        for value in values:
            yield
            tried = best.updated(**{name: value})
            score = yield from run_cancellable(partial(quality, tried))
            if score > top + MIN_GAIN:
                best, top = tried, score
    return {"threshold": best.threshold, "merge": best.merge, "min_size": best.min_size}


def _looked_at(model: Model, samples: Samples) -> Generator[None, None, dict[str, Any]]:
    """Look at the corrected images; return what the card's entry `training` is to say of them.

    The ranges of image statistics are the parent's, widened by those of the new images; without a
    parent's, a few images are not enough to know what is usual. How large the objects look to the
    tuned model is compared with the size that it was taught.
    """
    before: dict[str, Any] = model.card.training.get("statistics") or {}
    step = -(-len(samples.items) // MAX_IMAGES)
    seen, ratios = [], []
    for item in samples.items[::step]:
        yield
        trial = yield from run_cancellable(partial(try_sample, model, item))
        if trial is not None:
            seen.append(trial.shift_statistics)
            if trial.objects >= CONCLUSIVE_COUNT and item.diameter:
                ratios.append(trial.diameter / item.diameter)
    found: dict[str, Any] = {"statistics": before} if before else {}
    taught = model.card.training.get("taught_diameter")
    if taught and ratios:
        ratio = float(np.clip(np.median(ratios), 1 / MAX_SEEN, MAX_SEEN))
        found["taught_diameter"] = {**taught, "seen": round(ratio, 3)}
    if not seen or (not before and len(seen) < MIN_IMAGES):
        return found
    ranges = statistic_ranges(seen)
    for name, (low, high) in before.items():
        if name in ranges:
            ranges[name] = [min(low, ranges[name][0]), max(high, ranges[name][1])]
    return {**found, "statistics": ranges}
