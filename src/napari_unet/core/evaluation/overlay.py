"""Pictures for people: objects outlined over their image, hits and misses in colour."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.match_status import (
    MatchStatus,
    draw_match_status,
    edges,
    inside_code,
    outline_code,
)
from napari_unet.core.instances.matching import Overlap
from napari_unet.core.io.atomic import whole_file

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    Picture = NDArray[np.uint8]

HIT, FALSE, MISSED = (0, 200, 120), (255, 80, 40), (70, 150, 255)
"""Colours that people with a red-green weakness can tell apart, too."""
COLOURS = {"hit": HIT, "false": FALSE, "missed": MISSED}
"""The same by what became of an object."""

_LEGIBLE = 1000  # pixels along the longer side from which thin outlines can be seen


def picture(image: ArrayLike, percentiles: tuple[float, float] = (1.0, 99.8)) -> Picture:
    """Turn an image into an 8-bit RGB picture.

    Parameters
    ----------
    image
        (Y, X) or (Y, X, 3 or 4), any type; RGB of 8 bit is taken as it is.
    percentiles
        Values of the image that become black and white.

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


def outline(image: ArrayLike, labels: ArrayLike, zoom: int | None = None) -> Picture:
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
    drawn, names = _enlarged(picture(image), np.asarray(labels), zoom)
    edge = edges(names)
    drawn[edge] = _colours(names[edge])
    return drawn


def compare(
    labels: ArrayLike,
    truth: ArrayLike,
    image: ArrayLike | None = None,
    threshold: float = 0.5,
    zoom: int | None = None,
    verdict: MatchStatus | None = None,
) -> Picture:
    """Show which objects were hit, which are false and which were missed.

    Hits are outlined as they were found, in green; so are false objects, in red; missed ones are
    outlined as they are in the truth, in blue. Without an image the objects are filled instead.

    Parameters
    ----------
    labels, truth
        (Y, X), whole numbers, 0 is background.
    image
        (Y, X) or (Y, X, 3 or 4), what to draw on.
    threshold
        IoU from which on a predicted object counts as a true one.
    zoom
        As for `outline`.
    verdict
        What became of the objects, if that was judged by more than this plane, such as by the
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
    verdict = verdict or MatchStatus.of(Overlap.from_labels(found, wanted), threshold)
    ground = picture(np.zeros(found.shape, np.uint8) if image is None else image)
    drawn, found = _enlarged(ground, found, zoom)
    _, wanted = _enlarged(ground, wanted, zoom)
    codes = draw_match_status(verdict.split(found, wanted))
    for kind, colour in COLOURS.items():
        if image is None:
            drawn[codes == inside_code(kind)] = np.array(colour) * 0.5
        drawn[codes == outline_code(kind)] = colour
    return drawn


def write_picture(path: str | os.PathLike[str], drawn: Picture) -> None:
    """Write a picture as PNG, whole or not at all; a file of that name is replaced.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    with whole_file(Path(path)) as partial:
        partial.write_bytes(imagecodecs.png_encode(drawn))


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
    """Give each label a bright colour; labels that follow each other get far-apart hues."""
    hue = names.astype(np.float64) * 0.6180339887 % 1
    wheel = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return np.asarray(np.clip(wheel, 0, 1) * 205 + 50, np.uint8)
