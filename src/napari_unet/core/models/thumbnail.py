"""The small picture of a model: what it was taught."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.evaluation.overlay import draw_outlines

if TYPE_CHECKING:
    from napari_unet.core.training.samples import Samples

EDGE = 128


def thumbnail_of(samples: Samples, edge: int = EDGE) -> np.ndarray:
    """Draw a part of the sample with the most known objects, uint8 (edge, edge, 3)."""
    sample = max(samples.items, key=lambda item: len(np.unique(item.known_labels)))
    image, labels = sample.image, sample.known_labels
    if labels.ndim == 3:
        z = int(np.argmax((labels > 0).sum((1, 2))))
        image, labels = image[:, z], labels[z]
    middle = np.argwhere(labels > 0).mean(0) if labels.any() else np.array(labels.shape) / 2
    low = [
        int(np.clip(m - edge / 2, 0, max(0, n - edge)))
        for m, n in zip(middle, labels.shape, strict=True)
    ]
    place = tuple(slice(start, start + edge) for start in low)
    image = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, 0)
    shown = np.asarray(255 * np.clip(np.moveaxis(image, 0, -1)[place], 0, 1), np.uint8)
    drawn = draw_outlines(shown, labels[place], zoom=1)
    beyond = [(0, edge - n) for n in drawn.shape[:2]]
    return np.pad(drawn, [*beyond, (0, 0)])
