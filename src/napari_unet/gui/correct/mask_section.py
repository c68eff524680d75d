"""The section for the annotation mask: what a model may learn from, and the layer that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QPushButton, QWidget

from napari_unet.core.annotations.annotation_mask import AnnotationMask
from napari_unet.core.annotations.edits import KNOWN, UNKNOWN
from napari_unet.core.annotations.mask import mask_from_events
from napari_unet.core.progress import Progress
from napari_unet.core.prompts.scribbles import BACKGROUND, OBJECT
from napari_unet.gui.correct.drawing import BoxDrawer, scribble
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.layers.key_bindings import bind_window_key, weak_callback
from napari_unet.gui.layers.overlay_layer import add_drawing, remove_layer
from napari_unet.gui.widgets.panel import WrappedLabel

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Labels
    from qtpy.QtCore import QObject

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
_NO_IMAGE = "The image of these labels is not open, or does not fit; open or choose it first."
_NO_SLICE = "No slice is in view: show y and x in the 2D view (Ctrl+Y, Ctrl+E)."
MASK_LAYER = "what is known"
_LEGEND = (
    '<span style="color: rgb(46, 230, 166)">■</span> right, and teaches; '
    '<span style="color: rgb(255, 191, 26)">■</span> scribbled'
)
_KNOWN_CODE, _SCRIBBLED_CODE = 1, 2
_COLOURS = {
    _KNOWN_CODE: (0.18, 0.9, 0.65, 1),
    _SCRIBBLED_CODE: (1, 0.75, 0.1, 1),
}


class MaskSection(QWidget):
    """What a model may learn from the chosen labels.

    Emits `marked` when the slice in view was marked.

    Parameters
    ----------
    tracker
        Records the marks.
    chosen
        Returns the labels that are corrected, None without any.

    Attributes
    ----------
    touched, checked, box, scribble_objects, scribble_background, show_mask
        The boxes and buttons.
    """

    marked = Signal()

    def __init__(
        self, viewer: Any, tracker: EditTracker, chosen: Callable[[], Labels | None]
    ) -> None:
        super().__init__()
        self._viewer, self._tracker, self._chosen = viewer, tracker, chosen
        self._mask_layer = MaskLayer(viewer, self)
        self._boxes = BoxDrawer(viewer, self._box_drawn)
        self._build()
        self._connect()

    def _build(self) -> None:
        title = WrappedLabel("<b>Learn from</b>")
        self.touched = QCheckBox("What I touched")
        self.touched.setChecked(True)
        self.touched.setToolTip(_TIPS["touched"])
        self.checked = tip_button("I have checked this slice", _TIPS["checked"])
        self.checked.setCheckable(True)
        self.box = tip_button("Box that I have checked", _TIPS["box"])
        self.scribble_objects = tip_button("objects", _TIPS["objects"])
        self.scribble_background = tip_button("background", _TIPS["background"])
        self.show_mask = QCheckBox("Show what is known")
        self.show_mask.setToolTip(_TIPS["show"])
        grid = QGridLayout(self)
        grid.setContentsMargins(4, 6, 4, 0)
        for button in (self.checked, self.box, self.scribble_objects, self.scribble_background):
            button.setStyleSheet("QPushButton { padding: 4px 1px; }")
        for row, widget in enumerate((title, self.touched, self.checked, self.box)):
            grid.addWidget(widget, row, 0, 1, 2)
        grid.addWidget(QLabel("Scribble on"), 4, 0, 1, 2)
        grid.addWidget(self.scribble_objects, 5, 0)
        grid.addWidget(self.scribble_background, 5, 1)
        grid.addWidget(self.show_mask, 6, 0, 1, 2)
        self.legend = WrappedLabel(_LEGEND)
        self.legend.hide()
        grid.addWidget(self.legend, 7, 0, 1, 2)

    def _connect(self) -> None:
        self.checked.clicked.connect(self.check_slice)
        self.box.clicked.connect(self._draw_box)
        self.scribble_objects.clicked.connect(lambda: self._scribble(OBJECT))
        self.scribble_background.clicked.connect(lambda: self._scribble(BACKGROUND))
        self.touched.toggled.connect(self.show_layer)
        self.show_mask.toggled.connect(self.show_layer)
        self.show_mask.toggled.connect(self.legend.setVisible)
        self.bind_keys()

    def bind_keys(self) -> None:
        """Take the keys, at first or when a review has given them back."""
        for key, method in ((CHECK_KEY, self.check_slice), (CONFIRM_KEY, self._confirm_pressed)):
            bind_window_key(self._viewer, self, key, weak_callback(method))

    def check_slice(self) -> None:
        """Mark the slice in view as checked, or no longer so."""
        layer = self._chosen()
        if layer is None:
            return
        recording = self._tracker.begin_recording(layer)
        if not self._may_mark(recording):
            self.show_state(recording)  # the click has pressed the button already
            return
        index = plane_in_view(self._viewer, recording)
        recording.mark(UNKNOWN if _is_checked(recording, index) else KNOWN, index)
        self.marked.emit()

    def _may_mark(self, recording: LayerRecording) -> bool:
        """Return whether a slice is in view that can be marked; say why not."""
        problem = slice_problem(self._viewer, recording)
        if problem:
            recording.refused.emit(problem)
        return not problem

    def confirm_object(self, position: tuple[float, ...]) -> None:
        """Mark the object at a place in the world as right as it is."""
        layer = self._chosen()
        if layer is None or not (number := int(layer.get_value(position, world=True) or 0)):
            return
        recording = self._tracker.begin_recording(layer)
        if recording.geometry is None:
            recording.refused.emit(_NO_IMAGE)
            return
        recording.confirm([number], recording.geometry.plane(layer.world_to_data(position)))
        self.show_mask.setChecked(True)  # so that it can be seen which ones were accepted

    def refresh(self) -> None:
        """Show the mask as it is now, or of another slice."""
        self._mask_layer.refresh()

    def show_layer(self, *_: Any) -> None:
        """Show the mask of the chosen labels, if that is wanted."""
        layer = self._chosen()
        if self.show_mask.isChecked() and layer is not None:
            self._mask_layer.show(self._tracker.begin_recording(layer), self.touched.isChecked())
        else:
            self._mask_layer.hide()

    def show_state(self, recording: LayerRecording | None) -> None:
        """Update the buttons: what can be pressed, and whether the slice in view is checked."""
        usable = self._chosen() is not None and (recording is None or not recording.read_only)
        for widget in (self.checked, self.box, self.scribble_objects, self.scribble_background):
            widget.setEnabled(usable)
        if recording is not None:
            seen = not slice_problem(self._viewer, recording)
            is_checked = seen and _is_checked(recording, plane_in_view(self._viewer, recording))
            self.checked.setChecked(is_checked)
            text = "This slice is checked ✓" if is_checked else "I have checked this slice"
            self.checked.setText(text)

    def _confirm_pressed(self) -> None:
        self.confirm_object(tuple(self._viewer.cursor.position))

    def _draw_box(self) -> None:
        layer = self._chosen()
        recording = None if layer is None else self._tracker.begin_recording(layer)
        if recording is not None and self._may_mark(recording):
            self._boxes.start(recording)

    def _box_drawn(
        self, recording: LayerRecording, index: tuple[int, ...], window: tuple[slice, slice]
    ) -> None:
        recording.mark(KNOWN, index, window)
        self.show_mask.setChecked(True)
        # Later: napari is still handling the rectangle, whose layer is removed.
        QTimer.singleShot(0, lambda: self._box_done(recording.layer))

    def _box_done(self, layer: Labels) -> None:
        self._boxes.stop()
        if layer in self._viewer.layers:
            self._viewer.layers.selection.active = layer

    def _scribble(self, value: int) -> None:
        layer = self._chosen()
        if layer is not None:
            scribble(self._viewer, self._tracker.begin_recording(layer), value)


def slice_problem(viewer: Any, recording: LayerRecording) -> str:
    """Return why it is not known which slice (Y, X) of the labels the user looks at, or ""."""
    geometry = recording.geometry
    if geometry is None:
        return _NO_IMAGE
    first = viewer.dims.ndim - recording.layer.ndim
    shown = {axis - first for axis in viewer.dims.displayed if axis >= first}
    return "" if shown == set(geometry.order[-2:]) else _NO_SLICE


def _is_checked(recording: LayerRecording, index: tuple[int, ...]) -> bool:
    """Return whether the user has marked all of a plane as checked."""
    journal = recording.journal
    if journal is None:
        return False
    plane = journal.box(index)
    for mark in reversed(journal.marks()):
        pairs = list(zip(mark.box, plane, strict=True))
        if all(low <= start and stop <= high for (low, high), (start, stop) in pairs):
            return mark.meaning == KNOWN
    return False


def tip_button(text: str, tip: str) -> QPushButton:
    """Return a button with a tooltip."""
    button = QPushButton(text)
    button.setToolTip(tip)
    return button


class MaskLayer:
    """A translucent layer with the annotation mask of the plane in view.

    The mask is computed in a job, of which only the newest counts; the window only draws.

    Parameters
    ----------
    owner
        The widget that it belongs to.

    Attributes
    ----------
    layer
        None while nothing is shown.
    """

    def __init__(self, viewer: Any, owner: QObject) -> None:
        self._viewer, self._jobs = viewer, WidgetJobs(owner)
        self.layer: Labels | None = None
        self._recording: LayerRecording | None = None
        self._touched, self._adding = True, False

    def show(self, recording: LayerRecording, touched: bool) -> None:
        """Show the mask of a recording's labels, or show it again.

        Parameters
        ----------
        touched
            Objects that were edited are known, too.
        """
        if self._adding:  # a layer that comes or goes has the labels chosen, and shown, anew
            return
        if self._recording is not recording:
            self.hide()
        self._recording, self._touched = recording, touched
        if self.layer is None or self.layer not in self._viewer.layers:
            self._adding = True
            try:
                self.layer = add_drawing(self._viewer, recording.layer, MASK_LAYER, _COLOURS, 0.25)
            finally:
                self._adding = False
        self.refresh()

    def hide(self) -> None:
        """Remove the layer."""
        layer, self.layer, self._recording = self.layer, None, None
        remove_layer(self._viewer, layer)

    def refresh(self) -> None:
        """Compute the mask of the plane in view again."""
        recording = self._recording
        if recording is None or self.layer is None or recording.geometry is None:
            return
        index = plane_in_view(self._viewer, recording)
        touched = self._touched
        job = Job(lambda: _mask_steps(recording, index, touched), on_done=self._draw)
        self._jobs.run("mask", job)

    def _draw(self, found: tuple[LayerRecording, tuple[int, ...], AnnotationMask]) -> None:
        recording, index, mask = found
        layer, geometry = self.layer, recording.geometry
        if layer is None or recording is not self._recording or geometry is None:
            return
        plane = geometry.array(layer.data)[index]
        plane[...] = np.where(mask.scribbled, _SCRIBBLED_CODE, mask.known * _KNOWN_CODE)
        layer.refresh(thumbnail=False, highlight=False, extent=False)


def plane_in_view(viewer: Any, recording: LayerRecording) -> tuple[int, ...]:
    """Return the index of the plane of a recording's labels that the sliders point at."""
    if recording.geometry is None:
        return ()
    return recording.geometry.plane(recording.layer.world_to_data(viewer.dims.point))


def _mask_steps(
    recording: LayerRecording, index: tuple[int, ...], touched: bool
) -> Generator[Progress, None, tuple[LayerRecording, tuple[int, ...], AnnotationMask]]:
    """Compute the annotation mask of a plane, from the layer's data and the journal."""
    yield Progress(0, 0, "what is known")
    geometry, journal = recording.geometry, recording.journal
    assert geometry is not None
    labels = np.array(geometry.array(recording.data)[index])
    if journal is None:
        nothing = np.zeros(labels.shape, bool)
        return recording, index, AnnotationMask(labels, nothing, nothing, nothing)
    mask = mask_from_events(
        labels,
        journal.history(index),
        journal.box(index),
        classes=journal.header.head == "semantic",
        touched=touched,
    )
    return recording, index, mask
