"""A small picture of what another model changes in an image, at the place where it changes most."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_unet.core.evaluation.label_diff import ObjectChanges, diff_classes
from napari_unet.core.evaluation.small_picture import (
    DIAMETERS,
    GREY,
    LEAST,
    PICTURE,
    SmallPicture,
    square_around,
)

if TYPE_CHECKING:
    from napari_unet.core.evaluation.small_picture import Outlines
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index, Window

PART = {2: (512, 512), 3: (12, 224, 224)}
"""Of larger frames only a part of this size is compared: it is quick, and little memory."""
GRID = 3
"""Along y and x of a large frame so many parts are looked at; that with most contrast is taken."""
SURE = 0.1
"""A change that the new model is sure of counts so much, one that it is in doubt of up to ten times
more."""
OLD, GAINED, CHANGED = (230, 140, 40), (0, 200, 120), (70, 150, 255)
"""Colours of outlines: of the old ones that are gone or have changed, and of the new ones."""


@dataclass(frozen=True, eq=False)
class ChangePreview:
    """What changes in a part of an image.

    Attributes
    ----------
    gained, lost, changed, same, what
        Numbers, as of a `LabelDiff`.
    picture
        uint8 (PICTURE, PICTURE, 3): the place of most changes, with old and new outlines.
    index, centre
        Where that is: the frame, and the position in it, ([z,] y, x) in pixels.
    extent
        Pixels of the image along an edge of the picture.
    doubt
        The new model's mean uncertainty of what changes, 0 to 1.
    """

    gained: int
    lost: int
    changed: int
    same: int
    what: str
    picture: np.ndarray
    index: Index
    centre: tuple[float, ...]
    extent: float
    doubt: float = 0.0

    @property
    def changes(self) -> int:
        """How many objects (pixels of classes) are others now."""
        return self.gained + self.lost + self.changed

    @property
    def share(self) -> float:
        """Which share of all objects (pixels of classes) changes, 0 to 1."""
        return self.changes / max(1, self.changes + self.same)

    @property
    def urgency(self) -> float:
        """How much it is worth a look: what changes, above all what the new model doubts."""
        return self.share * (SURE + self.doubt)


def choose_part(stack: Stack, ndim: int) -> tuple[Index, Window]:
    """Choose what stands for all of an image: the middle frame, of a large one a part of it.

    Returns
    -------
    index
        Of the frame along the leading axes of the labels.
    window
        ([z,] y, x), at most as large as `PART`.
    """
    frames, spans = stack.indices(ndim), []
    for axis, (size, most) in enumerate(zip(stack.frame_shape(ndim), PART[ndim], strict=True)):
        spare = max(0, size - most)
        many = GRID if spare and axis >= ndim - 2 else 1
        starts = [spare // 2] if many == 1 else [spare * n // (many - 1) for n in range(many)]
        spans.append([slice(start, min(size, start + most)) for start in starts])
    index, windows = frames[len(frames) // 2], list(itertools.product(*spans))
    if len(windows) == 1:
        return index, windows[0]
    contrast = []
    for *depth, rows, columns in windows:
        middle = [slice((d.start + d.stop) // 2, (d.start + d.stop) // 2 + 1) for d in depth]
        seen = stack.read(index, (*middle, rows, columns), (0,))
        contrast.append(float(np.nan_to_num(seen.astype(np.float64)).std()))
    return index, windows[int(np.argmax(contrast))]


def preview_changes(
    stack: Stack,
    index: Index,
    window: Window,
    before: np.ndarray,
    after: np.ndarray,
    *,
    classes: bool = False,
    channel: int = 0,
    uncertainty: np.ndarray | None = None,
) -> ChangePreview:
    """Compare two segmentations of a window of a frame, and draw where they differ most.

    Parameters
    ----------
    before, after
        Labels of the old and of the new model, of the window's shape.
    classes
        They are classes, not objects.
    channel
        The one that is drawn; colour images are drawn in colour.
    uncertainty
        Of the new model, 0 to 1, of the window's shape.
    """
    outlines, counts = (_of_classes if classes else _of_objects)(before, after)
    differs = np.logical_or.reduce([drawn > 0 for colour, drawn in outlines if colour != GREY])
    edge = round(max(LEAST, PICTURE if classes else DIAMETERS * _diameter(before, after)))
    here = _most_changed(differs, edge)
    place = tuple(
        slice(w.start + h.start, w.start + h.stop) for w, h in zip(window, here, strict=True)
    )
    values = stack.read(index, place, (0, 1, 2) if stack.rgb else (channel,))
    flat = values.reshape(len(values), *values.shape[-2:])
    drawn = [(colour, labels[here].reshape(flat.shape[1:])) for colour, labels in outlines]
    centre = tuple((p.start + p.stop - 1) / 2 for p in place)
    doubt = 0.0 if uncertainty is None or not differs.any() else float(uncertainty[differs].mean())
    extent = float(max(flat.shape[1:]))
    return ChangePreview(
        *counts, SmallPicture.from_values(flat).outlined(drawn), index, centre, extent, doubt
    )


def _of_objects(
    before: np.ndarray, after: np.ndarray
) -> tuple[Outlines, tuple[int, int, int, int, str]]:
    """Return what is outlined in which colour, the topmost last, and the counts."""
    found = ObjectChanges.from_labels(before, after)
    new = np.concatenate([found.gained, found.changed[:, 1]])
    outlines = [
        (GREY, np.where(np.isin(after, new), 0, after)),
        (OLD, _only(before, np.concatenate([found.lost, found.changed[:, 0]]))),
        (CHANGED, _only(after, found.changed[:, 1])),
        (GAINED, _only(after, found.gained)),
    ]
    counts = (len(found.gained), len(found.lost), len(found.changed), found.same, "objects")
    return outlines, counts


def _of_classes(
    before: np.ndarray, after: np.ndarray
) -> tuple[Outlines, tuple[int, int, int, int, str]]:
    found = diff_classes(before, after)
    same = before == after
    outlines = [
        (GREY, np.where(same, after, 0)),
        (OLD, np.where(same, 0, before)),
        (CHANGED, np.where(same, 0, after)),
    ]
    return outlines, (found.gained, found.lost, found.changed, found.same, found.what)


def _only(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.where(np.isin(labels, ids.astype(labels.dtype)), labels, 0)


def _diameter(before: np.ndarray, after: np.ndarray) -> float:
    """Return the middle diameter of the objects in the planes that they are seen in, in pixels."""
    labels = after if after.any() else before
    sizes = np.unique(labels, return_counts=True)[1][1:]
    if labels.ndim == 3:
        return float(np.cbrt(6 / np.pi * np.median(sizes))) if len(sizes) else 0.0
    return float(2 * np.sqrt(np.median(sizes) / np.pi)) if len(sizes) else 0.0


def _most_changed(differs: np.ndarray, edge: int) -> Window:
    """Return the square of one plane with most pixels that differ, or the middle."""
    plane: tuple[slice, ...] = ()
    if differs.ndim == 3:
        many = differs.sum((1, 2))
        z = int(many.argmax()) if many.any() else len(differs) // 2
        plane, differs = (slice(z, z + 1),), differs[z]
    middle = np.array(differs.shape) // 2
    if differs.any():
        near = ndimage.uniform_filter(differs.astype(np.float32), edge, mode="constant")
        middle = np.array(np.unravel_index(near.argmax(), near.shape))
    return (*plane, *square_around(middle, edge, differs.shape))
