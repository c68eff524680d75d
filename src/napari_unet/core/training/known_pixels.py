"""Labels of which only some pixels are known: their targets, sizes, and how background weighs.

In a volume with single labelled planes, objects are flat slices: their extent along z is unknown,
so that they are measured in the plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.image.diameters import equivalent_diameters, weighted_median
from napari_unet.core.instances.heads import InstanceHead

if TYPE_CHECKING:
    from napari_unet.core.instances.heads import SemanticHead

MAX_BACKGROUND_WEIGHT = 5.0
"""Known background weighs no more than this, however little of it is known."""
OTHERS = 10
"""Objects that were not corrected count as so many in the size of an image's objects, at most."""


def known_targets(
    labels: np.ndarray, known: np.ndarray, head: InstanceHead | SemanticHead
) -> np.ndarray:
    """Return a head's targets, float32 (K, [Z,] Y, X), valid where `known` is true."""
    if labels.ndim == 2 or not isinstance(head, InstanceHead) or known.all():
        return head.targets(labels)
    isolated = isolated_planes(known)
    targets = head.targets(np.where(known, labels, 0))
    for z in np.flatnonzero(isolated):
        targets[:, z] = head.targets(labels[z])
    return targets


def labelled_diameter(
    labels: np.ndarray,
    known: np.ndarray,
    head: InstanceHead | SemanticHead,
    voxel_ratio: float = 1.0,
) -> float:
    """Return how large the objects of an image are, in pixels; 0 without any, and of classes.

    It is the median diameter of the known objects and of the others that are labelled. What a user
    corrects is no fair sample: it is what was missed, often the smallest or largest objects. So
    the other labels, which a model found and the user left as they are, count as `OTHERS` objects
    at most: they decide where little is known, and hardly matter where much is.

    Parameters
    ----------
    voxel_ratio
        See `equivalent_diameters`.
    """
    if not isinstance(head, InstanceHead):
        return 0.0
    parts = [(labels, known)]
    if labels.ndim == 3 and (isolated := isolated_planes(known)).any():
        corrected = np.where(known, labels, 0)
        alone, others = (len(np.unique(corrected[planes])) for planes in (isolated, ~isolated))
        if alone >= others:  # sections of objects; a speck alone in its plane is none of them
            parts = [(labels[z], known[z]) for z in np.flatnonzero(isolated)]
    found = [_sizes(*part, voxel_ratio) for part in parts]
    sizes, corrected = (np.concatenate(values) for values in zip(*found, strict=True))
    if not len(sizes):
        return 0.0
    others = int(np.count_nonzero(~corrected))
    weights = np.where(corrected, 1.0, min(1.0, OTHERS / max(1, others)))
    return weighted_median(sizes, weights)


def _sizes(
    labels: np.ndarray, known: np.ndarray, voxel_ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the diameter of each labelled object, and whether at least half of it is known."""
    whole = np.bincount(labels.ravel())[1:]
    inside = np.bincount(labels[known].ravel(), minlength=len(whole) + 1)[1:]
    there = whole > 0
    sizes = equivalent_diameters(whole[there], labels.ndim, voxel_ratio)
    return sizes, 2 * inside[there] >= whole[there]


def background_weight(labels: np.ndarray, known: np.ndarray, usual: float) -> float:
    """Return the weight of the known background, from 1 to `MAX_BACKGROUND_WEIGHT`.

    Corrected objects are known with a margin around them, half of which is object. A network
    trained on that without weights would find objects in half of every image.

    Parameters
    ----------
    labels, known
        Integers and bool, ([Z,] Y, X).
    usual
        Share of an image that objects usually cover, which the weight restores.
    """
    share = float((labels[known] > 0).mean()) if known.any() and not known.all() else 0.0
    if share <= usual or share == 1:
        return 1.0
    return min(MAX_BACKGROUND_WEIGHT, share / (1 - share) * (1 - usual) / usual)


def isolated_planes(known: np.ndarray) -> np.ndarray:
    """Tell which planes of a volume have known pixels while their neighbours have none; (Z,)."""
    some = np.asarray(known.any((1, 2)))
    beside = np.zeros(len(some), bool)
    beside[1:] |= some[:-1]
    beside[:-1] |= some[1:]
    return np.asarray(some & ~beside) if len(some) > 1 else np.zeros(len(some), bool)
