"""The layer of scribbles: a few strokes that say "object" or "background", without outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_unet.gui.helperlayer import add_helper

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_unet.gui.corrections.recording import Recording

NAME = "scribbles"
BACKGROUND, OBJECT = 1, 2
"""Values of scribbles, as the journal has them: 1 + the class."""
_COLOURS: dict[int | None, Any] = {
    None: (1, 1, 1, 1),
    0: (0, 0, 0, 0),
    BACKGROUND: (0.25, 0.55, 1.0, 1.0),
    OBJECT: (1.0, 0.75, 0.1, 1.0),
}


def scribbles_of(viewer: Any, recording: Recording, values: np.ndarray | None = None) -> Labels:
    """Return the layer of scribbles of some labels; it is made if there is none yet.

    Parameters
    ----------
    values
        What was scribbled before, in the axes of the layer; with the new layer only.
    """
    if recording.scribbles is not None:
        return recording.scribbles
    labels = recording.layer
    if values is None:
        values = np.zeros(labels.data.shape, np.uint8)
    with_classes = recording.learner.head == "semantic"
    colours = None if with_classes else DirectLabelColormap(color_dict=_COLOURS)
    layer = add_helper(viewer, labels, values, NAME, opacity=0.9, colormap=colours)
    layer.brush_size = 4
    recording.scribble_on(layer)
    return layer


def scribble(viewer: Any, recording: Recording, value: int) -> None:
    """Let the user scribble with a value: the layer is chosen, and its brush."""
    layer = scribbles_of(viewer, recording)
    viewer.layers.selection.active = layer
    layer.selected_label = value
    layer.mode = "paint"
