"""The blocks of a frame, how they are joined in a tree, and planes that are computed together.

Integers only: no image, no file. A frame (plane or volume) is cut into equal blocks,
numbered in raster order. The objects of blocks are joined in a tree: a node of level k is a box of
up to 2^k blocks along each axis, its children are the nodes of level k - 1 inside it, and the
blocks themselves are level 0. So no step of the joining holds more than the surface of a few boxes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import SettingsError
from napari_unet.core.instances.tile_merger import face_bit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.tiles import Index, Window


DEFAULT_BLOCK = {2: (4096, 4096), 3: (64, 512, 512)}
"""Edges of a block in planes and volumes: 2^24 pixels, 64 MB of labels."""
MAX_BLOCK_DEPTH = 64
"""Planes of a block, at most, where a single edge length is given."""
BATCH_PIXELS = 2**20
"""Pixels of a batch of planes, at most: half a second of a network on a CPU, so that a cancelled
run loses no more than that. A larger plane is a batch of its own."""


@dataclass(frozen=True)
class BlockPlan:
    """The blocks of a frame.

    Attributes
    ----------
    shape
        Size of the frame, (Y, X) or (Z, Y, X).
    block
        Edge lengths of a block; those at the far ends may be smaller.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of blocks along each axis."""
        return tuple(-(-n // edge) for n, edge in zip(self.shape, self.block, strict=True))

    @property
    def count(self) -> int:
        """Number of blocks."""
        return math.prod(self.grid)

    def window(self, number: int) -> Window:
        """Return the part of the frame that a block is responsible for."""
        axes = zip(self.position(0, number), self.block, self.shape, strict=True)
        return tuple(slice(at * edge, min((at + 1) * edge, size)) for at, edge, size in axes)

    def neighbours(self, number: int) -> list[int]:
        """List the blocks that touch a block, diagonal ones included."""
        here, grid = self.position(0, number), self.grid
        found = []
        for step in itertools.product((-1, 0, 1), repeat=len(grid)):
            there = [a + d for a, d in zip(here, step, strict=True)]
            if any(step) and all(0 <= a < n for a, n in zip(there, grid, strict=True)):
                found.append(_number(there, grid))
        return found

    @property
    def levels(self) -> int:
        """Level of the tree's root; 0 for a single block."""
        return max(0, max(self.grid, default=1) - 1).bit_length()

    def nodes(self, level: int) -> tuple[int, ...]:
        """Return the number of nodes of a level along each axis."""
        return tuple(-(-n >> level) if n else 0 for n in self.grid)

    def position(self, level: int, number: int) -> Index:
        """Return a node's position along each axis."""
        return tuple(int(at) for at in np.unravel_index(number, self.nodes(level)))

    def children(self, level: int, number: int) -> list[int]:
        """List the nodes of the level below that lie in a node."""
        below = self.nodes(level - 1)
        spans = [
            range(2 * at, min(2 * at + 2, n))
            for at, n in zip(self.position(level, number), below, strict=True)
        ]
        return [_number(position, below) for position in itertools.product(*spans)]

    def parent(self, level: int, number: int) -> int:
        """Return the node of the next level that contains a node."""
        return _number([at // 2 for at in self.position(level, number)], self.nodes(level + 1))

    def outer_faces(self, level: int, number: int) -> int:
        """Return the faces that a node shares with its parent, as `face_bit`s."""
        position = self.position(level, number)
        return sum(face_bit(axis, at % 2) for axis, at in enumerate(position))


def _number(position: Sequence[int], grid: Sequence[int]) -> int:
    number = 0
    for at, count in zip(position, grid, strict=True):
        number = number * count + at
    return number


def choose_block(
    shape: tuple[int, ...], requested: int | Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the edges of a block in a frame of that shape.

    Parameters
    ----------
    requested
        One edge for each axis, or one for Y and X (blocks of a volume are then at most
        `MAX_BLOCK_DEPTH` planes deep). None: `DEFAULT_BLOCK`.

    Raises
    ------
    SettingsError
        An edge below 1, or edges for another number of axes.
    """
    if requested is None:
        edges: Sequence[int] = DEFAULT_BLOCK[len(shape)]
    elif isinstance(requested, int):
        edges = (min(requested, MAX_BLOCK_DEPTH), requested, requested)[-len(shape) :]
    else:
        edges = tuple(requested)
    if len(edges) != len(shape) or min(edges) < 1:
        raise SettingsError(
            f"block is {requested}; give one edge length of at least 1 px, or one for each of the "
            f"{len(shape)} axes of a frame."
        )
    return tuple(max(1, min(int(edge), size)) for edge, size in zip(edges, shape, strict=True))


@dataclass(frozen=True)
class PlaneBatches:
    """The frames of a stack in batches that are computed and written together.

    A batch shares one file, so that thousands of small planes do not become thousands of files.
    Frames of several blocks are batches of one.

    Attributes
    ----------
    leading
        Size of the stack along the axes before those of a frame.
    size
        Frames of a batch; the last one along the innermost leading axis may have fewer.
    """

    leading: tuple[int, ...]
    size: int = 1

    @property
    def count(self) -> int:
        """Number of batches."""
        return math.prod(self.leading[:-1]) * self._per_row

    @property
    def _per_row(self) -> int:
        """Number of batches along the innermost leading axis; no batch crosses its end."""
        return -(-self.leading[-1] // self.size) if self.leading else 1

    def frames(self, batch: int) -> range:
        """Return the numbers of the frames of a batch."""
        if not self.leading:
            return range(1)
        row, at = divmod(batch, self._per_row)
        length = self.leading[-1]
        first = row * length
        return range(first + at * self.size, first + min((at + 1) * self.size, length))

    def batch_of(self, frame: int) -> int:
        """Return the batch of a frame."""
        if not self.leading:
            return 0
        row, at = divmod(frame, self.leading[-1])
        return row * self._per_row + at // self.size

    def position(self, batch: int) -> tuple[int | slice, ...]:
        """Return where a batch lies along the leading axes: a slice along the innermost one."""
        if not self.leading:
            return ()
        frames = self.frames(batch)
        *outer, first = (int(at) for at in np.unravel_index(frames.start, self.leading))
        return (*outer, slice(first, first + len(frames)))


def choose_planes_per_batch(leading: tuple[int, ...], blocks: BlockPlan) -> int:
    """Return the number of frames that are computed and written together."""
    if blocks.count != 1 or not leading:
        return 1
    return max(1, min(leading[-1], BATCH_PIXELS // max(1, math.prod(blocks.shape))))
