"""Where the blocks of a frame lie, who their neighbours are, and in which order they are joined.

Integers only: no image, no file. A frame (plane or volume) is cut into equal blocks, numbered in
raster order. Their objects are joined in a tree: a node of level k is a box of up to 2^k blocks
along each axis, its children are the nodes of level k - 1 inside it, and level 0 are the blocks
themselves. So no step of the joining sees more than the outside of a few boxes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.tiles import Window


BLOCK = {2: (4096, 4096), 3: (64, 512, 512)}
"""Edges of a block unless others are asked for: 2^24 pixels, 64 MB of labels."""
DEPTH = 64
"""Most planes of a block for which one edge length is given."""


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
        """How many blocks there are along each axis."""
        return tuple(-(-n // edge) for n, edge in zip(self.shape, self.block, strict=True))

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return math.prod(self.grid)

    def window(self, number: int) -> Window:
        """Return the part of the frame that a block is responsible for."""
        axes = zip(self.place(0, number), self.block, self.shape, strict=True)
        return tuple(slice(at * edge, min((at + 1) * edge, size)) for at, edge, size in axes)

    def neighbours(self, number: int) -> list[int]:
        """List the blocks that touch a block, diagonally, too."""
        here, grid = self.place(0, number), self.grid
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
        """Return how many nodes a level has along each axis."""
        return tuple(-(-n >> level) if n else 0 for n in self.grid)

    def place(self, level: int, number: int) -> tuple[int, ...]:
        """Return a node's position along each axis."""
        return tuple(int(at) for at in np.unravel_index(number, self.nodes(level)))

    def children(self, level: int, number: int) -> list[int]:
        """List the nodes of the level below that lie in a node."""
        below = self.nodes(level - 1)
        spans = [
            range(2 * at, min(2 * at + 2, n))
            for at, n in zip(self.place(level, number), below, strict=True)
        ]
        return [_number(place, below) for place in itertools.product(*spans)]

    def parent(self, level: int, number: int) -> int:
        """Return the node of the next level that holds a node."""
        return _number([at // 2 for at in self.place(level, number)], self.nodes(level + 1))

    def outer_faces(self, level: int, number: int) -> int:
        """Return which faces of a node are faces of its parent, too, as `face_bit`s."""
        place = self.place(level, number)
        return sum(face_bit(axis, at % 2) for axis, at in enumerate(place))


def face_bit(axis: int, side: int) -> int:
    """Return the bit that stands for the near (0) or far (1) face across an axis."""
    return 1 << (2 * axis + side)


def _number(place: Sequence[int], grid: Sequence[int]) -> int:
    number = 0
    for at, count in zip(place, grid, strict=True):
        number = number * count + at
    return number


def choose_block(
    shape: tuple[int, ...], wanted: int | Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return a block's edges in a frame of that shape.

    Parameters
    ----------
    wanted
        One edge for each axis, or one for Y and X (a volume's blocks are then at most `DEPTH`
        planes thick). None: the default.

    Raises
    ------
    SettingsError
        An edge below 1, or edges for another number of axes.
    """
    if wanted is None:
        edges: Sequence[int] = BLOCK[len(shape)]
    elif isinstance(wanted, int):
        edges = (min(wanted, DEPTH), wanted, wanted)[-len(shape) :]
    else:
        edges = tuple(wanted)
    if len(edges) != len(shape) or min(edges) < 1:
        raise SettingsError(
            f"block is {wanted}; give one edge length of at least 1 px, or one for each of the "
            f"{len(shape)} axes of a frame."
        )
    return tuple(max(1, min(int(edge), size)) for edge, size in zip(edges, shape, strict=True))


def batches(count: int, limit: int) -> int:
    """Return how many blocks go into one task, so that there are at most `limit` tasks."""
    return max(1, -(-count // limit))


TOGETHER = 2**20
"""Pixels of a group, at most, unless one frame has more: half a second of a network on a CPU."""


@dataclass(frozen=True)
class PlaneBatches:
    """The frames of a stack, in groups that are computed and written together.

    Attributes
    ----------
    leading
        How many frames there are along the leading axes.
    size
        How many frames a group has; at the far end of the last axis there may be fewer.
    """

    leading: tuple[int, ...]
    size: int = 1

    @property
    def count(self) -> int:
        """How many groups there are."""
        return math.prod(self.leading[:-1]) * self._a_row

    @property
    def _a_row(self) -> int:
        """How many groups there are along the last leading axis."""
        return -(-self.leading[-1] // self.size) if self.leading else 1

    def frames(self, group: int) -> range:
        """Return the numbers of the frames of a group."""
        if not self.leading:
            return range(1)
        row, at = divmod(group, self._a_row)
        length = self.leading[-1]
        first = row * length
        return range(first + at * self.size, first + min((at + 1) * self.size, length))

    def of(self, frame: int) -> int:
        """Return the group of a frame."""
        if not self.leading:
            return 0
        row, at = divmod(frame, self.leading[-1])
        return row * self._a_row + at // self.size

    def place(self, group: int) -> tuple[int | slice, ...]:
        """Return where a group lies along the leading axes: along the last one it is a slice."""
        if not self.leading:
            return ()
        frames = self.frames(group)
        *outer, first = (int(at) for at in np.unravel_index(frames.start, self.leading))
        return (*outer, slice(first, first + len(frames)))


def choose_planes_per_batch(leading: tuple[int, ...], blocks: BlockPlan) -> int:
    """Return how many frames are taken together."""
    if blocks.count != 1 or not leading:
        return 1
    return max(1, min(leading[-1], TOGETHER // max(1, math.prod(blocks.shape))))
