"""The section that segments an image of any kind by a few scribbles, stroke after stroke."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QPushButton, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.progress import Progress
from napari_unet.core.prompts.scribbles import BACKGROUND, OBJECT
from napari_unet.core.text import pluralise
from napari_unet.gui.correct.drawing import scribble
from napari_unet.gui.errors import describe_error, report_error
from napari_unet.gui.jobs.job import CANCELLED, DONE, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.label_geometry import get_label_geometry
from napari_unet.gui.layers.navigation import SEEN, SLICE, get_visible_region, plan_region
from napari_unet.gui.layers.result_info import add_result, labels_checksum, seal_result
from napari_unet.gui.live.provisional import ProvisionalLayer
from napari_unet.gui.remembered import remembered
from napari_unet.gui.shared_inputs import SECTION, quick_settings
from napari_unet.gui.widgets.panel import CollapsibleSection, WrappedLabel, hbox, vbox

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Image, Labels

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.correct.section import CorrectSection
    from napari_unet.gui.layers.label_geometry import LabelGeometry
    from napari_unet.gui.shared_inputs import InputForm
    from napari_unet.nn.interactive.scribbles import ScribbleFeatures

    Found = tuple[Image, LabelGeometry, Index, Window, np.ndarray]

DELAY_MS = 150
"""A stroke is answered when no other one has followed for so long."""
WHOLE_SLICE = 2048 * 2048
"""Slices of up to so many pixels are segmented as a whole, of larger ones what is in view."""
_HINT = "Draw a line on an object and one beside it: what looks alike is shown at once."
_TIPS = {
    "objects": "Draw a few lines on objects. Works on any kind of image, also on one that the "
    "model has never seen.",
    "background": "Draw a few lines where there are no objects, and between objects that touch.",
    "keep": "Make what is shown a result of its own, to correct, measure and learn from.",
    "discard": "Show it no longer; the scribbles stay, and teach the model when you fine-tune.",
}


class ScribbleSection(QWidget):
    """Segments what is in view by scribbles; the answer is a provisional layer.

    Parameters
    ----------
    correct
        The step of corrections: it knows the labels, and its journal keeps the scribbles.

    Attributes
    ----------
    objects, background, keep, discard
        The buttons.
    found
        The labels that are shown, with where they lie; None without any.
    """

    def __init__(self, viewer: Any, inputs: InputForm, correct: CorrectSection) -> None:
        super().__init__()
        self._viewer, self._inputs, self._correct = viewer, inputs, correct
        self._jobs = WidgetJobs(self)
        self._job: Job | None = None
        self._features: tuple[tuple[Any, ...], ScribbleFeatures] | None = None
        self._looking_at: tuple[Any, ...] | None = None  # features that are being computed
        self._more = False  # was scribbled meanwhile
        self._heard: LayerRecording | None = None
        self.found: Found | None = None
        self._keeping: Found | None = None  # what is being kept, unless it was discarded meanwhile
        self.shown = ProvisionalLayer(viewer, self, "scribble preview", 0.5)
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.setInterval(DELAY_MS)
        self._delay.timeout.connect(self.segment)
        self._build()
        self._show_state()

    def _build(self) -> None:
        self.objects, self.background = QPushButton("Objects"), QPushButton("Background")
        self.keep, self.discard = QPushButton("Keep"), QPushButton("Discard")
        for name, tip in _TIPS.items():
            getattr(self, name).setToolTip(tip)
        self.status = WrappedLabel(_HINT)
        inside = QWidget()
        self._decide = QWidget()
        hbox(self.keep, self.discard, stretch=1, owner=self._decide)
        buttons = hbox(self.objects, self.background, stretch=1)
        vbox(buttons, self.status, self._decide, margins=(6, 0, 6, 4), owner=inside)
        vbox(CollapsibleSection("Segment by scribbles", inside), owner=self)
        self.objects.clicked.connect(lambda: self.draw(OBJECT))
        self.background.clicked.connect(lambda: self.draw(BACKGROUND))
        self.keep.clicked.connect(self._keep)
        self.discard.clicked.connect(self.clear)

    def draw(self, value: int) -> None:
        """Let the user draw scribbles of a value; an image without labels gets empty ones."""
        image = self._inputs.image.value
        if image is None:
            self._say("Open an image to scribble on it.")
            return
        try:
            labels = self._labels_of(image)
        except UnetError as error:
            self._say(describe_error(error))
            return
        recording = self._correct.tracker.begin_recording(labels)
        scribble(self._viewer, recording, value)
        if recording is not self._heard:
            if self._heard is not None:
                self._heard.scribbled.disconnect(self._delay.start)
            self._heard = recording
            recording.scribbled.connect(self._delay.start)

    def _labels_of(self, image: Image) -> Labels:
        chosen: Labels | None = self._correct.labels.value
        if chosen is not None and self._correct.tracker.get_image(chosen) is image:
            return chosen
        geometry = get_label_geometry(image)
        empty = geometry.placement.to_layer(np.zeros(geometry.stack.labels_shape, np.uint16))
        name = f"{image.name} objects"
        layer = add_result(self._viewer, empty, image, name, geometry.placement)
        self._correct.labels.value = layer
        return layer

    def segment(self) -> None:
        """Segment what is in view by the scribbles there are; in a job."""
        labels = self._correct.labels.value
        recording = None if labels is None else self._correct.tracker.recordings.get(labels)
        image = None if labels is None else self._correct.tracker.get_image(labels)
        model = self._inputs.model.value
        scribbled = None if recording is None else recording.scribbles
        if image is None or recording is None or scribbled is None or recording.geometry is None:
            return
        if model is None:
            self._say("Choose a model at the top: what it sees helps, whatever the image shows.")
            return
        geometry = recording.geometry
        try:
            index, window = self._place(image, geometry)
        except UnetError as error:
            self._say(describe_error(error))
            return
        drawn = np.array(geometry.array(scribbled.data)[(*index, *window)])
        settings = quick_settings(image)
        key = (image.unique_id, id(image.data), model, index, tuple(map(str, window)), settings)
        known = self._features[1] if self._features and self._features[0] == key else None
        device = remembered(SECTION).get("device", "auto")
        if known is None and key == self._looking_at:
            self._more = True  # what is computed already is not thrown away
            return
        self.cancel()

        def done(result: tuple[ScribbleFeatures, np.ndarray | None]) -> None:
            self._features, found = (key, result[0]), result[1]
            if found is None:  # nothing to tell apart: not yet, or not any more
                shown = self.found
                if shown is not None and (shown[0], *shown[2:4]) == (image, index, window):
                    self._show_nothing()
                missing = "the background" if (drawn == OBJECT).any() else "an object"
                self._say(f"Now draw a line on {missing}.")
            else:
                self._show(image, geometry, index, window, found)

        def ended(state: str) -> None:
            if job is not self._job:
                return
            more, self._more, self._looking_at = self._more, False, None
            if state == CANCELLED:  # another job took its place
                self._say("Another step came first; draw another line.")
            elif state == DONE and more:
                self.segment()

        if known is None:
            self._say("Looking at the image …")
            self._looking_at = key
        job = self._job = Job(
            lambda: _steps(geometry.stack, model, device, index, window, settings, drawn, known),
            on_done=done,
            on_error=lambda error: self._say(describe_error(error)),
            on_end=ended,
        )
        self._jobs.run_in(get_device_queue(device), job)

    def cancel(self) -> None:
        """Stop looking; what is shown stays."""
        self._delay.stop()
        if self._job is not None:
            self._job.cancel()
        self._job = self._looking_at = None
        self._more = False

    def clear(self) -> None:
        """Show nothing any more."""
        self.cancel()
        self._keeping = None
        self._show_nothing()
        self._say(_HINT)

    def _show_nothing(self) -> None:
        self.shown.hide()
        self.found = None
        self._show_state()

    def _place(self, image: Image, geometry: LabelGeometry) -> tuple[Index, Window]:
        stack = geometry.stack
        size = stack.frame_shape(2)
        region = SLICE if np.prod(size) <= WHOLE_SLICE else SEEN
        view = get_visible_region(self._viewer, image, geometry.placement.axes)
        frames, window = plan_region(region, view, stack, 2, image.name)
        return frames[0], window or tuple(slice(0, n) for n in size)

    def _show(
        self, image: Image, geometry: LabelGeometry, index: Index, window: Window, found: np.ndarray
    ) -> None:
        if image not in self._viewer.layers:
            return
        self.found = (image, geometry, index, window, found)
        self.shown.show(image, geometry.placement, index, window, found)
        count = int(found.max())
        self._say(f"{pluralise(count, 'object')} in view. Scribble where it is wrong.")
        self._show_state()

    def _keep(self) -> None:
        """Make what is shown a result."""
        if self.found is None:
            return
        kept = self._keeping = self.found
        _, geometry, index, window, found = kept
        self.keep.setEnabled(False)
        job = Job(
            functools.partial(_keep_steps, geometry, (*index, *window), found),
            on_done=lambda made: self._kept(kept, *made),
            on_error=lambda error: report_error(error, "it could not be kept", self._say),
            on_end=lambda _: self.keep.setEnabled(True),
        )
        self._jobs.run("keep", job)

    def _kept(self, kept: Found, data: np.ndarray, checksum: int) -> None:
        """Show the result, over the image if that is still open."""
        image, geometry = kept[:2]
        if kept is not self._keeping:  # discarded meanwhile
            return
        if image not in self._viewer.layers:
            self._say(f"{image.name!r} is not open any more: nothing was kept.")
            return
        name = f"{image.name} by scribbles"
        layer = add_result(self._viewer, data, image, name, geometry.placement)
        seal_result(layer, None, True, checksum)
        if self.found is kept:  # else more was scribbled meanwhile
            self.clear()
        self._correct.labels.value = layer
        self._viewer.layers.selection.active = layer
        self._say(f"Kept as {layer.name!r}; its corrections are recorded.")

    def _say(self, text: str) -> None:
        if self.status.text() != text:
            self.status.setText(text)

    def _show_state(self) -> None:
        self._decide.setVisible(self.found is not None)


def _steps(
    stack: Stack,
    model: str,
    device: str,
    index: Index,
    window: Window,
    settings: PredictSettings,
    drawn: np.ndarray,
    known: ScribbleFeatures | None,
) -> Generator[Progress, None, tuple[ScribbleFeatures, np.ndarray | None]]:
    """Compute the features, unless they are known, and segment; in the job's thread.

    With the first stroke there is nothing to tell apart yet, but the features are ready then.
    """
    yield Progress(0, 0, "features")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.interactive.scribbles import feature_steps, segment_scribbles

    features = known
    if features is None:
        network = loaded_model(model, device)
        features = yield from feature_steps(stack, network, index, window, settings)
    yield Progress(1, 1, "scribbles")
    enough = (drawn == OBJECT).any() and (drawn == BACKGROUND).any()
    return features, segment_scribbles(features, drawn) if enough else None


def _keep_steps(
    geometry: LabelGeometry, place: Any, found: np.ndarray
) -> Generator[Progress, None, tuple[np.ndarray, int]]:
    """Put what was found into labels of the whole image, as the layer has them; and add them up."""
    yield Progress(0, 0, "keeping")
    kind = np.uint16 if found.max() < 2**16 else np.uint32
    whole = np.zeros(geometry.stack.labels_shape, kind)
    whole[place] = found
    data = geometry.placement.to_layer(whole)
    return data, labels_checksum(data)
