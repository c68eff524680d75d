"""The corrections that a model has to learn from: a row for each image, listed and withdrawn.

They are read from the journals; nothing is stored twice. A journal belongs to a model if its header
names the model, one of its ancestors or one of its descendants.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.annotations.edits import DROPPED, LABELS, TAKEN_OVER, Edit
from napari_unet.core.annotations.header import JournalFile, find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.annotations.plane_mask import PlaneMask
from napari_unet.core.errors import UnetError
from napari_unet.core.models.store import get_family

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from napari_unet.core.tiles import Index


@dataclass(frozen=True)
class Correction:
    """The corrections of one image with one labels layer: a row of the training set.

    Attributes
    ----------
    journal
        The journal, with its header: the image's name, the model.
    path
        The image's file; "" if it lay in memory only.
    frames
        Frames with annotated pixels, by their index along the leading axes.
    objects
        Number of objects that were edited, added, deleted or confirmed; of classes, of edits.
    removed
        Number of those that are not there any more: where they were counts as background.
    pixels
        Number of pixels that are known or scribbled.
    date
        Of the last correction, in seconds since 1970.
    dropped
        The user withdrew all of it (or some of it, if `frames` is not empty).
    problem
        Why it cannot be trained on, in a sentence; "" if it can.
    """

    journal: JournalFile
    path: str
    frames: tuple[Index, ...]
    objects: int
    pixels: int
    date: float
    dropped: bool
    problem: str = ""
    removed: int = 0

    @property
    def name(self) -> str:
        """The image's name."""
        return self.journal.header.name


def list_corrections(
    model: str | os.PathLike[str] | None = None, *, earlier: Iterable[Correction] = ()
) -> Iterator[Correction]:
    """Yield a model's training set, the last one worked on first; every journal is read through.

    Journals without corrections are skipped; those that cannot be read have a `problem`.

    Parameters
    ----------
    model
        Name or path; None: every journal of this home.
    earlier
        What was listed before: journals that have not changed since are not read again.

    Raises
    ------
    ModelError
        There is no such model.
    """
    cards = [] if model is None else get_family(model)
    hashes, names = {card.hash for card in cards}, {card.name for card in cards}
    read = {(row.journal.path, row.date): row for row in earlier if not row.problem}
    for file in find_journals():
        header = file.header
        belongs = header.model_hash in hashes if header.model_hash else header.model in names
        if model is None or belongs:
            row = read.get((file.path, file.modified))
            yield from _summarise(file) if row is None else (row,)


def drop_correction(
    correction: Correction, index: Index | None = None, *, journal: Journal | None = None
) -> None:
    """Withdraw a correction, or one of its frames, from every training set.

    The journal and its labels stay; what is corrected there later counts again.

    Parameters
    ----------
    journal
        The correction's journal, if this program has it open for writing.

    Raises
    ------
    InputError
        The journal is open in another window, or gone.
    OutputError
        It cannot be written.
    """
    frames = correction.frames if index is None else (index,)
    if journal is None:
        with Journal.open(correction.journal.path) as opened:
            drop_correction(correction, index, journal=opened)
        return
    for frame in frames:
        journal.mark(DROPPED, frame)


def _summarise(file: JournalFile) -> Iterator[Correction]:
    """Read a journal through; yield nothing if it holds no corrections."""
    date = file.modified  # taken before reading: what is written meanwhile counts as newer
    try:
        with JournalReader(file.path) as journal:
            if not (touched := journal.frames()):
                return
            pixels: Counter[Index] = Counter()
            edited = {frame: _edited_ids(journal, frame) for frame in touched}
            there: dict[Index, set[int]] = {frame: set() for frame in touched}
            for plane in journal.frames(2):
                frame = plane[: len(journal.header.leading)]
                for _, mask in PlaneMask.from_journal(journal, plane).bands():
                    pixels[frame] += int(mask.annotated.sum())
                    if edited.get(frame):
                        some = np.isin(mask.labels, list(edited[frame]))
                        there[frame].update(np.unique(mask.labels[some]).tolist())
            semantic = journal.header.head == "semantic"
            path = journal.header.path
            gone = bool(path) and not Path(path).exists()
            yield Correction(
                journal=file,
                path=path,
                frames=tuple(frame for frame in touched if pixels[frame]),
                objects=sum(len(ids) for ids in edited.values()),
                pixels=pixels.total(),
                date=date,
                dropped=any(mark.meaning == DROPPED for mark in journal.marks()),
                problem=f"Its image {path} is gone; put it back or open it." if gone else "",
                removed=0 if semantic else sum(len(edited[f] - there[f]) for f in touched),
            )
    except UnetError as error:
        yield Correction(file, file.header.path, (), 0, 0, date, False, str(error))


def _edited_ids(journal: JournalReader, frame: Index) -> set[int]:
    """Return the objects touched since the frame was dropped; of classes, numbers of the edits."""
    ids: list[int] = []
    for event in journal.history(frame):
        if isinstance(event, Edit):
            if event.canvas == LABELS and event.source != TAKEN_OVER:
                ids += [len(ids)] if journal.header.head == "semantic" else event.ids
        elif event.meaning == DROPPED and event.box == journal.box(frame):
            ids.clear()
    return set(ids)
