"""The watershed of one tile where the network runs: `core.basins` in torch, with the same answer.

Steepest ascent with pointer jumping (as path compression in Bieniek and Moga 2000, An efficient
watershed algorithm based on connected components) visits the pixels in no order, so each of its
steps is one operation over the whole tile. Only ids and tables of basins come to the host.

All comparisons are those of integers and of float32 values that were not computed here. Therefore
the same maps give the same basins, to the bit, on every device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.core.instances.watershed import (
    Basins,
    forward_steps,
    frame_indices,
    inner_faces,
    padded_window,
)

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unet.core.tiles import Tile


@torch.inference_mode()
def find_basins(foreground: Tensor, height: Tensor, tile: Tile, shape: tuple[int, ...]) -> Basins:
    """Divide the foreground of one tile into basins.

    Parameters
    ----------
    foreground
        bool, the tile's outer window, which reaches one pixel beyond the written one wherever the
        frame does.
    height
        float32 of the same shape, on the same device: what the pixels climb.
    tile
        Where the window lies.
    shape
        Size of the frame.

    Returns
    -------
    Basins
        In host memory; every field as `core.basins.find_basins` gives it.
    """
    level = _padded_level(foreground, height, tile)
    there = level > -torch.inf
    ends = _ascend(_steepest(level), there)
    ids, peaks, sizes = _count(ends, there)
    first, second, heights = _passes(level, there, ends)
    on_face = torch.zeros_like(there)
    for face in inner_faces(tile, shape):
        on_face[face] = there[face]
    faces = on_face.flatten().nonzero()[:, 0]
    one, other, names, border, border_names = (
        frame_indices(places.cpu().numpy(), tuple(level.shape), tile, shape)
        for places in (first, second, peaks, faces, ends[faces])
    )
    return Basins(
        ids=ids.cpu().numpy().view(np.uint32),
        names=names,
        peaks=level.flatten()[peaks].cpu().numpy(),
        sizes=sizes.cpu().numpy(),
        passes=np.stack([one, other], 1),
        heights=heights.cpu().numpy(),
        border=border,
        border_names=border_names,
    )


def _padded_level(foreground: Tensor, height: Tensor, tile: Tile) -> Tensor:
    """Return the height of the tile's window and one pixel around it; background is -infinity."""
    shape, known = padded_window(tile)
    level = height.new_full(shape, -torch.inf)
    level[known] = torch.where(foreground & height.isfinite(), height, -torch.inf)
    level += 0  # -0 becomes 0: heights that are equal have equal bits
    return level


def _steepest(level: Tensor) -> Tensor:
    """Return which neighbour of each inner pixel is highest, as a flat index in `level`.

    Height and place are packed into one integer, so that one maximum along each axis finds both.
    Of equals it is the last in raster order: a strict order, by which plateaus have one peak.
    """
    bits = level.view(torch.int32)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # integers in the order of the floats
    packed = bits.to(torch.int64) << 32
    packed |= torch.arange(level.numel(), device=level.device).view(level.shape)
    for axis in range(level.ndim):
        count = packed.shape[axis] - 2
        before, middle, after = (packed.narrow(axis, start, count) for start in range(3))
        packed = torch.maximum(before, middle)
        torch.maximum(packed, after, out=packed)
    return packed & 0xFFFFFFFF


def _ascend(steepest: Tensor, there: Tensor) -> Tensor:
    """Return where the ascent of each pixel of the padded tile ends, as flat indices.

    Outside the tile nothing climbs, nor on background: such a pixel ends in itself.
    """
    ends = torch.arange(there.numel(), device=there.device)
    inner = (slice(1, -1),) * there.ndim
    own = ends.view(there.shape)[inner]
    own.copy_(torch.where(there[inner], steepest, own))
    while True:  # pointer jumping: each round doubles the distance looked ahead
        ahead = ends[ends]
        if torch.equal(ahead, ends):
            return ends
        ends = ahead


def _count(ends: Tensor, there: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each own pixel's basin, int32 from 1, and each basin's peak and number of pixels."""
    inner = (slice(1, -1),) * there.ndim
    own = ends.view(there.shape)[inner]
    climbing = own[there[inner]]
    number = torch.zeros_like(ends, dtype=torch.int32)
    number[climbing] = 1
    peaks = number.nonzero()[:, 0]
    number[peaks] = torch.arange(1, len(peaks) + 1, dtype=torch.int32, device=ends.device)
    sizes = torch.bincount(number[climbing], minlength=len(peaks) + 1)[1:]
    return number[own], peaks, sizes  # background ends in itself, which is no peak


def _passes(level: Tensor, there: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pairs of touching basins, by their ends, and the highest pass of each pair.

    Only steps forward in raster order are taken from the tile's own pixels: over all tiles every
    pair of neighbouring pixels is seen exactly once.
    """
    inner = (slice(1, -1),) * level.ndim
    here = torch.zeros_like(there)
    here[inner] = there[inner]
    steps = forward_steps(tuple(level.shape))
    here, there, level = here.flatten(), there.flatten(), level.flatten()
    codes, heights = [], []
    for step in steps:
        apart = ends[:-step] != ends[step:]
        apart &= here[:-step]
        apart &= there[step:]
        at = apart.nonzero()[:, 0]
        one, other = ends[at], ends[at + step]
        codes.append(torch.minimum(one, other) << 32 | torch.maximum(one, other))
        heights.append(torch.minimum(level[at], level[at + step]))
    code, height = _highest(torch.cat(codes), torch.cat(heights))
    return code >> 32, code & 0xFFFFFFFF, height


def _highest(codes: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
    """Keep each code once, in order, with its greatest height.

    Sorted by height and then, keeping that order, by code: the last of equal codes is the highest.
    """
    heights, order = heights.sort()
    codes, again = codes[order].sort(stable=True)
    last = torch.ones_like(codes, dtype=torch.bool)
    last[:-1] = codes[1:] != codes[:-1]
    return codes[last], heights[again][last]
