"""Restoring earlier corrections: the row that offers it, and the steps behind it.

Finding a journal and reading its labels run as jobs; the layer is added in the window's thread.
"""

from __future__ import annotations

import datetime
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_unet.core.annotations.append_log import JournalWarning
from napari_unet.core.annotations.edits import KNOWN, SCRIBBLES
from napari_unet.core.annotations.header import JournalFile, find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.journal_reader import JournalReader
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.progress import Progress
from napari_unet.core.text import pluralise
from napari_unet.gui.correct.drawing import get_scribbles
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.layers.combos import image_layers
from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.label_geometry import get_label_geometry
from napari_unet.gui.layers.result_info import ResultInfo, add_labels
from napari_unet.gui.widgets.panel import WrappedLabel

if TYPE_CHECKING:
    from collections.abc import Collection, Generator
    from pathlib import Path

    from napari_unet.core.io.stack import Stack
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.gui.correct.layer_recording import LayerRecording

SETTLE_MS = 100
"""Layers come and go in bursts; the row looks for a journal when they have rested for so long."""


@dataclass(frozen=True)
class RestoreOffer:
    """A journal from which labels can be restored.

    Attributes
    ----------
    file
        The journal.
    corrections
        How many edits were not undone; 0 if parts of the image were only marked as checked.
    """

    file: JournalFile
    corrections: int

    def describe(self, now: datetime.datetime | None = None) -> str:
        """Return what can be restored, in a sentence."""
        what = pluralise(self.corrections, "correction") if self.corrections else "What was checked"
        return f"{what} of {describe_time(self.file.modified, now)} can be restored."


@dataclass(frozen=True, eq=False)
class RestoredLabels:
    """The labels of a journal as they are at its last record.

    Attributes
    ----------
    journal
        A `Journal` to go on with; a `JournalReader` where another window writes to it.
    labels
        In the order T, Z, Y, X.
    scribbles
        uint8, of the same shape; None if there are none.
    remark
        For the user, a sentence; "" if there is nothing to say.
    """

    journal: JournalReader
    labels: np.ndarray
    scribbles: np.ndarray | None
    remark: str = ""


class RestoreRow(QWidget):
    """Offers the latest corrections of the image that the user works on; hidden without an offer.

    Emits `restored` with the recording that goes on with the journal.

    Attributes
    ----------
    offer
        What can be restored, None if nothing.
    what, button, message
        What that is, the button, and its progress or what went wrong.
    """

    restored = Signal(object)

    def __init__(self, viewer: Any, tracker: EditTracker) -> None:
        super().__init__()
        self._viewer, self._tracker = viewer, tracker
        self._jobs = WidgetJobs(self)
        self.offer: RestoreOffer | None = None
        self._image: Image | None = None
        self._restoring: Job | None = None
        self.what, self.button = WrappedLabel(), QPushButton("Restore")
        self.button.clicked.connect(self.restore)
        self.message = WrappedLabel()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 0, 6, 0)
        layout.addWidget(self.what)  # a button as wide as that would have the whole step cut
        layout.addWidget(self.button)
        layout.addWidget(self.message)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(SETTLE_MS)
        self._timer.timeout.connect(self._find_offer)
        events = viewer.layers.events
        events.inserted.connect(self._find_offer_soon)
        events.removed.connect(self._find_offer_soon)
        viewer.layers.selection.events.active.connect(self._active_changed)
        tracker.changed.connect(self._recorded)
        self._show_state()
        self._find_offer_soon()

    def restore(self) -> None:
        """Read the offered labels in a job, and show them as a layer."""
        offer, image = self.offer, self._image
        if offer is None or image is None or self._restoring is not None:
            return
        self._restoring = Job(
            lambda: restore_steps(offer, get_label_geometry(image).stack),
            on_item=self._show_progress,
            on_done=lambda restored: self._show_layer(image, restored),
            on_error=self._report,
            on_end=self._ended,
        )
        self.message.setText("Restoring …")
        self._jobs.run("restore", self._restoring)
        self._show_state()

    def _find_offer_soon(self, *_: Any) -> None:
        self._timer.start()

    def _active_changed(self, *_: Any) -> None:
        if self._current_image() is not self._image:
            self._find_offer_soon()

    def _recorded(self, recording: LayerRecording) -> None:
        if recording.layer not in self._tracker.recordings:  # its layer was removed
            self._find_offer_soon()

    def _find_offer(self) -> None:
        """Look for something to restore of the current image."""
        image = self._current_image()
        if image is not self._image:
            self._offered(None)
        self._image = image
        if image is None or self._restoring is not None:
            return
        since = self._tracker.get_result_time(image)
        taken = {journal.path for journal in self._tracker.journals}
        job = Job(
            lambda: find_offer(get_label_geometry(image).stack, since, taken),
            on_done=self._offered,
            on_error=lambda _: self._offered(
                None
            ),  # an image of odd axes; Segment says what is wrong
        )
        self._jobs.run("look", job)

    def _current_image(self) -> Image | None:
        active = unwrap(self._viewer.layers.selection.active)
        if isinstance(active, Labels):
            active = self._tracker.get_image(active)
        if isinstance(active, Image):
            return active
        return next(reversed(image_layers(self._viewer)), None)

    def _offered(self, offer: RestoreOffer | None) -> None:
        if offer != self.offer:
            self.offer = offer
            self.message.clear()
        self._show_state()

    def _show_progress(self, progress: Progress) -> None:
        if progress.total:
            self.message.setText(f"{progress.done} of {progress.total} {progress.what} …")

    def _show_layer(self, image: Image, restored: RestoredLabels) -> None:
        if image not in self._viewer.layers:
            restored.journal.close()
            return
        layer = add_restored(self._viewer, image, restored)
        recording = self._tracker.resume_recording(layer, image, restored.journal, restored.remark)
        if restored.scribbles is not None and recording.geometry is not None:
            values = recording.geometry.placement.to_layer(restored.scribbles)
            get_scribbles(self._viewer, recording, values)
            self._viewer.layers.selection.active = layer
        self.offer = None
        self.message.clear()
        self.restored.emit(recording)

    def _report(self, error: Exception) -> None:
        report_error(error, "the corrections could not be restored", self.message.setText)

    def _ended(self, _: str) -> None:
        self._restoring = None
        self._show_state()

    def _show_state(self) -> None:
        if self.offer is not None:
            self.what.setText(self.offer.describe())
            model = self.offer.file.header.model
            self.button.setToolTip(
                f"Of {self.offer.file.header.name}{f', found by {model}' if model else ''}: shows "
                "the labels as you left them, and goes on from there."
            )
        self.button.setEnabled(self._restoring is None)
        for widget in (self.what, self.button):
            widget.setVisible(self.offer is not None)
        self.setVisible(self.offer is not None or self._restoring is not None)


def find_offer(
    stack: Stack, since: float, taken: Collection[Path]
) -> Generator[Progress, None, RestoreOffer | None]:
    """Find the latest journal of an image that has something to restore.

    Parameters
    ----------
    since
        When the latest labels of the image that are open were added, in seconds since 1970: older
        journals are left out. 0: none are open.
    taken
        Journals that are open in this window.
    """
    yield Progress(0, 0, "looking for earlier corrections")
    for file in find_journals(stack):
        yield Progress(0, 0, "looking for earlier corrections")
        if file.path in taken or file.modified <= since:
            continue
        try:
            with JournalReader(file.path) as journal:
                count = journal.undoable
                checked = any(mark.meaning == KNOWN for mark in journal.marks())
        except UnetError:
            continue  # damaged; an older one may be sound
        if count or checked:
            return RestoreOffer(file, count)
    return None


def restore_steps(offer: RestoreOffer, stack: Stack) -> Generator[Progress, None, RestoredLabels]:
    """Open a journal and read its labels.

    Raises
    ------
    UnetError
        It cannot be read.
    """
    yield Progress(0, 0, "opening the journal")
    journal, remark = _open_journal(offer.file.path, stack)
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
    return RestoredLabels(journal, labels, scribbles, remark)


def add_restored(viewer: Any, image: Image, restored: RestoredLabels) -> Labels:
    """Add restored labels as a result of Segment: the same name, transform and metadata."""
    placement, about = get_label_geometry(image).placement, restored.journal.header
    base = f"{image.name} {about.model or 'labels'}"
    provenance = {
        "model": about.model,
        "model_hash": about.model_hash,
        "data_hash": about.image,
        OBJECT_AXES: "ZYX"[-about.ndim :],
    }
    # No `name`: then no run takes the layer for its own result, and overwrites the corrections.
    info = ResultInfo(
        base=base,
        runs=[provenance],
        provenance=provenance,
        journal=str(restored.journal.path),
    )
    data = placement.to_layer(restored.labels)
    layer = add_labels(viewer, data, image, base, placement, info)
    layer.editable = isinstance(restored.journal, Journal)
    return layer


def describe_time(seconds: float, now: datetime.datetime | None = None) -> str:
    """Return a time in words: "today, 17:04", "yesterday, 17:04" or "3 November 2026, 17:04"."""
    time = datetime.datetime.fromtimestamp(seconds)
    days = ((now or datetime.datetime.now()).date() - time.date()).days
    day = {0: "today", 1: "yesterday"}.get(days) or f"{time.day} {time:%B %Y}"
    return f"{day}, {time:%H:%M}"


def _open_journal(path: Path, stack: Stack) -> tuple[JournalReader, str]:
    """Open a journal to go on with, or else to read only; return a remark for the user, too."""
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
