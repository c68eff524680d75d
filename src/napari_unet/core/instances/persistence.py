"""Basins merged over shallow passes by topological persistence (Edelsbrunner et al. 2002).

Passes are taken from the highest down. A pass less than `depth` below the lower of the two peaks
merges the basins on its sides, and the merged basin has the higher of the two peaks; so noise on a
pass never joins two objects. Of passes equally high the one between the smaller names comes first.

That order need not be followed one by one: a basin whose highest pass is shallow, and leads to a
higher peak, merges over it in any case, for until then nothing has happened to it, and it raises
no peak. All such basins are merged at once, in rounds, until none is left. This holds even where
only some basins are known, if all passes of the basin itself are: so the blocks of an image get rid
of most of their basins before they are joined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_ROUNDS = 30
"""Noise takes some 10 rounds; what is not merged by then is a few long chains."""


@dataclass(frozen=True)
class Nodes:
    """Basins, by number.

    Attributes
    ----------
    names
        int64: the order of basins among equals.
    peaks
        float: the height of each one's peak, as far as it is known.
    peak_known
        bool: whether name and peak are final.
    complete
        bool: whether, besides, all of the basin's passes are known.
    """

    names: np.ndarray
    peaks: np.ndarray
    peak_known: np.ndarray
    complete: np.ndarray


@dataclass(frozen=True)
class Passes:
    """Passes between basins.

    Attributes
    ----------
    ends
        int64 (M, 2): the numbers of the basins on either side.
    heights
        float (M,).
    ties
        int64 (M, 2): for each end the name that it had before it was merged with another; -1 for
        one that was not. They decide which of two equally high passes comes first.
    """

    ends: np.ndarray
    heights: np.ndarray
    ties: np.ndarray

    @classmethod
    def from_ends(cls, ends: np.ndarray, heights: np.ndarray) -> Passes:
        """Return the passes between basins of which none has been merged yet."""
        return cls(ends, heights, np.full(ends.shape, -1, np.int64)).canonical()

    def __getitem__(self, which: np.ndarray) -> Passes:
        return Passes(self.ends[which], self.heights[which], self.ties[which])

    def __len__(self) -> int:
        return len(self.heights)

    def canonical(self) -> Passes:
        """Return the `highest` passes, smaller end first, without those from a basin to itself."""
        apart = self[self.ends[:, 0] != self.ends[:, 1]]
        order = np.argsort(apart.ends, 1)
        ends, ties = (np.take_along_axis(each, order, 1) for each in (apart.ends, apart.ties))
        return Passes(ends, apart.heights, ties).highest()

    def highest(self) -> Passes:
        """Keep of the passes between the same ends the highest, each once for equal ties."""
        if not len(self):
            return self
        passes = self[np.lexsort(self.ends.T)]
        first = np.concatenate([[True], (passes.ends[1:] != passes.ends[:-1]).any(1)])
        which = np.cumsum(first) - 1
        highest = np.maximum.reduceat(passes.heights, np.flatnonzero(first))[which]
        best = passes.heights == highest
        passes, which = passes[best], which[best]
        order = np.lexsort((*passes.ties.T, which))
        passes, which = passes[order], which[order]
        other = np.concatenate([[True], which[1:] != which[:-1]])
        other[1:] |= (passes.ties[1:] != passes.ties[:-1]).any(1)
        return passes[other]


def merge_basins(
    peaks: np.ndarray, pairs: np.ndarray, heights: np.ndarray, depth: float
) -> np.ndarray:
    """Merge basins over passes that lie less than `depth` below the lower of two peaks.

    Parameters
    ----------
    peaks
        Height of each basin's peak.
    pairs, heights
        (M, 2) basins that touch, and the height of the pass.
    depth
        Passes at least this deep divide.

    Returns
    -------
    np.ndarray
        For each basin the one with the highest peak among those it is merged with; among equals
        the last.
    """
    known = np.ones(len(peaks), bool)
    nodes = Nodes(np.arange(len(peaks)), peaks, known, known)
    root, rest = merge_complete(nodes, Passes.from_ends(pairs, heights), depth)
    merged: np.ndarray = merge_one_by_one(nodes, rest, depth)[root]
    return merged


def merge_complete(nodes: Nodes, passes: Passes, depth: float) -> tuple[np.ndarray, Passes]:
    """Merge the basins that are `complete`, in at most `MAX_ROUNDS` rounds.

    Returns
    -------
    root
        For each basin the one that it is merged with, whose peak is higher; itself if it is not.
    passes
        The shallow ones that are left between roots, each pair once unless there are ties.
    """
    root = np.arange(len(nodes.peaks))
    for _ in range(MAX_ROUNDS):
        # Merging only raises peaks, so a pass that is too deep now stays too deep.
        passes = passes[nodes.peaks[passes.ends].min(1) - passes.heights < depth]
        ahead = _find_ascents(nodes, passes)
        if ahead is None:
            break
        while not np.array_equal(further := ahead[ahead], ahead):
            ahead = further
        root = ahead[root]
        passes = _follow(passes, ahead, nodes.names)
    return root, passes


def merge_one_by_one(nodes: Nodes, passes: Passes, depth: float) -> np.ndarray:
    """Merge basins all of which are complete, pass by pass; return the root of each.

    Slower, for what the rounds have left: such as long chains of equal peaks, which lose one basin
    at their end in each round.
    """
    root = np.arange(len(nodes.peaks))
    names = np.sort(np.where(passes.ties < 0, nodes.names[passes.ends], passes.ties), 1)
    order = np.lexsort((names[:, 1], names[:, 0], -passes.heights))
    parent = {node: node for node in np.unique(passes.ends).tolist()}
    rank = {node: (nodes.peaks[node], nodes.names[node]) for node in parent}

    def top(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for (a, b), height in zip(passes.ends[order].tolist(), passes.heights[order], strict=True):
        low, high = sorted((top(a), top(b)), key=rank.__getitem__)
        if low != high and rank[low][0] - height < depth:
            parent[low] = high
    for node in parent:
        root[node] = top(node)
    return root


def _find_ascents(nodes: Nodes, passes: Passes) -> np.ndarray | None:
    """Return the basin that each one merges with in any case, or itself; None if none does."""
    top = np.full(len(nodes.peaks), -np.inf, passes.heights.dtype)
    for side in (0, 1):
        np.maximum.at(top, passes.ends[:, side], passes.heights)
    highest = [np.flatnonzero(passes.heights == top[passes.ends[:, side]]) for side in (0, 1)]
    at = np.concatenate(highest)
    source = np.concatenate([passes.ends[rows, side] for side, rows in enumerate(highest)])
    target = np.concatenate([passes.ends[rows, 1 - side] for side, rows in enumerate(highest)])
    names = np.where(nodes.peak_known, nodes.names, -1)[passes.ends[at]]
    names = np.sort(np.where(passes.ties[at] < 0, names, passes.ties[at]), 1)
    known = names[:, 0] >= 0
    names[~known] = -1  # unknown ones come first, so that they are not overlooked
    order = np.lexsort((names[:, 1], names[:, 0], source))
    source, target, known = source[order], target[order], known[order]
    if not len(source):
        return None
    first = np.flatnonzero(np.concatenate([[True], source[1:] != source[:-1]]))
    alone = np.minimum.reduceat(target, first) == np.maximum.reduceat(target, first)
    sure = nodes.complete[source[first]] & (alone | known[first])
    source, target = source[first[sure]], target[first[sure]]
    climbs = nodes.peaks[target] > nodes.peaks[source]
    level = (nodes.peaks[target] == nodes.peaks[source]) & nodes.peak_known[target]
    climbs |= level & (nodes.names[target] > nodes.names[source])
    if not climbs.any():
        return None
    ahead = np.arange(len(nodes.peaks))
    ahead[source[climbs]] = target[climbs]
    return ahead


def _follow(passes: Passes, ahead: np.ndarray, names: np.ndarray) -> Passes:
    """Return the passes between the basins that those at their ends were merged with."""
    ends = ahead[passes.ends]
    new = (passes.ties < 0) & (ends != passes.ends)
    return Passes(ends, passes.heights, np.where(new, names[passes.ends], passes.ties)).canonical()
