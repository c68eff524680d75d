"""Label files of any kind read whole, as an array in the order T, Z, Y, X.

What the values of other programs' labels mean is judged in `core.labels.label_file`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import UNREADABLE, unreadable_error
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from pathlib import Path


def read_labels(path: Path, axes: str | None = None) -> np.ndarray:
    """Read a label file whole, its axes in the order of "TZYX".

    Parameters
    ----------
    axes
        A letter for each axis of the file; None: as the file says.

    Raises
    ------
    InputError
        It cannot be read, or has several channels.
    """
    return read_labels_and_axes(path, axes)[0]


def fit_labels(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return labels in another shape if the two differ in nothing but axes of one position."""
    plain = [n for n in values.shape if n > 1]
    return values.reshape(shape) if plain == [n for n in shape if n > 1] else values


def read_labels_and_axes(path: Path, axes: str | None = None) -> tuple[np.ndarray, str]:
    """Return what `read_labels` does, and the letters of the axes."""
    stack = open_stack(path, axes, raw=True)
    # tifffile writes 3 or 4 planes as if they were colours.
    if axes is None and stack.rgb and stack.axes == "CYX":
        stack = open_stack(path, "ZYX", raw=True)
    if stack.channels > 1:
        raise InputError(f"{path} has {stack.channels} channels; give labels, which have none.")
    try:
        values = np.asarray(stack.data[(slice(None),) * len(stack.axes)])
    except UNREADABLE as error:
        raise unreadable_error(path, error) from error
    order = [stack.axes.index(letter) for letter in ("C" * ("C" in stack.axes)) + stack.labels_axes]
    return values.transpose(order).reshape(stack.labels_shape), stack.labels_axes
