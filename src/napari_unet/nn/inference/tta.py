"""Test-time augmentation: a network sees an image mirrored and turned; its answers are averaged.

Only mirrorings and quarter turns are used: they move pixels without mixing them, and tiles that lie
on the network's grid stay on it, so tiled and whole answers agree as they do without.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

OFF, FLIPS, TURNS = "off", "flips", "flips and turns"


@dataclass(frozen=True)
class Flip:
    """One way to look at an image: its rows and columns exchanged or not, then mirrored or not.

    Attributes
    ----------
    swap
        Whether Y and X are exchanged.
    flips
        Axes along which the image is mirrored, counted from the end: -1 is X.
    """

    swap: bool = False
    flips: tuple[int, ...] = ()

    def apply(self, image: Tensor) -> Tensor:
        """Show (..., Y, X) as seen in this view."""
        return (image.transpose(-1, -2) if self.swap else image).flip(self.flips)

    def undo(self, maps: Tensor) -> Tensor:
        """Bring maps of the view back to the image's pixels."""
        maps = maps.flip(self.flips)
        return maps.transpose(-1, -2) if self.swap else maps


def get_flips(augment: str, ndim: int) -> tuple[Flip, ...]:
    """Return the views that a setting stands for: 1, 2^ndim, or as many again with Y and X swapped.

    Quarter turns of a volume are made in its planes only: along Z voxels have another size.
    """
    if augment == OFF:
        return (Flip(),)
    axes = range(-1, -ndim - 1, -1)
    flips = [
        tuple(chosen) for count in range(ndim + 1) for chosen in itertools.combinations(axes, count)
    ]
    swaps = (False, True) if augment == TURNS else (False,)
    return tuple(Flip(swap, chosen) for swap in swaps for chosen in flips)
