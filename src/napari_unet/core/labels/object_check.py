"""Whether the values of labels are objects: whole numbers, one for each object, 0 for background.

What cannot be labels is refused. What hardly can be (a mask whose objects all have one value, an
image, labels whose numbers were interpolated) is said, since somebody may want just that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_unet.core.errors import InputError
from napari_unet.core.instances.matching import are_whole
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Iterator

PLANES_SEEN = 8
"""Planes of a stack that are looked at; a stack is of one kind throughout."""
PIECES = 50
"""Labels of fewer pieces than this are too few to be judged by their number."""
PER_OBJECT = 4
"""In how many pieces objects lie, on average, at most; a few are cut in two by others."""


def whole_numbers(values: np.ndarray, what: str) -> np.ndarray:
    """Return labels as integers: bool becomes 0 and 1, whole floating-point numbers their integers.

    Parameters
    ----------
    values
        Labels of any shape and type; integers below 2**63 are returned as they are.
    what
        The labels' name in the error.

    Raises
    ------
    InputError
        Numbers that are not whole, not finite, or too large for 64 bits.
    """
    if values.dtype.kind == "b":
        return values.view(np.uint8)
    if values.dtype.kind in "iu":
        if values.dtype == np.uint64 and int(values.max(initial=0)) >= 2**63:
            raise InputError(
                f"{what} holds {values.max()}; give labels, which are below 2**63: renumber them."
            )
        return values
    if values.dtype.kind != "f":
        raise InputError(f"{what} holds {values.dtype}; give labels, which are whole numbers.")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not are_whole(values):
        raise InputError(f"{what} {_why_not_whole(values, low, high)}")
    if max(-low, high) >= 2**63:
        raise InputError(f"{what} holds {high:g}; give labels, which are below 2**63.")
    small = -(2**31) <= low and high < 2**31
    return values.astype(np.int32 if small else np.int64)


def _why_not_whole(values: np.ndarray, low: float, high: float) -> str:
    if not math.isfinite(low) or not math.isfinite(high):
        return "holds values that are no numbers (NaN or infinite); give labels."
    example = float(values[np.mod(values, 1) != 0].flat[0])
    if 0 <= low and high <= 1:
        return (
            f"holds {values.dtype} from {low:g} to {high:g}, such as {example:.3g}: probabilities, "
            "not objects; threshold and label them first."
        )
    return (
        f"holds numbers between the labels, such as {example:.6g} ({values.dtype}): they were "
        "interpolated when the labels were resized or turned; do that with nearest neighbours."
    )


def background_below_zero(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Return labels in which what lies below 0 is 0, and a remark on it, "" if nothing does.

    Some programs write -1 for the background.
    """
    if values.dtype.kind != "i" or values.min(initial=0) >= 0:
        return values, ""
    lowest = int(values.min())
    return np.maximum(values, 0), f"labels below 0 (down to {lowest}) are taken for background"


def remark_on_inversion(values: np.ndarray) -> str:
    """Say that labels look like a mask of the background; "" if they do not.

    One object surrounds pieces of background, and covers more than half of the image.
    """
    plane = next((plane for plane in _some_planes(values) if plane.any()), np.zeros((1, 1)))
    filled = plane != 0
    top, share = plane.max(), np.count_nonzero(filled) / filled.size
    if share <= 0.5 or not (plane[filled] == top).all():
        return ""
    holes = int(ndimage.label(~filled)[1])
    if holes < 2 or int(ndimage.label(filled, np.ones((3, 3)))[1]) > 1:
        return ""
    return (
        f"the only object ({top}) covers {share:.0%} of the image and surrounds {holes:,} pieces "
        "of background: this looks like a mask whose objects are 0; if so, invert it"
    )


def connected_components(values: np.ndarray, axes: str, ndim: int = 3) -> np.ndarray:
    """Return labels in which each connected piece of an object is an object of its own.

    Neighbours at corners are connected. Objects that touch stay apart if their values differ.

    Parameters
    ----------
    values
        Integers, 0 is background.
    axes
        One letter of "TZYX" for each axis, in this order.
    ndim
        Whether pieces are connected within planes (2) or through z, too (3).

    Returns
    -------
    np.ndarray
        Unsigned integers of the same shape; each frame is numbered from 1.
    """
    inside = "ZYX"[-ndim:]
    frame_ndim = sum(letter in inside for letter in axes)
    frames = values.reshape(-1, *values.shape[values.ndim - frame_ndim :])
    found = [_label_equal(frame) for frame in frames]
    largest = max((int(frame.max(initial=0)) for frame in found), default=0)
    dtype = np.uint16 if largest < 2**16 else np.uint32
    return np.array(found, dtype).reshape(values.shape)


def doubt_objects(values: np.ndarray, axes: str, ndim: int = 3) -> str:
    """Say why labels look as if they were no objects; "" if they look like objects.

    Parameters
    ----------
    values
        Integers from 0 on.
    axes, ndim
        As for `connected_components`.
    """
    pieces = mask_pieces(values, axes, ndim)
    if pieces > 1:
        return (
            f"there is one object ({values.max()}) in {pieces:,} pieces: this looks like a mask, "
            "in which all objects have one value"
        )
    if pieces:
        return ""
    pieces, objects = count_pieces(values)
    if pieces >= PIECES and pieces > PER_OBJECT * objects:
        return (
            f"{pluralise(objects, 'object')} lie in {pieces:,} pieces: this looks like an image, "
            "or like labels that were interpolated or compressed"
        )
    return ""


def mask_pieces(values: np.ndarray, axes: str, ndim: int = 3) -> int:
    """Return the connected pieces in a frame of labels that have one value; 0 for other labels."""
    top = values.max(initial=0)
    if top == 0 or not ((values == 0) | (values == top)).all():
        return 0
    inside = sum(letter in "ZYX"[-ndim:] for letter in axes)
    frames = values.reshape(-1, *values.shape[values.ndim - inside :])
    around = ndimage.generate_binary_structure(inside, inside)
    return max(int(ndimage.label(frame, around)[1]) for frame in frames)


def _label_equal(frame: np.ndarray) -> np.ndarray:
    """Return the connected pieces of equal values, numbered from 1; corners connect."""
    from skimage import measure

    found: np.ndarray = measure.label(  # type: ignore[no-untyped-call]
        frame, background=0, connectivity=frame.ndim
    )
    return found


def count_pieces(values: np.ndarray) -> tuple[int, int]:
    """Count connected pieces and objects in some planes of labels."""
    pieces = objects = 0
    for plane in _some_planes(values):
        pieces += int(_label_equal(plane).max(initial=0))
        objects += int(np.count_nonzero(np.unique(plane)))
    return pieces, objects


def _some_planes(values: np.ndarray) -> Iterator[Any]:
    planes = values.reshape(math.prod(values.shape[:-2]), *values.shape[-2:])
    step = max(1, len(planes) // PLANES_SEEN)
    yield from planes[::step][:PLANES_SEEN]
