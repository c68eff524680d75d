"""A window of a frame that a click's answer is about, and its pixels in the stack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.tiles import Window


@dataclass(frozen=True)
class ClickWindow:
    """A window of a frame, and how its pixels lie in the stack's and in the head's.

    Attributes
    ----------
    window
        In network pixels.
    factor
        Network pixels averaged into one of the head's, along each axis.
    ratio
        Network pixels a stack pixel, along each axis.
    size
        The frame's, in stack pixels.
    """

    window: Window
    factor: int
    ratio: tuple[float, ...]
    size: tuple[int, ...]

    @property
    def in_stack(self) -> Window:
        """The stack's pixels whose centres lie in the window."""
        return tuple(
            slice(max(0, math.ceil(w.start / r - 0.5)), min(n, math.floor(w.stop / r - 0.5) + 1))
            for w, r, n in zip(self.window, self.ratio, self.size, strict=True)
        )

    def to_head(self, places: np.ndarray) -> np.ndarray:
        """Return positions in the stack (N, ndim) as positions in the head's window, float32."""
        start = np.array([w.start for w in self.window])
        network = (places + 0.5) * np.array(self.ratio)
        return np.asarray((network - start) / self.factor - 0.5, np.float32)

    def enlarged(self, values: np.ndarray) -> np.ndarray:
        """Resample the head's answer to the stack's pixels in the window, linearly."""
        at = [
            ((np.arange(place.start, place.stop) + 0.5) * r - w.start) / self.factor - 0.5
            for w, r, place in zip(self.window, self.ratio, self.in_stack, strict=True)
        ]
        return sample_linearly(values, at)


def sample_linearly(values: np.ndarray, at: Sequence[np.ndarray]) -> np.ndarray:
    """Return values at a grid of places, linearly between pixels; beyond the border, as there.

    Parameters
    ----------
    values
        float32, of any shape.
    at
        The grid's coordinates along each axis, a pixel's centre on the integer.
    """
    for axis, place in enumerate(at):
        size = values.shape[axis]
        if len(place) == size and np.allclose(place, np.arange(size)):
            continue
        inside = np.clip(place, 0, size - 1)
        low = np.minimum(inside.astype(int), max(0, size - 2))
        share = (inside - low).astype(np.float32)
        share = share.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        high = np.minimum(low + 1, size - 1)
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values
