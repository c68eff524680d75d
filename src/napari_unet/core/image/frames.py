"""Windows of a plane or volume as the network reads them: normalised, rescaled, padded.

A pixel has the same value in every window that holds it, whatever the tiles: percentiles are the
frame's, resampling is on the frame's grid, and beyond the far end the frame is mirrored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.image.normalise import Normaliser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Window


@dataclass(frozen=True)
class Resampling:
    """Linear resampling of one axis from `source` to `target` pixels.

    Shrinking widens the triangle filter accordingly, so that nothing aliases. Every target pixel
    is a sum over the same taps in the same order, whichever window it is computed in.
    """

    source: int
    target: int

    def taps(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return source positions (stop - start, T) and their float32 weights."""
        ratio = self.source / self.target
        reach = max(1.0, ratio)
        centre = (np.arange(start, stop) + 0.5) * ratio - 0.5
        first = np.floor(centre - reach).astype(np.int64) + 1
        index = first[:, None] + np.arange(math.ceil(2 * reach))
        weight = np.maximum(0, 1 - np.abs(index - centre[:, None]) / reach)
        weight /= weight.sum(1, keepdims=True)
        return np.clip(index, 0, self.source - 1), weight.astype(np.float32)

    def needs(self, start: int, stop: int) -> slice:
        """Return the source pixels on which the target window ``[start, stop)`` depends."""
        if self.source == self.target:
            return slice(start, stop)
        index, _ = self.taps(start, stop)
        return slice(int(index.min()), int(index.max()) + 1)

    def apply(self, values: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
        """Resample `values`, which hold ``needs(start, stop)`` along `axis`."""
        if self.source == self.target:
            return values
        index, weight = self.taps(start, stop)
        index = index - index.min()
        shape = [1] * values.ndim
        shape[axis] = stop - start
        parts: Iterator[np.ndarray] = (
            np.take(values, index[:, tap], axis) * weight[:, tap].reshape(shape)
            for tap in range(index.shape[1])
        )
        total = next(parts)
        for part in parts:
            total += part
        return total


@dataclass(frozen=True)
class Frame:
    """One plane or volume of a stack, as the network sees it.

    Attributes
    ----------
    stack, index, channels
        The frame's position along the leading axes, and the channels in the order of the network's
        inputs.
    normaliser
        The frame's own.
    size
        The frame's size in the stack, (Y, X) or (Z, Y, X).
    shape
        Its size for the network, after rescaling.
    """

    stack: Stack
    index: tuple[int, ...]
    channels: tuple[int, ...]
    normaliser: Normaliser
    size: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def from_stack(
        cls,
        stack: Stack,
        index: tuple[int, ...],
        ndim: int,
        channels: tuple[int, ...],
        *,
        percentiles: tuple[float, float] = (1.0, 99.8),
        scale: float = 1.0,
    ) -> Frame:
        """Measure the percentiles of a frame, and compute its size at `scale`."""
        size = stack.frame_shape(ndim)
        normaliser = Normaliser.from_stack(stack, index, ndim, _distinct(channels), *percentiles)
        return cls(stack, index, channels, normaliser, size, size).at(scale)

    def at(self, scale: float) -> Frame:
        """Return the frame at another scale, in network pixels per stack pixel."""
        return replace(self, shape=tuple(max(1, round(n * scale)) if n else 0 for n in self.size))

    @property
    def zooms(self) -> list[Resampling]:
        """Resampling from the stack's pixels to the network's, along each axis."""
        return [Resampling(n, m) for n, m in zip(self.size, self.shape, strict=True)]

    @property
    def rescaled(self) -> bool:
        """Whether the network's pixels differ from the stack's."""
        return self.size != self.shape

    @property
    def blank(self) -> bool:
        """Whether every channel is constant or without a number: there is nothing to find."""
        return bool((self.normaliser.low == self.normaliser.high).all())

    def read(self, window: Window) -> np.ndarray:
        """Read a window in the network's pixels; it may reach beyond the far end of any axis.

        Returns
        -------
        np.ndarray
            float32 (C, *window).
        """
        inside = self._inside(window)
        distinct = _distinct(self.channels)
        values = self.normaliser(self.stack.read(self.index, self.source(window), distinct))
        for axis, (zoom, w) in enumerate(zip(self.zooms, inside, strict=True), 1):
            values = zoom.apply(values, axis, w.start, w.stop)
        beyond = [(0, w.stop - i.stop) for w, i in zip(window, inside, strict=True)]
        values = np.pad(values, [(0, 0), *beyond], mode="symmetric")
        # A grey image for a network with three inputs is read and normalised once.
        return values[[distinct.index(channel) for channel in self.channels]]

    def source(self, window: Window) -> Window:
        """Return the stack's pixels on which a window in the network's pixels depends."""
        return tuple(
            zoom.needs(w.start, w.stop) if self.rescaled else w
            for zoom, w in zip(self.zooms, self._inside(window), strict=True)
        )

    def _inside(self, window: Window) -> Window:
        return tuple(
            slice(w.start, min(w.stop, n)) for w, n in zip(window, self.shape, strict=True)
        )

    def in_network(self, window: Window) -> Window:
        """Return the network's pixels on which a window in the stack's pixels depends."""
        return tuple(
            Resampling(m, n).needs(w.start, w.stop)
            for w, n, m in zip(window, self.size, self.shape, strict=True)
        )

    def to_stack(self, maps: np.ndarray, window: Window) -> np.ndarray:
        """Resample maps of ``in_network(window)`` (K, ...) to the stack's pixels in `window`."""
        for axis, (w, n, m) in enumerate(zip(window, self.size, self.shape, strict=True), 1):
            maps = Resampling(m, n).apply(maps, axis, w.start, w.stop)
        return maps


def resize(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resample (C, [Z,] Y, X) to another spatial shape, as `Frame.read` and `to_stack` do."""
    for axis, (n, m) in enumerate(zip(values.shape[1:], shape, strict=True), 1):
        values = Resampling(n, m).apply(values, axis, 0, m)
    return values


def _distinct(channels: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(set(channels)))
