"""What an edit was in the user's eyes: an object deleted, accepted, split, merged or reshaped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_unet.core.alike.descriptors import Candidate
from napari_unet.core.alike.group_edits import ACCEPT, RESHAPE, SMALLEST_PART
from napari_unet.core.annotations.edits import LABELS, TAKEN_OVER
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT
from napari_unet.core.instances.mask import ObjectMask

if TYPE_CHECKING:
    from napari_unet.core.annotations.edits import Edit

REST = 0.05
"""An object counts as deleted if an eraser left no more than this share of it."""


@dataclass(frozen=True)
class Example:
    """One object as it was before the user edited it.

    Attributes
    ----------
    kind
        One of `GROUP_EDITS`.
    item
        The object, or the pair that was merged.
    before
        The frame's labels before the edit, ([Z,] Y, X).
    """

    kind: str
    item: Candidate
    before: np.ndarray


def recognise(edit: Edit, labels: Any, ndim: int) -> Example | None:
    """Tell what was done to which object; None for what can be done to one place only.

    Parameters
    ----------
    edit
        The last one of these labels.
    labels
        As they are after it, in the order of the journal; indexed by slices.
    ndim
        2 if objects end with their plane, 3 if they do not.
    """
    if edit.canvas != LABELS or not edit.box or edit.source == TAKEN_OVER:
        return None
    leading = len(edit.shape) - ndim
    index = tuple(start for start, _ in edit.box[:leading])
    if any(stop - start != 1 for start, stop in edit.box[:leading]):
        return None
    after = np.array(labels[index])
    before = after.copy()
    places = np.unravel_index(edit.flat(), edit.shape)[leading:]
    before[places] = edit.values(after=False)
    found = _kind(edit, before, after)
    if found is None:
        return None
    kind, ids = found
    where = np.nonzero(np.isin(before, ids))
    if not len(where[0]):
        return None
    window = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in where)
    mask = ObjectMask(window, np.isin(before[window], ids))
    return Example(kind, Candidate(index, ids, mask), before)


def _kind(edit: Edit, before: np.ndarray, after: np.ndarray) -> tuple[str, tuple[int, ...]] | None:
    """Return what was done, and the ids of the object (or the two) before."""
    if edit.confirmed:
        return (ACCEPT, edit.confirmed[:1]) if len(edit.confirmed) == 1 else None
    old, new = (set(np.unique(edit.runs[:, side]).tolist()) for side in (2, 3))
    objects = (old | new) - {0}
    if new == {0} and len(old) == 1:
        (label,) = old
        left = np.count_nonzero(after == label)
        if left <= REST * np.count_nonzero(before == label):
            return DELETE, (label,)
        return (SPLIT if _is_in_two(after == label) else RESHAPE), (label,)
    if len(old) == len(new) == 1 and not (old | new) & {0}:
        (was,), (now,) = old, new
        if not (before == now).any() and (after == was).any():
            return SPLIT, (was,)
        if (before == now).any() and not (after == was).any():
            return MERGE, (now, was)
    existing = [label for label in objects if (before == label).any() and (after == label).any()]
    return (RESHAPE, (existing[0],)) if len(objects) == len(existing) == 1 else None


def _is_in_two(inside: np.ndarray) -> bool:
    parts, count = ndimage.label(inside)
    sizes = np.sort(ndimage.sum_labels(inside, parts, np.arange(1, count + 1)))
    return count > 1 and bool(sizes[-2] >= SMALLEST_PART * sizes.sum())
