"""Targets, sizes and weights where only a part of an image is known.

In a volume of which single planes are labelled, an object is a flat slice: its depth in space is
not known, so that it is measured in the plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.image.diameters import object_diameters
from napari_unet.core.instances.heads import InstanceHead

if TYPE_CHECKING:
    from napari_unet.core.instances.heads import SemanticHead

HEAVIEST = 5.0
"""No background weighs more than this, however little of it is known."""


def known_targets(
    labels: np.ndarray, known: np.ndarray, head: InstanceHead | SemanticHead
) -> np.ndarray:
    """Return a head's targets, float32 (K, [Z,] Y, X), valid where `known` (bool) says so."""
    if labels.ndim == 2 or not isinstance(head, InstanceHead) or known.all():
        return head.targets(labels)
    lonely = lonely_planes(known)
    targets = head.targets(np.where(known, labels, 0))
    for z in np.flatnonzero(lonely):
        targets[:, z] = head.targets(labels[z])
    return targets


def known_diameter(
    labels: np.ndarray, known: np.ndarray, head: InstanceHead | SemanticHead
) -> float:
    """Return the median diameter of the known objects, in pixels; 0 without any, and of classes."""
    if not isinstance(head, InstanceHead):
        return 0.0
    seen = np.where(known, labels, 0)
    if labels.ndim == 3 and (lonely := lonely_planes(known)).any():
        diameters = np.concatenate([object_diameters(seen[z]) for z in np.flatnonzero(lonely)])
    else:
        diameters = object_diameters(seen)
    return float(np.median(diameters)) if len(diameters) else 0.0


def background_weight(labels: np.ndarray, known: np.ndarray, usual: float) -> float:
    """Return how much more the known background must weigh, from 1 to `HEAVIEST`.

    Where objects were touched, they and a margin around them are known: half of that is object.
    A network trained on it as it is would see objects in half of every image.

    Parameters
    ----------
    labels, known
        Integers and bool, ([Z,] Y, X).
    usual
        Share of an image that objects cover, which the weight restores.
    """
    share = float((labels[known] > 0).mean()) if known.any() and not known.all() else 0.0
    if share <= usual or share == 1:
        return 1.0
    return min(HEAVIEST, share / (1 - share) * (1 - usual) / usual)


def lonely_planes(known: np.ndarray) -> np.ndarray:
    """Tell of which planes of a volume something is known, but nothing of those beside it; (Z,)."""
    some = np.asarray(known.any((1, 2)))
    beside = np.zeros(len(some), bool)
    beside[1:] |= some[:-1]
    beside[:-1] |= some[1:]
    return np.asarray(some & ~beside) if len(some) > 1 else np.zeros(len(some), bool)
