"""Clicks and a previous mask as a network sees them: as maps of a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

SPOT, REACH = 2.0, 16.0
"""Widths of a click in its two maps, in pixels: a Gaussian spot, and an exponential slope."""
PROMPTS = 7
"""Number of prompt maps: spot, slope and similarity for either kind of click; previous mask."""


@dataclass(frozen=True)
class Prompts:
    """The prompts for a batch of N windows.

    Attributes
    ----------
    places
        float32 (N, M, ndim): clicks in the windows' pixels.
    signs
        float32 (N, M): 1 for a positive click, -1 for a negative one, 0 for none.
    previous
        float32 (N, 1, *spatial): probability of the previous mask, 0 without one.
    """

    places: Tensor
    signs: Tensor
    previous: Tensor

    @classmethod
    def from_clicks(
        cls,
        positive: Sequence[np.ndarray],
        negative: Sequence[np.ndarray],
        previous: Tensor,
    ) -> Prompts:
        """Pack the clicks of each window, float32 (n, ndim) for each kind."""
        ndim = previous.ndim - 2
        pairs = list(zip(positive, negative, strict=True))
        most = max((len(p) + len(n) for p, n in pairs), default=0)
        places = torch.zeros(len(pairs), max(1, most), ndim)
        signs = torch.zeros(len(pairs), max(1, most))
        for row, (plus, minus) in enumerate(pairs):
            count = len(plus) + len(minus)
            places[row, : len(plus)] = torch.from_numpy(plus)
            places[row, len(plus) : count] = torch.from_numpy(minus)
            signs[row, : len(plus)] = 1
            signs[row, len(plus) : count] = -1
        return cls(places, signs, previous).to(previous.device)

    def to(self, device: torch.device) -> Prompts:
        """Return them on another device."""
        return Prompts(*(values.to(device) for values in (self.places, self.signs, self.previous)))


def nearness(prompts: Prompts, shape: Sequence[int]) -> Tensor:
    """Draw clicks, float32 (N, 4, *shape): spot and slope, of positive then negative clicks."""
    squares = torch.zeros(*prompts.signs.shape, *shape, device=prompts.signs.device)
    ndim = len(shape)
    for axis, size in enumerate(shape):
        steps = torch.arange(size, device=squares.device)
        away = (steps - prompts.places[..., axis, None]) ** 2  # (N, M, size)
        squares += away.view(*away.shape[:2], *(size if a == axis else 1 for a in range(ndim)))
    drawn = []
    for sign in (1, -1):
        other = (prompts.signs != sign).view(*prompts.signs.shape, *(1,) * ndim)
        nearest = squares.masked_fill(other, torch.inf).amin(1)
        drawn += [torch.exp(-nearest / (2 * SPOT**2)), torch.exp(-nearest.sqrt() / REACH)]
    return torch.stack(drawn, 1)


def similarity(embedded: Tensor, prompts: Prompts) -> Tensor:
    """Compare pixels with the clicked ones, float32 (N, 2, *spatial) in [-1, 1].

    `embedded` are unit vectors (N, E, *spatial). The maps are the highest similarity to a positive
    and to a negative click; 0 without clicks of that kind.
    """
    flat = embedded.flatten(2)
    index = torch.zeros_like(prompts.signs, dtype=torch.long)
    for axis, size in enumerate(embedded.shape[2:]):
        index = index * size + prompts.places[..., axis].round().long().clamp(0, size - 1)
    clicked = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))  # (N, E, M)
    alike = clicked.transpose(1, 2) @ flat  # (N, M, pixels)
    found = []
    for sign in (1, -1):
        chosen = (prompts.signs == sign)[..., None]
        most = alike.masked_fill(~chosen, -1).amax(1)
        found.append(torch.where(chosen.any(1), most, 0))
    return torch.stack(found, 1).view(len(flat), 2, *embedded.shape[2:])
