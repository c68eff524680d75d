"""Scores of labels where only a part of the image is known."""

from __future__ import annotations

import numpy as np

from napari_unet.core.metrics import Scores, evaluate


def evaluate_known(
    labels: np.ndarray, truth: np.ndarray, known: np.ndarray, thresholds: tuple[float, ...]
) -> Scores:
    """Score labels against the truth, counting what lies in the known part.

    An object counts as a whole if half of it is known; what lies outside neither helps nor harms.

    Parameters
    ----------
    labels, truth
        Unsigned integers ([Z,] Y, X).
    known
        bool of the same shape.
    """
    if known.all():
        return evaluate(labels, truth, thresholds)
    return evaluate(mostly_known(labels, known), mostly_known(truth, known), thresholds)


def mostly_known(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the labels without the objects of which more than half is not known."""
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    place = place.reshape(labels.shape)
    seen = np.bincount(place[known], minlength=len(sizes))
    return np.where((2 * seen >= sizes)[place], labels, 0)
