"""Normalise intensities by percentiles of the whole frame.

Never by those of a tile: they would differ from those of its neighbour and leave seams.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_unet.core.io.stack import Stack

SAMPLE = 2**20
"""Values of a channel from which percentiles are taken, at most; smaller frames are read whole."""
BLOCK = 64
"""Edge of a sampled block: large enough to be read efficiently, small enough to spread many."""
WIDE = 4096
"""In frames up to this width the blocks of a row are read together: fewer, longer reads."""
RANGE = (-1.0, 3.0)
"""Normalised values are clipped to this range: with room beyond 0 to 1, but not for outliers."""
LARGEST = 1e300
"""Intensities are clipped to this magnitude, so that differences stay finite."""


class NonFiniteWarning(UserWarning):
    """The image holds NaN or infinity."""


@dataclass(frozen=True, eq=False)
class Normaliser:
    """Maps the low percentile of each channel of a frame to 0 and the high one to 1.

    Attributes
    ----------
    low, high
        Intensities that become 0 and 1, float64, shape (C,). A channel whose two are equal is
        constant and becomes 0.
    name
        What warnings call the image.
    notices
        Shared with the stack, so that NaN and infinity are mentioned once.
    """

    low: np.ndarray
    high: np.ndarray
    name: str = "The image"
    notices: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def from_stack(
        cls,
        stack: Stack,
        index: tuple[int, ...],
        ndim: int,
        channels: tuple[int, ...],
        low: float = 1.0,
        high: float = 99.8,
        skip: tuple[type[Exception], ...] = (),
    ) -> Normaliser:
        """Measure the percentiles of a frame.

        A frame of more than `SAMPLE` values is sampled in blocks on a regular grid, the same ones
        each time and for every kind of file. NaN and infinity do not count. If the two percentiles
        are equal (a few bright spots on a flat background), minimum and maximum of the whole frame
        are taken instead.

        Parameters
        ----------
        stack, index, channels
            The frame: see `Stack.read`.
        ndim
            2 for a plane, 3 for a volume.
        low, high
            Percentiles, 0 to 100.
        skip
            Errors at which a part of the frame is left out.
        """
        lows, highs = [], []
        distinct = sorted(set(channels))
        blank = cls(np.zeros(1), np.zeros(1), stack.name, stack.notices)
        for channel in distinct:
            parts = [
                blank.finite(part) for part in sample_blocks(stack, index, ndim, channel, skip)
            ]
            values = np.concatenate([np.zeros(0), *parts])
            bottom, top = np.percentile(values, (low, high)) if values.size else (0.0, 0.0)
            if bottom == top:
                bottom, top = blank.extremes(stack, index, ndim, channel, skip)
            lows.append(float(bottom))
            highs.append(float(top))
        order = [distinct.index(channel) for channel in channels]
        return cls(np.array(lows)[order], np.array(highs)[order], stack.name, stack.notices)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Normalise a part of the frame.

        Parameters
        ----------
        values
            Shape (C, [Z,] Y, X), any real type. NaN and infinity become background, with one
            warning for each stack.

        Returns
        -------
        np.ndarray
            float32, same shape, within `RANGE`.
        """
        shape = (-1,) + (1,) * (values.ndim - 1)
        low = self.low.reshape(shape)
        span = (self.high - self.low).reshape(shape)
        extent = np.abs(np.concatenate([self.low, self.high, span[span > 0]]))
        # Small integers, and float32 of a common magnitude, lose nothing in float32.
        narrow = values.dtype.itemsize <= 2 or (
            values.dtype == np.float32 and bool(((extent == 0) | _is_moderate(extent)).all())
        )
        kind = np.float32 if narrow else np.float64
        # The reciprocal of a span below 1e-300 would overflow.
        scale = np.divide(1.0, span, out=np.zeros_like(span), where=span > 1e-300).astype(kind)
        result: NDArray[Any] = values.astype(kind)
        if not narrow:
            np.clip(result, -LARGEST, LARGEST, out=result)
        if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            self.warn()
            result = np.where(finite, result, low.astype(kind))
        with np.errstate(over="ignore"):
            result -= low.astype(kind)
            result *= scale
        np.clip(result, *RANGE, out=result)
        return result.astype(np.float32, copy=False)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain JSON values."""
        return {"low": self.low.tolist(), "high": self.high.tolist()}

    def warn(self) -> None:
        """Warn of NaN or infinity, once for each stack."""
        if "non-finite" not in self.notices:
            self.notices.add("non-finite")
            warnings.warn(
                f"{self.name} holds NaN or infinity; they are treated as background.",
                NonFiniteWarning,
                stacklevel=3,
            )

    def finite(self, values: np.ndarray) -> np.ndarray:
        """Return the finite values, flat and float64; warn if some are not."""
        if values.dtype.kind != "f":
            return values.ravel().astype(np.float64)
        kept: NDArray[Any] = values[np.isfinite(values)].astype(np.float64)
        if kept.size < values.size:
            self.warn()
        return np.clip(kept, -LARGEST, LARGEST, out=kept)

    def extremes(
        self,
        stack: Stack,
        index: tuple[int, ...],
        ndim: int,
        channel: int,
        skip: tuple[type[Exception], ...] = (),
    ) -> tuple[float, float]:
        """Return the smallest and the largest finite value of a channel; (0, 0) without any."""
        low, high = np.inf, -np.inf
        for window in bands(stack.frame_shape(ndim)):
            for part in _readable(stack, index, window, channel, skip):
                values = self.finite(part)
                if values.size:
                    low, high = min(low, values.min()), max(high, values.max())
        return (float(low), float(high)) if low <= high else (0.0, 0.0)


def _is_moderate(extent: NDArray[Any]) -> NDArray[Any]:
    """Return which magnitudes float32 can subtract and divide without overflow."""
    return (extent > 1e-30) & (extent < 1e30)


def sample_blocks(
    stack: Stack,
    index: tuple[int, ...],
    ndim: int,
    channel: int,
    skip: tuple[type[Exception], ...],
) -> Iterator[NDArray[Any]]:
    """Read the blocks of `sample_windows`, those of a row together unless the frame is `WIDE`."""
    shape = stack.frame_shape(ndim)
    far = shape[-1] > WIDE
    for rows, blocks in itertools.groupby(sample_windows(shape), lambda window: window[:-1]):
        columns = [window[-1] for window in blocks]
        for group in [[span] for span in columns] if far else [columns]:
            start = group[0].start
            window = (*rows, slice(start, group[-1].stop))
            try:
                band = stack.read(index, window, (channel,))
            except skip:
                yield from _readable(stack, index, window, channel, skip)
                continue
            for span in group:
                yield band[..., span.start - start : span.stop - start]


def _readable(
    stack: Stack,
    index: tuple[int, ...],
    window: tuple[slice, ...],
    channel: int,
    skip: tuple[type[Exception], ...],
) -> Iterator[NDArray[Any]]:
    """Read a window; if that fails its halves, and so on down to the size of a block."""
    try:
        yield stack.read(index, window, (channel,))
    except skip:
        sizes = [span.stop - span.start for span in window]
        axis = sizes.index(max(sizes))
        if sizes[axis] <= BLOCK:
            return
        middle = window[axis].start + sizes[axis] // 2
        for half in (slice(window[axis].start, middle), slice(middle, window[axis].stop)):
            part = (*window[:axis], half, *window[axis + 1 :])
            yield from _readable(stack, index, part, channel, skip)


def sample_windows(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield the windows that are sampled: all of a small frame, a grid of blocks of a large one.

    Blocks are one plane thick. Together they hold at most `SAMPLE` values.
    """
    if int(np.prod(shape)) <= SAMPLE:
        yield tuple(slice(0, size) for size in shape)
        return
    edges = [
        min(size, edge) for size, edge in zip(shape, (1, BLOCK, BLOCK)[-len(shape) :], strict=True)
    ]
    counts = [1] * len(shape)
    left = SAMPLE // int(np.prod(edges))
    # The shortest axis first: the share that it does not need is left for the others.
    order = sorted(range(len(shape)), key=lambda axis: shape[axis] / edges[axis])
    for turn, axis in enumerate(order):
        share = int(left ** (1 / (len(shape) - turn)) + 1e-9)
        counts[axis] = max(1, min(-(-shape[axis] // edges[axis]), share))
        left //= counts[axis]
    starts = [
        np.linspace(0, size - edge, count).astype(int) if count > 1 else [(size - edge) // 2]
        for size, edge, count in zip(shape, edges, counts, strict=True)
    ]
    for corner in itertools.product(*starts):
        yield tuple(slice(int(s), int(s) + e) for s, e in zip(corner, edges, strict=True))


def bands(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yield windows that cover a frame: bands of whole rows, about `SAMPLE` values each."""
    *planes, height, width = shape
    rows = max(1, SAMPLE // max(1, width))
    for plane in itertools.product(*(range(count) for count in planes)):
        for top in range(0, height, rows):
            depth = (slice(z, z + 1) for z in plane)
            yield (*depth, slice(top, min(top + rows, height)), slice(0, width))
