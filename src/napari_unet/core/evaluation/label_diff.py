"""Differences between two segmentations of an image: which objects were gained, lost, changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.evaluation.comparison import draw_match_status
from napari_unet.core.instances.matching import Overlap, match

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANGE_KINDS = ("gained", "lost", "changed")
"""Kinds of changes; where two meet in a pixel, the one named first is drawn."""
FOUND, SAME = 0.5, 0.9
"""Two objects of at least these IoUs are one that has changed, and one that has not."""


@dataclass(frozen=True)
class LabelDiff:
    """Changes between two segmentations, counted in objects, or in pixels if they hold classes.

    Attributes
    ----------
    gained, lost, changed, same
        Numbers of objects. Of classes: pixels that got a class, lost theirs, have another, have the
        same; background is none.
    codes
        uint8, the labels' shape: `draw_match_status` of `CHANGE_KINDS`.
    what
        "objects" or "pixels".
    """

    gained: int
    lost: int
    changed: int
    same: int
    codes: NDArray[np.uint8]
    what: str = "objects"

    @property
    def none(self) -> bool:
        """Whether nothing changed."""
        return not (self.gained or self.lost or self.changed)


@dataclass(frozen=True)
class ObjectChanges:
    """Which objects differ between two labellings, by their ids.

    Attributes
    ----------
    gained, lost
        Ids (N,) of objects that only the later labelling has, and only the earlier one.
    changed
        Ids (N, 2), before and after, of objects that have another shape.
    same
        How many have not changed.
    """

    gained: NDArray[np.int64]
    lost: NDArray[np.int64]
    changed: NDArray[np.int64]
    same: int

    @classmethod
    def from_labels(
        cls, before: NDArray[np.integer], after: NDArray[np.integer], *, same: float = SAME
    ) -> ObjectChanges:
        """Match the objects of two labellings of the same shape.

        Parameters
        ----------
        same
            From this IoU on, an object has not changed.

        Raises
        ------
        InputError
            The shapes differ.
        """
        overlap = Overlap.from_labels(after, before)
        pairs = match(overlap, FOUND)
        differs = pairs.iou < same
        old, new = overlap.true_ids, overlap.predicted_ids
        changed = np.stack([old[pairs.true[differs]], new[pairs.predicted[differs]]], 1)
        gained = np.delete(new, pairs.predicted)
        return cls(gained, np.delete(old, pairs.true), changed, int(np.sum(~differs)))


def diff_objects(
    before: NDArray[np.integer], after: NDArray[np.integer], *, same: float = SAME
) -> LabelDiff:
    """Compare two labellings ([Z,] Y, X) of the same image, object by object; see `ObjectChanges`.

    Raises
    ------
    InputError
        The shapes differ.
    """
    found = ObjectChanges.from_labels(before, after, same=same)
    objects = {
        "gained": _only(after, found.gained),
        "lost": _only(before, found.lost),
        "changed": _only(after, found.changed[:, 1]),
    }
    counts = (len(found.gained), len(found.lost), len(found.changed), found.same)
    return LabelDiff(*counts, draw_match_status(objects, (-2, -1)))


def diff_classes(before: NDArray[np.integer], after: NDArray[np.integer]) -> LabelDiff:
    """Compare two images of classes, pixel by pixel; class 0 is background."""
    differs = before != after
    pixels = {
        "gained": differs & (before == 0),
        "lost": differs & (after == 0),
        "changed": differs & (before > 0) & (after > 0),
    }
    gained, lost, changed = (int(np.count_nonzero(mask)) for mask in pixels.values())
    same = int(np.count_nonzero(~differs & (after > 0)))
    codes = draw_match_status(
        {kind: mask.astype(np.uint8) for kind, mask in pixels.items()}, (-2, -1)
    )
    return LabelDiff(gained, lost, changed, same, codes, "pixels")


def _only(labels: NDArray[np.integer], ids: NDArray[np.int64]) -> NDArray[np.integer]:
    return np.where(np.isin(labels, ids.astype(labels.dtype)), labels, 0)
