"""Whether an image shows objects of two sizes, so that only its user knows which are meant.

At some scale a model nearly always finds a few objects of another size: clumps of the real ones,
or pieces of them. A second size is worth naming in two cases. Either the model is unsure: more
objects are clear at the second size than at the one that is taken. Or both sizes are there: each
large object holds one small one, as cells hold their nuclei; one that holds several is a clump, or
they are its pieces.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_unet.core.image.diameters import working_scale
from napari_unet.nn.inference.model_input import get_voxel_ratio
from napari_unet.nn.inference.scale_trials import (
    CLEAR_COUNT,
    CLEAR_RATIO,
    EDGES,
    ScaleTrial,
    choose_part,
    find_objects,
    name_clear_objects,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.nn.inference.model import Model

OTHER_RATIO = 2.5
"""Sizes of clear objects that differ by more than this are two kinds of objects, not a spread."""
OTHER_SCALE = 2.0
"""Objects of another size are not looked for at larger scales: there any blur looks like some."""
FINE_EDGES = {2: 512, 3: 64}
"""Edge length of the part in which small objects are looked for in large ones, in the network's
pixels at the small ones' scale."""
MOST_HELD = 1.2
"""Where both sizes are there, the large objects that hold any small ones hold so many at most, on
average. Measured: at most 1.17 for nuclei drawn in cells, at least 1.49 for clumps and pieces."""
UNSURE = 1.5
"""Of the size the model is unsure where the other trial's quality is worse by less than this."""


def find_second_size(
    trials: Sequence[ScaleTrial],
    found: float,
    frame: Frame,
    model: Model,
    settings: PredictSettings,
) -> float:
    """Return the diameter of objects that are not of the size found, but may be meant.

    Parameters
    ----------
    trials
        Of the frame, at several scales.
    found
        The diameter that is taken, in the image's pixels.

    Returns
    -------
    float
        In the image's pixels; 0 if there is no second size that is worth naming.
    """
    others = [trial for trial in trials if _is_other(trial, found)]
    if not others or not model.diameter:
        return 0.0
    other = max(others, key=lambda trial: trial.clear)
    alike = [t.clear for t in trials if t.clear and _ratio(t.clear_diameter, found) <= CLEAR_RATIO]
    best = max(trial.quality(model.diameter) for trial in trials)
    unsure = best - other.quality(model.diameter) < UNSURE
    if unsure and other.clear > max(alike, default=0):
        return other.clear_diameter
    small, large = sorted((found, other.clear_diameter))
    held = count_held(frame, small, large, model, settings)
    holders = held[held > 0]
    both = len(holders) >= CLEAR_COUNT and holders.mean() <= MOST_HELD
    return other.clear_diameter if both else 0.0


def count_held(
    frame: Frame, small: float, large: float, model: Model, settings: PredictSettings
) -> np.ndarray:
    """Return how many clear small objects lie in each clear large one, in a part of a frame.

    Each are looked for at their own scale.

    Parameters
    ----------
    small, large
        Diameters in the image's pixels.
    """
    coarse, fine = (working_scale(size, model.diameter) for size in (large, small))
    at_coarse, at_fine, edges = frame.at(coarse), frame.at(fine), FINE_EDGES[len(frame.shape)]
    _, around = choose_part(at_coarse, 1.0)
    window = tuple(
        _middle(part, edges, fine / coarse, size)
        for part, size in zip(around, at_fine.shape, strict=True)
    )
    # The same place at the large objects' scale, with room for those that reach out of it.
    room = EDGES[len(frame.shape)] // 8
    whole = tuple(
        slice(
            max(0, math.floor(part.start * coarse / fine) - room),
            min(size, math.ceil(part.stop * coarse / fine) + room),
        )
        for part, size in zip(window, at_coarse.shape, strict=True)
    )
    wanted, ratio = model.diameter or 0.0, get_voxel_ratio(model, frame.stack)
    maps, labels = find_objects(at_coarse.read(whole), model, settings)
    clear = name_clear_objects(labels, maps[1], wanted, ratio)
    maps, parts = find_objects(at_fine.read(window), model, settings)
    names = name_clear_objects(parts, maps[1], wanted, ratio)
    if not len(clear) or not len(names):
        return np.zeros(len(clear), np.int64)
    centres = np.array(ndimage.center_of_mass(parts > 0, parts, names))
    starts = np.array([[part.start for part in window], [part.start for part in whole]])
    places = np.round((centres + starts[0]) * coarse / fine - starts[1]).astype(int)
    places = np.clip(places, 0, np.array(labels.shape) - 1)
    held = np.bincount(labels[tuple(places.T)], minlength=int(labels.max()) + 1)
    return np.asarray(held[clear])


def _is_other(trial: ScaleTrial, found: float) -> bool:
    """Return whether a trial shows clear objects of another size than the one found.

    Where the look of the part says that objects are much larger, they are pieces of those.
    """
    return (
        trial.clear >= CLEAR_COUNT
        and trial.scale <= OTHER_SCALE
        and _ratio(trial.clear_diameter, found) > OTHER_RATIO
        and (trial.expected or 0.0) < OTHER_RATIO * trial.clear_diameter
    )


def _ratio(one: float, other: float) -> float:
    return max(one, other) / max(min(one, other), 1e-9)


def _middle(part: slice, edge: int, zoom: float, size: int) -> slice:
    """Return the middle of a part at another scale, `edge` long at most."""
    centre, length = (part.start + part.stop) / 2 * zoom, (part.stop - part.start) * zoom
    half = min(edge, length) / 2
    return slice(max(0, round(centre - half)), min(size, round(centre + half)))
