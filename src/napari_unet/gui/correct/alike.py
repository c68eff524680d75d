"""Fix one, fix all alike: the objects that resemble the last corrected ones, and the same edit."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSlider, QWidget
from scipy import ndimage

from napari_unet.core.alike.group_edits import ACCEPT, RESHAPE
from napari_unet.core.errors import UnetError
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT
from napari_unet.core.text import pluralise
from napari_unet.gui.correct.alike_search import Alike, AlikeQuery, edit_alike, find_alike
from napari_unet.gui.correct.mask_section import plane_in_view, tip_button
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.engine import get_features
from napari_unet.gui.jobs.job import Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.key_bindings import bind_window_key, weak_callback
from napari_unet.gui.layers.navigation import (
    READ_ONLY_MODES,
    SLICE,
    WHOLE,
    object_under,
    watch_clicks,
)
from napari_unet.gui.layers.overlay_layer import add_drawing
from napari_unet.gui.remembered import remembered
from napari_unet.gui.shared_inputs import SECTION, quick_settings
from napari_unet.gui.widgets.panel import WrappedLabel, hbox, vbox
from napari_unet.gui.widgets.settings_form import rows_widget

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_unet.core.alike.group_edits import GroupEdit
    from napari_unet.core.progress import Progress
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.shared_inputs import InputForm

KEY = "A"
LAYER = "alike"
STEPS = 40
"""The slider goes from minus to plus so many steps; ten are a factor of e in the odds."""
DONE = {
    DELETE: "deleted",
    ACCEPT: "accepted",
    SPLIT: "split",
    MERGE: "merged",
    RESHAPE: "reshaped",
}
"""What was done to the examples, and will be done to those alike."""
_MARKED, _OUT = 1, 2
_COLOURS = {
    _MARKED: (1.0, 0.35, 0.9, 1),
    _OUT: (0.6, 0.6, 0.6, 1),
}
_TIPS = {
    "find": "Find the objects that are like those you corrected last, and do the same to all of\n"
    f"them at once (key {KEY}). Corrections of one kind in a row are examples together.",
    "slider": "To the left only what is very much like the examples, to the right more.",
    "scope": "Where to look.",
    "apply": "Do to all outlined objects what you did to the example; one undo takes it back.",
    "close": "Change nothing.",
}


class AlikeSection(QWidget):
    """A button that finds objects like the last corrected ones, and edits those that stay marked.

    Parameters
    ----------
    viewer
        The window.
    tracker
        Records the labels.
    inputs
        The image, and the model whose features tell objects apart.
    chosen
        Returns the labels that are corrected, None without any.

    Attributes
    ----------
    alike
        What was found; None before and after.
    layer
        Shows the outlines; None without one.
    """

    def __init__(
        self,
        viewer: Any,
        tracker: EditTracker,
        inputs: InputForm,
        chosen: Callable[[], Labels | None],
    ) -> None:
        super().__init__()
        self._viewer, self._tracker = viewer, tracker
        self._inputs, self._chosen = inputs, chosen
        self._jobs = WidgetJobs(self)
        self.alike: Alike | None = None
        self._job: Job | None = None
        self.layer: Labels | None = None
        self._drawn: dict[int, int] = {}
        self._build()
        self._connect()

    def _build(self) -> None:
        self.find_button = tip_button(f"Alike ({KEY})", _TIPS["find"])
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(-STEPS, STEPS)
        self.slider.setToolTip(_TIPS["slider"])
        self.scope: Any = ComboBox(name="scope", choices=[SLICE, WHOLE], tooltip=_TIPS["scope"])
        self.apply = tip_button("Apply", _TIPS["apply"])
        self.close_button = tip_button("Close", _TIPS["close"])
        self.status = WrappedLabel()
        self.found = QWidget()
        vbox(
            hbox(QLabel("strict"), self.slider, QLabel("loose")),
            hbox(self.apply, self.close_button, stretch=1),
            owner=self.found,
        )
        self.found.hide()
        vbox(
            self.find_button, rows_widget([("look in", self.scope)]), self.status, self.found,
            margins=(6, 0, 6, 0), owner=self,
        )  # fmt: skip

    def _connect(self) -> None:
        self.find_button.clicked.connect(self.search)
        self.slider.valueChanged.connect(self._show)
        self.apply.clicked.connect(self.apply_all)
        self.close_button.clicked.connect(self.close_found)
        bind_window_key(self._viewer, self, KEY, weak_callback(self.search, while_typing=False))
        watch_clicks(self._viewer, self, self._clicked)
        self._viewer.layers.events.removed.connect(self._layer_removed)

    @property
    def least(self) -> float:
        """The score from which on objects are marked, by the slider."""
        return 1 / (1 + math.exp(self.slider.value() / 10))

    @property
    def marked(self) -> list[int]:
        """The places in ``alike.items`` of the objects that are marked."""
        return [] if self.alike is None else self.alike.marked(self.least)

    def search(self, *_: Any) -> None:
        """Find what is like the objects that were corrected last."""
        layer, image, entry = self._chosen(), self._inputs.image.value, self._inputs.entry
        self.close_found()
        if layer is None or image is None or entry is None:
            self._say("Choose an image, labels and a model, and correct an object first.")
            return
        recording = self._tracker.begin_recording(layer)
        device = remembered(SECTION).get("device", "auto")
        query = AlikeQuery(
            recording, entry.name, device, quick_settings(image), get_features(image),
            self._frames(recording),
        )  # fmt: skip
        self._run(functools.partial(find_alike, query), self._found, device)
        self._say("Looking for objects alike …")

    def _frames(self, recording: LayerRecording) -> tuple[tuple[int, ...], ...] | None:
        if self.scope.value == WHOLE or recording.geometry is None:
            return None
        leading = len(recording.geometry.stack.labels_shape) - recording.learner.ndim
        return (plane_in_view(self._viewer, recording)[:leading],)

    def apply_all(self, *_: Any) -> None:
        """Edit all that are marked, as one step."""
        alike, chosen = self.alike, self.marked
        if alike is None or not chosen or self.job is not None:
            return
        steps = functools.partial(edit_alike, alike, chosen)
        self._run(steps, functools.partial(self._edited, alike), alike.query.device)

    def close_found(self, *_: Any) -> None:
        """Forget what was found, and stop what goes on."""
        if self.job is not None:
            self.job.cancel()
        self._job = None
        layer, self.alike, self.layer = self.layer, None, None
        self._drawn = {}
        self.found.hide()
        self._say("")
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    @property
    def job(self) -> Job | None:
        """The job that goes on; None without one."""
        return self._job if self._job is not None and self._job.active else None

    def _run(self, steps: Callable[[], Any], done: Callable[[Any], None], device: str) -> None:
        job = Job(steps, on_item=self._progress, on_done=done, on_error=self._failed)
        self._job = self._jobs.run_in(get_device_queue(device), job)

    def _progress(self, item: Progress) -> None:
        if item.total > 1:
            self._say(f"Looking at {item.what}: {item.done} of {item.total} …")

    def _failed(self, error: Exception) -> None:
        if isinstance(error, UnetError):
            self._say(str(error))
        else:
            report_error(error, "looking for objects alike failed", self._say)

    def _found(self, alike: Alike) -> None:
        recording = alike.query.recording
        if recording.layer not in self._viewer.layers:
            return
        self.alike = alike
        cut = alike.first_cut
        self.slider.setValue(round(10 * math.log(1 / cut - 1)))
        self.layer = add_drawing(self._viewer, recording.layer, LAYER, _COLOURS)
        recording.layer.mode = "pan_zoom"  # a click takes an object out, and must not paint
        self.found.show()
        self._show()

    def _edited(self, alike: Alike, edit: GroupEdit) -> None:
        """Record the edit; the labels change as soon as it is on the disk."""
        if edit.done and alike.is_current():
            alike.query.recording.change(edit, f"{alike.kind} alike")
        self.close_found()
        left = f" {edit.left_out} could not be {DONE[edit.kind]}." if edit.left_out else ""
        self._say(f"{pluralise(edit.done, 'object')} {DONE[edit.kind]}, as one step.{left}")

    def _clicked(self, event: Any) -> None:
        """Take the object under a click out, or in."""
        alike = self.alike
        if alike is None or self.job is not None:
            return
        recording = alike.query.recording
        if str(recording.layer.mode) not in READ_ONLY_MODES or recording.geometry is None:
            return
        found = object_under(recording.layer, event)
        if found is None:
            return
        label, place = found
        leading = len(recording.geometry.stack.labels_shape) - recording.learner.ndim
        index = recording.geometry.plane(place)[:leading]
        if alike.toggle(index, label, self.least):
            self._show()

    def _show(self, *_: Any) -> None:
        """Draw the outlines, and say how many there are."""
        alike, layer = self.alike, self.layer
        if alike is None or layer is None:
            return
        marked = set(self.marked)
        codes = dict.fromkeys(alike.negative, _OUT) | dict.fromkeys(marked, _MARKED)
        self._draw(alike, codes)
        what, shown = DONE[alike.kind], len(alike.items) - alike.examples
        things = "pairs" if alike.kind == MERGE else "objects"
        self._say(
            f"{len(marked)} of {shown} {things} are like the {alike.examples} {what}. Click on one "
            "to take it out or in."
        )
        self.apply.setEnabled(bool(marked))
        self.apply.setText(f"Apply to {len(marked)}")

    def _draw(self, alike: Alike, codes: dict[int, int]) -> None:
        """Draw what changed: each object's outline by its code, 0 for none."""
        layer, geometry = self.layer, alike.query.recording.geometry
        if layer is None or geometry is None:
            return
        array = geometry.array(layer.data)
        for place in [*self._drawn, *codes]:
            code = codes.get(place, 0)
            if self._drawn.get(place, 0) != code:
                item = alike.items[place]
                edge = item.mask.inside & ~ndimage.binary_erosion(item.mask.inside)
                array[(*item.index, *item.mask.window)][edge] = code
        self._drawn = codes
        layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _layer_removed(self, event: Any) -> None:
        alike = self.alike
        if alike is not None and event.value in (self.layer, alike.query.recording.layer):
            self.close_found()

    def _say(self, text: str) -> None:
        if self.status.text() != text:
            self.status.setText(text)
