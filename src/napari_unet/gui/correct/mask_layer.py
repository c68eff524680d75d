"""The translucent layer that shows what is known of the plane in view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_unet.core.annotations.mask import AnnotationMask, mask_from_events
from napari_unet.core.progress import Progress
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.layers.overlays import add_overlay

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Labels
    from qtpy.QtCore import QObject

    from napari_unet.gui.correct.layer_recording import LayerRecording

NAME = "what is known"
KNOWN, SKETCHED = 1, 2
_COLOURS: dict[int | None, Any] = {
    None: (0, 0, 0, 0),
    0: (0, 0, 0, 0),
    KNOWN: (0.18, 0.9, 0.65, 1),
    SKETCHED: (1, 0.75, 0.1, 1),
}


class MaskLayer:
    """Shows what is known of one recording's labels, plane by plane as the user looks at them.

    Worked out in a job of which only the newest matters; the window only draws.

    Parameters
    ----------
    viewer
        The window.
    owner
        The widget that it belongs to.

    Attributes
    ----------
    layer
        None while nothing is shown.
    """

    def __init__(self, viewer: Any, owner: QObject) -> None:
        self._viewer, self._errands = viewer, WidgetJobs(owner)
        self.layer: Labels | None = None
        self._recording: LayerRecording | None = None
        self._touched = True

    def show(self, recording: LayerRecording, touched: bool) -> None:
        """Show what is known of these labels, or show it anew.

        Parameters
        ----------
        touched
            What was touched is known, too.
        """
        if self._recording is not recording:
            self.hide()
        self._recording, self._touched = recording, touched
        if self.layer is None or self.layer not in self._viewer.layers:
            self.layer = self._new_layer(recording.layer)
        self.refresh()

    def hide(self) -> None:
        """Remove the layer."""
        layer, self.layer, self._recording = self.layer, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def refresh(self) -> None:
        """Work out the plane in view again."""
        recording = self._recording
        if recording is None or self.layer is None or recording.ground is None:
            return
        index = plane_in_view(self._viewer, recording)
        touched = self._touched
        job = Job(lambda: _steps(recording, index, touched), on_done=self._draw)
        self._errands.run("known", job)

    def _draw(self, found: tuple[LayerRecording, tuple[int, ...], AnnotationMask]) -> None:
        recording, index, said = found
        layer, ground = self.layer, recording.ground
        if layer is None or recording is not self._recording or ground is None:
            return
        plane = ground.array(layer.data)[index]
        plane[...] = np.where(said.scribbled, SKETCHED, said.known * KNOWN)
        layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _new_layer(self, labels: Labels) -> Labels:
        active = self._viewer.layers.selection.active
        empty, colours = (
            np.zeros(labels.data.shape, np.uint8),
            DirectLabelColormap(color_dict=_COLOURS),
        )
        layer = add_overlay(self._viewer, labels, empty, NAME, opacity=0.25, colormap=colours)
        layer.editable = False
        if active is not None:
            self._viewer.layers.selection.active = active
        return layer


def plane_in_view(viewer: Any, recording: LayerRecording) -> tuple[int, ...]:
    """Return the index of the plane of a recording's labels that the sliders point at."""
    if recording.ground is None:
        return ()
    return recording.ground.plane(recording.layer.world_to_data(viewer.dims.point))


def _steps(
    recording: LayerRecording, index: tuple[int, ...], touched: bool
) -> Generator[Progress, None, tuple[LayerRecording, tuple[int, ...], AnnotationMask]]:
    """Work out what a plane teaches, from the layer's data and the journal."""
    yield Progress(0, 0, "what is known")
    ground, journal = recording.ground, recording.journal
    assert ground is not None
    labels = np.array(ground.array(recording.data)[index])
    if journal is None:
        nothing = np.zeros(labels.shape, bool)
        return recording, index, AnnotationMask(labels, nothing, nothing)
    said = mask_from_events(
        labels,
        journal.history(index),
        journal.box(index),
        classes=journal.header.head == "semantic",
        touched=touched,
    )
    return recording, index, said
