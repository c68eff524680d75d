"""A place of an image as a small picture with outlines, as strips of many images show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from napari_unet.core.evaluation.comparison import edges
from napari_unet.core.evaluation.overlay import to_rgb

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unet.core.tiles import Window

PICTURE = 80
"""Edge of the pictures, in pixels: two fit into the narrowest panel."""
DIAMETERS, LEAST = 4, 48
"""So many diameters of the objects are seen along an edge of the picture, and at least so many
pixels of the image."""
GREY = (150, 150, 150)
"""Colour of outlines that are not what the picture is about."""

Outlines = list[tuple[tuple[int, int, int], np.ndarray]]
"""Colours and labels (Y, X) that are outlined in them, the topmost last."""


@dataclass(frozen=True, eq=False)
class SmallPicture:
    """A part of an image, as small as it is shown.

    Attributes
    ----------
    pixels
        uint8 (PICTURE, PICTURE, 3); black where the part is not square.
    rows, columns
        Which of the part's pixels are shown.
    """

    pixels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def from_values(cls, values: np.ndarray) -> Self:
        """Show values, (1 or 3, Y, X)."""
        shown = to_rgb(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1))
        height, width = shown.shape[:2]
        longer = max(height, width)
        at = (np.arange(PICTURE) + 0.5) * longer / PICTURE
        rows, columns = (at[at < size].astype(int) for size in (height, width))
        pixels = np.zeros((PICTURE, PICTURE, 3), np.uint8)
        pixels[: len(rows), : len(columns)] = shown[np.ix_(rows, columns)]
        return cls(pixels, rows, columns)

    def outlined(self, outlines: Outlines) -> np.ndarray:
        """Return the picture with outlines of labels, of the part's size."""
        picture = self.pixels.copy()
        part = picture[: len(self.rows), : len(self.columns)]
        for colour, labels in outlines:
            part[edges(labels[np.ix_(self.rows, self.columns)])] = colour
        return picture


def square_around(middle: Iterable[float], edge: int, shape: Sequence[int]) -> Window:
    """Return the square (y, x) around a position, moved to lie in an image of this shape."""
    spans = []
    for at, size in zip(middle, shape, strict=True):
        start = int(np.clip(int(at) - edge // 2, 0, max(0, size - edge)))
        spans.append(slice(start, min(size, start + edge)))
    return tuple(spans)
