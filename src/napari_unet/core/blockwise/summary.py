"""What a block knows of its objects, and how blocks are joined without seeing their pixels.

The same watershed as in one piece (`objects`), taken apart: `summarise` sums up the basins of a
block's tiles; `link` replaces the pixels by which a block names what lies beyond it by the
neighbours' basins; `join` brings a few parts together, decides what can be decided, and keeps only
what the outside may still change. An object is decided as soon as none of the basins that may yet
belong to it touches a face beyond which the frame goes on. So the tables grow with the outside of
a box, not with its volume, and the joining is a tree that many computers share.

A basin is known by its block's number and its own number in the block, in one integer (`gid`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.blockwise.blocks import face_bit
from napari_unet.core.instances.tile_merger import resolve_roots
from napari_unet.core.instances.watershed import highest_passes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.instances.watershed import Basins
    from napari_unet.core.tiles import Window


IDS = 32
"""Bits of a gid that count the basins of one block."""


@dataclass(frozen=True)
class BlockSummary:
    """The basins of one block. Pixels are named by their flat index in the frame.

    Attributes
    ----------
    names, peaks, sizes
        For each basin the pixel where its ascent ends (its peak, or the first pixel beyond the
        block; ascending), that pixel's height, and how many of the block's pixels end there.
    faces
        uint8, the block's faces that a basin touches and beyond which the frame goes on.
    pairs, heights
        int64 (M, 2) basins, counted from 0, that touch, and the height of the highest pass.
    outward, beyond, outward_heights
        Basins that touch a pixel beyond the block, that pixel, and the height of the pass.
    border, border_basins
        Foreground pixels on the faces, ascending, and their basins.
    """

    names: np.ndarray
    peaks: np.ndarray
    sizes: np.ndarray
    faces: np.ndarray
    pairs: np.ndarray
    heights: np.ndarray
    outward: np.ndarray
    beyond: np.ndarray
    outward_heights: np.ndarray
    border: np.ndarray
    border_basins: np.ndarray


def summarise(
    basins: Basins, block: Window, shape: tuple[int, ...]
) -> tuple[np.ndarray, BlockSummary]:
    """Sum up what the tiles of a block know.

    Parameters
    ----------
    basins
        Those of all its tiles, one after the other.
    block
        The tiles' written windows together.
    shape
        Size of the frame.

    Returns
    -------
    table
        uint32, for each provisional id of a `Joiner` the basin's number in the block, from 1.
    pieces
        What the block knows.
    """
    names = resolve_roots(basins.names, basins.border, basins.border_names)
    roots, owner = np.unique(names, return_inverse=True)
    sizes = np.bincount(owner, basins.sizes, len(roots)).astype(np.int64)
    peaks = np.full(len(roots), -np.inf, np.float32)
    np.maximum.at(peaks, owner, basins.peaks)
    ends = resolve_roots(basins.passes, basins.border, basins.border_names)
    at, known = find(roots, ends)
    inside = known.all(1) & (at[:, 0] != at[:, 1])
    pairs, heights = highest_passes(np.sort(at[inside], 1), basins.heights[inside])
    out = known.sum(1) == 1
    mine = known[out, 0]
    border, border_basins, faces = _faces(basins, roots, block, shape)
    pieces = BlockSummary(
        names=roots,
        peaks=peaks,
        sizes=sizes,
        faces=faces,
        pairs=pairs,
        heights=heights,
        outward=np.where(mine, at[out, 0], at[out, 1]),
        beyond=np.where(mine, ends[out, 1], ends[out, 0]),
        outward_heights=basins.heights[out],
        border=border,
        border_basins=border_basins,
    )
    table = np.concatenate([[0], owner.ravel() + 1]).astype(np.uint32)
    return table, pieces


def _faces(
    basins: Basins, roots: np.ndarray, block: Window, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the foreground pixels on the block's faces, their basins, and each basin's faces."""
    where = np.unravel_index(basins.border, shape) if len(basins.border) else ()
    bits = np.zeros(len(basins.border), np.uint8)
    for axis, at in enumerate(where):
        window = block[axis]
        if window.start > 0:
            bits[at == window.start] |= face_bit(axis, 0)
        if window.stop < shape[axis]:
            bits[at == window.stop - 1] |= face_bit(axis, 1)
    on = np.flatnonzero(bits)
    on = on[np.argsort(basins.border[on])]
    border = basins.border[on]
    names = resolve_roots(basins.border_names[on], basins.border, basins.border_names)
    owners = np.searchsorted(roots, names).astype(np.uint32)
    faces = np.zeros(len(roots), np.uint8)
    np.bitwise_or.at(faces, owners, bits[on])
    return border, owners, faces


def find(ordered: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the wanted numbers stand in an ascending array, and whether they do."""
    if not len(ordered):
        return np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape, bool)
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return at, ordered[at] == wanted


@dataclass(frozen=True)
class RegionGraph:
    """What is undecided in a box of blocks.

    Attributes
    ----------
    roots
        Gids, ascending: each stands for all basins that are known to be one with it.
    names, peaks, sizes, faces
        Of each root: the pixel of its peak (or the first one beyond the box), that pixel's height,
        its pixels so far, and the faces of the box that it touches.
    targets
        The gid that it is one with: itself, or a basin beyond the box.
    aliases, alias_roots
        Basins on the faces of the box, ascending, by which others may ask for their roots.
    pairs, heights, ties
        int64 (M, 2) gids of roots or of basins beyond the box that touch, and the pass between;
        `ties` as in `core.merging.Passes`.
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


Borders = dict[int, tuple[np.ndarray, np.ndarray]]
"""Of blocks by number: `BlockSummary.border` and `border_basins`."""


def link(number: int, pieces: BlockSummary, borders: Borders) -> RegionGraph:
    """Turn a block's pieces into a part.

    Parameters
    ----------
    borders
        Of the blocks that touch it; one that could not be computed is left out.
    """
    first = number << IDS
    own = first + np.arange(len(pieces.names), dtype=np.int64)
    pixels = np.concatenate([np.zeros(0, np.int64), *(b for b, _ in borders.values())])
    gids = np.concatenate(
        [np.zeros(0, np.int64), *((n << IDS) + o.astype(np.int64) for n, (_, o) in borders.items())]
    )
    order = np.argsort(pixels)
    pixels, gids = pixels[order], gids[order]
    at, known = find(pixels, pieces.names)
    targets = own.copy()
    targets[known] = gids[at[known]]
    # What a basin ascends to is itself by another name, no neighbour.
    at, known = find(pixels, pieces.beyond)
    out = np.stack([own[pieces.outward[known]], gids[at[known]]], 1)
    out_heights = pieces.outward_heights[known]
    apart = targets[pieces.outward[known]] != out[:, 1]
    pairs = np.concatenate([first + pieces.pairs, out[apart]])
    on_face = pieces.faces != 0
    return RegionGraph(
        roots=own,
        names=pieces.names,
        peaks=pieces.peaks,
        sizes=pieces.sizes,
        faces=pieces.faces,
        targets=targets,
        aliases=own[on_face],
        alias_roots=own[on_face],
        pairs=pairs,
        heights=np.concatenate([pieces.heights, out_heights[apart]]),
        ties=np.full(pairs.shape, -1, np.int64),
    )


def shrink(part: RegionGraph, outer_faces: int) -> RegionGraph:
    """Return a part that knows only the faces which its parent has, too."""
    values = {item.name: getattr(part, item.name) for item in fields(part)}
    values["faces"] = part.faces & np.uint8(outer_faces)
    return RegionGraph(**values)


def no_part() -> RegionGraph:
    """Return what is undecided where nothing is."""
    gids, floats = np.zeros(0, np.int64), np.zeros(0, np.float32)
    faces, pairs = np.zeros(0, np.uint8), np.zeros((0, 2), np.int64)
    return RegionGraph(gids, gids, floats, gids, faces, gids, gids, gids, pairs, floats, pairs)


def concatenated(parts: Sequence[RegionGraph]) -> RegionGraph:
    """Put the tables of parts behind one another."""
    parts = [no_part(), *parts]
    return RegionGraph(
        *(np.concatenate([getattr(p, item.name) for p in parts]) for item in fields(RegionGraph))
    )


def sorted_by_root(part: RegionGraph) -> RegionGraph:
    """Return a part with its roots, and its aliases, ascending."""
    order, alias_order = np.argsort(part.roots), np.argsort(part.aliases)
    return RegionGraph(
        roots=part.roots[order],
        names=part.names[order],
        peaks=part.peaks[order],
        sizes=part.sizes[order],
        faces=part.faces[order],
        targets=part.targets[order],
        aliases=part.aliases[alias_order],
        alias_roots=part.alias_roots[alias_order],
        pairs=part.pairs,
        heights=part.heights,
        ties=part.ties,
    )
