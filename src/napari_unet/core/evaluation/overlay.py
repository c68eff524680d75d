"""Pictures of labels: objects outlined over their image; hits, false and missed ones in colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.evaluation.comparison import (
    MatchStatus,
    draw_match_status,
    edges,
    inside_code,
    outline_code,
)
from napari_unet.core.instances.matching import Overlap, count_objects
from napari_unet.core.io.files import (
    SUFFIXES,
    atomic_file,
    check_exists,
    image_stem,
    images_by_name,
    is_image_folder,
    make_folder,
)
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    Picture = NDArray[np.uint8]
    from collections.abc import Collection, Sequence

    from napari_unet.core.evaluation.comparison import Comparison, LabelPair, Selection

HIT, FALSE, MISSED = (0, 200, 120), (255, 80, 40), (70, 150, 255)
"""Colours that people with a red-green deficiency can tell apart, too."""
COLOURS = {"hit": HIT, "false": FALSE, "missed": MISSED}
"""Colour of each of `MATCH_KINDS`."""

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
    with atomic_file(Path(path)) as partial:
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
    """Return a bright colour for each label."""
    # Steps of the golden ratio: the hues of consecutive labels lie far apart.
    hue = names.astype(np.float64) * 0.6180339887 % 1
    wheel = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return np.asarray(np.clip(wheel, 0, 1) * 205 + 50, np.uint8)


@dataclass(frozen=True)
class PicturePlan:
    """Which file the picture of a pair of label files is drawn into, and over which image.

    Attributes
    ----------
    target
        The PNG.
    images
        Path of the image or its folder, as given; None: drawn on black.
    image
        The image; None if there is none of that name.
    """

    target: Path
    images: Path | None = None
    image: Path | None = None


def plan_pictures(
    pairs: Sequence[LabelPair], overlay: Path | None, images: Path | None = None
) -> dict[str, PicturePlan]:
    """Plan the pictures of pairs of label files, and create the folder for them.

    Parameters
    ----------
    pairs
        Label files; pairs that lack one of the two are skipped.
    overlay
        A folder, or a PNG if there is one pair; None: nothing is drawn.
    images
        An image if there is one pair, or a folder with images named like the labels; None: the
        objects are filled, on black.

    Returns
    -------
    dict
        By the pairs' names.

    Raises
    ------
    InputError
        The images do not exist, or no pictures are requested.
    OutputError
        The pictures cannot be written there, or would replace an input.
    """
    if overlay is None:
        if images is not None:
            raise InputError(f"{images} is for pictures to be drawn on; say where: --overlay.")
        return {}
    found = _find_images(pairs, images)
    folder = overlay.is_dir() or overlay.suffix.lower() != ".png"
    _check_target(overlay, folder, len(pairs))
    plans = {}
    for pair in pairs:
        if pair.predicted is not None and pair.truth is not None:
            name = image_stem(pair.predicted)
            target = overlay / f"{name}.png" if folder else overlay
            plans[pair.name] = PicturePlan(target, images, found.get(name))
    _check_inputs_are_kept(plans.values(), pairs)
    if folder:
        make_folder(overlay)
    return plans


def draw_picture(plan: PicturePlan, comparison: Comparison) -> str:
    """Draw the plane with the most objects into a PNG; an existing one is replaced.

    Of several planes with as many, it is the middle one.

    Returns
    -------
    str
        A line that names the file and the plane.

    Raises
    ------
    InputError
        The image is missing, cannot be read, or has another shape than the labels.
    OutputError
        The file cannot be written.
    """
    if plan.images is not None and plan.image is None:
        raise InputError(
            f"{plan.target} is not drawn: {plan.images} has no image of the name "
            f"{plan.target.stem}; add it, or leave --images out."
        )
    plane, count = busiest_plane(comparison)
    ground = None if plan.image is None else _read_plane(plan.image, plane, comparison)
    status = comparison.get_status(comparison.get_frame(plane))
    drawn = draw_comparison(*comparison.read(plane), ground, status=status)
    write_picture(plan.target, drawn)
    sizes = zip(comparison.axes, comparison.labels.shape, plane, strict=True)
    at = [f"{letter.lower()} {i} of 0 to {n - 1}" for letter, n, i in sizes if isinstance(i, int)]
    where = f": {', '.join(at)}, the plane with the most objects ({count:,})" if at else ""
    return f"{plan.target}{where}"


def busiest_plane(comparison: Comparison) -> tuple[Selection, int]:
    """Return the plane with the most predicted and true objects, and their number."""
    planes = comparison.planes
    counts = [sum(map(count_objects, comparison.read(plane))) for plane in planes]
    if not counts:
        raise InputError(f"Labels of shape {comparison.labels.shape} have no plane to draw.")
    best = [number for number, count in enumerate(counts) if count == max(counts)]
    return planes[best[len(best) // 2]], max(counts)


def _find_images(pairs: Sequence[LabelPair], images: Path | None) -> dict[str, Path]:
    """Return the image of each pair, by the stem of its predicted labels."""
    if images is None:
        return {}
    check_exists(images)
    if is_image_folder(images):
        return images_by_name(images)
    if len(pairs) > 1:
        raise InputError(f"{images} is one image for {len(pairs)} labellings; give a folder.")
    return {image_stem(pair.predicted): images for pair in pairs if pair.predicted is not None}


def _check_target(overlay: Path, folder: bool, count: int) -> None:
    problem = ""
    if folder and overlay.exists() and not overlay.is_dir():
        problem = "is no PNG; give a folder, or a name that ends with .png"
    elif folder and not overlay.exists() and overlay.suffix.lower() in SUFFIXES:
        problem = "cannot be drawn; end the name with .png"
    elif not folder and count > 1:
        problem = f"is one picture for {count} labellings; give a folder"
    if problem:
        raise OutputError(f"{overlay} {problem}.")


def _check_inputs_are_kept(plans: Collection[PicturePlan], pairs: Sequence[LabelPair]) -> None:
    """Raise OutputError if a picture would replace an input."""
    inputs = [path for pair in pairs for path in (pair.predicted, pair.truth)]
    inputs += [plan.image for plan in plans]
    taken = {path.resolve() for path in inputs if path is not None}
    for plan in plans:
        if plan.target.resolve() in taken:
            raise OutputError(f"{plan.target} is an input, too; choose another place to draw.")


def _read_plane(path: Path, plane: Selection, comparison: Comparison) -> np.ndarray:
    """Return the plane of an image as (Y, X), or (Y, X, 3) if it has colours."""
    stack = open_stack(path)
    if stack.labels_shape != comparison.labels.shape:
        raise InputError(
            f"{path} has shape {stack.labels_shape}, its labels {comparison.labels.shape}; "
            "give the image that was segmented."
        )
    index = tuple(at for at in plane if isinstance(at, int))
    channels = stack.pick_channels(3) if stack.rgb else (0,)
    values = stack.read(index, (slice(None), slice(None)), channels)
    return np.moveaxis(values, 0, -1) if stack.rgb else values[0]
