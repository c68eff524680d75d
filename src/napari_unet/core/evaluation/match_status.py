"""Which objects were hit, which are false, which were missed, and how that is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.instances.matching import Overlap, match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


KINDS = ("hit", "false", "missed")
"""What can become of an object; where two meet in a pixel, the one named first is drawn."""


def outline_code(kind: str, kinds: Sequence[str] = KINDS) -> int:
    """Return what `draw_match_status` writes on the rim of an object of that kind: 1, 2 or 3."""
    return 1 + kinds.index(kind)


def inside_code(kind: str, kinds: Sequence[str] = KINDS) -> int:
    """Return what `draw_match_status` writes inside an object of that kind: 4, 5 or 6."""
    return 1 + len(kinds) + kinds.index(kind)


@dataclass(frozen=True)
class MatchStatus:
    """Which objects of a labelling are hits, by their labels; the others are false or missed.

    Attributes
    ----------
    hits
        Labels of predicted objects that are true ones, ascending.
    found
        Labels of the true objects that they are, ascending.
    """

    hits: NDArray[np.int64]
    found: NDArray[np.int64]

    @classmethod
    def of(cls, overlap: Overlap, threshold: float = 0.5) -> MatchStatus:
        """Judge the objects of an overlap: a hit has at least `threshold` IoU with its truth."""
        pairs = match(overlap, threshold)
        hits, found = overlap.predicted_ids[pairs.predicted], overlap.true_ids[pairs.true]
        return cls(np.sort(hits), np.sort(found))

    def split(self, labels: ArrayLike, truth: ArrayLike) -> dict[str, NDArray[Any]]:
        """Return the labels of the hits, the false and the missed objects, 0 elsewhere.

        Parameters
        ----------
        labels, truth
            What was judged, or a part of it, such as one plane of a volume.

        Returns
        -------
        dict
            An array for each of `KINDS`.
        """
        predicted, true = np.asarray(labels), np.asarray(truth)
        hit = np.isin(predicted, self.hits.astype(predicted.dtype))
        missed = ~np.isin(true, self.found.astype(true.dtype))
        return {
            "hit": np.where(hit, predicted, 0),
            "false": np.where(hit, 0, np.maximum(predicted, 0)),
            "missed": np.where(missed, np.maximum(true, 0), 0),
        }


def draw_match_status(
    objects: dict[str, NDArray[Any]], axes: tuple[int, int] = (0, 1)
) -> NDArray[np.uint8]:
    """Draw objects of several kinds, such as hits, false and missed ones, into one array of codes.

    Rims lie above all insides, so that missed objects can be seen below one that is too large.

    Parameters
    ----------
    objects
        The objects of each kind, 0 elsewhere, as `MatchStatus.split` returns them, of any number of
        dimensions; where two kinds meet in a pixel, the one named first is drawn.
    axes
        The axes of the planes in which rims are drawn.

    Returns
    -------
    np.ndarray
        uint8, the shape of the objects: `outline_code`, `inside_code` or 0.
    """
    kinds = list(objects)
    codes = np.zeros(objects[kinds[0]].shape, np.uint8)
    for kind in reversed(kinds):
        codes[objects[kind] > 0] = inside_code(kind, kinds)
    for kind in reversed(kinds):
        codes[edges(objects[kind], axes)] = outline_code(kind, kinds)
    return codes


def edges(labels: NDArray[Any], axes: tuple[int, ...] = (0, 1)) -> NDArray[np.bool_]:
    """Tell which pixels of an object touch, by a side along `axes`, something else."""
    edge = np.zeros(labels.shape, bool)
    for axis in axes:
        along, rim = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
        differs = along[1:] != along[:-1]
        rim[:-1] |= differs
        rim[1:] |= differs
    return edge & (labels > 0)


CHANGE_KINDS = ("gained", "lost", "changed")
"""What can happen to an object; where two meet in a pixel, the one named first is drawn."""
FOUND, SAME = 0.5, 0.9
"""IoU from which on two objects are one that has changed, and from which on they are the same."""


@dataclass(frozen=True)
class LabelDiff:
    """What became of the objects, or of the pixels where labels are classes.

    Attributes
    ----------
    gained, lost, changed, same
        How many objects. Of classes: how many pixels got one, lost theirs, have another, have the
        same; 0 is none.
    codes
        uint8, the labels' shape: `draw_match_status` of `CHANGE_KINDS`.
    what
        What was counted: "objects" or "pixels".
    """

    gained: int
    lost: int
    changed: int
    same: int
    codes: NDArray[np.uint8]
    what: str = "objects"

    @property
    def none(self) -> bool:
        """Whether both are alike."""
        return not (self.gained or self.lost or self.changed)


def diff_objects(before: NDArray[np.integer], after: NDArray[np.integer]) -> LabelDiff:
    """Compare two labellings ([Z,] Y, X) of the same image, object by object.

    Raises
    ------
    InputError
        The shapes differ.
    """
    overlap = Overlap.from_labels(after, before)
    pairs = match(overlap, FOUND)
    same = pairs.iou >= SAME
    old, new = overlap.true_ids, overlap.predicted_ids
    kept = np.isin(np.arange(len(old)), pairs.true)
    found = np.isin(np.arange(len(new)), pairs.predicted)
    objects = {
        "gained": _only(after, new[~found]),
        "lost": _only(before, old[~kept]),
        "changed": _only(after, new[pairs.predicted[~same]]),
    }
    gained, lost, changed = (int(np.sum(~mask)) for mask in (found, kept, same))
    return LabelDiff(gained, lost, changed, int(np.sum(same)), draw_match_status(objects, (-2, -1)))


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
