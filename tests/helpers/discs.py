"""Discs on a grid: what tests train tiny networks on."""

from __future__ import annotations

import numpy as np


def disc_labels(
    rng: np.random.Generator, size: tuple[int, int] = (96, 200), radius: float = 7
) -> np.ndarray:
    """Return labels, uint16 (Y, X), of discs 24 pixels apart, each a little off the grid."""
    y, x = np.mgrid[: size[0], : size[1]]
    labels = np.zeros(size, np.uint16)
    for cy in range(14, size[0] - 8, 24):
        for cx in range(14, size[1] - 8, 24):
            at = (cy + rng.uniform(-3, 3), cx + rng.uniform(-3, 3))
            labels[(y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2] = labels.max() + 1
    return labels
