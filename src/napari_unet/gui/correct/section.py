"""The Correct step: what is corrected, what is saved, what is known, and the training set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from qtpy.QtCore import QTimer, Signal

from napari_unet.core.models.store import is_descendant
from napari_unet.gui.correct.alike import AlikeSection
from napari_unet.gui.correct.correction_list import CorrectionList
from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.correct.mask_section import MaskSection, tip_button
from napari_unet.gui.correct.restore_row import RestoreRow
from napari_unet.gui.correct.review import ReviewSection
from napari_unet.gui.correct.uncertain_places import UncertaintySection
from napari_unet.gui.layers.combos import as_choices, object_layers, refresh_choices
from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.label_geometry import fits
from napari_unet.gui.layers.navigation import open_stacks
from napari_unet.gui.layers.result_info import ResultInfo
from napari_unet.gui.remembered import remember_open
from napari_unet.gui.widgets.dock import Step
from napari_unet.gui.widgets.panel import CollapsibleSection, WrappedLabel, hbox, vbox
from napari_unet.gui.widgets.settings_form import rows_widget

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent
    from qtpy.QtWidgets import QWidget

    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.shared_inputs import InputForm

SECTION = "correct"
QUIET_MS = 1500
"""The list of corrections is read again when nothing was painted for so long."""
_CHOOSE = "choose labels …"
_HINT = "Run Segment, or choose labels, and correct them with napari's brush, fill and eraser."
_TIPS = {
    "labels": "The labels that you correct. Every stroke is recorded.",
    "undo": "Take the last correction back, in whatever slice it was (Ctrl+Z on the layer).",
    "redo": "Do it again (Ctrl+Shift+Z on the layer).",
    "retry": "Try to save again what could not be saved.",
}


class CorrectSection(Step):
    """The choice of labels, what is saved, what the model may learn from, and the training set.

    Emits `changed` when the list of the training set was read again.

    Parameters
    ----------
    viewer
        The window.
    inputs
        The image, and the model that learns from the corrections, chosen at the top.

    Attributes
    ----------
    tracker
        Records the edits, whether this section is open or not.
    labels, image, model
        The choices; the latter two are those at the top.
    corrections
        The list of the model's training set; its `rows` are what can be trained on.
    restore_row
        The row that offers to restore.
    mask_section
        The annotation mask; its check box "What I touched" is also `touched`.
    uncertain
        Leads to the next uncertain place.
    alike
        Does to all that are alike what was done to one object.
    review
        Leads through the objects, and says how good they are.
    """

    changed = Signal()

    def __init__(self, viewer: Any, inputs: InputForm) -> None:
        super().__init__()
        self._viewer, self.inputs = viewer, inputs
        self.tracker = get_edit_tracker(viewer)
        self._setting = False
        self.mask_section = MaskSection(viewer, self.tracker, lambda: self.labels.value)
        self.touched = self.mask_section.touched
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self._read_list)
        self._build()
        self._connect()
        self._model_chosen()
        self._layers_changed()
        self._show_state()

    def _build(self) -> None:
        self.labels: Any = ComboBox(
            name="labels", choices=self._label_choices, tooltip=_TIPS["labels"]
        )
        self.image: Any = self.inputs.image
        self.model: Any = self.inputs.model
        self.restore_row = RestoreRow(self._viewer, self.tracker)
        self.uncertain = UncertaintySection(self._viewer, self.inputs)
        parts = (self._viewer, self.tracker, self.inputs, lambda: self.labels.value)
        self.alike, self.review = AlikeSection(*parts), ReviewSection(*parts)
        self.corrections = CorrectionList(
            lambda: open_stacks(self._viewer), lambda: self.tracker.journals
        )
        self.list_section = CollapsibleSection("Corrections so far", self.corrections)
        remember_open(self.list_section, SECTION)
        vbox(
            self.restore_row, rows_widget([("labels", self.labels)], 54), self.alike,
            self.review, self.uncertain, self.mask_section, self.list_section, owner=self,
        ).addStretch(1)  # fmt: skip
        self.status = WrappedLabel(_HINT)
        self.retry = tip_button("Retry", _TIPS["retry"])
        self.undo, self.redo = tip_button("Undo", _TIPS["undo"]), tip_button("Redo", _TIPS["redo"])
        buttons = hbox(self.undo, self.redo, stretch=1)
        vbox(self.status, self.retry, buttons, owner=self.footer)

    def _connect(self) -> None:
        self.labels.changed.connect(self._labels_chosen)
        self.image.changed.connect(self._image_chosen)
        self.inputs.model_changed.connect(self._model_chosen)
        self.retry.clicked.connect(self.tracker.retry)
        self.undo.clicked.connect(lambda: self._with_recording("undo"))
        self.redo.clicked.connect(lambda: self._with_recording("redo"))
        self.touched.toggled.connect(self._touched_changed)
        self.mask_section.marked.connect(self._show_state)
        self.review.stopped.connect(self.mask_section.bind_keys)
        self.review.started.connect(self.uncertain.lose_key)
        self.review.stopped.connect(self.uncertain.bind_keys)
        self.list_section.toggled.connect(self._read_list)
        self.tracker.changed.connect(self._recording_changed)
        self.restore_row.restored.connect(lambda recording: self._choose(recording.layer))
        self.corrections.changed.connect(self.changed)
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)
        self._viewer.layers.selection.events.active.connect(self._follow)
        self._viewer.dims.events.point.connect(self._moved)

    @property
    def recording(self) -> LayerRecording | None:
        """The recording of the chosen labels; None before the first correction."""
        layer = self.labels.value
        return None if layer is None else self.tracker.recordings.get(layer)

    def _with_recording(self, what: str) -> None:
        if self.recording is not None:
            getattr(self.recording, what)()

    def _touched_changed(self, wanted: bool) -> None:
        self.corrections.touched = wanted

    def _moved(self, *_: Any) -> None:
        self.mask_section.refresh()
        self._show_state()

    def _recording_changed(self, recording: LayerRecording) -> None:
        if recording is self.recording:
            if not recording.pending:
                self.mask_section.refresh()
            self._show_state()
        if recording.pending:
            self.corrections.expect_more()
        else:
            self._quiet.start()

    def _read_list(self, *_: Any) -> None:
        if self.list_section.is_open:
            self.corrections.read()

    def _label_choices(self, *_: Any) -> list[tuple[str, Labels | None]]:
        return [(_CHOOSE, None), *as_choices(object_layers(self._viewer))]

    def _layers_changed(self, *_: Any) -> None:
        """Update the choices; the latest result is chosen until the user chooses."""
        self._setting = True
        try:
            refresh_choices(self.labels)
        finally:
            self._setting = False
        if self.labels.value is None:
            watched = self._watched
            self._choose(watched[-1] if watched else None)
        else:
            self._take_image()  # that of the labels may have been closed
        self._show_state()

    def _follow(self, *_: Any) -> None:
        """Choose the active layer, if it is recorded."""
        active = unwrap(self._viewer.layers.selection.active)
        new = isinstance(active, Labels) and active is not self.labels.value
        if new and self.tracker.watches(active):
            self._choose(active)
        else:
            self._show_state()

    def _choose(self, layer: Labels | None) -> None:
        self._setting = True
        try:
            if layer in self.labels.choices:
                self.labels.value = layer
            if layer is not None:
                self._choose_model(layer)
        finally:
            self._setting = False
        self._model_chosen()
        self.mask_section.show_layer()
        self._show_state()

    def _choose_model(self, layer: Labels) -> None:
        """Choose the image of labels, and the model that made them: it is to learn from them.

        Only while the step is open: elsewhere the model is the one that the user runs next.
        """
        image = self.tracker.get_image(layer)
        if image is not None and image in self.image.choices:
            self.image.value = image
        made_by = ResultInfo.from_layer(layer).model
        tuned_from_it = is_descendant(self.model.value or "", made_by or "")
        if self.is_open and made_by in self.model.choices and not tuned_from_it:
            self.inputs.choose_model(made_by)

    def add_section(self, section: QWidget) -> None:
        """Put a section of its own above the list of corrections."""
        layout: Any = self.layout()
        layout.insertWidget(layout.indexOf(self.list_section), section)

    def open_step(self, wanted: bool) -> None:
        """Choose the model of the labels that are corrected, when the step is opened."""
        super().open_step(wanted)
        if wanted and self.labels.value is not None:
            self._choose(self.labels.value)

    @property
    def busy(self) -> bool:
        """Whether corrections could not be saved."""
        return any(recording.failed for recording in self._recordings)

    def _learns(self, learner: str) -> bool:
        """Return whether the chosen model learns from what another one's labels teach."""
        return self.model.value == learner or is_descendant(self.model.value or "", learner)

    @property
    def _unrecorded(self) -> Labels | None:
        """The active layer, if it is labels of objects that are not recorded; else None."""
        active = unwrap(self._viewer.layers.selection.active)
        plain = isinstance(active, Labels) and active in object_layers(self._viewer)
        return active if plain and not self.tracker.watches(active) else None

    @property
    def _watched(self) -> list[Labels]:
        return [layer for layer in object_layers(self._viewer) if self.tracker.watches(layer)]

    @property
    def _recordings(self) -> list[LayerRecording]:
        return [*self.tracker.recordings.values(), *self.tracker.unsaved]

    def cancel_all(self) -> None:
        """Stop what looks at objects: the dock was closed. What is recorded goes on."""
        self.uncertain.cancel()
        self.alike.close_found()
        self.review.stop()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Read the list of corrections again: other windows record, too."""
        super().showEvent(event)
        self._read_list()

    def _labels_chosen(self, layer: Labels | None) -> None:
        if self._setting:
            return
        if layer is not None:
            self.tracker.watch(layer)
        self._choose(layer)

    def _image_chosen(self, image: Image | None) -> None:
        """Take the image for that of the labels, unless they have one; else choose its labels."""
        layer = self.labels.value
        if self._setting or image is None or layer is None:
            return
        self._take_image()
        if self.tracker.get_image(layer) is not image:
            own = [x for x in self._watched if self.tracker.get_image(x) is image]
            if own:
                self._choose(own[-1])
        self._show_state()

    def _take_image(self) -> None:
        """Take the image at the top for that of the labels, if it may be."""
        layer, image = self.labels.value, self.image.value
        if image is not None and self.tracker.may_belong(layer, image):
            self.tracker.watch(layer, image)

    def _describe_other_image(self) -> str:
        """Say whose the user's own labels are taken for, if they fit the image at the top, too."""
        layer, image = self.labels.value, self.image.value
        own = None if layer is None else self.tracker.get_image(layer)
        if image is None or own is None or own is image:
            return ""
        if ResultInfo.from_layer(layer).image is not None or not fits(image, layer):
            return ""
        return (
            f" These labels are taken for those of {own.name!r}; if they are of {image.name!r}, "
            f"close {own.name!r} before you correct them."
        )

    def _model_chosen(self, *_: Any) -> None:
        name = self.model.value or ""
        self.tracker.model = name
        self.corrections.choose(name)
        self._read_list()

    def _show_state(self) -> None:
        """Update the buttons, and the line that says whether all is saved."""
        layer, recording = self.labels.value, self.recording
        text = _HINT if layer is None else "Every stroke on these labels is recorded."
        if recording is not None:
            text = recording.describe() or text
            learner = recording.learner.model
            if learner and recording.journal is not None and not self._learns(learner):
                text = f"{text} They teach {learner!r}: choose it above to fine-tune with them."
        text += self._describe_other_image()
        if (other := self._unrecorded) is not None:
            text = f"What you paint on {other.name!r} is not recorded: choose it under labels."
        left = [other for other in self.tracker.unsaved if other.failed]
        if left and (recording is None or not recording.failed):
            text = f"{text} {left[0].layer.name}: {left[0].describe()}"
        if self.status.text() != text:
            self.status.setText(text)
        self.retry.setVisible(bool(left) or (recording is not None and recording.failed))
        journal = None if recording is None or recording.read_only else recording.journal
        self.undo.setEnabled(journal is not None and journal.undoable > 0)
        self.redo.setEnabled(journal is not None and journal.redoable > 0)
        self.mask_section.show_state(recording)
        self.show_footer()
