"""Scores of membrane maps as in the ISBI 2012 challenge (Arganda-Carreras et al. 2015).

The scores tell whether membranes separate the cells, not how thick they are: membranes are thinned
to lines of one pixel, and the regions between are compared with the true cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.metrics import adapted_rand_error
from skimage.morphology import skeletonize

from napari_unet.core.errors import InputError

THRESHOLDS = tuple(step / 10 for step in range(1, 10))
"""Probabilities of being inside a cell at which a map is thresholded."""
MARGIN = 16
"""Pixels by which membranes are continued beyond the image, since thinning shortens lines."""


@dataclass(frozen=True)
class MembraneScores:
    """Scores of a stack of maps, each at its best threshold.

    Attributes
    ----------
    v_rand
        Foreground-restricted Rand score after thinning: the F-score over pairs of pixels that are
        in one cell, 0 to 1.
    pixel_error
        Share of pixels on the wrong side of the threshold, 0 to 1.
    v_rand_threshold, pixel_error_threshold
        Thresholds that gave the best scores.
    """

    v_rand: float
    v_rand_threshold: float
    pixel_error: float
    pixel_error_threshold: float


def score_membranes(
    inside: np.ndarray, truth: np.ndarray, thresholds: tuple[float, ...] = THRESHOLDS
) -> MembraneScores:
    """Score maps of cell interiors against the truth, pooled over the sections.

    Parameters
    ----------
    inside
        Probability of being inside a cell, (N, Y, X).
    truth
        Above 0 inside cells, 0 on membranes, (N, Y, X).
    thresholds
        For each score the best of them is taken, for all sections together.

    Raises
    ------
    InputError
        The shapes differ, or are not (N, Y, X).
    """
    if inside.shape != truth.shape or inside.ndim != 3:
        raise InputError(
            f"The maps have shape {inside.shape}, the truth {truth.shape}; give two stacks (N, Y, "
            "X) of equal shape."
        )
    true = truth > 0
    true_cells = number_cells(true)
    rand = [rand_score(thinned_cells(inside > t), true_cells) for t in thresholds]
    wrong = [float(np.mean((inside > t) != true)) for t in thresholds]
    best, lowest = int(np.argmax(rand)), int(np.argmin(wrong))
    return MembraneScores(rand[best], thresholds[best], wrong[lowest], thresholds[lowest])


def thinned_cells(inside: np.ndarray) -> np.ndarray:
    """Thin the membranes of bool (N, Y, X) to lines of one pixel, and label the cells between."""
    pad = ((MARGIN, MARGIN), (MARGIN, MARGIN))
    crop = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    wide = [np.pad(~section, pad, mode="edge") for section in inside]
    lines = [skeletonize(section)[crop] for section in wide]  # type: ignore[no-untyped-call]
    return number_cells(~np.stack(lines))


def number_cells(inside: np.ndarray) -> np.ndarray:
    """Label the cells of each section (N, Y, X); cells that meet at corners only are apart."""
    plane = np.zeros((3, 3, 3), bool)
    plane[1] = ndimage.generate_binary_structure(2, 1)
    return np.asarray(ndimage.label(inside, plane)[0])


def rand_score(cells: np.ndarray, truth: np.ndarray) -> float:
    """Return the F-score over pairs of pixels in one cell, among the pixels of true cells.

    Each pixel of a true cell that is in no predicted cell counts as a cell of its own.
    """
    alone = (cells == 0) & (truth > 0)
    cells = cells.copy()
    cells[alone] = cells.max(initial=0) + 1 + np.arange(np.count_nonzero(alone))
    if not (truth > 0).any():
        return 1.0
    error = adapted_rand_error(truth, cells)[0]  # type: ignore[no-untyped-call]
    return 1.0 - float(error)
