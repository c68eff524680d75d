"""The journal: every correction of an image's labels, on the disk before it counts as saved.

A journal is one `RecordFile`. It begins with a `JournalHeader` and the initial labels, followed by
edits, region marks, undo and redo in the order in which they happened. Nothing is ever removed from
the file: an undo is a record of its own. The present labels are the initial ones with every edit,
undo and redo applied in order.

Labels of up to `header.WHOLE_BYTES` are written whole at the beginning. Of larger labels a frame is
written when it is first worked on, so that the file grows with what was corrected; frames that were
not touched are not restored (the model predicts them again).

With `stack` and the array `labels` of a napari layer:

    journal = Journal.begin(stack, labels, model=card.name, model_hash=card.hash)
    edit = journal.edit(where, old, new, source="paint", labels=labels)  # where the user paints
    journal.record(edit)                            # in a worker; when it returns, it is saved
    step = journal.undo()                           # None if there is nothing to undo
    labels[step.where] = step.values

    places = find_journals(stack)                   # after a crash, the latest first
    with Journal.open(places[0].path, stack) as journal:
        for index, frame in journal.replay_all():
            labels[index] = frame
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.annotations.append_log import Record, RecordFile
from napari_unet.core.annotations.edits import KNOWN, LABELS, Box, Edit, RegionMark, plane_span
from napari_unet.core.annotations.header import (
    InitialLabels,
    image_fingerprint,
    make_header,
    new_path,
    same_file,
    sweep_unfinished,
)
from napari_unet.core.annotations.image_source import save_snapshot
from napari_unet.core.annotations.journal_reader import JournalReader, unravel
from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index


@dataclasses.dataclass(frozen=True, eq=False)
class UndoStep:
    """The change of an undo or redo: ``labels[step.where] = step.values`` performs it.

    Attributes
    ----------
    where
        Index arrays, one for each axis of the labels; empty where objects were only confirmed.
    values
        The values to put there.
    edit
        The edit that is undone or redone; its `canvas` tells whether labels or scribbles change.
    """

    where: tuple[np.ndarray, ...]
    values: np.ndarray
    edit: Edit


class Journal(JournalReader):
    """The journal of one image with one labels array, open for writing.

    Build it with `begin` or `open`. Every method may be called from any thread and waits for a call
    in progress. Methods that write return when the data are on the disk, which may take some 10 ms:
    call them in a worker, in the order of events. `edit` reads the labels' array and must be called
    in the thread that paints, before the next stroke.
    """

    def __init__(self, file: RecordFile, stack: Stack | None = None) -> None:
        self._stack = stack
        self._load(file)

    @classmethod
    def begin(
        cls,
        stack: Stack,
        labels: Any,
        *,
        model: str = "",
        model_hash: str = "",
        head: str = "instance",
        ndim: int = 2,
        channel: int | None = None,
    ) -> Journal:
        """Begin a journal; an image may have several, one for each labels array.

        The labels are copied plane by plane, while the user may go on painting: record those edits
        afterwards.

        Parameters
        ----------
        stack
            The image, with its `path` if it lies in a file. Of an image in memory only, frames are
            copied into the journal's folder when they are worked on.
        labels
            Array of integers from 0, of ``stack.labels_shape``; anything that can be sliced.
        model, model_hash
            Name and hash of the model that is to learn from the corrections.
        head
            "instance": the labels are objects; "semantic": they are classes.
        ndim
            2 if frames are planes (Y, X); 3 if they are volumes (Z, Y, X).
        channel
            Which channel of the image the labels are of; None: as a model takes them.

        Raises
        ------
        InputError
            The labels do not fit the image or are negative, or the image cannot be read.
        OutputError
            The journal cannot be written.
        """
        header = make_header(stack, labels, ndim)
        header = dataclasses.replace(
            header, model=model, model_hash=model_hash, head=head, channel=channel
        )
        base = InitialLabels(header).all_records(labels) if header.whole else ()
        path = new_path(header.image)
        sweep_unfinished(path.parent)
        return cls(RecordFile.create(path, itertools.chain([header.record()], base)), stack)

    @classmethod
    def open(cls, path: Path, stack: Stack | None = None) -> Journal:
        """Open a journal to add to it; a record that a crash left torn is dropped.

        Parameters
        ----------
        path
            The journal's file, as found by `find_journals`.
        stack
            Its image. If the file was moved, the journal notes the new path. Of an image in memory
            only, snapshots are kept only if it is given.

        Raises
        ------
        InputError
            It is no journal, another window writes to it, or it belongs to another image.
        OutputError
            It cannot be written to.
        """
        journal = cls(RecordFile(path, write=True), stack)
        try:
            if stack is not None:
                journal._check_image(stack)
        except BaseException:
            journal.close()
            raise
        return journal

    def edit(
        self,
        where: Sequence[ArrayLike],
        old: ArrayLike,
        new: ArrayLike,
        *,
        labels: Any = None,
        source: str = "",
        canvas: str = LABELS,
    ) -> Edit:
        """Describe pixels that have just changed, for `record`; quick, without writing.

        Parameters
        ----------
        where, old, new, source, canvas
            As for `Edit.from_pixels`: index arrays in the whole labels array, values before and
            after.
        labels
            The labels' array, in which the pixels have changed already. If the journal does not
            hold all initial labels (`header.whole`), those of the frame are copied from it.

        Raises
        ------
        InputError
            Pixels are outside the labels, values are negative, or `labels` are needed.
        """
        edit = Edit.from_pixels(self.header.shape, where, old, new, source=source, canvas=canvas)
        if not edit.box:
            return edit
        before = edit if canvas == LABELS else None
        return dataclasses.replace(edit, base=self._copies(edit.box, labels, before))

    def plan(
        self,
        where: Sequence[ArrayLike],
        old: ArrayLike,
        new: ArrayLike,
        *,
        labels: Any = None,
        source: str = "",
        accepted: Sequence[tuple[int, int]] = (),
    ) -> Edit:
        """Describe a change that is not in the labels yet, for `record`.

        Parameters
        ----------
        where, old, new, labels, source
            As for `edit`, but the labels are as they are before the change.
        accepted
            Objects that are right as they are: id, and a plane (Y, X) that it is in, counted in C
            order.

        Raises
        ------
        InputError
            As for `edit`.
        """
        shape = self.header.shape
        edit = Edit.from_pixels(shape, where, old, new, source=source)
        if accepted:
            ids, planes = zip(*accepted, strict=True)
            places = np.unravel_index(planes, shape[:-2]) if shape[:-2] else ()
            spans = [(int(axis.min()), int(axis.max()) + 1) for axis in places]
            box = (*spans, *((0, n) for n in shape[-2:]))
            edit = dataclasses.replace(edit, confirmed=ids, confirmed_in=planes, box=box)
        if not edit.box:
            return edit
        return dataclasses.replace(edit, base=self._copies(edit.box, labels))

    def record(self, edit: Edit) -> None:
        """Write an edit; when this returns, it is saved. Empty edits are not written.

        Raises
        ------
        OutputError
            It cannot be written, for example because the disk is full: the journal is as it was.
            Record the same edit again later, before the edits that follow it.
        """
        if not edit.box:
            return
        with self._guard:
            self._write(edit.base, edit.record())
        self._keep_image(edit.box)

    def confirm(self, ids: Sequence[int], index: Index, *, labels: Any = None) -> None:
        """Record that the user accepts objects of a frame or plane unchanged; can be undone."""
        box = self.box(index)
        nothing = np.zeros((0, 4), np.int64)
        confirmed = tuple(int(number) for number in ids)
        base = self._copies(box, labels)
        self.record(
            Edit(self.header.shape, nothing, "confirm", confirmed=confirmed, box=box, base=base)
        )

    def mark(
        self,
        meaning: str,
        index: Index = (),
        window: tuple[slice, ...] | None = None,
        *,
        labels: Any = None,
    ) -> None:
        """Record that a region is `KNOWN`, `UNKNOWN` or `DROPPED` (see `edits`).

        Parameters
        ----------
        meaning
            What the region is from now on; later edits count again.
        index, window
            As for `box`.
        labels
            As for `edit`.
        """
        box = self.box(index, window)
        base = self._copies(box, labels) if meaning == KNOWN else {}
        with self._guard:
            self._write(base, RegionMark(meaning, box).record())
        if meaning == KNOWN:
            self._keep_image(box)

    def undo(self) -> UndoStep | None:
        """Record that the last edit is undone, and return the change; None if there is none.

        Undo works across frames and restarts.
        """
        return self._step("undo")

    def redo(self) -> UndoStep | None:
        """Record that the edit undone last is redone, and return the change; None without one."""
        return self._step("redo")

    def _step(self, kind: str) -> UndoStep | None:
        undo = kind == "undo"
        with self._guard:
            numbers = self._history.done if undo else self._history.undone
            if not numbers:
                return None
            edit = self._edit(numbers[-1])
            self._write({}, Record({"kind": kind}))
            values = edit.values(after=not undo).astype(self.dtype)
        return UndoStep(np.unravel_index(edit.flat(), edit.shape), values, edit)

    def _copies(self, box: Box, labels: Any, edit: Edit | None = None) -> dict[int, np.ndarray]:
        """Copy the planes that the journal must hold before a region changes."""
        with self._guard:
            missing = self._base.missing(*plane_span(box, self.header.shape))
        if missing and labels is None:
            raise InputError("These labels are large; give labels= so that the frame can be kept.")
        return {plane: self._base.before(labels, plane, edit) for plane in missing}

    def _write(self, base: dict[int, np.ndarray], record: Record) -> None:
        records = [
            part
            for plane, values in base.items()
            if plane not in self._base
            for part in self._base.records(plane, values)
        ]
        records.append(record)
        for offset, written in zip(self._file.append(*records), records, strict=True):
            self._take(offset, written.header)

    def _check_image(self, stack: Stack) -> None:
        """Check that the image is the journal's, and note where it lies now."""
        if image_fingerprint(stack) != self.header.image:
            raise InputError(f"{self.path} belongs to another image than {stack.name}.")
        if stack.path is None or str(stack.path.absolute()) == self.header.path:
            return
        if path := same_file(stack, stack.path, self.header.image):
            self._write({}, Record({"kind": "moved", "path": path}))

    def _keep_image(self, box: Box) -> None:
        """Keep snapshots of the frames that a box reaches, if the image lies in no file."""
        if self._stack is None or self.header.path:
            return
        first, stop = plane_span(box, self.header.shape)
        size = self.header.frame_planes
        for frame in range(first // size, (stop - 1) // size + 1):
            save_snapshot(
                self.path.parent,
                self._stack,
                unravel(frame, self.header.leading),
                self.header.ndim,
            )
