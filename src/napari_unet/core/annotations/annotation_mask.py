"""What a frame teaches: which of its pixels are known, and what they are."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_unet.core.tiles import Window


@dataclass(frozen=True, eq=False)
class AnnotationMask:
    """What a frame teaches.

    Attributes
    ----------
    labels
        ([Z,] Y, X): the corrected labels, with scribbles of background (of a class) put in.
    known
        bool, the same shape: pixels whose label is true.
    scribbled
        bool, the same shape, disjoint from `known`: pixels that a scribble says belong to some
        object, while nothing is known of its outline. They teach the foreground alone.
    assumed
        bool, the same shape, part of `known`: background that nobody spoke of, and that is known by
        lying near what was touched. Among crowded objects there may be some that were not drawn.
    """

    labels: np.ndarray
    known: np.ndarray
    scribbled: np.ndarray
    assumed: np.ndarray

    @property
    def annotated(self) -> np.ndarray:
        """All pixels that can be learned from; bool ([Z,] Y, X)."""
        return np.asarray(self.known | self.scribbled)

    def part(self, window: Window) -> AnnotationMask:
        """Return the mask of a window."""
        fields = (self.labels, self.known, self.scribbled, self.assumed)
        return AnnotationMask(*(values[window] for values in fields))


def pack(mask: AnnotationMask) -> bytes:
    """Return what a mask says apart from its labels, in a hundredth of the memory."""
    fields = np.stack([mask.known, mask.scribbled, mask.assumed])
    return zlib.compress(np.packbits(fields, axis=-1).tobytes(), 1)


def unpack(packed: bytes, window: Window, columns: slice) -> np.ndarray:
    """Return some columns of a mask that was packed: known, scribbled, assumed; bool (3, Y, X)."""
    rows, every = (span.stop - span.start for span in window)
    bits = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(3, rows, -(-every // 8))
    first, last = columns.start // 8, -(-columns.stop // 8)
    found = np.unpackbits(bits[..., first:last], axis=-1).astype(bool)
    return found[..., columns.start - 8 * first :][..., : columns.stop - columns.start]
