"""What a finished training still has to settle: how its maps become objects, and in which format.

Everything here is measured on validation samples and written into the model's card.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.core.evaluation.metrics import Scores, evaluate
from napari_unet.core.image.diameters import working_scale
from napari_unet.core.image.frames import resize
from napari_unet.core.instances.heads import get_head
from napari_unet.core.instances.tile_merger import DecodeSettings, decode_instances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.training.samples import Sample, Samples
    from napari_unet.nn.inference.model import Model

THRESHOLDS = (0.4, 0.5, 0.6, 0.7, 0.8)
MERGES = (0.1, 0.15, 0.2, 0.25, 0.3)
MIN_SIZES = (10, 20, 30, 50, 70)
LEVELS = (0.5, 0.75, 0.9)


def sample_maps(model: Model, sample: Sample, precision: str = "float32") -> np.ndarray:
    """Return a model's maps of one sample, whole: float32 (K, [Z,] Y, X).

    The network works at the scale that the sample's objects ask for, as `segment` does when it is
    told their diameter.
    """
    size = sample.labels.shape
    scale = working_scale(sample.diameter, model.diameter)
    image = resize(sample.image, tuple(max(1, round(n * scale)) for n in size))
    raw = model.runner(precision)(torch.from_numpy(image)[None])[0]
    return get_head(model.spec).activate(resize(raw.cpu().numpy(), size))


def scores_by_group(
    maps: Sequence[np.ndarray],
    samples: Samples,
    settings: DecodeSettings,
    diameter: float | None = None,
) -> dict[str, Scores]:
    """Score the objects in maps against the samples' labels, pooled over each group.

    `diameter` is the model's, in network pixels, which `settings.min_size` counts, too.
    """
    groups: dict[str, list[Scores]] = {}
    for values, sample in zip(maps, samples.items, strict=True):
        scale = working_scale(sample.diameter, diameter)
        labels = decode_instances(values, settings.in_image(scale, sample.labels.ndim))
        groups.setdefault(sample.group, []).append(evaluate(labels, sample.labels, LEVELS))
    return {group: Scores.pooled(several) for group, several in sorted(groups.items())}


def calibrate(
    maps: Sequence[np.ndarray], samples: Samples, diameter: float | None = None
) -> DecodeSettings:
    """Choose threshold, merging depth and smallest size.

    The best is what maximises AP at IoU 0.5, averaged over the groups. `diameter` is the model's.
    """

    def quality(settings: DecodeSettings) -> float:
        groups = scores_by_group(maps, samples, settings, diameter).values()
        return float(np.mean([scores.ap[0] for scores in groups]))

    grid = itertools.product(THRESHOLDS, MERGES)
    best = max((DecodeSettings(t, m, MIN_SIZES[2]) for t, m in grid), key=quality)
    return max((best.updated(min_size=size) for size in MIN_SIZES), key=quality)


def format_agreement(model: Model, samples: Samples, precision: str = "bfloat16") -> float:
    """Return the Dice of the foreground in a shorter number format against float32, pooled."""
    both = total = 0
    for sample in samples.items:
        exact, short = (
            decode_instances(sample_maps(model, sample, p), model.decoding) > 0
            for p in ("float32", precision)
        )
        both += int(np.sum(exact & short))
        total += int(exact.sum() + short.sum())
    return 2 * both / total if total else 1.0
