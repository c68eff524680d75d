"""The letters of an image's axes: T time, C channel, Z, Y, X; S stands for RGB(A) samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

AXES = "TCZYX"
AUTO, PLANES, VOLUMES = FRAMES = ("auto", "planes", "volumes")
"""In which frames of a stack objects are matched; "auto" looks at the provenance of the labels."""
OBJECT_AXES = "object_axes"
"""Key of a provenance: the axes along which an object may extend, "YX" or "ZYX"."""


def default_axes(shape: tuple[int, ...], dtype: np.dtype[Any], what: str = "the array") -> str:
    """Name the axes of a bare array.

    2 axes are YX, 3 are ZYX, 4 are TZYX, 5 are TZCYX; with 8-bit values and 3 or 4 in the last
    axis, 3 are YXS and 4 are ZYXS (S: samples of RGB or RGBA).

    Raises
    ------
    InputError
        An array of other than 2 to 5 axes.
    """
    if not 2 <= len(shape) <= 5:
        raise InputError(
            f"{what} has {len(shape)} axes (shape {shape}); give an image of 2 to 5 axes."
        )
    if len(shape) in (3, 4) and dtype == np.uint8 and shape[-1] in (3, 4):
        return "ZYXS"[-len(shape) :]
    return {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TZCYX"}[len(shape)]


def check_axes(axes: str, shape: tuple[int, ...], what: str) -> str:
    """Return axes that the user gave in capitals; raise InputError if they do not fit the shape."""
    letters = axes.strip().upper()
    problem = ""
    if unknown := sorted(set(letters) - set("TCZYXS")):
        problem = f"{', '.join(unknown)} is unknown"
    elif len(set(letters)) < len(letters) or {"C", "S"} <= set(letters):
        problem = "an axis is named twice"
    elif not {"Y", "X"} <= set(letters):
        problem = "Y or X is missing"
    elif len(letters) != len(shape):
        problem = f"{what} has {len(shape)} axes (shape {shape})"
    if problem:
        raise InputError(
            f"axes {axes!r} do not fit: {problem}; give one of T, C, Z, Y, X (S: RGB) "
            f"for each of the {len(shape)} axes."
        )
    return letters


def resolve_axes(found: str, shape: tuple[int, ...], what: str) -> str:
    """Return a file's axes as letters of "TCZYXS"; unnamed pages are Z, or T where Z is taken.

    Raises
    ------
    InputError
        Axes that cannot be used.
    """
    letters = list(found)
    for number, letter in enumerate(letters):
        if letter in AXES + "S":
            continue
        # tifffile calls pages without a name Q or I; other letters are positions, angles and such.
        free = [other for other in ("ZT" if letter in "QI" else "TZ") if other not in letters]
        letters[number] = free[0] if free else letter
    resolved = "".join(letters)
    fits = set(resolved) <= set(AXES + "S") and len(set(resolved)) == len(resolved) == len(shape)
    if not fits or not {"Y", "X"} <= set(resolved) or {"C", "S"} <= set(resolved):
        raise InputError(
            f"{what} has the axes {found} (shape {shape}); only T, C, Z, Y, X or S (RGB), each "
            "once and not C with S, can be used: split the file, or give axes."
        )
    return resolved


def object_ndim(frames: str, provenance: Mapping[str, Any] | None = None) -> int:
    """Return the dimensions of the frames in which objects are matched: 2 (planes) or 3 (volumes).

    Parameters
    ----------
    frames
        One of `FRAMES`. "auto": planes if the provenance says that objects end with their plane,
        otherwise volumes.
    provenance
        The provenance of the predicted labels; None if they have none.

    Raises
    ------
    SettingsError
        `frames` is none of them.
    """
    if frames not in FRAMES:
        raise SettingsError(f"frames is {frames!r}; choose one of: {', '.join(FRAMES)}.")
    if frames == AUTO:
        return 2 if (provenance or {}).get(OBJECT_AXES) == "YX" else 3
    return 2 if frames == PLANES else 3


def shared_axes(labels_axes: str, truth_axes: str) -> str:
    """Return the axes of two labellings of the same shape.

    Unnamed pages were taken for Z (`resolve_axes`), so if only one of the two has T, it is right.
    """
    time_in_truth = "T" in truth_axes and "T" not in labels_axes
    return truth_axes if time_in_truth and len(truth_axes) == len(labels_axes) else labels_axes
