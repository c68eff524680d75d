"""Lazy views of arrays: parts and flips, an image's orientation, colours of palettes and inks."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_unet.core.io.lazy_arrays import LazyArray, ranges_from_index

_FLIPS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
"""Steps along rows and columns for each orientation of TIFF and EXIF but 1."""


class ArrayView(LazyArray):
    """A part of an array, some axes of which may be flipped or left out.

    Parameters
    ----------
    data
        Array with basic slicing by steps above 0.
    parts
        For each axis of `data` a range of its positions, or one position, which drops the axis.
    """

    def __init__(self, data: Any, parts: tuple[range | int, ...]) -> None:
        ranges = [part for part in parts if isinstance(part, range)]
        super().__init__(tuple(map(len, ranges)), np.dtype(data.dtype))
        self.data, self.parts = data, parts

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        if not all(map(len, spans)):
            empty: np.ndarray = np.empty([len(span) for span in spans], self.dtype)[drop]
            return empty
        left, selection, flips = iter(spans), list[Any](), list[Any]()
        for part in self.parts:
            if isinstance(part, int):
                selection.append(part)
                continue
            span = next(left)
            first, last = part[span[0]], part[span[-1]]
            step = part.step * span.step
            selection.append(slice(min(first, last), max(first, last) + 1, abs(step)))
            flips.append(slice(None, None, -1 if step < 0 else 1))
        result: np.ndarray = np.asarray(self.data[tuple(selection)])[tuple(flips)][drop]
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data, self.parts)


class PaletteColours(LazyArray):
    """An array of indices as the colours that they stand for, along a new last axis.

    Parameters
    ----------
    data
        Whole numbers.
    table
        uint8 of the shape (colours, 3).
    """

    def __init__(self, data: Any, table: np.ndarray) -> None:
        super().__init__((*data.shape, table.shape[1]), np.dtype(np.uint8))
        self.data, self.table = data, table

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        window = tuple(_slice(span) for span in spans)
        indices = np.minimum(np.asarray(self.data[window[:-1]]), len(self.table) - 1)
        result: np.ndarray = self.table[indices][..., window[-1]][drop]
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data, self.table)


class InkColours(LazyArray):
    """Cyan, magenta, yellow and black along the last axis as red, green and blue.

    Parameters
    ----------
    data
        Unsigned integers, 0 being no ink; the last axis has 4 positions.
    """

    def __init__(self, data: Any) -> None:
        super().__init__((*data.shape[:-1], 3), np.dtype(data.dtype))
        self.data = data

    def __getitem__(self, key: Any) -> np.ndarray:
        spans, drop = ranges_from_index(key, self.shape)
        window = tuple(_slice(span) for span in spans)
        inks = np.asarray(self.data[(*window[:-1], slice(0, 4))])
        full = float(np.iinfo(self.dtype).max)
        light = (full - inks[..., :3]) * (full - inks[..., 3:]) / full
        result: np.ndarray = np.rint(light).astype(self.dtype)[..., window[-1]][drop]
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.data,)


def turn_upright(data: Any, axes: str, orientation: int) -> tuple[Any, str]:
    """Return an image as its orientation tag says that it is to be shown, with its axes.

    Parameters
    ----------
    axes
        One letter for each axis; Y are the rows and X the columns of the file.
    orientation
        1 to 8, as in TIFF and EXIF; others count as 1.
    """
    if orientation not in _FLIPS or not {"Y", "X"} <= set(axes):
        return data, axes
    steps = dict(zip("YX", _FLIPS[orientation], strict=True))
    parts = tuple(
        range(size)[:: steps.get(letter, 1)] for letter, size in zip(axes, data.shape, strict=True)
    )
    flipped = any(part.step < 0 for part in parts)
    if orientation > 4:  # rows and columns change places
        axes = axes.translate(str.maketrans("YX", "XY"))
    return (ArrayView(data, parts) if flipped else data), axes


def drop_axes(data: Any, axes: str, dropped: dict[str, int]) -> tuple[Any, str]:
    """Return the array at one position along some axes, and the axes that are left."""
    parts = tuple(
        dropped[letter] if letter in dropped else range(size)
        for letter, size in zip(axes, data.shape, strict=True)
    )
    return ArrayView(data, parts), "".join(letter for letter in axes if letter not in dropped)


def _slice(span: range) -> slice:
    stop = None if span.stop < 0 else span.stop
    return slice(span.start, stop, span.step)
