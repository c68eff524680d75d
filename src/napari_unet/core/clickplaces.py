"""Where clicks and boxes lie in a stack: in which frame, and at which of its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.clicks import Click
from napari_unet.core.objectedits import ObjectMask
from napari_unet.core.spec import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.stack import Stack

Index = tuple[int, ...]


def locate(click: Click, stack: Stack, ndim: int) -> tuple[Index, Index]:
    """Return the frame of `ndim` axes that a click is in, and its pixel there.

    Raises
    ------
    InputError
        It lies outside the image, or has not as many coordinates as the labels have axes.
    """
    _check_axes(click, stack)
    shape = stack.labels_shape
    if not all(0 <= p < n for p, n in zip(click.pixel, shape, strict=True)):
        raise InputError(f"The click {_said(click)} lies outside the image, which is {shape}.")
    split = len(shape) - ndim
    return click.pixel[:split], click.pixel[split:]


def box_mask(
    low: Sequence[float], high: Sequence[float], stack: Stack, ndim: int
) -> tuple[Index, ObjectMask]:
    """Return the frame that a box lies in, and its pixels there, from two opposite corners.

    Raises
    ------
    InputError
        Its corners lie in different frames, or have not as many coordinates as the labels have
        axes; or no two pixels of the image lie in it along Y and X.
    """
    ends = Click(tuple(low)), Click(tuple(high))
    for end in ends:
        _check_axes(end, stack)
    said = f"The box from {_said(ends[0])} to {_said(ends[1])}"
    split = len(stack.labels_shape) - ndim
    if ends[0].pixel[:split] != ends[1].pixel[:split]:
        raise InputError(f"{said} reaches over several frames; draw it in one of them.")
    corners = np.array([end.place for end in ends])
    last = np.array(stack.labels_shape) - 1
    last[:split] = np.iinfo(last.dtype).max  # a frame that is not there is not the last one
    first, second = (np.clip(end, 0, last) for end in (corners.min(0), corners.max(0)))
    index, start = locate(Click(tuple(first)), stack, ndim)
    _, stop = locate(Click(tuple(second)), stack, ndim)
    window = tuple(slice(a, b + 1) for a, b in zip(start, stop, strict=True))
    shape = [w.stop - w.start for w in window]
    if min(shape[-2:]) < 2:
        raise InputError(f"{said} holds too few pixels of the image; draw it around the object.")
    return index, ObjectMask(window, np.ones(shape, bool))


def _check_axes(click: Click, stack: Stack) -> None:
    axes = stack.labels_axes.lower()
    if len(click.place) != len(axes):
        raise InputError(
            f"The click {_said(click)} has {len(click.place)} coordinates; the image has axes "
            f"{axes}, give ({', '.join(axes)})."
        )


def _said(click: Click) -> str:
    """Return where a click is, to a tenth of a pixel."""
    return f"({', '.join(f'{round(coordinate, 1):.10g}' for coordinate in click.place)})"
