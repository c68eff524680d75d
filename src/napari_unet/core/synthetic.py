"""Synthetic images, for measuring speed where no real ones are at hand."""

from __future__ import annotations

import numpy as np


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a synthetic image of bright, round, touching objects in noise.

    Parameters
    ----------
    shape
        (Y, X) or (Z, Y, X).
    seed
        Of the places, sizes and noise.

    Returns
    -------
    np.ndarray
        uint16.
    """
    rng = np.random.default_rng(seed)
    image = rng.normal(200, 15, shape).astype(np.float32)
    spacing = 32 if len(shape) == 2 else 20
    for _ in range(max(1, int(np.prod(shape)) // spacing ** len(shape))):
        radius = rng.uniform(0.2, 0.45) * spacing
        centre = rng.uniform(0, shape)
        box = tuple(
            slice(max(0, int(c - radius)), min(n, int(c + radius) + 2))
            for c, n in zip(centre, shape, strict=True)
        )
        grid = np.ogrid[box]
        depth = 1 - sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) / radius**2
        bright = 200 + rng.uniform(300, 900) * np.clip(4 * depth, 0, 1)
        image[box] = np.maximum(image[box], bright)
    return image.round().astype(np.uint16)
