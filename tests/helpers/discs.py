"""Discs on a grid: what tests train tiny networks on, and look for."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


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


def disc_image(diameter: float, size: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw bright discs on a dark ground, blurred as a microscope would; return labels, too."""
    rng, step = np.random.default_rng(seed), round(1.6 * diameter)
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.uint16)
    for cy in range(step // 2, size, step):
        for cx in range(step // 2, size, step):
            cy_, cx_ = (c + rng.uniform(-0.1, 0.1) * diameter for c in (cy, cx))
            inside = (y - cy_) ** 2 + (x - cx_) ** 2 < (diameter / 2) ** 2
            labels[inside] = labels.max() + 1
    image = ndimage.gaussian_filter((labels > 0) * 100.0, 0.06 * diameter)
    return image + rng.normal(0, 3, image.shape), labels


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    """Return one disc as a mask, bool (Y, X)."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def nested_image(inner: float = 20, outer: float = 74, size: int = 330) -> np.ndarray:
    """Draw grey discs on a bright ground, with a dark one in each: cells of a stained smear."""
    rng, step = np.random.default_rng(0), round(1.08 * outer)
    y, x = np.mgrid[:size, :size]
    image = np.full((size, size), 0.9)
    for cy in range(45, size, step):
        for cx in range(45, size, step):
            away = np.hypot(y - cy - rng.uniform(-4, 4), x - cx - rng.uniform(-4, 4))
            image[away < outer / 2] = 0.7
            image[away < inner / 2] = 0.35
    return ndimage.gaussian_filter(image, 1.2) + rng.normal(0, 0.02, image.shape)
