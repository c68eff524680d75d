"""Small frames that share a file: so many planes or time points that a block is worth its syncs.

A file that is synced to the disk takes 5 to 50 ms, as long as the network needs for a small plane.
So frames of one block each are taken together, as many neighbours along the last leading axis as
have `TOGETHER` pixels. Frames of several blocks stay alone: a group of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_unet.core.blockwise.blocks import BlockPlan

TOGETHER = 2**20
"""Pixels of a group, at most, unless one frame has more: half a second of a network on a CPU."""


@dataclass(frozen=True)
class FrameGroups:
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


def choose_together(leading: tuple[int, ...], blocks: BlockPlan) -> int:
    """Return how many frames are taken together."""
    if blocks.count != 1 or not leading:
        return 1
    return max(1, min(leading[-1], TOGETHER // max(1, math.prod(blocks.shape))))
