"""Blocks joined by their tables alone, in a tree, without seeing a pixel.

`link` replaces the pixels by which a block names what lies outside it by the neighbours' basins.
`join` then takes the graphs of the few boxes that make up a larger one, decides what can be
decided, and keeps only what the outside may still change. An object is decided as soon as none of
the basins that may yet belong to it touches a face behind which the frame continues. So the tables
grow with the surface of a box, not with its volume, and many computers can share the joining. (At
10 TB, 313,000 blocks, the last join needs half a gigabyte, see docs/cluster.md; one join of all
blocks would need the basins of all at once.)

A basin is known by its block's number and its own number in the block, in one integer (`gid`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_unet.core.instances.persistence import (
    Nodes,
    Passes,
    merge_complete,
    merge_one_by_one,
)
from napari_unet.core.instances.tile_merger import find_sorted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.instances.tile_merger import BlockSummary
    from napari_unet.core.settings.tasks import DecodeSettings


_BASIN_BITS = 32
"""Bits of a gid that count the basins of one block; those above are the block's number."""


@dataclass(frozen=True)
class RegionGraph:
    """What is undecided in a box of blocks.

    The attributes are names of arrays in a node's file.

    Attributes
    ----------
    roots
        Gids, ascending: each stands for all basins that are known to be one with it.
    names, peaks, sizes, faces
        Of each root: the pixel of its peak (or the first one outside the box), that pixel's height,
        its pixels so far, and the faces of the box that it touches.
    targets
        The gid that it is one with: itself, or a basin outside the box.
    aliases, alias_roots
        Basins on the faces of the box, ascending, and their roots: what other boxes ask for.
    pairs, heights, ties
        int64 (M, 2) gids of roots or of basins outside the box that touch, and the pass between
        them; `ties` as in `core.instances.persistence.Passes`.
    """

    roots: np.ndarray
    names: np.ndarray
    peaks: np.ndarray
    sizes: np.ndarray
    faces: np.ndarray
    targets: np.ndarray
    aliases: np.ndarray
    alias_roots: np.ndarray
    pairs: np.ndarray
    heights: np.ndarray
    ties: np.ndarray


@dataclass(frozen=True)
class MergeResult:
    """What a `join` decided about the roots that it was given.

    The attributes are names of arrays in a node's file.

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
        """Number of objects that were decided."""
        return int(self.objects.max(initial=0))


Borders = dict[int, tuple[np.ndarray, np.ndarray]]
"""`BlockSummary.border` and `border_basins` of blocks, by their numbers."""


def link(number: int, summary: BlockSummary, borders: Borders) -> RegionGraph:
    """Turn the summary of a block into the graph of a box that is this block alone.

    Parameters
    ----------
    borders
        Of the blocks that touch it; those that could not be computed are left out.
    """
    first = number << _BASIN_BITS
    own = first + np.arange(len(summary.names), dtype=np.int64)
    no_gids = np.zeros(0, np.int64)
    pixels = np.concatenate([no_gids, *(border for border, _ in borders.values())])
    gids = np.concatenate(
        [no_gids, *((n << _BASIN_BITS) + b.astype(np.int64) for n, (_, b) in borders.items())]
    )
    order = np.argsort(pixels)
    pixels, gids = pixels[order], gids[order]
    at, known = find_sorted(pixels, summary.names)
    targets = own.copy()
    targets[known] = gids[at[known]]
    at, known = find_sorted(pixels, summary.beyond)
    out = np.stack([own[summary.outward[known]], gids[at[known]]], 1)
    out_heights = summary.outward_heights[known]
    # What a basin ascends to is the same basin by another name, not a neighbour.
    apart = targets[summary.outward[known]] != out[:, 1]
    pairs = np.concatenate([first + summary.pairs, out[apart]])
    on_face = summary.faces != 0
    return RegionGraph(
        roots=own,
        names=summary.names,
        peaks=summary.peaks,
        sizes=summary.sizes,
        faces=summary.faces,
        targets=targets,
        aliases=own[on_face],
        alias_roots=own[on_face],
        pairs=pairs,
        heights=np.concatenate([summary.heights, out_heights[apart]]),
        ties=np.full(pairs.shape, -1, np.int64),
    )


def keep_faces(graph: RegionGraph, faces: int) -> RegionGraph:
    """Return a graph that knows only some faces: those that its box shares with its parent."""
    return replace(graph, faces=graph.faces & np.uint8(faces))


def join(
    graphs: Sequence[RegionGraph], settings: DecodeSettings
) -> tuple[RegionGraph, MergeResult]:
    """Join the graphs that make up a box, and decide what the outside cannot change.

    Their faces must be those that are faces of the box, too: see `keep_faces`.
    """
    graph = _concatenate(graphs)
    heir, outside = _follow_targets(graph)  # for each root the index of the one standing for it
    peaks, sizes, faces = _sum_up(graph, heir)
    targets = np.where(outside, graph.targets, graph.roots)
    passes, outward = _connect(graph, heir)
    peak_known = targets == graph.roots
    complete = peak_known & (faces == 0)
    complete[outward.ends[:, 0]] = False
    nodes = Nodes(graph.names, peaks, peak_known, complete)
    root, passes = merge_complete(nodes, passes, settings.merge)
    roots = np.unique(root[heir])
    components = _connected(len(heir), passes.ends)
    undecided = np.isin(components, components[roots[~complete[roots]]])
    left = undecided[passes.ends[:, 0]]
    root = merge_one_by_one(nodes, passes[~left], settings.merge)[root]
    heir, sizes, passes = root[heir], np.bincount(root, sizes, len(root)), passes[left]
    own = np.flatnonzero(heir == np.arange(len(heir)))
    objects = _count(own[~undecided[own]], graph.names, sizes, settings.min_size)
    decided = ~undecided[heir]
    result = MergeResult(
        graph.roots,
        np.where(decided, -1, graph.roots[heir]),
        np.where(decided, objects[heir], 0).astype(np.uint32),
    )
    kept = own[undecided[own]]
    rest = RegionGraph(
        roots=graph.roots[kept],
        names=graph.names[kept],
        peaks=peaks[kept],
        sizes=sizes[kept].astype(np.int64),
        faces=faces[kept],
        targets=targets[kept],
        **_update_aliases(graph, heir, faces),
        pairs=np.concatenate(
            [
                graph.roots[passes.ends].reshape(-1, 2),
                np.stack([graph.roots[outward.ends[:, 0]], outward.ends[:, 1]], 1),
            ]
        ),
        heights=np.concatenate([passes.heights, outward.heights]),
        ties=np.concatenate([passes.ties, outward.ties]),
    )
    return rest, result


def label_roots(
    result: MergeResult, first: int, above: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the final labels of the roots that a join was given, uint32.

    Parameters
    ----------
    result
        What the join decided.
    first
        How many objects are numbered before those that were decided here.
    above
        Gids, ascending, and labels of the roots that the next join was given.
    """
    labels = np.where(result.objects > 0, result.objects + np.uint32(first), 0)
    undecided = np.flatnonzero(result.heirs >= 0)
    labels[undecided] = above[1][np.searchsorted(above[0], result.heirs[undecided])]
    return labels.astype(np.uint32)


def _concatenate(graphs: Sequence[RegionGraph]) -> RegionGraph:
    """Put the tables of graphs behind one another, roots and aliases ascending."""
    gids, floats = np.zeros(0, np.int64), np.zeros(0, np.float32)
    faces, pairs = np.zeros(0, np.uint8), np.zeros((0, 2), np.int64)
    empty = RegionGraph(gids, gids, floats, gids, faces, gids, gids, gids, pairs, floats, pairs)
    tables = {
        item.name: np.concatenate([getattr(graph, item.name) for graph in (empty, *graphs)])
        for item in fields(RegionGraph)
    }
    order, alias_order = np.argsort(tables["roots"]), np.argsort(tables["aliases"])
    for name in ("roots", "names", "peaks", "sizes", "faces", "targets"):
        tables[name] = tables[name][order]
    for name in ("aliases", "alias_roots"):
        tables[name] = tables[name][alias_order]
    return RegionGraph(**tables)


def _find_roots(graph: RegionGraph, gids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the root of each gid, and whether it is inside the box."""
    at, known = find_sorted(graph.aliases, gids)
    if len(graph.aliases):
        gids = np.where(known, graph.alias_roots[at], gids)
    return find_sorted(graph.roots, gids)


def _follow_targets(graph: RegionGraph) -> tuple[np.ndarray, np.ndarray]:
    """Follow the targets; return each root's heir and whether its target lies outside.

    Blocks that round differently may each find the peak on the other's side of their border: such
    a ring is one basin, named by the smallest name in it.
    """
    count = len(graph.roots)
    at, inside = _find_roots(graph, graph.targets)
    ahead = np.where(inside, at, np.arange(count))
    ends = ahead
    for _ in range(max(1, count).bit_length()):  # each round doubles the number of steps taken
        further = ends[ends]
        if np.array_equal(further, ends):
            break
        ends = further
    components = _connected(count, np.stack([np.arange(count), ahead], 1))
    last = np.unique(ends)
    last = last[np.lexsort((graph.names[last], components[last]))]
    first = np.ones(len(last), bool)
    first[1:] = components[last[1:]] != components[last[:-1]]
    heir_of = np.zeros(components.max(initial=-1) + 1, np.int64)
    heir_of[components[last[first]]] = last[first]
    return heir_of[components], ~inside


def _connected(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return the number of the connected component of each node."""
    if not count:
        return np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def _sum_up(graph: RegionGraph, heir: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return peak, size and faces of all roots that each heir stands for."""
    peaks = np.full(len(heir), -np.inf, np.float32)
    np.maximum.at(peaks, heir, graph.peaks)
    sizes, faces = np.zeros(len(heir), np.int64), np.zeros(len(heir), np.uint8)
    np.add.at(sizes, heir, graph.sizes)
    np.bitwise_or.at(faces, heir, graph.faces)
    return peaks, sizes, faces


def _connect(graph: RegionGraph, heir: np.ndarray) -> tuple[Passes, Passes]:
    """Return the passes between heirs, by index, and those that lead from one out of the box."""
    at, inside = _find_roots(graph, graph.pairs)
    ends = heir[at] if len(heir) else at
    both = inside.all(1)
    within = Passes(ends[both], graph.heights[both], graph.ties[both]).canonical()
    out = inside.sum(1) == 1
    mine = inside[out, 0]
    ends = np.where(inside[out], ends[out], graph.pairs[out])
    ties = graph.ties[out]
    ends, ties = (np.where(mine[:, None], each, each[:, ::-1]) for each in (ends, ties))
    return within, Passes(ends, graph.heights[out], ties).highest()


def _count(decided: np.ndarray, names: np.ndarray, sizes: np.ndarray, min_size: int) -> np.ndarray:
    """Count the decided roots that are large enough, in the order of their names, by index."""
    objects = np.zeros(len(names), np.int64)
    decided = decided[np.argsort(names[decided], kind="stable")]
    kept = sizes[decided] >= max(1, min_size)
    objects[decided] = np.where(kept, np.cumsum(kept), 0)
    return objects


def _update_aliases(
    graph: RegionGraph, heir: np.ndarray, faces: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the basins on the faces of the box with their roots as they are now."""
    at, _ = find_sorted(graph.roots, graph.alias_roots)
    now = heir[at] if len(heir) else at
    # The basin itself may have left the faces; that its root has not is enough to keep it.
    kept = faces[now] != 0 if len(heir) else np.zeros(0, bool)
    return {"aliases": graph.aliases[kept], "alias_roots": graph.roots[now[kept]]}
