"""The row that offers to bring back what was corrected on an image before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_unet.gui.correct.drawing import scribbles_of
from napari_unet.gui.correct.restore import Restored, add_restored, find_offer, restore_steps
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.layers.combos import image_layers
from napari_unet.gui.layers.label_geometry import get_label_geometry
from napari_unet.gui.widgets.panel import WrappedLabel

if TYPE_CHECKING:
    from napari_unet.core.progress import Progress
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.correct.restore import Offer

PAUSE_MS = 100
"""Layers come and go in bursts; the row looks for an offer when it has been quiet so long."""


class RestoreRow(QWidget):
    """Offers the latest corrections of the image that the user works on; hidden without an offer.

    Emits `restored` with the recording that goes on.

    Attributes
    ----------
    offer
        What can be restored, None if nothing.
    button, message
        Its button, and how far it is or what went wrong.
    """

    restored = Signal(object)

    def __init__(self, viewer: Any, recorder: EditTracker) -> None:
        super().__init__()
        self._viewer, self._recorder = viewer, recorder
        self._errands = WidgetJobs(self)
        self.offer: Offer | None = None
        self._image: Image | None = None
        self._restoring: Job | None = None
        self.button = QPushButton()
        self.button.clicked.connect(self.restore)
        self.message = WrappedLabel()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 0, 6, 0)
        layout.addWidget(self.button)
        layout.addWidget(self.message)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.timeout.connect(self._look)
        events = viewer.layers.events
        events.inserted.connect(self._kick)
        events.removed.connect(self._kick)
        viewer.layers.selection.events.active.connect(self._turned)
        recorder.changed.connect(self._recorded)
        self._show_state()
        self._kick()

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
        self._errands.run("restore", self._restoring)
        self._show_state()

    def _kick(self, *_: Any) -> None:
        self._timer.start()

    def _turned(self, *_: Any) -> None:
        if self._current_image() is not self._image:
            self._kick()

    def _recorded(self, recording: LayerRecording) -> None:
        if recording.layer not in self._recorder.recordings:  # its layer was removed
            self._kick()

    def _look(self) -> None:
        """Look for an offer for the image that is worked on."""
        image = self._current_image()
        if image is not self._image:
            self._offered(None)
        self._image = image
        if image is None or self._restoring is not None:
            return
        since = self._recorder.labelled(image)
        taken = {journal.path for journal in self._recorder.journals}
        job = Job(
            lambda: find_offer(get_label_geometry(image).stack, since, taken),
            on_done=self._offered,
            on_error=lambda _: self._offered(None),  # it cannot be segmented, either
        )
        self._errands.run("look", job)

    def _current_image(self) -> Image | None:
        active = self._viewer.layers.selection.active
        active = getattr(active, "__wrapped__", active)
        if isinstance(active, Labels):
            active = self._recorder.image_of(active)
        if isinstance(active, Image):
            return active
        return next(reversed(image_layers(self._viewer)), None)

    def _offered(self, offer: Offer | None) -> None:
        if offer != self.offer:
            self.offer = offer
            self.message.clear()
        self._show_state()

    def _show_progress(self, progress: Progress) -> None:
        if progress.total:
            self.message.setText(f"{progress.done} of {progress.total} {progress.what} …")

    def _show_layer(self, image: Image, restored: Restored) -> None:
        if image not in self._viewer.layers:
            restored.journal.close()
            return
        layer = add_restored(self._viewer, image, restored)
        recording = self._recorder.adopt(layer, image, restored.journal, restored.remark)
        if restored.scribbles is not None and recording.ground is not None:
            values = recording.ground.placement.to_layer(restored.scribbles)
            scribbles_of(self._viewer, recording, values)
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
            self.button.setText(self.offer.text())
            model = self.offer.place.begin.model
            self.button.setToolTip(
                f"Of {self.offer.place.begin.name}{f', found by {model}' if model else ''}: shows "
                "the labels as you left them, and goes on from there."
            )
        self.button.setEnabled(self._restoring is None)
        self.button.setVisible(self.offer is not None)
        self.setVisible(self.offer is not None or self._restoring is not None)
