"""Parts joined by their tables alone, in a tree; see `pieces` and `parts` for what they know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_unet.core.blockwise.summary import RegionGraph, concatenated, find, sorted_by_root
from napari_unet.core.instances.persistence import Nodes, Passes, merge_rest, merge_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.instances.tile_merger import DecodeSettings


@dataclass(frozen=True)
class MergeResult:
    """What a `join` decided about the roots that it was given.

    Attributes
    ----------
    roots
        Their gids, ascending.
    heirs
        The root that stands for each from now on; -1 where it is decided.
    objects
        uint32, where it is decided the object, counted from 1 in this join; 0 if it was too small.
    """

    roots: np.ndarray
    heirs: np.ndarray
    objects: np.ndarray

    @property
    def count(self) -> int:
        """How many objects were decided."""
        return int(self.objects.max(initial=0))


def join(parts: Sequence[RegionGraph], settings: DecodeSettings) -> tuple[RegionGraph, MergeResult]:
    """Bring parts together that make up a box, and decide what the outside cannot change.

    The faces of the parts must be those that are faces of the box, too: see `parts.shrink`.
    """
    all_ = sorted_by_root(concatenated(parts))
    heir, outside = _pointers(all_)  # for each root the index of the one that stands for it
    names, peaks, sizes, faces, targets = _summed(all_, heir, outside)
    passes, outward = _passes(all_, heir)
    named = targets == all_.roots
    whole = named & (faces == 0)
    whole[outward.ends[:, 0]] = False
    nodes = Nodes(names, peaks, named, whole)
    root, passes = merge_whole(nodes, passes, settings.merge)
    roots = np.unique(root[heir])
    groups = _groups(len(heir), passes.ends)
    open_ = np.isin(groups, groups[roots[~whole[roots]]])
    still = open_[passes.ends[:, 0]]
    root = merge_rest(nodes, passes[~still], settings.merge)[root]
    heir, sizes, passes = root[heir], np.bincount(root, sizes, len(root)), passes[still]
    mine = np.flatnonzero(heir == np.arange(len(heir)))
    objects = _numbered(mine[~open_[mine]], names, sizes, settings.min_size)
    closed = ~open_[heir]
    closing = MergeResult(
        all_.roots,
        np.where(closed, -1, all_.roots[heir]),
        np.where(closed, objects[heir], 0).astype(np.uint32),
    )
    kept = mine[open_[mine]]
    part = RegionGraph(
        roots=all_.roots[kept],
        names=names[kept],
        peaks=peaks[kept],
        sizes=sizes[kept].astype(np.int64),
        faces=faces[kept],
        targets=targets[kept],
        **_aliases(all_, heir, faces),
        pairs=np.concatenate(
            [
                all_.roots[passes.ends].reshape(-1, 2),
                np.stack([all_.roots[outward.ends[:, 0]], outward.ends[:, 1]], 1),
            ]
        ),
        heights=np.concatenate([passes.heights, outward.heights]),
        ties=np.concatenate([passes.ties, outward.ties]),
    )
    return part, closing


def label_roots(
    closing: MergeResult, first: int, above: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the final labels of the roots that a join was given, uint32.

    Parameters
    ----------
    closing
        What the join decided.
    first
        How many objects have been numbered before those that were decided here.
    above
        Gids, ascending, and labels of the roots that the next join was given.
    """
    labels = np.where(closing.objects > 0, closing.objects + np.uint32(first), 0)
    open_ = np.flatnonzero(closing.heirs >= 0)
    labels[open_] = above[1][np.searchsorted(above[0], closing.heirs[open_])]
    return labels.astype(np.uint32)


def _indices(part: RegionGraph, gids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the root of each gid, and whether it is inside the box."""
    at, known = find(part.aliases, gids)
    if len(part.aliases):
        gids = np.where(known, part.alias_roots[at], gids)
    return find(part.roots, gids)


def _pointers(part: RegionGraph) -> tuple[np.ndarray, np.ndarray]:
    """Follow the targets; return each root's heir and whether its target lies outside.

    Blocks that round differently may each find the peak on the other's side of their border: such
    a ring is one basin, named by the smallest name in it.
    """
    count = len(part.roots)
    at, inside = _indices(part, part.targets)
    ahead = np.where(inside, at, np.arange(count))
    ends = ahead
    for _ in range(max(1, count).bit_length()):
        further = ends[ends]
        if np.array_equal(further, ends):
            break
        ends = further
    groups = _groups(count, np.stack([np.arange(count), ahead], 1))
    last = np.unique(ends)
    last = last[np.lexsort((part.names[last], groups[last]))]
    first = np.ones(len(last), bool)
    first[1:] = groups[last[1:]] != groups[last[:-1]]
    heir_of_group = np.zeros(groups.max(initial=-1) + 1, np.int64)
    heir_of_group[groups[last[first]]] = last[first]
    return heir_of_group[groups], ~inside


def _groups(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return the number of the connected component of each node."""
    if not count:
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _summed(part: RegionGraph, heir: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, ...]:
    """Add up, for each heir, what is known of all that it stands for."""
    peaks = np.full(len(heir), -np.inf, np.float32)
    np.maximum.at(peaks, heir, part.peaks)
    sizes, faces = np.zeros(len(heir), np.int64), np.zeros(len(heir), np.uint8)
    np.add.at(sizes, heir, part.sizes)
    np.bitwise_or.at(faces, heir, part.faces)
    targets = np.where(outside, part.targets, part.roots)
    return part.names, peaks, sizes, faces, targets


def _passes(part: RegionGraph, heir: np.ndarray) -> tuple[Passes, Passes]:
    """Return the passes between heirs, by index, and those that lead from one out of the box."""
    at, inside = _indices(part, part.pairs)
    ends = heir[at] if len(heir) else at
    both = inside.all(1)
    within = Passes(ends[both], part.heights[both], part.ties[both]).tidied()
    out = inside.sum(1) == 1
    mine = inside[out, 0]
    ends = np.where(inside[out], ends[out], part.pairs[out])
    ties = part.ties[out]
    ends, ties = (np.where(mine[:, None], each, each[:, ::-1]) for each in (ends, ties))
    return within, Passes(ends, part.heights[out], ties).thinned()


def _numbered(
    closed: np.ndarray, names: np.ndarray, sizes: np.ndarray, min_size: int
) -> np.ndarray:
    """Count the closed roots that are large enough, in the order of their names, by index."""
    objects = np.zeros(len(names), np.int64)
    closed = closed[np.argsort(names[closed], kind="stable")]
    kept = sizes[closed] >= max(1, min_size)
    objects[closed] = np.where(kept, np.cumsum(kept), 0)
    return objects


def _aliases(part: RegionGraph, heir: np.ndarray, faces: np.ndarray) -> dict[str, np.ndarray]:
    """Return the basins on the faces of the box with their roots as they are now."""
    at, _ = find(part.roots, part.alias_roots)
    now = heir[at] if len(heir) else at
    # The basin itself may have left the faces; that its root has not is enough to keep it.
    kept = faces[now] != 0 if len(heir) else np.zeros(0, bool)
    return {"aliases": part.aliases[kept], "alias_roots": part.roots[now[kept]]}
