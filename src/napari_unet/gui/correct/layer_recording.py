"""The record of one Labels layer: each of its strokes in the journal, undo and redo from it.

Ctrl+Z and Ctrl+Shift+Z of a layer that is recorded are the journal's; see `undokeys`.
"""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap
from qtpy.QtCore import QObject, Signal

from napari_unet.core.annotations.append_log import JournalWarning
from napari_unet.core.annotations.edits import LABELS, SCRIBBLES
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.text import pluralise
from napari_unet.gui.correct.paint_event import pixels_of, source_of
from napari_unet.gui.correct.write_queue import WriteQueue
from napari_unet.gui.errors import describe_error
from napari_unet.gui.layers.key_bindings import give_keys_back, take_keys
from napari_unet.gui.layers.navigation import bring_into_view
from napari_unet.gui.layers.result_info import draw_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari.layers import Labels

    from napari_unet.core.annotations.edits import Edit
    from napari_unet.core.annotations.journal import Step
    from napari_unet.core.annotations.reader import JournalReader
    from napari_unet.gui.layers.label_geometry import LabelGeometry

    Clicks = tuple[tuple[tuple[float, ...], bool], ...]


PATIENCE_S = 0.3
"""How long undo keeps the window waiting for strokes that are being saved; then it comes later."""


@dataclass(frozen=True)
class Learner:
    """The model that is to learn from corrections: name, hash, kind of head, and 2 or 3."""

    model: str = ""
    model_hash: str = ""
    head: str = "instance"
    ndim: int = 2


class LayerRecording(QObject):
    """Records what the user does to a Labels layer, from the first stroke on.

    Emits `changed`, in the window's thread, whenever `describe` has something new to say, `saved`
    when all that was painted is on the disk, and `refused`, with the reason, when an undo or redo
    cannot be done.

    Parameters
    ----------
    viewer
        The window; it is not kept alive.
    layer
        The layer.
    learner
        The model that made the labels, or is to learn from them.
    journal
        A journal whose labels the layer shows; None: one is begun with the first stroke. One that
        is only open to be looked at can be shown, and nothing is recorded.
    remark
        What to say of the journal until something is recorded.

    Attributes
    ----------
    ground
        The image and how the labels lie on it; None, as long as nobody knows. The strokes wait.
    scribbles
        The layer of scribbles, None without one.
    journal
        None before the first stroke is saved.
    """

    changed = Signal()
    saved = Signal()
    refused = Signal(str)

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
        self.ground: LabelGeometry | None = None
        self.scribbles: Labels | None = None
        self.data = layer.data
        self._later: list[str] = []
        self._closing = False
        self._problem = remark
        self._said: tuple[str, Clicks] = ("", ())
        self._queue = WriteQueue()
        self._queue.changed.connect(self._moved)
        self._hold(layer)

    @property
    def pending(self) -> int:
        """Strokes and marks that are not on the disk yet."""
        return self._queue.pending

    @property
    def read_only(self) -> bool:
        """Whether another window records these corrections."""
        return self.journal is not None and not isinstance(self.journal, Journal)

    @property
    def failed(self) -> bool:
        """Whether what is pending could not be written."""
        return self._queue.error is not None

    def describe(self) -> str:
        """Return in a sentence whether all is saved."""
        if self._queue.error is not None:
            reason = self._sentence(self._queue.error)
            changes = self.pending - self._closing  # to close the journal is in the queue, too
            return f"Not saved yet, but kept: {pluralise(changes, 'change')}. {reason}"
        if self._queue.pending:
            return "Saving …"
        if self._problem:
            return self._problem
        if self.journal is None:
            return ""
        count = self.journal.undoable
        if not count:
            return "All is saved."
        return f"All {count:,} corrections saved." if count > 1 else "1 correction saved."

    def stroke(self, atoms: list[Any], canvas: str = LABELS) -> None:
        """Record a stroke: the value of the layer's `paint` event. Returns at once."""
        layer = self.layer if canvas == LABELS else self.scribbles
        if layer is not None:
            self._put(_Stroke(self, layer.data.shape, atoms, str(layer.mode), canvas))

    @contextlib.contextmanager
    def naming(self, source: str, clicks: Clicks = ()) -> Iterator[None]:
        """Record the strokes meanwhile as what they are, such as "split", and with their clicks."""
        self._said = (source, clicks)
        try:
            yield
        finally:
            self._said = ("", ())

    def mark(
        self, meaning: str, index: tuple[int, ...], window: tuple[slice, ...] | None = None
    ) -> None:
        """Record that a region is known, unknown or dropped; see `Journal.mark`."""
        self._put(lambda: self._begun().mark(meaning, index, window, labels=self._labels()))

    def confirm(self, ids: Sequence[int], index: tuple[int, ...]) -> None:
        """Record that objects of a plane or frame are right as they are."""
        self._put(lambda: self._begun().confirm(ids, index, labels=self._labels()))

    def undo(self, *_: Any) -> None:
        """Take the last correction back, in whatever slice or frame it was."""
        self._step("undo")

    def redo(self, *_: Any) -> None:
        """Do the correction again that was taken back last."""
        self._step("redo")

    def go_on(self) -> None:
        """Try again to write what could not be written."""
        self._queue.go_on()
        self.changed.emit()

    def wait(self, seconds: float) -> bool:
        """Wait until all is on the disk; return whether it is."""
        return self._queue.wait(seconds)

    def scribble_on(self, layer: Labels) -> None:
        """Record the strokes on a layer of scribbles, too; undo and redo are shared."""
        self.scribbles = layer
        self._hold(layer)
        layer.events.paint.connect(self._scribbled)

    def drop_scribbles(self) -> None:
        """Let go of the scribbles' layer, which was removed; the scribbles stay recorded."""
        if self.scribbles is not None:
            self._let_go(self.scribbles)
            self.scribbles = None

    def close(self) -> None:
        """Let go of the layer, and close the journal when all is written."""
        self._let_go(self.layer)
        self.drop_scribbles()
        self._closing = True
        self._queue.put(self._close_journal)

    def _put(self, write: Callable[[], None]) -> None:
        if self.read_only:
            return
        self._problem = ""
        idle = not self._queue.pending
        self._queue.put(write)
        if idle:
            self.changed.emit()

    def _begun(self) -> Journal:
        """Return the journal; begin it if there is none; runs in the queue's thread."""
        if self.journal is None:
            if self.ground is None:
                raise InputError(
                    f"The image of the labels {self.layer.name!r} is not open, or does not fit; "
                    "open or choose it."
                )
            learner = self.learner
            self.journal = Journal.begin(
                self.ground.stack,
                self._labels(),
                model=learner.model,
                model_hash=learner.model_hash,
                head=learner.head,
                ndim=learner.ndim,
            )
        assert isinstance(self.journal, Journal)  # `_put` records nothing otherwise
        return self.journal

    def _labels(self) -> Any:
        return None if self.ground is None else self.ground.array(self.data)

    def _write(self, edit: Edit) -> None:
        try:
            self._begun().record(edit)
        except JournalWarning as warning:  # where warnings are errors; the edit is written
            self._problem = str(warning)

    def _close_journal(self) -> None:
        if self.journal is not None:
            self.journal.close()

    def _moved(self) -> None:
        if not self._queue.pending and not self.failed:
            later, self._later = self._later, []
            for kind in later:
                self._step(kind)
            self.saved.emit()
        self.changed.emit()

    def _step(self, kind: str) -> None:
        if self.read_only:
            return
        self._problem = ""
        if not self._queue.wait(PATIENCE_S):
            if self._queue.error is None:
                self._later.append(kind)
            else:  # each time: a key that does nothing has to say why
                done = {"undo": "undone", "redo": "done again"}[kind]
                self.refused.emit(f"Nothing can be {done} before all is saved. {self.describe()}")
            self.changed.emit()
            return
        if not isinstance(self.journal, Journal):
            return
        try:
            step = self.journal.undo() if kind == "undo" else self.journal.redo()
        except UnetError as error:
            self._problem = self._sentence(error)
        else:
            if step is None:
                self._problem = f"There is nothing to {kind}."
            else:
                self._apply(step)
                self.saved.emit()
        self.changed.emit()

    def _apply(self, step: Step) -> None:
        """Put the values of an undo or redo into the layer, and bring them into view."""
        layer = self.layer if step.edit.canvas == LABELS else self.scribbles
        viewer = self._viewer()
        if layer is None or viewer is None or self.ground is None:
            return
        place = self.ground.place(step.edit.box)
        if len(step.values):
            layer.data[self.ground.to_layer(step.where)] = step.values.astype(layer.data.dtype)
        bring_into_view(viewer, layer, place)
        plain = isinstance(layer.data, np.ndarray) and isinstance(
            layer.colormap, CyclicLabelColormap
        )
        if not (plain and draw_part(viewer, layer, place)):
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _sentence(self, error: Exception) -> str:
        """Return an error as a sentence; where the journal lies is of no use to the user."""
        text = describe_error(error)
        return text if self.journal is None else text.replace(str(self.journal.path), "The journal")

    def _scribbled(self, event: Any) -> None:
        self.stroke(event.value, SCRIBBLES)

    def _hold(self, layer: Labels) -> None:
        take_keys(layer, self.undo, self.redo)

    def _let_go(self, layer: Labels) -> None:
        layer.events.paint.disconnect(self._scribbled)
        give_keys_back(layer)


class _Stroke:
    """A stroke that is to be written: napari's atoms, then the journal's edit, which is smaller."""

    def __init__(
        self,
        recording: LayerRecording,
        shape: tuple[int, ...],
        atoms: list[Any],
        mode: str,
        canvas: str,
    ) -> None:
        self._recording, self._shape = recording, shape
        named, self._clicks = recording._said
        self._source, self._canvas = named or source_of(atoms, mode), canvas
        self._atoms: list[Any] = atoms
        self._edit: Edit | None = None

    def __call__(self) -> None:
        recording = self._recording
        journal = recording._begun()
        if self._edit is None:
            ground, pixels = recording.ground, pixels_of(self._atoms, self._shape)
            assert ground is not None
            edit = journal.edit(
                ground.to_journal(pixels.where),
                pixels.old,
                pixels.new,
                labels=recording._labels(),
                source=self._source,
                canvas=self._canvas,
            )
            self._edit = replace(edit, clicks=self._clicks)
            self._atoms = []
        recording._write(self._edit)
