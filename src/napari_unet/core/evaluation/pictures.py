"""Pictures of scored label files: one PNG an image, with its hits, misses and false objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.evaluation.label_files import by_name
from napari_unet.core.evaluation.overlay import compare, write_picture
from napari_unet.core.instances.matching import count_objects
from napari_unet.core.io.atomic import make_folder, plain_name
from napari_unet.core.io.readers import SUFFIXES, is_zarr
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from napari_unet.core.evaluation.comparison import Comparison, Place
    from napari_unet.core.evaluation.label_files import LabelPair


@dataclass(frozen=True)
class PicturePlan:
    """Where the picture of a pair of label files goes, and what it is drawn on.

    Attributes
    ----------
    target
        The PNG.
    images
        Where the image was looked for; None: it is drawn on black.
    image
        The image; None if there is none of that name.
    """

    target: Path
    images: Path | None = None
    image: Path | None = None


def plan_pictures(
    pairs: Sequence[LabelPair], overlay: Path | None, images: Path | None = None
) -> dict[str, PicturePlan]:
    """Settle what is drawn where, and make the folder for it.

    Parameters
    ----------
    pairs
        Label files; pairs that lack one of the two are passed over.
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
        Images that are not there, or for which no pictures are asked.
    OutputError
        Pictures that cannot be made at that place, or would take the place of an input.
    """
    if overlay is None:
        if images is not None:
            raise InputError(f"{images} is for pictures to be drawn on; say where: --overlay.")
        return {}
    found = _find_images(pairs, images)
    folder = overlay.is_dir() or overlay.suffix.lower() != ".png"
    _check_place(overlay, folder, len(pairs))
    plans = {}
    for pair in pairs:
        if pair.predicted is not None and pair.truth is not None:
            name = plain_name(pair.predicted)
            target = overlay / f"{name}.png" if folder else overlay
            plans[pair.name] = PicturePlan(target, images, found.get(name))
    _spare_inputs(plans.values(), pairs)
    if folder:
        make_folder(overlay)
    return plans


def draw_picture(plan: PicturePlan, comparison: Comparison) -> str:
    """Draw the plane with the most objects into a PNG; an existing one is replaced.

    Where several planes have as many, it is the middle one of them.

    Returns
    -------
    str
        The file, and which plane it shows, as a line.

    Raises
    ------
    InputError
        The image is missing, cannot be read, or is not the one that the labels belong to.
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
    verdict = comparison.judge(comparison.frame_of(plane))
    drawn = compare(*comparison.read(plane), ground, verdict=verdict)
    write_picture(plan.target, drawn)
    sizes = zip(comparison.axes, comparison.labels.shape, plane, strict=True)
    at = [f"{letter.lower()} {i} of 0 to {n - 1}" for letter, n, i in sizes if isinstance(i, int)]
    where = f": {', '.join(at)}, the plane with the most objects ({count:,})" if at else ""
    return f"{plan.target}{where}"


def busiest_plane(comparison: Comparison) -> tuple[Place, int]:
    """Return the plane with the most objects, predicted and true ones, and how many."""
    planes = comparison.planes
    counts = [sum(map(count_objects, comparison.read(plane))) for plane in planes]
    if not counts:
        raise InputError(f"Labels of shape {comparison.labels.shape} have no plane to draw.")
    best = [place for place, count in enumerate(counts) if count == max(counts)]
    return planes[best[len(best) // 2]], max(counts)


def _find_images(pairs: Sequence[LabelPair], images: Path | None) -> dict[str, Path]:
    """Return the images by the names of the labels that they belong to."""
    if images is None:
        return {}
    if not images.exists():
        raise InputError(f"{images} does not exist; check the spelling and the folder.")
    if images.is_dir() and not is_zarr(images):
        return by_name(images)
    if len(pairs) > 1:
        raise InputError(f"{images} is one image for {len(pairs)} labellings; give a folder.")
    return {plain_name(pair.predicted): images for pair in pairs if pair.predicted is not None}


def _check_place(overlay: Path, folder: bool, count: int) -> None:
    problem = ""
    if folder and overlay.exists() and not overlay.is_dir():
        problem = "is no PNG; give a folder, or a name that ends with .png"
    elif folder and not overlay.exists() and overlay.suffix.lower() in SUFFIXES:
        problem = "cannot be drawn; end the name with .png"
    elif not folder and count > 1:
        problem = f"is one picture for {count} labellings; give a folder"
    if problem:
        raise OutputError(f"{overlay} {problem}.")


def _spare_inputs(plans: Collection[PicturePlan], pairs: Sequence[LabelPair]) -> None:
    """Refuse to draw a picture in the place of what is evaluated."""
    inputs = [path for pair in pairs for path in (pair.predicted, pair.truth)]
    inputs += [plan.image for plan in plans]
    taken = {path.resolve() for path in inputs if path is not None}
    for plan in plans:
        if plan.target.resolve() in taken:
            raise OutputError(f"{plan.target} is an input, too; choose another place to draw.")


def _read_plane(path: Path, plane: Place, comparison: Comparison) -> np.ndarray:
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
