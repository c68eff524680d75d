"""A button after which one click says how large the objects are: "this is an object"."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton

from napari_unet.core.errors import InputError, ModelError, UnetError
from napari_unet.core.progress import Progress
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.job import CANCELLED, REPLACED, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.convert import layer_axes, layer_stack, unwrap
from napari_unet.gui.layers.image_settings import get_image_settings
from napari_unet.gui.layers.navigation import watch_clicks

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet.core.io.stack import Stack
    from napari_unet.gui.shared_inputs import InputForm

_TIP = (
    "Press, then click on one object that you want found: its size becomes the diameter,\n"
    "and the model runs at it. Of an object inside another, the inner one counts."
)


class PickButton(QPushButton):
    """While it is pressed, the next click in the window is on an object whose size counts.

    Emits `picked` with the diameter in pixels, and `said` with what to do, or what goes on; "" when
    there is nothing to say.

    Attributes
    ----------
    job
        The measurement that goes on; None without one.
    """

    picked = Signal(float)
    said = Signal(str)

    def __init__(self, viewer: Any, inputs: InputForm) -> None:
        super().__init__("Click one")
        self._viewer, self._inputs = unwrap(viewer), inputs
        self.job: Job | None = None
        self._jobs = WidgetJobs(self)
        self.setToolTip(_TIP)
        self.setCheckable(True)
        self.toggled.connect(self._begin_or_stop)
        watch_clicks(viewer, self, self._clicked)

    def _begin_or_stop(self, wanted: bool) -> None:
        if not wanted:
            if self.job is not None:
                self.job.abandon()
                self.job = None
            self.said.emit("")
            return
        try:
            self._check()
        except UnetError as error:
            self._stop()
            report_error(error, "no object was measured", self.said.emit)
            return
        # So that no brush paints at the click.
        self._viewer.layers.selection.active = self._inputs.image.value
        self.said.emit("Click on one object that you want found.")

    def _check(self) -> None:
        """Raise if no click can be answered."""
        if self._inputs.image.value is None:
            raise InputError("There is no image layer; open an image first.")
        if not self._inputs.image.enabled:
            raise InputError("Clicks go into the labels now; leave Click first (C).")
        card = self._inputs.card()
        if not card.click:
            raise ModelError(
                f"The model {card.name!r} cannot answer clicks; draw a line across an object."
            )

    def _clicked(self, event: Any) -> None:
        image = self._inputs.image.value
        if not self.isChecked() or self.job is not None or image is None:
            return
        if len(event.dims_displayed) != 2:
            self.said.emit("Click in the 2D view (Ctrl+Y).")
            return
        try:
            stack, axes = layer_stack(image), layer_axes(image)
        except UnetError as error:
            self._fail(error)
            return
        here = np.array(image.world_to_data(event.position), float)
        place = tuple(float(here[axes.index(letter)]) for letter in stack.labels_axes)
        settings = get_image_settings(image)
        sizes = tuple(size for size in (settings.found_px, settings.other_px) if size)
        steps = functools.partial(
            pick_steps, stack, self._inputs.model.value, place, sizes, settings.channel
        )
        self.job = Job(steps, on_done=self._measured, on_error=self._fail, on_end=self._ended)
        self.said.emit("Looking at the object …")
        self._jobs.run_in(get_device_queue("auto"), self.job)

    def _measured(self, diameter: float) -> None:
        self._stop()
        self.picked.emit(round(diameter, 1))

    def _fail(self, error: Exception) -> None:
        self._stop()
        report_error(error, "no object was measured", self.said.emit)

    def _ended(self, state: str) -> None:
        self._stop()
        if state == CANCELLED:
            self.said.emit(REPLACED.format("Click one"))

    def _stop(self) -> None:
        self.job = None
        self.setChecked(False)


def pick_steps(
    stack: Stack,
    model: str,
    place: tuple[float, ...],
    sizes: tuple[float, ...],
    channel: int | None,
) -> Generator[Progress, None, float]:
    """Return the diameter of the object at a place, in a job's thread; see `clicked_diameter`."""
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.interactive.size_by_click import clicked_diameter

    settings = replace(PredictSettings(), channel=channel)
    return (yield from clicked_diameter(stack, loaded_model(model, "auto"), place, sizes, settings))
