"""A small file that was written with what is known to be in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

SIZE_UM = {"Z": 2.0, "Y": 0.5, "X": 0.25}
"""Of the voxels in every sample whose format can say so."""
NAMES = ("DAPI", "actin")
"""Of the channels in every sample whose format can say so."""


@dataclass(frozen=True)
class Sample:
    """A written file.

    Attributes
    ----------
    path
        Of the file.
    values
        What is in it.
    axes
        A letter for each axis of `values`.
    others
        What is in the other images of the file, as many as it can hold.
    channel_names
        A name for each channel, as far as the format has names.
    """

    path: Path
    values: np.ndarray
    axes: str
    others: tuple[np.ndarray, ...] = ()
    channel_names: tuple[str, ...] = ()


def noise(axes: str, seed: int = 0, dtype: str = "u2") -> np.ndarray:
    sizes = {"T": 2, "C": 2, "Z": 3, "Y": 24, "X": 20, "S": 3}
    shape = [sizes[letter] for letter in axes]
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)
