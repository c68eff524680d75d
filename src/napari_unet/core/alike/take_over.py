"""What a model finds now, taken over into labels: one change, apart from what the user decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.alike.group_edits import GroupEdit
from napari_unet.core.annotations.edits import TAKEN_OVER
from napari_unet.core.evaluation.label_diff import SAME, ObjectChanges
from napari_unet.core.instances.label_edits import new_labels
from napari_unet.core.instances.mask import number_objects

if TYPE_CHECKING:
    from napari_unet.core.tiles import Index, Window

COVERED = 0.3
"""An object of which more than this share was corrected is the user's."""
FREE = 0.5
"""A new object is drawn if at least this share of it lies on no other."""


def without_known(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Leave out the objects that the user has corrected; the labels stay as they are.

    Parameters
    ----------
    labels, known
        Of the same shape; `known` is bool.
    """
    _, numbers = number_objects(labels)
    flat = numbers.ravel()
    share = np.bincount(flat, known.ravel()) / np.maximum(np.bincount(flat), 1)
    return np.where((share > COVERED)[numbers], 0, labels).astype(labels.dtype)


def take_over(
    labels: Any,
    found: np.ndarray,
    known: np.ndarray,
    index: Index,
    window: Window,
    *,
    classes: bool = False,
    same: float = SAME,
) -> GroupEdit:
    """Work out how labels become what a model finds in a window, where the user has not decided.

    Objects that have changed keep their ids. What the edge of the window cuts is left as it is: the
    model was not asked for the rest of it. No known pixel changes.

    Parameters
    ----------
    labels
        All labels, indexed by slices.
    found
        What the model finds, of the window's shape.
    known
        bool, the same shape: what the user has corrected or checked.
    index, window
        The frame along the leading axes of the labels, and the part of it.
    classes
        The labels are classes, not objects: pixels are taken over.
    same
        From this IoU on, an object has not changed.

    Returns
    -------
    GroupEdit
        `done` and `left_out` count objects, or pixels.

    Raises
    ------
    InputError
        There are not enough unused ids.
    """
    before = np.array(labels[(*index, *window)])
    if classes:
        after, left_out = np.where(known, before, found).astype(before.dtype), 0
        done = int(np.count_nonzero(after != before))
    else:
        cut = _cut_faces(window, tuple(labels.shape[len(index) :]))
        after, done, left_out = _take_objects(labels, before, found, known, cut, same)
    changed = np.nonzero(after != before)
    leading = [np.full(len(changed[0]), number) for number in index]
    place = [at + w.start for at, w in zip(changed, window, strict=True)]
    where = (*leading, *place)
    return GroupEdit(TAKEN_OVER, where, before[changed], after[changed], (), done, left_out)


def _take_objects(
    labels: Any,
    before: np.ndarray,
    found: np.ndarray,
    known: np.ndarray,
    cut: np.ndarray,
    same: float,
) -> tuple[np.ndarray, int, int]:
    """Return the window's labels afterwards, and how many objects change, and are left as they are.

    An object goes only if what is there instead can be drawn.
    """
    old, new = without_known(before, known), without_known(found, known)
    changes = ObjectChanges.from_labels(old, new, same=same)
    cut_new = np.unique(new[cut])
    kept = np.union1d(np.unique(old[cut]), np.unique(old[np.isin(new, cut_new[cut_new > 0])]))
    lost = np.setdiff1d(changes.lost, kept)
    whole = ~np.isin(changes.changed[:, 0], kept) & ~np.isin(changes.changed[:, 1], cut_new)
    changed = changes.changed[whole]
    after = before.copy()
    after[np.isin(old, [*lost, *changed[:, 0]]) & ~known] = 0
    free = (after == 0) & ~known
    gained = np.setdiff1d(changes.gained, cut_new)
    sizes, room = (
        np.bincount(part, minlength=found.max() + 1) for part in (new.ravel(), new[free])
    )
    gained = gained[room[gained] >= FREE * sizes[gained]]
    names = np.zeros(found.max() + 1, np.int64)
    names[changed[:, 1]] = changed[:, 0]
    names[gained] = new_labels(labels, len(gained))
    drawn = np.where(free, names[new], 0)
    after[drawn > 0] = drawn[drawn > 0]
    done = len(lost) + len(changed) + len(gained)
    return after, done, len(changes.lost) + len(changes.changed) + len(changes.gained) - done


def without_cut(
    old: np.ndarray, new: np.ndarray, window: Window, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Leave out the objects of two labellings that the window cuts, and what meets them.

    Parameters
    ----------
    window, size
        The window of both, and the size of the frame that it is a part of.
    """
    cut = _cut_faces(window, size)
    ends = [np.setdiff1d(labels[cut], 0) for labels in (old, new)]
    gone_old = np.union1d(ends[0], old[np.isin(new, ends[1])])
    gone_new = np.union1d(ends[1], new[np.isin(old, ends[0])])
    return np.where(np.isin(old, gone_old), 0, old), np.where(np.isin(new, gone_new), 0, new)


def _cut_faces(window: Window, size: tuple[int, ...]) -> np.ndarray:
    """Return the pixels of a window beside which the frame goes on; bool."""
    cut = np.zeros([w.stop - w.start for w in window], bool)
    for axis, (w, length) in enumerate(zip(window, size, strict=True)):
        faces = np.moveaxis(cut, axis, 0)
        faces[:1] |= w.start > 0
        faces[-1:] |= w.stop < length
    return cut
