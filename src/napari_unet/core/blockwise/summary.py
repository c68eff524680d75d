"""What one block knows about its objects, in tables that are small beside its pixels.

The same watershed as for a whole frame (`core.instances`): `summarise` sums up the basins of a
block's tiles, and `join` connects them with those of other blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.blockwise.blocks import face_bit
from napari_unet.core.instances.tile_merger import find_sorted, merge_by_peak, resolve_roots
from napari_unet.core.instances.watershed import highest_passes

if TYPE_CHECKING:
    from napari_unet.core.instances.watershed import Basins
    from napari_unet.core.tiles import Window


@dataclass(frozen=True)
class BlockSummary:
    """The basins of one block. Pixels are named by their flat index in the frame.

    The attributes are the names of the arrays in a block's file.

    Attributes
    ----------
    names, peaks, sizes
        For each basin the pixel where its ascent ends (its peak, or the first pixel outside the
        block; ascending), that pixel's height, and how many of the block's pixels end there.
    faces
        uint8, the faces of the block that a basin touches and behind which the frame continues.
    pairs, heights
        int64 (M, 2) basins, counted from 0, that touch, and the height of the highest pass.
    outward, beyond, outward_heights
        Basins that touch a pixel outside the block, that pixel, and the height of the pass.
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
    """Sum up the basins of a block's tiles.

    Parameters
    ----------
    basins
        Those of all its tiles: `TileMerger.all_basins`.
    block
        The tiles' written windows together.
    shape
        Size of the frame.

    Returns
    -------
    table
        uint32, for each provisional id of the `TileMerger` the basin's number in the block, from 1.
    summary
        What the block knows.
    """
    roots, owner, sizes, peaks = merge_by_peak(basins)
    ends = resolve_roots(basins.passes, basins.border, basins.border_names)
    at, known = find_sorted(roots, ends)
    inside = known.all(1) & (at[:, 0] != at[:, 1])
    pairs, heights = highest_passes(np.sort(at[inside], 1), basins.heights[inside])
    out = known.sum(1) == 1
    mine = known[out, 0]
    border, border_basins, faces = _find_border(basins, roots, block, shape)
    summary = BlockSummary(
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
    return table, summary


def _find_border(
    basins: Basins, roots: np.ndarray, block: Window, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the foreground pixels on the block's faces, their basins, and each basin's faces."""
    positions = np.unravel_index(basins.border, shape) if len(basins.border) else ()
    bits = np.zeros(len(basins.border), np.uint8)
    for axis, at in enumerate(positions):
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
