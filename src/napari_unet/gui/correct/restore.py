"""What an image's journal offers to bring back, and the layer that shows it.

To look for an offer and to read the labels back is work for a job; the layer is made in the
window's thread.
"""

from __future__ import annotations

import datetime
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.annotations.append_log import JournalWarning
from napari_unet.core.annotations.edits import KNOWN, SCRIBBLES
from napari_unet.core.annotations.header import JournalFile, find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.reader import JournalReader
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.progress import Progress
from napari_unet.gui.layers.label_geometry import get_label_geometry
from napari_unet.gui.layers.result_info import IMAGE, RESULT_KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Generator
    from pathlib import Path

    from napari.layers import Image, Labels

    from napari_unet.core.io.stack import Stack


@dataclass(frozen=True)
class Offer:
    """A journal that can be restored.

    Attributes
    ----------
    place
        The journal.
    corrections
        How many edits are in force in it; 0 if parts of the image were only marked as checked.
    """

    place: JournalFile
    corrections: int

    def text(self, now: datetime.datetime | None = None) -> str:
        """Return what stands on the button."""
        count = self.corrections
        what = f"{count} correction{'s' * (count != 1)}" if count else "what was checked"
        date = when(self.place.modified, now)
        return f"Restore {what} of {date}"


@dataclass(frozen=True, eq=False)
class Restored:
    """The labels of a journal as they are at its last record.

    Attributes
    ----------
    journal
        Open to go on with it; to look only, where another window writes to it.
    labels
        In the order T, Z, Y, X.
    scribbles
        uint8, of the same shape; None if there are none.
    remark
        What the user should know, in a sentence; "" if nothing.
    """

    journal: JournalReader
    labels: np.ndarray
    scribbles: np.ndarray | None
    remark: str = ""


def find_offer(
    stack: Stack, since: float, taken: Collection[Path]
) -> Generator[Progress, None, Offer | None]:
    """Look for the latest journal of an image that has something to restore.

    Parameters
    ----------
    since
        When labels of the image were last made that are in the window, in seconds since 1970:
        older journals are passed by. 0: there are none.
    taken
        Journals that the window works with already.
    """
    yield Progress(0, 0, "looking for earlier corrections")
    for place in find_journals(stack):
        yield Progress(0, 0, "looking for earlier corrections")
        if place.path in taken or place.modified <= since:
            continue
        try:
            with JournalReader(place.path) as journal:
                count = journal.undoable
                checked = any(mark.meaning == KNOWN for mark in journal.marks())
        except UnetError:
            continue  # a damaged one; there may be an older one
        if count or checked:
            return Offer(place, count)
    return None


def restore_steps(offer: Offer, stack: Stack) -> Generator[Progress, None, Restored]:
    """Open a journal and read its labels.

    Raises
    ------
    UnetError
        It cannot be read.
    """
    yield Progress(0, 0, "opening the journal")
    journal, remark = _opened(offer.place.path, stack)
    try:
        about = journal.header
        labels = np.zeros(about.shape, journal.dtype)
        for done, (index, frame) in enumerate(journal.replay_all()):
            labels[index] = frame
            yield Progress(done, int(np.prod(about.leading)), "frames")
        scribbles = None
        for index in journal.frames():
            drawn = journal.replay(index, canvas=SCRIBBLES)
            if drawn.any():
                scribbles = np.zeros(about.shape, np.uint8) if scribbles is None else scribbles
                scribbles[index] = drawn
    except BaseException:
        journal.close()
        raise
    return Restored(journal, labels, scribbles, remark)


def add_restored(viewer: Any, image: Image, restored: Restored) -> Labels:
    """Show restored labels as a result of Segment: the same name, place and metadata."""
    ground, about = get_label_geometry(image), restored.journal.header
    base = f"{image.name} {about.model or 'labels'}"
    provenance = {
        "model": about.model,
        "model_hash": about.model_hash,
        "data_hash": about.image,
        OBJECT_AXES: "ZYX"[-about.ndim :],
    }
    mark = {
        "base": base,
        IMAGE: str(image.unique_id),
        "runs": [provenance],
        "passport": provenance,
        "journal": str(restored.journal.path),
    }
    layer: Labels = viewer.add_labels(
        ground.placement.to_layer(restored.labels),
        name=base,
        metadata={RESULT_KEY: mark},
        **ground.placement.geometry(image),
    )
    layer = getattr(layer, "__wrapped__", layer)
    layer.editable = isinstance(restored.journal, Journal)
    return layer


def when(seconds: float, now: datetime.datetime | None = None) -> str:
    """Return a time in words: "today, 17:04", "yesterday, 17:04" or "3 November 2026, 17:04"."""
    time = datetime.datetime.fromtimestamp(seconds)
    days = ((now or datetime.datetime.now()).date() - time.date()).days
    day = {0: "today", 1: "yesterday"}.get(days) or f"{time.day} {time:%B %Y}"
    return f"{day}, {time:%H:%M}"


def _opened(path: Path, stack: Stack) -> tuple[JournalReader, str]:
    """Open a journal to go on with, or else to look only; and what there is to say of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", JournalWarning)
        try:
            journal: JournalReader = Journal.open(path, stack)
            remark = " ".join(str(warning.message) for warning in caught)
        except InputError as error:
            if not error.args or "open in another window" not in str(error):
                raise
            journal = JournalReader(path)
            remark = (
                "Another window works on these corrections; here they can only be looked at. "
                "Close the labels there and restore them again to go on here."
            )
    return journal, remark
