"""How large the objects of an image are, by one click: the mask of the clicked object tells."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.image.diameters import equivalent_diameters
from napari_unet.core.progress import Progress
from napari_unet.core.prompts.clicks import Click
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.model_input import get_voxel_ratio
from napari_unet.nn.interactive.session import ClickSession

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_unet.core.io.stack import Stack
    from napari_unet.nn.inference.model import Model

LEAST_PX = 3.0
"""A smaller mask is the click itself, on no object."""
AGREEING = 1.6
"""A mask fits a size if their ratio is at most this."""


def clicked_diameter(
    stack: Stack,
    model: Model,
    place: Sequence[float],
    sizes: Sequence[float] = (),
    settings: PredictSettings | None = None,
) -> Generator[Progress, None, float]:
    """Return the diameter of the object at a place, in pixels.

    Where objects lie in objects, as nuclei in cells, it is the smallest one at the place.

    Parameters
    ----------
    place
        Coordinates as those of a `Click`.
    sizes
        Diameters that are likely; the network looks at the place at each of them. Without any, it
        is estimated as for a segmentation. A model without a size takes the image as it is.
    settings
        Which channel, and the number format.

    Raises
    ------
    InputError
        There is no object at that place, or it lies outside the image.
    ModelError
        The model has no click head.
    """
    known = replace(settings or PredictSettings(), diameter=None, diameter_um=None)
    ratio = get_voxel_ratio(model, stack)
    found: list[tuple[bool, float, float]] = []
    tried: list[float | None] = [*sorted(sizes)] if model.diameter else []
    for size in tried or [None]:
        yield Progress(len(found), len(tried), "sizes")
        session = ClickSession(model, stack, settings=replace(known, diameter=size))
        session.add(Click(tuple(place)))
        pixels = max((mask.area for mask in session.shown.masks.values()), default=0)
        diameter = float(equivalent_diameters(np.array(pixels), model.spec.ndim, ratio))
        if diameter < LEAST_PX:
            continue
        error = abs(math.log(diameter / size)) if size else 0.0
        found.append((error > math.log(AGREEING), error, diameter))
    if not found:
        raise InputError("There is no object at that place; click on the middle of one.")
    fitting = [diameter for far, _, diameter in found if not far]
    return min(fitting) if fitting else min(found, key=lambda entry: entry[1])[2]
