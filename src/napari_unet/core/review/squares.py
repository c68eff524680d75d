"""Squares that divide an image: each looked at as a whole, for what was missed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.tiles import Window

DIAMETERS = 6
"""Edge length, in diameters of the usual object."""
LEAST = 24
"""Smallest edge length, in pixels."""


@dataclass(frozen=True)
class Squares:
    """A grid of squares (in volumes, of cubes) over a frame; those at the far end are smaller.

    Attributes
    ----------
    shape
        The frame's.
    edge
        In pixels.
    """

    shape: tuple[int, ...]
    edge: int

    @classmethod
    def of_labels(cls, shape: Sequence[int], labels: np.ndarray) -> Squares:
        """Make squares as large as the objects of a frame want it."""
        sizes = np.unique(labels[labels > 0], return_counts=True)[1]
        size = float(np.median(sizes)) if len(sizes) else 0.0
        diameter = 2 * math.sqrt(size / math.pi)
        if len(shape) == 3:
            diameter = 2 * (size * 3 / 4 / math.pi) ** (1 / 3)
        return cls(tuple(shape), max(LEAST, round(DIAMETERS * diameter)))

    @property
    def counts(self) -> tuple[int, ...]:
        """How many there are along each axis."""
        return tuple(-(-n // self.edge) for n in self.shape)

    def __len__(self) -> int:
        return math.prod(self.counts)

    def at(self, place: Sequence[float]) -> int:
        """Return the number of the square that a place lies in."""
        at = tuple(int(p // self.edge) for p in place)
        return int(np.ravel_multi_index(at, self.counts, mode="clip"))

    def window(self, number: int) -> Window:
        """Return a square by its number."""
        corner = np.unravel_index(number, self.counts)
        return tuple(
            slice(int(c) * self.edge, min(n, (int(c) + 1) * self.edge))
            for c, n in zip(corner, self.shape, strict=True)
        )
