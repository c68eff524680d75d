"""The labels of an image in a file of their own, edited without opening them in the window.

What is done to them is in a journal of the image before it is in the file, as the corrections of a
layer are: it can be undone, restored and learned from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.annotations.header import WHOLE_BYTES, find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.io.files import TIFF_SUFFIXES
from napari_unet.core.io.label_reader import fit_labels, read_labels
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.provenance import hash_labels, read_provenance
from napari_unet.core.io.stack import open_stack
from napari_unet.core.models.folder import read_card
from napari_unet.core.models.store import find_model
from napari_unet.core.volumes.volume_mode import JOINED, ORTHOGONAL

_MOST = WHOLE_BYTES // 16
"""Pixels of labels that are edited without a look at them: they are read whole."""

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_unet.core.alike.group_edits import GroupEdit
    from napari_unet.core.io.stack import Stack


@dataclass(frozen=True, eq=False)
class ResultFile:
    """Labels that a run left in a file, as they were when they were read.

    Attributes
    ----------
    source, target
        The files of the image and of its labels.
    provenance
        How they were made.
    ndim
        2 if objects end with their plane, 3 if they do not.
    head
        "instance" for objects, "semantic" for classes.
    state
        `hash_labels`, by which later changes are noticed.
    journal, edits
        That holds them, if they were edited before, and how many edits it has then.
    """

    source: Path
    target: Path
    provenance: dict[str, Any]
    ndim: int
    head: str
    state: str
    journal: Path | None
    edits: int = 0

    @classmethod
    def read(cls, source: Path, target: Path) -> tuple[ResultFile, Stack, np.ndarray]:
        """Read the labels of an image; return the image and the labels (T, Z, Y, X), too.

        Raises
        ------
        InputError
            They cannot be read or are no result, are too large to be edited like this, or there are
            corrections of this image that are not in the file.
        """
        stack, provenance = open_stack(source), read_provenance(target)
        if target.suffix.lower() not in TIFF_SUFFIXES or math.prod(stack.labels_shape) > _MOST:
            raise InputError(f"{target.name} is too large to be edited unseen; open it.")
        labels = fit_labels(read_labels(target), stack.labels_shape)
        if labels.shape != stack.labels_shape or labels.dtype.kind not in "ui":
            raise InputError(f"{target.name} does not hold the labels of {source.name}.")
        by_planes = provenance.get("volumes") in (JOINED, ORTHOGONAL)
        ndim = 2 if by_planes else len(provenance.get(OBJECT_AXES, "YX"))
        journal = _find_journal(stack, labels)
        known = (source, target, provenance, ndim, _find_head(provenance))
        return cls(*known, hash_labels(labels), journal), stack, labels

    def change(self, edit: GroupEdit, source: str) -> ResultFile:
        """Edit the labels: one entry of the journal, then the file, whole or not at all.

        Returns
        -------
        ResultFile
            As it is now.

        Raises
        ------
        InputError
            The labels have been changed since they were read.
        OutputError
            The journal or the file cannot be written; both are as they were.
        """
        stack, labels = self._read_again()
        with self._open_journal(stack, labels) as journal:
            done = journal.plan(
                edit.where,
                edit.before,
                edit.after,
                labels=labels,
                source=source,
                accepted=edit.accepted,
            )
            journal.record(done)
            labels[edit.where] = edit.after
            if len(edit.after):
                self._write_or(journal.undo, stack, labels)
            state, path = hash_labels(labels), journal.path
            return replace(self, state=state, journal=path, edits=journal.undoable)

    def undo(self) -> ResultFile:
        """Take back what `change` did, in the journal and in the file.

        Raises
        ------
        InputError
            The labels have been changed since.
        OutputError
            As for `change`.
        """
        stack, labels = self._read_again()
        with self._open_journal(stack, labels) as journal:
            step = journal.undo() if journal.undoable == self.edits else None
            if step is None:
                raise InputError(f"{self.source.name} was corrected meanwhile; undo it there.")
            labels[step.where] = step.values
            if len(step.values):
                self._write_or(journal.redo, stack, labels)
            return replace(self, state=hash_labels(labels), edits=journal.undoable)

    def _read_again(self) -> tuple[Stack, np.ndarray]:
        found, stack, labels = ResultFile.read(self.source, self.target)
        if found.state != self.state:
            raise InputError(f"{self.target.name} was changed meanwhile; search again.")
        return stack, labels

    def _open_journal(self, stack: Stack, labels: np.ndarray) -> Journal:
        if self.journal is not None:
            return Journal.open(self.journal, stack)
        model, known = self.provenance.get("model", ""), self.provenance.get("model_hash", "")
        return Journal.begin(
            stack,
            labels,
            model=model,
            model_hash=known,
            head=self.head,
            ndim=self.ndim,
            channel=self.provenance.get("settings", {}).get("channel"),
        )

    def _write_or(self, take_back: Callable[[], object], stack: Stack, labels: np.ndarray) -> None:
        """Write the labels; where that fails the journal's step is taken back."""
        try:
            self._write(stack, labels)
        except BaseException:
            take_back()
            raise

    def _write(self, stack: Stack, labels: np.ndarray) -> None:
        """Replace the file; what was there stays until the new one is whole."""
        kind = labels.dtype if labels.dtype.itemsize <= 4 else np.dtype(np.uint32)
        shape = (stack.labels_shape, stack.labels_axes, kind, stack.voxel_size_um)
        with create_output(
            self.target, *shape, overwrite=True, transform=stack.labels_transform
        ) as output:
            output.array[...] = labels
            output.finish(kind, self.provenance)


def _find_head(provenance: dict[str, Any]) -> str:
    """Return the head of the model that made labels; that of objects if it is not there."""
    try:
        card = read_card(find_model(provenance.get("model", "")))
    except UnetError:
        return "instance"
    same = provenance.get("model_hash", "") in ("", card.hash)
    return card.spec.head if same else "instance"


def _find_journal(stack: Stack, labels: np.ndarray) -> Path | None:
    """Return the journal that holds these labels; None if the image has no corrections."""
    for file in find_journals(stack):
        with JournalReader(file.path) as journal:
            if not journal.undoable and not journal.marks():
                continue
            if file.header.shape == labels.shape and file.header.whole:
                frames = journal.replay_all()
                if all(np.array_equal(labels[index], frame) for index, frame in frames):
                    return file.path
        raise InputError(
            f"{stack.name} has corrections that are not in its file of labels; open it and restore "
            "them to go on."
        )
    return None
