"""An object in one plane followed through the next ones, until it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_unet.core.prompts.clicks import Click, ClickSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_unet.core.instances.mask import ObjectMask
    from napari_unet.core.tiles import Index
    from napari_unet.nn.interactive.mask_predictor import MaskPredictor


LEAST_IOU = 0.35
"""From plane to plane an object overlaps with itself by at least this."""
LEAST_CERTAINTY = 0.75
"""Mean probability below which there is no object any more."""
LEAST_CONTRAST = 0.3
"""Share of the contrast to its surroundings, in the trunk's features, that an object keeps."""
GREATEST_GAIN = 1.8
"""By this factor of its area an object may be larger in the next plane."""
LEAST_AREA = 12
"""Pixels of the smallest piece that is worth following."""


def follow(
    clicker_of: Callable[[Index], MaskPredictor],
    seed: Index,
    mask: ObjectMask,
    step: int,
    depth: int,
) -> Iterator[tuple[Index, ObjectMask]]:
    """Yield an object's masks in the planes beside the one where it is known, one after the other.

    The mask of a plane is the previous mask in the next, and its deepest pixel is clicked there.

    Parameters
    ----------
    clicker_of
        Gives what answers clicks in a plane, by its position along the leading axes.
    seed, mask
        The plane where the object is known, and what it is there.
    step
        1 for the planes above, -1 for those below.
    depth
        How many planes there are.
    """
    *outer, z = seed
    known = clicker_of(seed).contrast(mask)
    while 0 <= (z := z + step) < depth and mask.area >= LEAST_AREA:
        index = (*outer, z)
        found = clicker_of(index).answer(_inner_click(mask), mask.cropped())
        if not _goes_on(mask, found) or _kept(known, clicker_of(index).contrast(found)) < (
            LEAST_CONTRAST
        ):
            return
        yield index, found
        mask = found


def _inner_click(mask: ObjectMask) -> ClickSet:
    """Click on a mask's deepest pixel."""
    depth = ndimage.distance_transform_edt(np.pad(mask.inside, 1))
    at = np.unravel_index(int(depth.argmax()), depth.shape)
    place = tuple(float(a - 1 + w.start) for a, w in zip(at, mask.window, strict=True))
    return ClickSet((Click(place),))


def _kept(known: np.ndarray, contrast: np.ndarray) -> float:
    """Return how much of a known contrast there still is, 1 being all of it."""
    return float(contrast @ known / max(float(known @ known), 1e-12))


def _goes_on(before: ObjectMask, after: ObjectMask) -> bool:
    """Tell whether what was found in the next plane is the same object still."""
    if after.area < LEAST_AREA or after.certainty < LEAST_CERTAINTY:
        return False
    both = int(np.count_nonzero(before.within(after.window) & after.inside))
    union = before.area + after.area - both
    return both / union >= LEAST_IOU and after.area <= GREATEST_GAIN * before.area
