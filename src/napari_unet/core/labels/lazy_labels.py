"""Labels that are read by slices: whole numbers of any type, without axes of length 1."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index
from napari_unet.core.labels.object_check import whole_numbers

if TYPE_CHECKING:
    from napari_unet.core.io.stack import Stack


def without_single_axes(stack: Stack) -> Stack:
    """Return a stack without its T and Z axes of length 1."""
    single = [a for a, n in zip(stack.axes, stack.data.shape, strict=True) if a in "TZ" and n == 1]
    if not single:
        return stack
    keep = tuple(0 if letter in single else slice(None) for letter in stack.axes)
    axes = "".join(letter for letter in stack.axes if letter not in single)
    return replace(stack, data=PickedAxes(stack.data, keep), axes=axes, transform=None)


class PickedAxes(LazyArray):
    """An array at a fixed place along some axes, read when it is sliced.

    Parameters
    ----------
    data
        Array with basic slicing.
    keep
        For each axis of it a place, or a full slice if the axis stays.
    """

    def __init__(self, data: Any, keep: tuple[int | slice, ...]) -> None:
        self.data, self.keep = data, keep
        pairs = zip(data.shape, keep, strict=True)
        shape = tuple(int(size) for size, at in pairs if isinstance(at, slice))
        super().__init__(shape, data.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        left = iter(slice(span.start, span.stop, span.step) for span in spans)
        picked = tuple(next(left) if isinstance(at, slice) else at for at in self.keep)
        result: np.ndarray = np.asarray(self.data[picked])[drop]
        return result


class WholeNumbers(LazyArray):
    """Labels of floating-point numbers or uint64 as int64, each window checked as it is read."""

    def __init__(self, data: Any, what: str) -> None:
        super().__init__(tuple(int(n) for n in data.shape), np.dtype(np.int64))
        self.data, self.what = data, what

    def __getitem__(self, key: Any) -> np.ndarray:
        return whole_numbers(np.asarray(self.data[key]), self.what).astype(np.int64, copy=False)
