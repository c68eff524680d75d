"""The ways to say what is known: touched objects, a slice, a box, scribbles; and what is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QPushButton, QWidget

from napari_unet.core.annotations.edits import KNOWN, UNKNOWN
from napari_unet.gui.correct.drawing import BACKGROUND, OBJECT, BoxDrawer, scribble
from napari_unet.gui.correct.mask_layer import MaskLayer, plane_in_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.gui.correct.layer_recording import LayerRecording

CHECK_KEY, CONFIRM_KEY = "K", "Y"
_TIPS = {
    "touched": "The objects that you edited, added or deleted, and the background around them, are "
    "known.\nObjects that you left alone say nothing; to accept one as it is, point at it and "
    f"press {CONFIRM_KEY}.",
    "checked": f"All of this slice is right now: every object, and all of the background "
    f"({CHECK_KEY}).\nPress again to take it back.",
    "box": "Draw a rectangle: all is right inside it, objects and background.",
    "objects": "Draw a few lines on objects; their outlines need not be known.",
    "background": "Draw a few lines where there are no objects.",
    "show": "Show in green what is known of this slice, and teaches the model.",
}


class MaskSection(QWidget):
    """What a model may learn from the chosen labels.

    Emits `marked` when the user has said something of the slice in view.

    Parameters
    ----------
    viewer
        The window.
    recorder
        Records what is said.
    chosen
        Returns the labels that are corrected, None without any.

    Attributes
    ----------
    touched, checked, box, scribble_objects, scribble_background, show_known
        The boxes and buttons.
    """

    marked = Signal()

    def __init__(
        self, viewer: Any, recorder: EditTracker, chosen: Callable[[], Labels | None]
    ) -> None:
        super().__init__()
        self._viewer, self._recorder, self._chosen = viewer, recorder, chosen
        self._known = MaskLayer(viewer, self)
        self._boxes = BoxDrawer(viewer, self._box_drawn)
        self._build()
        self._connect()

    def _build(self) -> None:
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
        grid = QGridLayout(self)
        grid.setContentsMargins(6, 6, 6, 0)
        grid.addWidget(title, 0, 0, 1, 3)
        grid.addWidget(self.touched, 1, 0, 1, 3)
        grid.addWidget(self.checked, 2, 0, 1, 3)
        grid.addWidget(self.box, 3, 0, 1, 3)
        grid.addWidget(QLabel("Scribble"), 4, 0)
        grid.addWidget(self.scribble_objects, 4, 1)
        grid.addWidget(self.scribble_background, 4, 2)
        grid.addWidget(self.show_known, 5, 0, 1, 3)

    def _connect(self) -> None:
        self.checked.clicked.connect(self.check_slice)
        self.box.clicked.connect(self._draw_box)
        self.scribble_objects.clicked.connect(lambda: self._scribble(OBJECT))
        self.scribble_background.clicked.connect(lambda: self._scribble(BACKGROUND))
        self.touched.toggled.connect(self.show_layer)
        self.show_known.toggled.connect(self.show_layer)
        self._viewer.bind_key(CHECK_KEY, self._check_pressed, overwrite=True)
        self._viewer.bind_key(CONFIRM_KEY, self._confirm_pressed, overwrite=True)

    def check_slice(self) -> None:
        """Record that the slice in view is checked; or that it no longer is."""
        layer = self._chosen()
        if layer is None:
            return
        recording = self._recorder.recording(layer)
        index = plane_in_view(self._viewer, recording)
        recording.mark(UNKNOWN if _is_checked(recording, index) else KNOWN, index)
        self.marked.emit()

    def confirm_object(self, position: tuple[float, ...]) -> None:
        """Record that the object at a place in the world is right as it is."""
        layer = self._chosen()
        if layer is None or not (number := int(layer.get_value(position, world=True) or 0)):
            return
        recording = self._recorder.recording(layer)
        recording.confirm([number], plane_in_view(self._viewer, recording))

    def refresh(self) -> None:
        """Show what is known now, or of another slice."""
        self._known.refresh()

    def show_layer(self, *_: Any) -> None:
        """Show what is known of the chosen labels, if that is wanted."""
        layer = self._chosen()
        if self.show_known.isChecked() and layer is not None:
            self._known.show(self._recorder.recording(layer), self.touched.isChecked())
        else:
            self._known.hide()

    def show_state(self, recording: LayerRecording | None) -> None:
        """Show what can be pressed, and whether the slice in view is checked."""
        usable = self._chosen() is not None and (recording is None or not recording.read_only)
        for widget in (self.checked, self.box, self.scribble_objects, self.scribble_background):
            widget.setEnabled(usable)
        if recording is not None:
            is_checked = _is_checked(recording, plane_in_view(self._viewer, recording))
            self.checked.setChecked(is_checked)
            text = "This slice is checked ✓" if is_checked else "I have checked this slice"
            self.checked.setText(text)

    def _check_pressed(self, *_: Any) -> None:
        self.check_slice()

    def _confirm_pressed(self, *_: Any) -> None:
        self.confirm_object(tuple(self._viewer.cursor.position))

    def _draw_box(self) -> None:
        layer = self._chosen()
        if layer is not None:
            self._boxes.start(self._recorder.recording(layer))

    def _box_drawn(self, index: tuple[int, ...], window: tuple[slice, slice]) -> None:
        layer = self._chosen()
        if layer is None:
            return
        self._recorder.recording(layer).mark(KNOWN, index, window)
        self.show_known.setChecked(True)
        QTimer.singleShot(0, self._box_done)  # napari is still at work on the rectangle

    def _box_done(self) -> None:
        self._boxes.stop()
        layer = self._chosen()
        if layer in self._viewer.layers:
            self._viewer.layers.selection.active = layer

    def _scribble(self, value: int) -> None:
        layer = self._chosen()
        if layer is not None:
            scribble(self._viewer, self._recorder.recording(layer), value)


def _is_checked(recording: LayerRecording, index: tuple[int, ...]) -> bool:
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
