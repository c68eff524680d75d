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


COLOUR_PX = 30
"""From this height and width on, 3 or 4 in the last axis are colours and no pixels in a row."""


def default_axes(shape: tuple[int, ...], dtype: np.dtype[Any], what: str = "the array") -> str:
    """Name the axes of a bare array, or of a file whose axes have no names.

    2 axes are YX, 3 are ZYX, 4 are TZYX, 5 are TZCYX; with 3 or 4 in the last axis, and 8-bit
    values or planes of `COLOUR_PX`, 3 are YXS and 4 are ZYXS (S: samples of RGB or RGBA). Of 5 axes
    whose second is 1 and whose third is not, the second is C: one channel of volumes, not many
    channels of one plane.

    Raises
    ------
    InputError
        An array of other than 2 to 5 axes.
    """
    if not 2 <= len(shape) <= 5:
        raise InputError(
            f"{what} has {len(shape)} axes (shape {shape}); give an image of 2 to 5 axes."
        )
    few = len(shape) in (3, 4) and shape[-1] in (3, 4)
    if few and (dtype == np.uint8 or min(shape[-3:-1]) >= COLOUR_PX):
        return "ZYXS"[-len(shape) :]
    if len(shape) == 5 and shape[1] == 1 < shape[2]:
        return "TCZYX"
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
    """Return a file's axes as letters of "TCZYXS"; those without a name as of a bare array.

    A single unnamed axis is Z, or T where Z is taken; of several, the last are Z and C where these
    are free, see `default_axes`. Letters of positions, angles and such are T, or Z.

    Raises
    ------
    InputError
        Axes that cannot be used.
    """
    letters = list(found)
    nameless = [number for number, letter in enumerate(letters) if letter in "QI"]
    taken = letters + ["C"] * ("S" in letters)
    free = [letter for letter in "ZTC" if letter not in taken][: len(nameless)]
    names = sorted(free, key="TZC".index)
    if len(names) == 3 and len(shape) == 5:
        names = list(default_axes(shape, np.dtype(np.uint16))[:3])
    for number, name in zip(nameless, names, strict=False):
        letters[number] = name
    for number, letter in enumerate(letters):
        if letter not in AXES + "SQI":
            spare = [other for other in "TZ" if other not in letters]
            letters[number] = spare[0] if spare else letter
    resolved = "".join(letters)
    fits = set(resolved) <= set(AXES + "S") and len(set(resolved)) == len(resolved) == len(shape)
    if not fits or not {"Y", "X"} <= set(resolved) or {"C", "S"} <= set(resolved):
        raise InputError(
            f"{what} has the axes {found} (shape {shape}); only T, C, Z, Y, X or S (RGB), each "
            "once and not C with S, can be used: split the file, or give axes."
        )
    return resolved


def idle_axes(found: str, shape: tuple[int, ...]) -> list[int]:
    """Return which axes of a file can be left out: those of one position without a use.

    They are of one position and have no name, or one that is none of ours; they are left out only
    where there are more axes than letters for them, or to keep C from S.
    """
    strange = [
        number
        for number, (letter, size) in enumerate(zip(found, shape, strict=True))
        if size == 1 and letter not in AXES + "S"
    ]
    nameless = sum(letter not in AXES + "S" for letter in found)
    taken = sum(letter in found for letter in "TZC") + ("S" in found)
    excess = nameless - max(0, 3 - taken)
    return strange[: max(0, excess)]


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
