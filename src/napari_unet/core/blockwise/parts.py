"""What is undecided in a box of blocks, and how a block's pieces become such a part."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.blockwise.pieces import IDS, find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.blockwise.pieces import Pieces


@dataclass(frozen=True)
class Part:
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
"""Of blocks by number: `Pieces.border` and `border_basins`."""


def link(number: int, pieces: Pieces, borders: Borders) -> Part:
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
    return Part(
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


def shrink(part: Part, outer_faces: int) -> Part:
    """Return a part that knows only the faces which its parent has, too."""
    values = {item.name: getattr(part, item.name) for item in fields(part)}
    values["faces"] = part.faces & np.uint8(outer_faces)
    return Part(**values)


def no_part() -> Part:
    """Return what is undecided where nothing is."""
    gids, floats = np.zeros(0, np.int64), np.zeros(0, np.float32)
    faces, pairs = np.zeros(0, np.uint8), np.zeros((0, 2), np.int64)
    return Part(gids, gids, floats, gids, faces, gids, gids, gids, pairs, floats, pairs)


def concatenated(parts: Sequence[Part]) -> Part:
    """Put the tables of parts behind one another."""
    parts = [no_part(), *parts]
    return Part(*(np.concatenate([getattr(p, item.name) for p in parts]) for item in fields(Part)))


def sorted_by_root(part: Part) -> Part:
    """Return a part with its roots, and its aliases, ascending."""
    order, alias_order = np.argsort(part.roots), np.argsort(part.aliases)
    return Part(
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
