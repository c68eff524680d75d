"""A robot that clicks on known objects as people do, to train and to measure the click head.

It clicks into the middle of the object, and then into the middle of the largest error (the robot
of Xu et al. 2016, Deep interactive object selection, and Sofiiuk et al. 2021, Reviving iterative
training with mask guidance for interactive segmentation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from napari_unet.core.prompts.clicks import Click, ClickSet

Respond = Callable[[ClickSet], np.ndarray]

INNER = 0.4
"""People click at pixels this deep in an object, or deeper, as a share of its deepest pixel."""
CARELESS = 0.15
"""... but one in so many of their clicks lies anywhere in it."""


def first_click(truth: np.ndarray, rng: np.random.Generator | None = None) -> Click:
    """Click on an object for the first time.

    Parameters
    ----------
    truth
        bool ([Z,] Y, X), True somewhere.
    rng
        Jitters the click as a person's hand and eye do. None: the deepest pixel.
    """
    return Click(_pick_pixel(_depth(truth), rng))


def next_click(
    truth: np.ndarray, mask: np.ndarray, rng: np.random.Generator | None = None
) -> Click | None:
    """Correct a mask by a click in its largest error; None if there is no error.

    The largest error is that into which the largest disc fits, be it missing or too much.

    Parameters
    ----------
    truth, mask
        bool ([Z,] Y, X): the object as it is, and as it was segmented.
    rng
        As in `first_click`.
    """
    missing, excess = _depth(truth & ~mask), _depth(mask & ~truth)
    positive = bool(missing.max(initial=0) >= excess.max(initial=0))
    depth = missing if positive else excess
    return Click(_pick_pixel(depth, rng), positive) if depth.any() else None


def simulate_clicks(
    truth: np.ndarray,
    respond: Respond,
    count: int,
    rng: np.random.Generator | None = None,
) -> Iterator[tuple[ClickSet, np.ndarray]]:
    """Click on an object and correct its mask, click after click, until it is right.

    Parameters
    ----------
    truth
        bool ([Z,] Y, X), True somewhere.
    respond
        Gives the mask, bool of that shape, for the clicks so far.
    count
        Clicks at most.
    rng
        As in `first_click`.

    Yields
    ------
    ClickSet, np.ndarray
        The clicks so far and the mask that they gave.
    """
    clicks, click = ClickSet(), first_click(truth, rng)
    for _ in range(count):
        clicks = clicks.added(click)
        mask = respond(clicks)
        yield clicks, mask
        following = next_click(truth, mask, rng)
        if following is None:
            return
        click = following


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return the intersection of two bool arrays over their union; 1 if both are empty."""
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 1.0


def _depth(region: np.ndarray) -> np.ndarray:
    """Return each pixel's distance to the region's border; the image's own border is one, too."""
    depth = np.zeros(region.shape)
    if region.any():
        (box,) = ndimage.find_objects(region.view(np.uint8))  # beyond it nothing is any deeper
        whole = ndimage.distance_transform_edt(np.pad(region[box], 1))
        depth[box] = whole[(slice(1, -1),) * region.ndim]
    return depth


def _pick_pixel(depth: np.ndarray, rng: np.random.Generator | None) -> tuple[int, ...]:
    """Choose a pixel of a region by its depth there; at random if `rng` is given."""
    if rng is None:
        at = int(depth.argmax())
    else:
        minimum = 0 if rng.random() < CARELESS else INNER * depth.max()
        at = int(rng.choice(np.flatnonzero(depth > minimum)))
    return tuple(int(i) for i in np.unravel_index(at, depth.shape))
