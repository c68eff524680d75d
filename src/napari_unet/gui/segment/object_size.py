"""The size of the objects: what "auto" found, circles of that size, and measuring it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QPushButton, QWidget

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.progress import Progress
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.job import CANCELLED, REPLACED, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack, unwrap
from napari_unet.gui.layers.image_settings import get_image_settings, update_image_settings
from napari_unet.gui.layers.overlay_layer import KIND, overlay_metadata, remove_layer
from napari_unet.gui.segment.size_click import PickButton
from napari_unet.gui.shared_inputs import image_pixel_um
from napari_unet.gui.widgets.panel import WrappedLabel, hbox, vbox

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Image, Shapes

    from napari_unet.core.io.stack import Stack
    from napari_unet.gui.shared_inputs import InputForm
    from napari_unet.gui.widgets.settings_form import SettingWidget

CIRCLE, LINE = "object size", "measure an object"
_USUAL_PX = 20.0  # where neither the user, nor the image, nor the model says anything
_SAME = 0.005  # a circle that was only moved has the same size, but for rounding
_COLOUR = "#ffd21f"
_TIPS = {
    "estimate": "Look at a part of the image at several sizes, as Run does, and say what it takes.",
    "circle": "Draw a circle of this size over the image; drag its corners to change the size.\n"
    "Where objects of two sizes are seen, there are two.",
    "line": "Draw a line across one object: its length becomes the diameter.",
}


class DiameterRow(QWidget):
    """Says how large objects are taken to be, and lets the user see and measure it.

    Parameters
    ----------
    inputs
        The image and the model.
    diameter
        The number box, in pixels; "auto" below its lowest value.

    Attributes
    ----------
    estimate, pick, circle, line
        The buttons.
    found
        What "auto" found, and the diameter in micrometres.
    job
        The estimate that goes on; None without one.

    Emits `picked` with the diameter of an object that the user has clicked on: "this is an object".
    """

    changed = Signal()
    picked = Signal(float)

    tooltip = ""

    def __init__(self, viewer: Any, inputs: InputForm, diameter: SettingWidget) -> None:
        super().__init__()
        self._viewer, self._inputs, self._diameter = unwrap(viewer), inputs, diameter
        self._layer: Shapes | None = None
        self._ruler: Shapes | None = None
        self._drawing = False
        self.job: Job | None = None
        self._jobs = WidgetJobs(self)
        self.found = WrappedLabel()
        self.estimate = _button("Estimate", _TIPS["estimate"])
        self.pick = PickButton(viewer, inputs)
        self.circle = _button("Circle", _TIPS["circle"], checkable=True)
        self.line = _button("Line", _TIPS["line"])
        for button in (self.estimate, self.pick, self.circle, self.line):
            button.setMinimumWidth(1)
            button.setStyleSheet("QPushButton { padding: 2px 0px; }")  # two in a narrow panel
        rows = (hbox(self.estimate, self.pick, stretch=1), hbox(self.circle, self.line, stretch=1))
        vbox(*rows, self.found, owner=self)
        self.estimate.clicked.connect(self.estimate_now)
        self.pick.picked.connect(self.picked)
        self.pick.said.connect(self._show_said)
        self.circle.toggled.connect(self.show_circle)
        self.line.clicked.connect(self.draw_line)
        self._viewer.layers.events.removed.connect(self._removed)

    @property
    def native(self) -> QWidget:
        """The widget itself, as a row of a form."""
        return self

    # What is known

    def show_found(self) -> None:
        """Say what "auto" found, and what a diameter is in micrometres."""
        image = self._inputs.image.value
        chosen = self._diameter.get()
        found = get_image_settings(image).found_px
        text = ""
        if image is not None:
            if chosen is not None:
                length = format_length(chosen, image)
                text = f"= {length.partition(' = ')[2]}" if " = " in length else ""
                if found is not None and not np.isclose(found, chosen, rtol=0.05):
                    text = f"{text} auto found {format_length(found, image)}.".strip()
            elif len(sizes := self.drawn_sizes) > 1:
                small, large = (format_length(round(size), image) for size in sorted(sizes))
                text = f"{small} or {large}? Press Click one, then click on an object you want."
            elif found is not None:
                text = f"auto found {format_length(found, image)}."
        self.found.setText(text)
        for button in (self.estimate, self.pick, self.circle, self.line):
            button.setEnabled(image is not None and (button is not self.estimate or not self.job))
        if self._layer is not None and not self._drawing:
            self.show_circle(image is not None)

    def estimate_now(self, *_: Any) -> None:
        """Estimate the diameter in a job, and show it."""
        inputs = self._inputs
        image = inputs.image.value
        if image is None or self.job is not None:
            return
        try:
            card = inputs.card()
            stack = layer_stack(image)
        except UnetError as error:
            report_error(error, "the size was not estimated", self.found.setText)
            return
        channel = get_image_settings(image).channel
        self.job = Job(
            functools.partial(estimate_steps, stack, inputs.model.value, "auto", channel),
            on_done=functools.partial(self._estimated, image),
            on_error=lambda error: report_error(
                error, "the size was not estimated", self.found.setText
            ),
            on_end=self._ended,
        )
        self.show_found()
        self.found.setText(f"Looking at the image with {card.name} …")
        self._jobs.run_in(get_device_queue("auto"), self.job)

    def _estimated(self, image: Image, sizes: tuple[float, ...]) -> None:
        self.job = None
        self.keep_found(image, sizes)
        if not sizes:
            self.found.setText("No objects were found; draw a line across one.")

    def keep_found(self, image: Image, sizes: tuple[float, ...]) -> None:
        """Keep with the image which sizes "auto" saw, the one it takes first; two are drawn."""
        found, other = (*(round(float(size), 1) for size in sizes), None, None)[:2]
        update_image_settings(image, found_px=found, other_px=other)
        self.show_found()
        if other is not None and image is self._inputs.image.value and not self._diameter.get():
            self.circle.setChecked(True)

    def _show_said(self, text: str) -> None:
        if text:
            self.found.setText(text)
        else:
            self.show_found()

    def _ended(self, state: str) -> None:
        self.job = None
        if state == CANCELLED:
            self.found.setText(REPLACED.format("Estimate"))
        self.estimate.setEnabled(self._inputs.image.value is not None)
        self.changed.emit()

    @property
    def drawn_sizes(self) -> tuple[float, ...]:
        """The diameters to draw, in pixels: the user's, or what was found, or what is usual."""
        settings = get_image_settings(self._inputs.image.value)
        if chosen := self._diameter.get():
            return (float(chosen),)
        if settings.found_px:
            return tuple(float(size) for size in (settings.found_px, settings.other_px) if size)
        entry = self._inputs.entry
        trained = None if entry is None or entry.card is None else entry.card.training
        return (float((trained or {}).get("diameter_px", {}).get("q50", _USUAL_PX)),)

    # On the canvas

    def show_circle(self, wanted: bool) -> None:
        """Draw a circle of each size over the image, or remove them."""
        image = self._inputs.image.value
        centre = self._remove_circle()
        if not wanted or image is None:
            return
        sizes = self.drawn_sizes
        boxes = [self._box(image, centre, size) for size in sizes]
        active = self._viewer.layers.selection.active
        self._layer = unwrap(
            self._viewer.add_shapes(
                [corners for corners, _ in boxes], shape_type="ellipse", name=CIRCLE,
                face_color="transparent", edge_color=_COLOUR,
                edge_width=max(0.5, min(sizes) / 15), opacity=1, text=_written(sizes),
                metadata=overlay_metadata(KIND, CIRCLE), **boxes[0][1],
            )
        )  # fmt: skip
        layer = self._layer
        layer.events.data.connect(self._resized)
        if centre is None and len(sizes) == 1:
            layer.mode = "select"
            layer.selected_data = {0}
        elif active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active

    def _box(
        self, image: Image, centre: np.ndarray | None, size: float
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the corners of a circle's box, and how its layer lies in the world."""
        axes = layer_axes(image)
        plane = [axes.index("Y"), axes.index("X")]
        flat = axes.endswith("YX")
        if centre is None:
            point = np.asarray(self._viewer.dims.point, float)
            shown = list(self._viewer.dims.displayed)
            point[shown] = np.asarray(self._viewer.scene.camera.center, float)[-len(shown) :]
            centre = np.asarray(image.world_to_data(point), float)
            sizes = [int(full_resolution(image).shape[axis]) for axis in plane]
            for axis, length in zip(plane, sizes, strict=True):
                centre[axis] = np.clip(centre[axis], 0, length - 1)
            centre = centre[plane] if flat else centre
        offsets = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * size / 2
        corners = np.tile(centre, (4, 1))
        corners[:, slice(-2, None) if flat else plane] += offsets
        place = {
            name: np.asarray(getattr(image, name))[-2:] if flat else getattr(image, name)
            for name in ("scale", "translate")
        }
        place["units"] = tuple(image.units[-2:] if flat else image.units)
        return corners, place

    def _remove_circle(self) -> np.ndarray | None:
        """Remove the circle; return its centre, None without one."""
        layer, self._layer = self._layer, None
        if layer is None or layer not in self._viewer.layers:
            return None
        centre = np.asarray(layer.data[0]).mean(axis=0) if len(layer.data) else None
        layer.events.data.disconnect(self._resized)
        remove_layer(self._viewer, layer)
        return centre

    def _resized(self, event: Any) -> None:
        layer = self._layer
        if layer is None or not len(layer.data) or str(event.action) != "changed":
            return
        for corners, size in zip(layer.data, self.drawn_sizes, strict=False):
            sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
            found = float(np.mean(sides))
            if found > 1 and abs(found / size - 1) > _SAME:
                self._set(found)
                return

    def draw_line(self, *_: Any) -> None:
        """Let the user draw a line across an object; its length becomes the diameter."""
        image = self._inputs.image.value
        if image is None:
            return
        self._drop_ruler()
        size = self.drawn_sizes[0]
        place = self._box(image, None, size)[1]
        width = max(0.5, size / 30)
        self._ruler = unwrap(
            self._viewer.add_shapes(
                ndim=len(place["scale"]), name=LINE, edge_color=_COLOUR,
                edge_width=width, metadata=overlay_metadata(KIND, LINE), **place,
            )
        )  # fmt: skip
        self._ruler.events.data.connect(self._drawn)
        self._viewer.layers.selection.active = self._ruler
        self._ruler.mode = "add_line"
        self.found.setText("Draw a line across one object.")

    def _drawn(self, event: Any) -> None:
        layer = self._ruler
        if layer is None or str(event.action) != "added" or not len(layer.data):
            return
        ends = np.asarray(layer.data[-1])
        length = float(np.linalg.norm(ends[0] - ends[-1]))
        # Later: napari is still handling the line, whose layer is removed.
        QTimer.singleShot(0, functools.partial(self._measured, length))

    def _measured(self, length: float) -> None:
        self._drop_ruler()
        image = self._inputs.image.value
        if image is not None and image in self._viewer.layers:
            self._viewer.layers.selection.active = image
        if length >= 1:
            self._set(length)
        self.show_found()

    def _drop_ruler(self) -> None:
        layer, self._ruler = self._ruler, None
        remove_layer(self._viewer, layer)

    def _set(self, diameter: float) -> None:
        self._drawing = True
        try:
            self._diameter.set(round(diameter, 1))
        finally:
            self._drawing = False

    def _removed(self, event: Any) -> None:
        if event.value is self._layer:
            self._layer = None
            self.circle.setChecked(False)
        elif event.value is self._ruler:
            self._ruler = None
            self.show_found()


def format_length(pixels: float, image: Image) -> str:
    """Return a length such as "21 px = 6.8 µm"; in pixels alone where their size is unknown."""
    size = image_pixel_um(image)
    return f"{pixels:.3g} px" + (f" = {pixels * size:.3g} µm" if size else "")


def estimate_steps(
    stack: Stack, model: str, device: str, channel: int | None
) -> Generator[Progress, None, tuple[float, ...]]:
    """Estimate the diameter of a stack's objects, in a job's thread.

    Returns the one that a run takes, and another one if objects of two sizes are seen; () for none.
    """
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.inference.diameter_estimation import diameter_steps

    network = loaded_model(model, device)
    if not network.diameter:
        raise InputError(
            f"The model {model!r} does not record a size of objects: it takes images as they are."
        )
    settings = replace(PredictSettings(), channel=channel)
    resolved, remarks = yield from diameter_steps(stack, network, settings)
    two = next((remark.sizes for remark in remarks if remark.sizes), ())
    return two or ((resolved.diameter,) if resolved.diameter else ())


def _written(sizes: tuple[float, ...]) -> dict[str, Any] | None:
    """Return the text beside each of several circles; one needs none."""
    if len(sizes) == 1:
        return None
    texts = [f"{size:.0f} px" for size in sizes]
    return {"string": texts, "color": _COLOUR, "anchor": "upper_left", "size": 11}


def _button(text: str, tip: str, *, checkable: bool = False) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setCheckable(checkable)
    return button
