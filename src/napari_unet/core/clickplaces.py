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
    shape, axes = stack.labels_shape, stack.labels_axes.lower()
    if len(click.place) != len(shape):
        raise InputError(
            f"The click {click.place} has {len(click.place)} coordinates; the image has axes "
            f"{axes}, give ({', '.join(axes)})."
        )
    if not all(0 <= p < n for p, n in zip(click.pixel, shape, strict=True)):
        raise InputError(f"The click {click.place} lies outside the image, which is {shape}.")
    split = len(shape) - ndim
    return click.pixel[:split], click.pixel[split:]


def box_mask(
    low: Sequence[float], high: Sequence[float], stack: Stack, ndim: int
) -> tuple[Index, ObjectMask]:
    """Return the frame that a box lies in, and its pixels there, from two opposite corners.

    Raises
    ------
    InputError
        It lies in several frames, or is thinner than two pixels.
    """
    corners = np.array([Click(tuple(low)).place, Click(tuple(high)).place])
    size = np.array(stack.labels_shape) - 1
    first, last = (Click(tuple(np.clip(end, 0, size))) for end in (corners.min(0), corners.max(0)))
    index, start = locate(first, stack, ndim)
    other, stop = locate(last, stack, ndim)
    window = tuple(slice(a, b + 1) for a, b in zip(start, stop, strict=True))
    shape = [w.stop - w.start for w in window]
    if index != other or min(shape) < 2:
        raise InputError(
            f"The box from {tuple(low)} to {tuple(high)} holds no pixels of one frame; draw it "
            "around the object."
        )
    return index, ObjectMask(window, np.ones(shape, bool))
