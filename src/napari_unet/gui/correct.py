"""The section in which the user corrects labels, says what is known, and sees that all is saved."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet.core.journal.edits import KNOWN, UNKNOWN
from napari_unet.core.spec import InputError
from napari_unet.core.store import list_models
from napari_unet.gui.boxes import BoxDrawer
from napari_unet.gui.correctionlist import CorrectionList
from napari_unet.gui.folds import Fold
from napari_unet.gui.forms import remember, remembered, rows_widget
from napari_unet.gui.ground import ground_of
from napari_unet.gui.hits import is_hits_layer
from napari_unet.gui.knownlayer import KnownView, plane_in_view
from napari_unet.gui.offers import RestoreRow
from napari_unet.gui.recorder import close_recorders, recorder_of
from napari_unet.gui.result import MARK
from napari_unet.gui.scribbles import BACKGROUND, OBJECT, is_helper, scribble
from napari_unet.gui.wrapped import WrappedLabel

if TYPE_CHECKING:
    from napari_unet.core.stack import Stack
    from napari_unet.gui.recording import Recording

SECTION = "correct"
CHECK_KEY, CONFIRM_KEY = "K", "Y"
QUIET_MS = 1500
"""The list of corrections is read anew when nothing has been painted for so long."""
_CHOOSE = "choose labels …"
_HINT = "Run Segment, or choose labels, and correct them with napari's brush, fill and eraser."
_TIPS = {
    "labels": "The labels that you correct. Every stroke is recorded.",
    "image": "The image that the labels belong to.",
    "model": "The model that learns from the corrections.",
    "undo": "Take the last correction back, in whatever slice it was (Ctrl+Z on the layer).",
    "redo": "Do it again (Ctrl+Shift+Z on the layer).",
    "touched": "The objects that you edited, added or deleted, and the background around them, are "
    "known.\nObjects that you left alone say nothing; to accept one as it is, point at it and "
    f"press {CONFIRM_KEY}.",
    "checked": f"All of this slice is right now: every object, and all of the background "
    f"({CHECK_KEY}).\nPress again to take it back.",
    "box": "Draw a rectangle: all is right inside it, objects and background.",
    "objects": "Draw a few lines on objects; their outlines need not be known.",
    "background": "Draw a few lines where there are no objects.",
    "show": "Show in green what is known of this slice, and teaches the model.",
    "retry": "Try to save again what could not be saved.",
}


class CorrectSection(QWidget):
    """What is corrected, whether it is saved, what counts as known, and the training set.

    Emits `changed` when the training set may have changed, as its list has been read anew.

    Parameters
    ----------
    viewer
        The window.
    label_width
        Of the labels in front of the choices, in pixels.

    Attributes
    ----------
    recorder
        Records the strokes, whether this section is open or not.
    labels, image, model
        The choices; values are layers and the model's name.
    corrections
        The list of the model's training set; its `rows` are what can be trained on.
    offers
        The row that offers to restore.
    """

    changed = Signal()

    def __init__(self, viewer: Any, label_width: int) -> None:
        super().__init__()
        self._viewer = viewer
        self.recorder = recorder_of(viewer)
        self._setting = False
        self._known = KnownView(viewer, self)
        self._boxes = BoxDrawer(viewer, self._box_drawn)
        self._quiet = QTimer(self)
        self._quiet.setSingleShot(True)
        self._quiet.setInterval(QUIET_MS)
        self._quiet.timeout.connect(self._read_list)
        self._build(label_width)
        self._connect()
        self.refresh_models()
        self._layers_changed()
        self._show_state()

    def _build(self, label_width: int) -> None:
        self.labels: Any = ComboBox(
            name="labels", choices=self._label_choices, tooltip=_TIPS["labels"]
        )
        self.image: Any = ComboBox(name="image", choices=self._images, tooltip=_TIPS["image"])
        self.model: Any = ComboBox(name="model", choices=(), tooltip=_TIPS["model"])
        rows = [("labels", self.labels), ("image", self.image), ("model", self.model)]
        self.offers = RestoreRow(self._viewer, self.recorder)
        self.corrections = CorrectionList(self.open_stacks, lambda: self.recorder.journals)
        self.fold = Fold("Corrections so far", self.corrections)
        self.fold.open(remembered(SECTION).get("open") is True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.offers)
        layout.addWidget(rows_widget(rows, label_width))
        layout.addLayout(self._state_rows())
        layout.addWidget(self._known_rows())
        layout.addWidget(self.fold)

    def _state_rows(self) -> QVBoxLayout:
        """Return the line that says what is saved, and undo and redo."""
        self.status = WrappedLabel(_HINT)
        self.retry = _button("Retry", _TIPS["retry"])
        self.undo, self.redo = _button("Undo", _TIPS["undo"]), _button("Redo", _TIPS["redo"])
        buttons = QHBoxLayout()
        for button in (self.undo, self.redo):
            buttons.addWidget(button)
        whole = QVBoxLayout()
        whole.setContentsMargins(6, 0, 6, 0)
        whole.addWidget(self.status)
        whole.addWidget(self.retry)
        whole.addLayout(buttons)
        return whole

    def _known_rows(self) -> QWidget:
        """Return the ways to say what is known."""
        title = QLabel("<b>What the model may learn from</b>")
        self.touched = QCheckBox("What I touched")
        self.touched.setChecked(True)
        self.touched.setToolTip(_TIPS["touched"])
        self.checked = _button("I have checked this slice", _TIPS["checked"])
        self.checked.setCheckable(True)
        self.box = _button("Draw a box that I have checked", _TIPS["box"])
        self.scribble_objects = _button("Objects", _TIPS["objects"])
        self.scribble_background = _button("Background", _TIPS["background"])
        self.show_known = QCheckBox("Show what is known")
        self.show_known.setToolTip(_TIPS["show"])
        whole = QWidget()
        grid = QGridLayout(whole)
        grid.setContentsMargins(6, 6, 6, 0)
        grid.addWidget(title, 0, 0, 1, 3)
        grid.addWidget(self.touched, 1, 0, 1, 3)
        grid.addWidget(self.checked, 2, 0, 1, 3)
        grid.addWidget(self.box, 3, 0, 1, 3)
        grid.addWidget(QLabel("Scribble"), 4, 0)
        grid.addWidget(self.scribble_objects, 4, 1)
        grid.addWidget(self.scribble_background, 4, 2)
        grid.addWidget(self.show_known, 5, 0, 1, 3)
        return whole

    def _connect(self) -> None:
        self.labels.changed.connect(self._labels_chosen)
        self.image.changed.connect(self._image_chosen)
        self.model.changed.connect(self._model_chosen)
        self.retry.clicked.connect(self.recorder.go_on)
        self.undo.clicked.connect(lambda: self._with_recording("undo"))
        self.redo.clicked.connect(lambda: self._with_recording("redo"))
        self.checked.clicked.connect(self.check_slice)
        self.box.clicked.connect(self._draw_box)
        self.scribble_objects.clicked.connect(lambda: self._scribble(OBJECT))
        self.scribble_background.clicked.connect(lambda: self._scribble(BACKGROUND))
        self.touched.toggled.connect(self._touched_changed)
        self.show_known.toggled.connect(self._show_known_layer)
        self.fold.toggled.connect(self._folded)
        self.recorder.changed.connect(self._recording_changed)
        self.offers.restored.connect(lambda recording: self._choose(recording.layer))
        self.corrections.changed.connect(self.changed)
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)
        self._viewer.layers.selection.events.active.connect(self._follow)
        self._viewer.dims.events.point.connect(self._moved)
        self._viewer.bind_key(CHECK_KEY, self._check_pressed, overwrite=True)
        self._viewer.bind_key(CONFIRM_KEY, self._confirm_pressed, overwrite=True)
        self.destroyed.connect(functools.partial(close_recorders, [self.recorder]))

    @property
    def recording(self) -> Recording | None:
        """The record of the chosen labels; None before the first correction."""
        layer = self.labels.value
        return None if layer is None else self.recorder.recordings.get(layer)

    def open_stacks(self) -> list[Stack]:
        """Return the images that are open, for journals whose image lies in no file."""
        stacks = []
        for _, image in self._images():
            try:
                stacks.append(ground_of(image).stack)
            except InputError:
                continue  # nothing was corrected on it
        return stacks

    def refresh_models(self) -> None:
        """List the models of the store anew."""
        names, chosen = tuple(entry.name for entry in list_models()), self.model.value
        if tuple(self.model.choices) != names:
            self.model.choices = names
        if chosen in names:
            self.model.value = chosen
        self._model_chosen()

    def check_slice(self) -> None:
        """Record that the slice in view is checked; or that it no longer is."""
        layer = self.labels.value
        if layer is None:
            return
        recording = self.recorder.recording(layer)
        index = plane_in_view(self._viewer, recording)
        recording.mark(UNKNOWN if _is_checked(recording, index) else KNOWN, index)
        self._show_state()

    def confirm_object(self, position: tuple[float, ...]) -> None:
        """Record that the object at a place in the world is right as it is."""
        layer = self.labels.value
        if layer is None or not (number := int(layer.get_value(position, world=True) or 0)):
            return
        recording = self.recorder.recording(layer)
        recording.confirm([number], plane_in_view(self._viewer, recording))

    def _check_pressed(self, *_: Any) -> None:
        self.check_slice()

    def _confirm_pressed(self, *_: Any) -> None:
        self.confirm_object(tuple(self._viewer.cursor.position))

    def _with_recording(self, what: str) -> None:
        if self.recording is not None:
            getattr(self.recording, what)()

    def _draw_box(self) -> None:
        if self.labels.value is not None:
            self._boxes.start(self.recorder.recording(self.labels.value))

    def _box_drawn(self, index: tuple[int, ...], window: tuple[slice, slice]) -> None:
        layer = self.labels.value
        if layer is None:
            return
        self.recorder.recording(layer).mark(KNOWN, index, window)
        self.show_known.setChecked(True)
        QTimer.singleShot(0, self._box_done)  # napari is still at work on the rectangle

    def _box_done(self) -> None:
        self._boxes.stop()
        if self.labels.value in self._viewer.layers:
            self._viewer.layers.selection.active = self.labels.value

    def _scribble(self, value: int) -> None:
        layer = self.labels.value
        if layer is not None:
            scribble(self._viewer, self.recorder.recording(layer), value)

    def _touched_changed(self, wanted: bool) -> None:
        self.corrections.touched = wanted
        self._show_known_layer()

    def _show_known_layer(self, *_: Any) -> None:
        layer = self.labels.value
        if self.show_known.isChecked() and layer is not None:
            self._known.show(self.recorder.recording(layer), self.touched.isChecked())
        else:
            self._known.hide()

    def _moved(self, *_: Any) -> None:
        self._known.refresh()
        self._show_state()

    def _recording_changed(self, recording: Recording) -> None:
        if recording is self.recording:
            if not recording.pending:
                self._known.refresh()
            self._show_state()
        if not recording.pending:
            self._quiet.start()

    def _read_list(self) -> None:
        if self.fold.is_open:
            self.corrections.read()

    def _folded(self, is_open: bool) -> None:
        remember(SECTION, {"open": is_open})
        self._read_list()

    def _images(self, *_: Any) -> list[tuple[str, Image]]:
        layers = [getattr(layer, "__wrapped__", layer) for layer in self._viewer.layers]
        return [(layer.name, layer) for layer in layers if isinstance(layer, Image)]

    def _label_choices(self, *_: Any) -> list[tuple[str, Labels | None]]:
        layers = [getattr(layer, "__wrapped__", layer) for layer in self._viewer.layers]
        found = [layer for layer in layers if isinstance(layer, Labels) and not is_helper(layer)]
        named = [(layer.name, layer) for layer in found if not is_hits_layer(layer)]
        return [(_CHOOSE, None), *named]

    def _layers_changed(self, *_: Any) -> None:
        """Offer the layers that there are; the latest result is chosen until the user chooses."""
        self._setting = True
        try:
            for box in (self.labels, self.image):
                chosen = box.value
                box.reset_choices()
                if chosen in box.choices:
                    box.value = chosen
        finally:
            self._setting = False
        if self.labels.value is None:
            watched = [
                layer
                for _, layer in self._label_choices()
                if layer is not None and self.recorder.watches(layer)
            ]
            self._choose(watched[-1] if watched else None)
        self._show_state()

    def _follow(self, *_: Any) -> None:
        """Choose the layer that the user turns to, if it is recorded."""
        active = self._viewer.layers.selection.active
        active = getattr(active, "__wrapped__", active)
        new = isinstance(active, Labels) and active is not self.labels.value
        if new and self.recorder.watches(active):
            self._choose(active)

    def _choose(self, layer: Labels | None) -> None:
        self._setting = True
        try:
            if layer in self.labels.choices:
                self.labels.value = layer
            if layer is not None:
                image = self.recorder.image_of(layer)
                if image is not None and image in self.image.choices:
                    self.image.value = image
                made_by = layer.metadata.get(MARK, {}).get("passport", {}).get("model")
                if made_by in self.model.choices:
                    self.model.value = made_by
        finally:
            self._setting = False
        self._model_chosen()
        self._show_known_layer()
        self._show_state()

    def _labels_chosen(self, layer: Labels | None) -> None:
        if self._setting:
            return
        if layer is not None:
            self.recorder.watch(layer)
        self._choose(layer)

    def _image_chosen(self, image: Image | None) -> None:
        if not self._setting and image is not None and self.labels.value is not None:
            self.recorder.watch(self.labels.value, image)
            self._show_state()

    def _model_chosen(self, *_: Any) -> None:
        name = self.model.value or ""
        self.recorder.model = name
        self.corrections.choose(name)
        self._read_list()

    def _show_state(self) -> None:
        """Show what can be pressed, and whether all is saved."""
        layer, recording = self.labels.value, self.recording
        text = _HINT if layer is None else "Every stroke on these labels is recorded."
        if recording is not None:
            text = recording.describe() or text
        left = [other for other in self.recorder.unsaved if other.failed]
        if left and (recording is None or not recording.failed):
            text = f"{text} {left[0].layer.name}: {left[0].describe()}"
        if self.status.text() != text:
            self.status.setText(text)
        self.retry.setVisible(bool(left) or (recording is not None and recording.failed))
        journal = None if recording is None or recording.read_only else recording.journal
        self.undo.setEnabled(journal is not None and journal.undoable > 0)
        self.redo.setEnabled(journal is not None and journal.redoable > 0)
        usable = layer is not None and (recording is None or not recording.read_only)
        for widget in (self.checked, self.box, self.scribble_objects, self.scribble_background):
            widget.setEnabled(usable)
        self.image.enabled = recording is None or recording.journal is None
        if recording is not None:
            is_checked = _is_checked(recording, plane_in_view(self._viewer, recording))
            self.checked.setChecked(is_checked)
            text = "This slice is checked ✓" if is_checked else "I have checked this slice"
            self.checked.setText(text)


def _is_checked(recording: Recording, index: tuple[int, ...]) -> bool:
    """Tell whether the user has said that a plane is right, all of it."""
    journal = recording.journal
    if journal is None:
        return False
    plane = journal.box(index)
    for mark in reversed(journal.marks()):
        pairs = list(zip(mark.box, plane, strict=True))
        if all(low <= start and stop <= high for (low, high), (start, stop) in pairs):
            return mark.meaning == KNOWN
    return False


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button
