"""What an edited object says of the pixels around it: how far its background is known."""

from __future__ import annotations

import math

import numpy as np

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

    With the distances along y at hand, each pixel on either side in x is a comparison: on objects
    side by side that is ten times as fast as distances around each of them.
    """
    limit = math.floor(reach**2)  # of squares of distances, which are whole numbers
    limit += math.sqrt(limit + 1) <= reach  # rounded, it may be one too few
    wide = math.isqrt(limit)
    rows, columns = (np.flatnonzero(core.any(axis)) for axis in (1, 0))
    out = np.zeros(core.shape, bool)
    if not len(rows):
        return out
    part = tuple(slice(max(0, at[0] - wide), at[-1] + wide + 1) for at in (rows, columns))
    away = _rows_away(core[part], wide)
    found = away <= wide
    for side in range(1, min(wide, found.shape[1] - 1) + 1):
        close = away <= math.isqrt(limit - side**2)
        found[:, side:] |= close[:, :-side]
        found[:, :-side] |= close[:, side:]
    out[part] = found
    return out


def _rows_away(core: np.ndarray, wide: int) -> np.ndarray:
    """Return how many rows away the mask is, up and down; more than `wide` where it is farther."""
    away = np.full(core.shape, wide + 1, np.min_scalar_type(wide + 2))
    away[core] = 0
    last = len(away) - 1
    for row in range(1, last + 1):
        np.minimum(away[row], away[row - 1] + 1, out=away[row])
    for row in range(last - 1, -1, -1):
        np.minimum(away[row], away[row + 1] + 1, out=away[row])
    return away
