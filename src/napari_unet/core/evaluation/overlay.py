"""Pictures of labels: objects outlined over their image; hits, false and missed ones in colour."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.comparison import (
    MatchStatus,
    draw_match_status,
    edges,
    inside_code,
    outline_code,
)
from napari_unet.core.instances.matching import Overlap
from napari_unet.core.io.files import UNREADABLE, atomic_file

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    Picture = NDArray[np.uint8]


HIT, FALSE, MISSED = (0, 200, 120), (255, 80, 40), (70, 150, 255)
"""Colours that people with a red-green deficiency can tell apart, too."""
COLOURS = {"hit": HIT, "false": FALSE, "missed": MISSED}
"""Colour of each of `MATCH_KINDS`."""

_MARK = ("Software", "napari-unet")
"""A text in the PNG files of pictures, by which they are known: they replace nothing else."""

_LEGIBLE = 1000
"""Pixels along the longer side at which outlines of one pixel can be seen."""


def to_rgb(image: ArrayLike, percentiles: tuple[float, float] = (1.0, 99.8)) -> Picture:
    """Convert an image to an 8-bit RGB picture.

    Parameters
    ----------
    image
        (Y, X) or (Y, X, 3 or 4), any type; 8-bit RGB is left as it is.
    percentiles
        Percentiles that become black and white.

    Returns
    -------
    np.ndarray
        uint8 (Y, X, 3).

    Raises
    ------
    InputError
        An image of another shape.
    """
    values = np.asarray(image)
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[2] in (3, 4)):
        raise InputError(f"A picture is made of (Y, X) or (Y, X, 3), not of {values.shape}.")
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    elif values.dtype == np.uint8:
        return values[..., :3].copy()
    values = values[..., :3]
    values = np.nan_to_num(values.astype(np.float32), posinf=0, neginf=0)
    low, high = np.percentile(values, percentiles) if values.size else (0.0, 0.0)
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.asarray(np.clip((values - low) / (high - low) * 255, 0, 255), np.uint8)


def draw_outlines(image: ArrayLike, labels: ArrayLike, zoom: int | None = None) -> Picture:
    """Draw each object's outline over its image, neighbours in different colours.

    Parameters
    ----------
    image
        (Y, X) or (Y, X, 3 or 4).
    labels
        (Y, X), whole numbers, 0 is background.
    zoom
        Enlarge the picture this many times; None: as much as makes the outlines of small images
        visible.

    Returns
    -------
    np.ndarray
        uint8 (zoom * Y, zoom * X, 3).

    Raises
    ------
    InputError
        The shapes differ, or are not those of pictures.
    """
    drawn, names = _enlarged(to_rgb(image), np.asarray(labels), zoom)
    edge = edges(names)
    drawn[edge] = _colours(names[edge])
    return drawn


def draw_comparison(
    labels: ArrayLike,
    truth: ArrayLike,
    image: ArrayLike | None = None,
    threshold: float = 0.5,
    zoom: int | None = None,
    status: MatchStatus | None = None,
) -> Picture:
    """Draw hits (green), false objects (red) and missed ones (blue) over an image.

    Hits and false objects are outlined as predicted, missed ones as in the truth. Without an image
    they are filled, too.

    Parameters
    ----------
    labels, truth
        (Y, X), whole numbers, 0 is background.
    image
        (Y, X) or (Y, X, 3 or 4), to draw on.
    threshold
        A predicted object with at least this IoU is a hit.
    zoom
        As for `draw_outlines`.
    status
        Match status of the objects, if they were matched in more than this plane, such as in the
        volume that it is from; `threshold` has no effect then.

    Returns
    -------
    np.ndarray
        uint8 (zoom * Y, zoom * X, 3).

    Raises
    ------
    InputError
        The shapes differ, or are not those of pictures.
    """
    found, wanted = np.asarray(labels), np.asarray(truth)
    status = status or MatchStatus.from_overlap(Overlap.from_labels(found, wanted), threshold)
    ground = to_rgb(np.zeros(found.shape, np.uint8) if image is None else image)
    drawn, found = _enlarged(ground, found, zoom)
    _, wanted = _enlarged(ground, wanted, zoom)
    codes = draw_match_status(status.split(found, wanted))
    for kind, colour in COLOURS.items():
        if image is None:
            drawn[codes == inside_code(kind)] = np.array(colour) * 0.5
        drawn[codes == outline_code(kind)] = colour
    return drawn


def write_picture(path: str | os.PathLike[str], drawn: Picture) -> None:
    """Write a picture as PNG, whole or not at all; an existing file is replaced.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    from PIL import Image, PngImagePlugin

    mark = PngImagePlugin.PngInfo()
    mark.add_text(*_MARK)
    with atomic_file(Path(path)) as partial:
        Image.fromarray(drawn).save(partial, format="PNG", pnginfo=mark)


def is_own_picture(path: Path) -> bool:
    """Return whether `write_picture` has written a file."""
    from PIL import PngImagePlugin

    try:
        with PngImagePlugin.PngImageFile(path) as picture:
            return picture.info.get(_MARK[0]) == _MARK[1]
    except UNREADABLE:
        return False


def _enlarged(
    drawn: Picture, labels: NDArray[np.integer], zoom: int | None
) -> tuple[Picture, NDArray[np.integer]]:
    if labels.shape != drawn.shape[:2]:
        raise InputError(f"The labels have shape {labels.shape}, the image {drawn.shape[:2]}.")
    times = zoom or min(4, max(1, math.ceil(_LEGIBLE / max(1, *labels.shape))))
    return (
        drawn.repeat(times, axis=0).repeat(times, axis=1),
        labels.repeat(times, axis=0).repeat(times, axis=1),
    )


def _colours(names: NDArray[np.integer]) -> Picture:
    """Return a bright colour for each label."""
    # Steps of the golden ratio: the hues of consecutive labels lie far apart.
    hue = names.astype(np.float64) * 0.6180339887 % 1
    wheel = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return np.asarray(np.clip(wheel, 0, 1) * 205 + 50, np.uint8)
