"""What an edited object says of the pixels around it: how far its background is known."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

MARGIN = 0.35
"""Margin of known background around what was touched, as a share of the objects' diameter: about
half of the gap to a neighbour among crowded objects ..."""
MARGIN_LIMITS = (3.0, 30.0)
"""... and within these limits, in pixels."""
RIM, RIM_SHARE = 1.5, 0.07
"""Width of the background around objects that were drawn that is certain, as their outline shows
it: in pixels, of which no more is known in a clump; and for large objects a share of the diameter.
"""


def known_around(
    plane: np.ndarray,
    core: np.ndarray,
    clumps: np.ndarray,
    diameter: float,
    margin: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is known by what was touched, and which of it is assumed; bool (Y, X) both.

    Parameters
    ----------
    plane
        The labels of objects as they are now, (Y, X).
    core, clumps
        What was touched, and the `rest_of_clumps`; bool (Y, X).
    diameter
        Of the objects touched, in pixels.
    margin
        Width of the background around what was touched, in pixels; None: by the diameter.
    """
    around = background_near(core, clumps, margin_of(diameter) if margin is None else margin)
    known = core | around & (plane == 0)
    outlined = near(core & (plane > 0), max(RIM, RIM_SHARE * diameter))
    return known, known & ~core & ~outlined


def margin_of(diameter: float) -> float:
    """Return how far the background around objects of a diameter is known, in pixels."""
    return float(np.clip(MARGIN * diameter, *MARGIN_LIMITS))


def rest_of_clumps(plane: np.ndarray, erased: np.ndarray) -> np.ndarray:
    """Mark what is left of deleted objects in whose place others were drawn; bool (Y, X).

    Such an object was outlined wrongly: it may have been a clump, of which not all objects are
    drawn yet. What was deleted and not replaced is background.

    Parameters
    ----------
    plane
        The labels as they are now, (Y, X).
    erased
        The object that was deleted at each pixel; 0 for none.
    """
    gone = np.setdiff1d(erased[erased > 0], plane)
    replaced = np.intersect1d(gone, erased[plane > 0])
    return rest_of(replaced, plane, erased)


def rest_of(replaced: np.ndarray, plane: np.ndarray, erased: np.ndarray) -> np.ndarray:
    """Mark what is left of objects, of which it is known that others were drawn in their place."""
    return np.asarray(np.isin(erased, replaced) & (plane == 0) if len(replaced) else erased < 0)


def middle_diameter(sizes: np.ndarray) -> float:
    """Return the median diameter in pixels of objects of these areas."""
    return float(np.median(2 * np.sqrt(sizes / np.pi)))


def background_near(core: np.ndarray, clumps: np.ndarray, reach: float) -> np.ndarray:
    """Return what lies within `reach` of a mask (Y, X); of the rest of clumps only a rim.

    An object that was drawn in a clump has the clump's other objects right beside it.
    """
    found = near(core, reach)
    return found & (~clumps | near(core, RIM)) if clumps.any() else found


def near(core: np.ndarray, reach: float) -> np.ndarray:
    """Return the pixels within `reach` of a mask (Y, X).

    Distances are computed around each part alone: a stroke in a large image must stay cheap.
    """
    out = core.copy()
    wide = int(np.ceil(reach))
    for rows, columns in ndimage.find_objects(ndimage.label(core)[0]):
        part = (
            slice(max(0, rows.start - wide), rows.stop + wide),
            slice(max(0, columns.start - wide), columns.stop + wide),
        )
        out[part] |= ndimage.distance_transform_edt(~core[part]) <= reach
    return out
