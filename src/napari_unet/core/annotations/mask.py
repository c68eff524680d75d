"""Annotation masks: which pixels of a frame are known from its corrections, and what they are.

Only what the user looked at is known: regions marked as known (a frame, a plane, a box), scribbles,
and what was touched. Touched are the pixels that changed; the objects that were edited, added or
confirmed, as they are now; and the background around both up to a margin. Other objects within the
margin stay unknown, and so does what is left of an object that was deleted and partly drawn anew:
it may be a clump's next object. The background of the margin is marked as assumed: a training may
doubt it (`nn/training/assumed_background.py`). All of this is decided plane by plane: an edit in
one plane of a volume says nothing about the planes above and below.

What the user took over from a model is not known: it is the model's answer, and none of theirs.

If labels are classes, there are no objects to be touched: the pixels that changed and everything
within the margin are known.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.annotations.annotation_mask import AnnotationMask
from napari_unet.core.annotations.plane_mask import PlaneMask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unet.core.annotations.edits import Box, Edit, RegionMark
    from napari_unet.core.annotations.journal_reader import JournalReader
    from napari_unet.core.tiles import Index


def read_annotation_mask(
    journal: JournalReader,
    index: Index = (),
    *,
    touched: bool = True,
    margin: float | None = None,
    classes: bool | None = None,
) -> AnnotationMask:
    """Return the annotation mask of a frame of a journal; parameters as for `mask_from_events`.

    Parameters
    ----------
    classes
        None: by the journal's header.
    """
    spans = journal.box(index)[len(index) : -2]
    planes = [(*index, *place) for place in itertools.product(*(range(*span) for span in spans))]
    parts = [
        PlaneMask.from_journal(
            journal, plane, touched=touched, margin=margin, classes=classes
        ).whole()
        for plane in planes
    ]
    return _stacked(parts, journal.header.shape[len(index) :])


def mask_from_events(
    labels: np.ndarray,
    events: Iterable[Edit | RegionMark],
    box: Box,
    *,
    classes: bool = False,
    touched: bool = True,
    margin: float | None = None,
) -> AnnotationMask:
    """Work out the annotation mask of a frame.

    Parameters
    ----------
    labels
        The frame's labels as they are now, ([Z,] Y, X); or those of a window of it.
    events
        Edits and marks in force, in order: `Journal.history`.
    box
        The region of the frame, or of the window, in all labels: `Journal.box`.
    classes
        The labels are classes, not objects.
    touched
        Whether what was touched is known; otherwise only marks and scribbles count.
    margin
        Width of the background around what was touched, in pixels; None: by the objects' diameter.
    """
    events, parts = list(events), []
    flat = labels.reshape(-1, *labels.shape[-2:])
    starts = itertools.product(*(range(*span) for span in box[:-2]))
    for plane, corner in zip(flat, starts, strict=True):
        here = (*((start, start + 1) for start in corner), *box[-2:])
        found = PlaneMask(
            plane.__getitem__, events, here, classes=classes, touched=touched, margin=margin
        )
        parts.append(found.whole())
    return _stacked(parts, labels.shape)


def _stacked(planes: Sequence[AnnotationMask], shape: Sequence[int]) -> AnnotationMask:
    """Put the masks of planes together to that of a frame."""
    if len(shape) == 2:
        return planes[0]
    fields = zip(*((m.labels, m.known, m.scribbled, m.assumed) for m in planes), strict=True)
    return AnnotationMask(*(np.stack(field).reshape(shape) for field in fields))
