"""Parts joined by their tables alone, in a tree; see `pieces` and `parts` for what they know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_unet.core.blockwise.parts import Part, concatenated, sorted_by_root
from napari_unet.core.blockwise.pieces import find, highest
from napari_unet.core.objects import merge_basins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.objects import DecodeSettings


@dataclass(frozen=True)
class Closing:
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


def join(parts: Sequence[Part], settings: DecodeSettings) -> tuple[Part, Closing]:
    """Bring parts together that make up a box, and decide what the outside cannot change.

    The faces of the parts must be those that are faces of the box, too: see `parts.shrink`.
    """
    all_ = sorted_by_root(concatenated(parts))
    heir, outside = _pointers(all_)  # for each root the index of the one that stands for it
    names, peaks, sizes, faces, targets = _summed(all_, heir, outside)
    pairs, heights, out_pairs, out_heights = _passes(all_, heir, peaks, settings.merge)
    mine = np.flatnonzero(heir == np.arange(len(heir)))
    open_ = np.zeros(len(heir), bool)
    open_[mine] = (faces[mine] != 0) | (targets[mine] != all_.roots[mine])
    open_[out_pairs[:, 0]] = True
    groups = _groups(len(heir), pairs)
    open_ = np.isin(groups, groups[open_])
    objects = _decide(mine[~open_[mine]], names, peaks, sizes, pairs, heights, open_, settings)
    closed = ~open_[heir]
    closing = Closing(
        all_.roots,
        np.where(closed, -1, all_.roots[heir]),
        np.where(closed, objects[heir], 0).astype(np.uint32),
    )
    kept, still = mine[open_[mine]], open_[pairs[:, 0]] if len(pairs) else np.zeros(0, bool)
    part = Part(
        roots=all_.roots[kept],
        names=names[kept],
        peaks=peaks[kept],
        sizes=sizes[kept],
        faces=faces[kept],
        targets=targets[kept],
        **_aliases(all_, heir, faces),
        pairs=np.concatenate(
            [
                all_.roots[pairs[still]].reshape(-1, 2),
                np.stack([all_.roots[out_pairs[:, 0]], out_pairs[:, 1]], 1),
            ]
        ),
        heights=np.concatenate([heights[still], out_heights]),
    )
    return part, closing


def label_roots(closing: Closing, first: int, above: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
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


def _indices(part: Part, gids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the root of each gid, and whether it is inside the box."""
    at, known = find(part.aliases, gids)
    if len(part.aliases):
        gids = np.where(known, part.alias_roots[at], gids)
    return find(part.roots, gids)


def _pointers(part: Part) -> tuple[np.ndarray, np.ndarray]:
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


def _summed(part: Part, heir: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, ...]:
    """Add up, for each heir, what is known of all that it stands for."""
    peaks = np.full(len(heir), -np.inf, np.float32)
    np.maximum.at(peaks, heir, part.peaks)
    sizes, faces = np.zeros(len(heir), np.int64), np.zeros(len(heir), np.uint8)
    np.add.at(sizes, heir, part.sizes)
    np.bitwise_or.at(faces, heir, part.faces)
    targets = np.where(outside, part.targets, part.roots)
    return part.names, peaks, sizes, faces, targets


def _passes(
    part: Part, heir: np.ndarray, peaks: np.ndarray, depth: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the shallow passes between heirs, by index, and those that lead out of the box."""
    at, inside = _indices(part, part.pairs)
    ends = heir[at] if len(heir) else at
    both = inside.all(1)
    pairs = np.sort(ends[both], 1)
    apart = pairs[:, 0] != pairs[:, 1]
    pairs, heights = highest(pairs[apart], part.heights[both][apart])
    # Merging only raises peaks, so a pass that is too deep now stays too deep.
    shallow = peaks[pairs].min(1) - heights < depth if len(pairs) else np.zeros(0, bool)
    out = inside.sum(1) == 1
    mine = inside[out, 0]
    out_pairs = np.stack(
        [
            np.where(mine, ends[out, 0], ends[out, 1]),
            np.where(mine, part.pairs[out, 1], part.pairs[out, 0]),
        ],
        1,
    )
    out_pairs, out_heights = highest(out_pairs, part.heights[out])
    return pairs[shallow], heights[shallow], out_pairs, out_heights


def _decide(
    closed: np.ndarray,
    names: np.ndarray,
    peaks: np.ndarray,
    sizes: np.ndarray,
    pairs: np.ndarray,
    heights: np.ndarray,
    open_: np.ndarray,
    settings: DecodeSettings,
) -> np.ndarray:
    """Merge the closed roots; return each one's object, 0 for what is too small, by index."""
    objects = np.zeros(len(names), np.int64)
    # Among equals the pixel decides, as it does in one piece.
    closed = closed[np.argsort(names[closed], kind="stable")]
    rank = np.zeros(len(names), np.int64)
    rank[closed] = np.arange(len(closed))
    here = ~open_[pairs[:, 0]] if len(pairs) else np.zeros(0, bool)
    root = merge_basins(peaks[closed], rank[pairs[here]], heights[here], settings.merge)
    total = np.zeros(len(closed), np.int64)
    np.add.at(total, root, sizes[closed])
    kept = (root == np.arange(len(root))) & (total >= max(1, settings.min_size))
    label = np.where(kept, np.cumsum(kept), 0)
    objects[closed] = label[root]
    return objects


def _aliases(part: Part, heir: np.ndarray, faces: np.ndarray) -> dict[str, np.ndarray]:
    """Return the basins on the faces of the box with their roots as they are now."""
    at, _ = find(part.roots, part.alias_roots)
    now = heir[at] if len(heir) else at
    # The basin itself may have left the faces; that its root has not is enough to keep it.
    kept = faces[now] != 0 if len(heir) else np.zeros(0, bool)
    return {"aliases": part.aliases[kept], "alias_roots": part.roots[now[kept]]}
