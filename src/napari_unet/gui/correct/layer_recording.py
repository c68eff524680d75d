"""The recording of one Labels layer: its edits go into a journal, undo and redo come from there.

Ctrl+Z and Ctrl+Shift+Z of a layer that is recorded are the journal's; see `key_bindings`.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap
from qtpy.QtCore import QObject, Signal

from napari_unet.core.annotations.append_log import JournalWarning
from napari_unet.core.annotations.edits import LABELS, SCRIBBLES
from napari_unet.core.annotations.journal import Journal, UndoStep
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.text import pluralise
from napari_unet.gui.correct.write_queue import WriteQueue, get_changed_pixels, get_source
from napari_unet.gui.errors import describe_error
from napari_unet.gui.layers.key_bindings import give_undo_keys_back, take_undo_keys
from napari_unet.gui.layers.live_labels import draw_part
from napari_unet.gui.layers.navigation import bring_into_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari.layers import Labels

    from napari_unet.core.alike.group_edits import GroupEdit
    from napari_unet.core.annotations.edits import Edit
    from napari_unet.core.annotations.journal_reader import JournalReader
    from napari_unet.gui.layers.label_geometry import LabelGeometry

    Clicks = tuple[tuple[tuple[float, ...], bool], ...]


UNDO_WAIT_S = 0.3
"""How long the window waits in undo for edits that are being saved; then undo comes later."""


@dataclass(frozen=True)
class Learner:
    """What learns from corrections: a model's name, hash, head and 2 or 3 axes; and the channel."""

    model: str = ""
    model_hash: str = ""
    head: str = "instance"
    ndim: int = 2
    channel: int | None = None


class LayerRecording(QObject):
    """Records what the user does to a Labels layer, from the first edit on.

    Emits `changed`, in the window's thread, whenever `describe` has something new to say, `saved`
    when all edits are on the disk, `scribbled` when the scribbles are others, by a stroke or an
    undo, and `refused`, with the reason, when an undo, a redo or a mark cannot be done. `begins`
    comes before something is recorded as long as there is no journal: the learner may be another.

    Parameters
    ----------
    viewer
        The window; it is not kept alive.
    learner
        The model that made the labels, or is to learn from them.
    journal
        A journal whose labels the layer shows; None: one is begun with the first edit. To a
        `JournalReader`, which only reads, nothing is added.
    remark
        Shown until something is recorded.

    Attributes
    ----------
    geometry
        The image and how the labels lie on it. While that is None, nothing is written: edits wait.
    scribbles
        The layer of scribbles, None without one.
    journal
        None before the first edit is saved.
    """

    changed = Signal()
    saved = Signal()
    scribbled = Signal()
    refused = Signal(str)
    begins = Signal()

    def __init__(
        self,
        viewer: Any,
        layer: Labels,
        learner: Learner,
        journal: JournalReader | None = None,
        remark: str = "",
    ) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.layer, self.learner, self.journal = layer, learner, journal
        self.geometry: LabelGeometry | None = None
        self.scribbles: Labels | None = None
        self.data = layer.data
        self._postponed: list[str] = []
        self._closing = False
        self._remark = remark
        self._source: tuple[str, Clicks] = ("", ())
        self._recorded: deque[Edit] = deque()
        self._queue = WriteQueue()
        self._queue.changed.connect(self._queue_changed)
        take_undo_keys(layer, self.undo, self.redo)

    @property
    def pending(self) -> int:
        """How many edits and marks are not on the disk yet."""
        return self._queue.pending

    @property
    def read_only(self) -> bool:
        """Whether another window records these corrections."""
        return self.journal is not None and not isinstance(self.journal, Journal)

    @property
    def closed(self) -> bool:
        """Whether the layer is not recorded any more: it is gone, or got other labels."""
        return self._closing

    @property
    def failed(self) -> bool:
        """Whether writing has failed; what is pending is kept."""
        return self._queue.error is not None

    def describe(self) -> str:
        """Return in a sentence whether all is saved; "" before the first edit."""
        if self._queue.error is not None:
            reason = self._sentence(self._queue.error)
            changes = self.pending - self._closing  # to close the journal is in the queue, too
            return f"Not saved yet, but kept: {pluralise(changes, 'change')}. {reason}"
        if self._queue.pending:
            return "Saving …"
        if self._remark:
            return self._remark
        if self.journal is None:
            return ""
        count = self.journal.undoable
        if not count:
            return "All is saved."
        return f"All {count:,} corrections saved." if count > 1 else "1 correction saved."

    def record(self, atoms: list[Any], canvas: str = LABELS) -> None:
        """Record the value of the layer's `paint` event. Returns at once."""
        layer = self.layer if canvas == LABELS else self.scribbles
        if layer is None:
            return
        shape, (source, clicks) = layer.data.shape, self._source
        source = source or get_source(atoms, str(layer.mode))
        edit: Edit | None = None

        def write() -> None:
            nonlocal atoms, edit
            journal = self._get_journal()
            if edit is None:
                pixels, geometry = get_changed_pixels(atoms, shape), self.geometry
                assert geometry is not None
                where, labels = geometry.to_journal(pixels.where), self._labels()
                edit = journal.edit(
                    where, pixels.old, pixels.new, labels=labels, source=source, canvas=canvas
                )
                edit = replace(edit, clicks=clicks)
                atoms = []  # larger than the edit, which is kept until it is written
            try:
                journal.record(edit)
            except JournalWarning as warning:  # raised under -W error, after writing
                self._remark = str(warning)

        self._put(write)

    def change(self, change: GroupEdit, source: str) -> None:
        """Record a change of many objects, and make it as soon as it is on the disk.

        It is one entry of the journal and one step of undo. What the user paints over it meanwhile
        stays, in the layer as in the journal.
        """
        edit: Edit | None = None

        def write() -> None:
            nonlocal edit
            journal = self._get_journal()
            if edit is None:
                edit = journal.plan(
                    change.where,
                    change.before,
                    change.after,
                    labels=self._labels(),
                    source=source,
                    accepted=change.accepted,
                )
            journal.record(edit)
            self._recorded.append(edit)

        self._put(write)

    def _show_recorded(self) -> None:
        """Make the changes that are on the disk and not in the layer yet."""
        while self._recorded:
            edit = self._recorded.popleft()
            if self.geometry is None or not edit.pixels:
                continue
            where = np.unravel_index(edit.flat(), edit.shape)
            now = self._labels()[where]
            free = now == edit.values(after=False)
            step = UndoStep(tuple(w[free] for w in where), edit.values()[free], edit)
            self._apply(step)

    @contextlib.contextmanager
    def with_source(self, source: str, clicks: Clicks = ()) -> Iterator[None]:
        """Record the edits meanwhile with what made them, such as "split", and with its clicks."""
        self._source = (source, clicks)
        try:
            yield
        finally:
            self._source = ("", ())

    def mark(
        self, meaning: str, index: tuple[int, ...], window: tuple[slice, ...] | None = None
    ) -> None:
        """Record that a region is known, unknown or dropped; see `Journal.mark`."""
        self._put(lambda: self._get_journal().mark(meaning, index, window, labels=self._labels()))

    def confirm(self, ids: Sequence[int], index: tuple[int, ...]) -> None:
        """Record that objects of a plane or frame are right as they are."""
        self._put(lambda: self._get_journal().confirm(ids, index, labels=self._labels()))

    def undo(self, *_: Any) -> None:
        """Undo the last correction, in whatever slice or frame it was."""
        self._step("undo")

    def redo(self, *_: Any) -> None:
        """Redo the last correction that was undone."""
        self._step("redo")

    def retry(self) -> None:
        """Try again to write what could not be written."""
        self._queue.start()
        self.changed.emit()

    def wait(self, seconds: float) -> bool:
        """Wait until all is on the disk; return whether it is."""
        return self._queue.wait(seconds)

    def record_scribbles(self, layer: Labels) -> None:
        """Record a layer of scribbles, too; undo and redo are shared."""
        self.scribbles = layer
        take_undo_keys(layer, self.undo, self.redo)
        layer.events.paint.connect(self._scribbled)

    def fits(self, data: Any) -> bool:
        """Return whether other data are the same labels, in another type or another array."""
        before, kind = self.data, np.dtype(data.dtype).kind
        if tuple(data.shape) != tuple(before.shape) or kind not in "ui":
            return False
        both = isinstance(data, np.ndarray) and isinstance(before, np.ndarray)
        return both and bool(np.array_equal(before, data))

    def renew(self, data: Any) -> None:
        """Go on with the same labels in another array; the journal and what can be undone stay."""
        self.data = data
        self.changed.emit()

    def drop_scribbles(self) -> None:
        """Let go of the scribbles' layer, which was removed; they stay in the journal."""
        if self.scribbles is not None:
            self._release(self.scribbles)
            self.scribbles = None

    def close(self) -> None:
        """Record the layer no longer, and close the journal when all is written."""
        self._release(self.layer)
        self.drop_scribbles()
        self._closing = True
        self._queue.put(self._close_journal)

    def _put(self, write: Callable[[], None]) -> None:
        if self.read_only or self._closing:
            return
        self._remark = ""
        if self.journal is None:
            self.begins.emit()
        idle = not self._queue.pending
        self._queue.put(write)
        if idle:
            self.changed.emit()

    def _get_journal(self) -> Journal:
        """Return the journal; begin it if there is none. Runs in the queue's thread."""
        if self.journal is None:
            if self.geometry is None:
                raise InputError(
                    f"The image of the labels {self.layer.name!r} is not open, or does not fit; "
                    "open or choose it."
                )
            learner = self.learner
            self.journal = Journal.begin(
                self.geometry.stack,
                self._labels(),
                model=learner.model,
                model_hash=learner.model_hash,
                head=learner.head,
                ndim=learner.ndim,
                channel=learner.channel,
            )
        assert isinstance(self.journal, Journal)  # `_put` records nothing otherwise
        return self.journal

    def _labels(self) -> Any:
        return None if self.geometry is None else self.geometry.array(self.data)

    def _close_journal(self) -> None:
        if self.journal is not None:
            self.journal.close()

    def _queue_changed(self) -> None:
        self._show_recorded()
        if not self._queue.pending and not self.failed:
            postponed, self._postponed = self._postponed, []
            for kind in postponed:
                self._step(kind)
            self.saved.emit()
        self.changed.emit()

    def _step(self, kind: str) -> None:
        if self.read_only:
            return
        self._remark = ""
        if not self._queue.wait(UNDO_WAIT_S):
            if self._queue.error is None:
                self._postponed.append(kind)
            else:  # at each press: a key without effect needs a reason
                done = {"undo": "undone", "redo": "done again"}[kind]
                self.refused.emit(f"Nothing can be {done} before all is saved. {self.describe()}")
            self.changed.emit()
            return
        if not isinstance(self.journal, Journal):
            return
        self._show_recorded()
        try:
            step = self.journal.undo() if kind == "undo" else self.journal.redo()
        except UnetError as error:
            self._remark = self._sentence(error)
        else:
            if step is None:
                self._remark = f"There is nothing to {kind}."
            else:
                self._apply(step)
                self.saved.emit()
        self.changed.emit()

    def _apply(self, step: UndoStep) -> None:
        """Write the values of an undo or redo into the layer, and bring them into view.

        Not by `data_setitem`, which would add a step to napari's own history.
        """
        layer = self.layer if step.edit.canvas == LABELS else self.scribbles
        viewer = self._viewer()
        if layer is None or viewer is None or self.geometry is None:
            return
        place = self.geometry.place(step.edit.box)
        if len(step.values):
            layer.data[self.geometry.to_layer(step.where)] = step.values.astype(layer.data.dtype)
        bring_into_view(viewer, layer, place)
        plain = isinstance(layer.data, np.ndarray) and isinstance(
            layer.colormap, CyclicLabelColormap
        )
        if not (plain and draw_part(viewer, layer, place)):
            layer.refresh(thumbnail=False, highlight=False, extent=False)
        if layer is self.scribbles:
            self.scribbled.emit()

    def _sentence(self, error: Exception) -> str:
        """Return an error as a sentence, without the path of the journal."""
        text = describe_error(error)
        return text if self.journal is None else text.replace(str(self.journal.path), "The journal")

    def _scribbled(self, event: Any) -> None:
        self.record(event.value, SCRIBBLES)
        self.scribbled.emit()

    def _release(self, layer: Labels) -> None:
        layer.events.paint.disconnect(self._scribbled)
        give_undo_keys_back(layer)
