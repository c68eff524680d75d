"""Targets and sizes of objects of which only a part is known.

In a volume of which single planes are labelled, an object is a flat slice: its depth in space is
not known, so that it is measured in the plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.heads import InstanceHead
from napari_unet.core.sizes import object_diameters

if TYPE_CHECKING:
    from napari_unet.core.heads import SemanticHead


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


def lonely_planes(known: np.ndarray) -> np.ndarray:
    """Tell of which planes of a volume something is known, but nothing of those beside it; (Z,)."""
    some = np.asarray(known.any((1, 2)))
    beside = np.zeros(len(some), bool)
    beside[1:] |= some[:-1]
    beside[:-1] |= some[1:]
    return np.asarray(some & ~beside) if len(some) > 1 else np.zeros(len(some), bool)
