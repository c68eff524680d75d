"""The pictures of an evaluation: into which file each is drawn, over which image and plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.evaluation.overlay import draw_comparison, is_own_picture, write_picture
from napari_unet.core.instances.matching import count_objects
from napari_unet.core.io.files import (
    SUFFIXES,
    check_exists,
    image_stem,
    images_by_name,
    is_image_folder,
    make_folder,
)
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from napari_unet.core.evaluation.comparison import Comparison, LabelPair, Selection


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
        The pictures cannot be written there, or would replace another file than an older picture.
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
    _check_files_are_kept(plans.values(), pairs)
    if folder:
        make_folder(overlay)
    return plans


def draw_picture(plan: PicturePlan, comparison: Comparison) -> str:
    """Draw the plane with the most objects into a PNG; an older one is replaced.

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
    if not counts or 0 in comparison.labels.shape:
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


def _check_files_are_kept(plans: Collection[PicturePlan], pairs: Sequence[LabelPair]) -> None:
    """Raise OutputError if a picture would replace an input, or anything but an older picture."""
    inputs = [path for pair in pairs for path in (pair.predicted, pair.truth)]
    inputs += [plan.image for plan in plans]
    taken = {path.resolve() for path in inputs if path is not None}
    for plan in plans:
        if plan.target.resolve() in taken:
            raise OutputError(f"{plan.target} is an input, too; choose another place to draw.")
        if plan.target.exists() and not is_own_picture(plan.target):
            raise OutputError(
                f"{plan.target} exists already and does not say that it was drawn here, as "
                "pictures of earlier versions do not; choose another place to draw, or delete it."
            )


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
