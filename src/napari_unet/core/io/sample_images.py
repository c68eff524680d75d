"""Images to try things on: the package's samples, and synthetic ones for measuring speed.

Where the samples come from, and their licences, stands in data/README.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_unet.core.errors import InputError

DATA = Path(__file__).parents[2] / "data"

SAMPLES = {
    "fluorescence": "nuclei in fluorescence, grey, 520 x 696",
    "histology": "nuclei in stained tissue, RGB, 256 x 320",
    "phase contrast": "living cells in phase contrast, grey, 512 x 512",
    "neuron": "a living neuron in bright field, grey, 480 x 640",
}
"""Names of the sample images, and what they show."""
_FILES = dict(
    zip(
        SAMPLES,
        ("nuclei_fluorescence", "nuclei_histology", "cells_phase_contrast", "neuron_brightfield"),
        strict=True,
    )
)


def sample_path(name: str) -> Path:
    """Return the file of a sample image.

    Raises
    ------
    InputError
        There is none of that name.
    """
    return _file(name, "")


def truth_path(name: str) -> Path:
    """Return the label file of a sample image, with its objects as experts outlined them.

    Raises
    ------
    InputError
        There is none of that name.
    """
    return _file(name, "_truth")


def _file(name: str, ending: str) -> Path:
    if name not in SAMPLES:
        raise InputError(f"There is no sample {name!r}; choose one of: {', '.join(SAMPLES)}.")
    return DATA / f"{_FILES[name]}{ending}.tif"


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a synthetic image of bright, round, touching objects in noise.

    Parameters
    ----------
    shape
        (Y, X) or (Z, Y, X).
    seed
        Of positions, sizes and noise.

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
