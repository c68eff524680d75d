"""The same edit of many objects: one change of the labels, which can be undone as one."""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_unet.core.alike.descriptors import Candidate, find_pass
from napari_unet.core.errors import InputError
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT, new_labels, split_object
from napari_unet.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari_unet.core.instances.mask import ObjectMask
    from napari_unet.core.tiles import Index, Window

    DistanceMap = Callable[[Index, Window], np.ndarray | None]
    Reshape = Callable[[Candidate], ObjectMask | None]

ACCEPT, RESHAPE = "accept", "reshape"
GROUP_EDITS = (DELETE, ACCEPT, SPLIT, MERGE, RESHAPE)
"""What can be done to all objects that are alike."""
SMALLEST_PART = 0.1
"""A split leaves an object whole if one part were smaller, as a share of it."""


@dataclass(frozen=True)
class GroupEdit:
    """One change of many objects.

    Attributes
    ----------
    kind
        One of `GROUP_EDITS`, or `TAKEN_OVER`.
    where
        Index arrays of the pixels that change, one for each axis of the labels.
    before, after
        Their ids.
    accepted
        For `ACCEPT`: each object's id, and a plane (Y, X) that it is in, counted in C order.
    done, left_out
        How many objects are changed, and how many cannot be, such as those without a place to
        split them.
    """

    kind: str
    where: tuple[np.ndarray, ...]
    before: np.ndarray
    after: np.ndarray
    accepted: tuple[tuple[int, int], ...] = ()
    done: int = 0
    left_out: int = 0


def edit_all(
    labels: Any,
    objects: Sequence[Candidate],
    kind: str,
    *,
    distance_map: DistanceMap = lambda *_: None,
    reshape: Reshape = lambda _: None,
) -> Generator[Progress, None, GroupEdit]:
    """Work out the same edit of many objects, without changing the labels yet.

    Parameters
    ----------
    labels
        Integers, indexed by slices; read frame by frame.
    objects
        As they are in the labels now; for `MERGE` pairs.
    kind
        One of `GROUP_EDITS`.
    distance_map
        For `SPLIT`: what the network sees, by frame and window; see `split_object`.
    reshape
        For `RESHAPE`: the new mask of an object; None leaves it as it is.

    Raises
    ------
    InputError
        There are not enough unused ids for the parts of a split.
    """
    by_frame: dict[Index, list[Candidate]] = defaultdict(list)
    for item in objects:
        by_frame[item.index].append(item)
    if kind == ACCEPT:
        return _accept(labels, objects)
    unused = new_labels(labels, len(objects)) if kind == SPLIT else np.zeros(0, np.int64)
    changes: list[tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]] = []
    done = left_out = 0
    for index, items in by_frame.items():
        before = np.array(labels[index])
        after = before.copy()
        for item in items:
            if kind == DELETE:
                right = _delete(after, item)
            elif kind == MERGE:
                right = _merge(after, before, item)
            elif kind == SPLIT:
                seen = functools.partial(distance_map, index)
                right = _split(after, item, int(unused[done]), seen)
            else:
                right = _replace(after, item, reshape(item))
            done, left_out = done + right, left_out + (not right)
            yield Progress(done + left_out, len(objects), "objects")
        changed = np.nonzero(before != after)
        leading = [np.full(len(changed[0]), number) for number in index]
        changes.append(((*leading, *changed), before[changed], after[changed]))
    if not changes:
        nothing = np.zeros(0, np.int64)
        return GroupEdit(kind, (nothing,) * labels.ndim, nothing, nothing)
    places, old, new = zip(*changes, strict=True)
    where = tuple(np.concatenate(axis) for axis in zip(*places, strict=True))
    return GroupEdit(kind, where, np.concatenate(old), np.concatenate(new), (), done, left_out)


def _accept(labels: Any, objects: Sequence[Candidate]) -> GroupEdit:
    """Accept objects as they are: no pixel changes."""
    shape, nothing = tuple(labels.shape), np.zeros(0, np.int64)
    planes = shape[:-2]
    accepted = []
    for item in objects:
        depth = [range(w.start, w.stop) for w in item.mask.window[:-2]] or [range(1)]
        for z in depth[0]:
            at = (*item.index, z)[: len(planes)]
            number = int(np.ravel_multi_index(at, planes)) if planes else 0
            accepted += [(label, number) for label in item.labels]
    return GroupEdit(
        ACCEPT, (nothing,) * len(shape), nothing, nothing, tuple(accepted), len(objects)
    )


def _delete(after: np.ndarray, item: Candidate) -> bool:
    part = after[item.mask.window]
    mine = item.mask.inside & np.isin(part, item.labels)
    part[mine] = 0
    return bool(mine.any())


def _merge(after: np.ndarray, before: np.ndarray, item: Candidate) -> bool:
    """Give a pair one id: that which the first has got, as it may be merged already."""
    window, inside = item.mask.window, item.mask.inside
    firsts = after[window][inside & (before[window] == item.labels[0])]
    seconds = after[window][inside & (before[window] == item.labels[1])]
    if not (len(firsts) and len(seconds)):
        return False
    keep, gone = int(firsts[0]), int(seconds[0])
    if keep != gone:
        # All of it, which may reach beyond this pair if it was merged with a third one.
        after[after == gone] = keep
    return keep != gone


def _split(
    after: np.ndarray,
    item: Candidate,
    fresh: int,
    distance_map: Callable[[Window], np.ndarray | None],
) -> bool:
    """Split an object at its deepest neck; leave it whole if it has none."""
    window, inside = item.mask.window, item.mask.inside
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[(slice(1, -1),) * inside.ndim]
    seen = distance_map(window)
    height = depth / max(1.0, float(depth.max())) + (0 if seen is None else seen)
    found = find_pass(height, inside)
    if found is None:
        return False
    places = [
        tuple(int(p + w.start) for p, w in zip(at, window, strict=True)) for at in found.peaks
    ]
    try:
        change = split_object(after, places[0], places[1], distance_map=distance_map, fresh=fresh)
    except InputError:
        return False
    parts = [np.count_nonzero(change.after == label) for label in (item.labels[0], fresh)]
    if min(parts) < SMALLEST_PART * sum(parts):
        return False
    change.apply(after)
    return True


def _replace(after: np.ndarray, item: Candidate, mask: ObjectMask | None) -> bool:
    """Give an object another mask; pixels of others stay."""
    if mask is None or not mask.area:
        return False
    (label,) = item.labels
    own = after[item.mask.window]
    own[item.mask.inside & (own == label)] = 0
    part = after[mask.window]
    part[mask.inside & (part == 0)] = label
    return True
