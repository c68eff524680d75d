"""Layers to draw on: boxes in which all is right, and scribbles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_unet.core.prompts.scribbles import BACKGROUND, OBJECT
from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.overlay_layer import (
    KIND,
    add_overlay,
    get_transform,
    overlay_metadata,
    remove_layer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels, Shapes

    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.layers.label_geometry import LabelGeometry

    BoxTaken = Callable[[LayerRecording, tuple[int, ...], tuple[slice, slice]], None]


BOX_LAYER = "checked boxes"


class BoxDrawer:
    """Lets the user draw a rectangle over labels, and passes on which pixels are in it.

    The rectangle itself is removed: the annotation mask is a layer of its own.

    Parameters
    ----------
    taken
        Called with the recording that it was begun for, the index of the plane and the window
        (rows, columns) of each rectangle.
    """

    def __init__(self, viewer: Any, taken: BoxTaken) -> None:
        self._viewer, self._taken = viewer, taken
        self.layer: Shapes | None = None
        self._recording: LayerRecording | None = None

    def start(self, recording: LayerRecording) -> None:
        """Add the layer to draw on, and make it the active one."""
        self.stop()
        labels = recording.layer
        layer: Shapes = self._viewer.add_shapes(
            ndim=labels.ndim,
            name=BOX_LAYER,
            edge_color="#2ee6a6",
            face_color="transparent",
            edge_width=2,
            metadata=overlay_metadata(KIND, BOX_LAYER),
            **get_transform(labels),
        )
        self.layer = unwrap(layer)
        self._recording = recording
        self.layer.events.data.connect(self._drawn)
        self._viewer.layers.selection.active = self.layer
        self.layer.mode = "add_rectangle"

    def stop(self) -> None:
        """Remove the layer, if there is one."""
        layer, self.layer, self._recording = self.layer, None, None
        remove_layer(self._viewer, layer)

    def _drawn(self, event: Any) -> None:
        layer, recording = self.layer, self._recording
        if str(event.action) != "added" or layer is None or recording is None:
            return
        corners = np.asarray(layer.data[-1])
        geometry = recording.geometry
        if geometry is not None and (window := _window(corners, geometry)) is not None:
            self._taken(recording, geometry.plane(corners[0]), window)


def _window(corners: np.ndarray, geometry: LabelGeometry) -> tuple[slice, slice] | None:
    """Return the pixels inside a rectangle; None if there are none."""
    order, array_shape = geometry.order[-2:], geometry.stack.labels_shape[-2:]
    spans = []
    for axis, size in zip(order, array_shape, strict=True):
        low, high = corners[:, axis].min(), corners[:, axis].max()
        start, stop = (int(np.clip(np.floor(edge + 0.5), 0, size)) for edge in (low, high))
        spans.append(slice(start, stop))
    rows, columns = spans
    empty = rows.start >= rows.stop or columns.start >= columns.stop
    return None if empty else (rows, columns)


SCRIBBLE_LAYER = "scribbles"
_COLOURS: dict[int | None, Any] = {
    None: (1, 1, 1, 1),
    0: (0, 0, 0, 0),
    BACKGROUND: (0.25, 0.55, 1.0, 1.0),
    OBJECT: (1.0, 0.75, 0.1, 1.0),
}


def get_scribbles(
    viewer: Any, recording: LayerRecording, values: np.ndarray | None = None
) -> Labels:
    """Return the layer of scribbles of a recording; it is added if there is none yet.

    Parameters
    ----------
    values
        Earlier scribbles for a new layer, in the order of its axes.
    """
    if recording.scribbles is not None:
        return recording.scribbles
    labels = recording.layer
    if values is None:
        values = np.zeros(labels.data.shape, np.uint8)
    with_classes = recording.learner.head == "semantic"
    colours = None if with_classes else DirectLabelColormap(color_dict=_COLOURS)
    layer = add_overlay(viewer, labels, values, SCRIBBLE_LAYER, opacity=0.9, colormap=colours)
    layer.brush_size = 4
    recording.record_scribbles(layer)
    return layer


def scribble(viewer: Any, recording: LayerRecording, value: int) -> None:
    """Let the user scribble with a value: activate the layer and its brush."""
    layer = get_scribbles(viewer, recording)
    viewer.layers.selection.active = layer
    layer.selected_label = value
    layer.mode = "paint"
