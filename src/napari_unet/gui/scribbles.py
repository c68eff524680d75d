"""The layer of scribbles: a few strokes that say "object" or "background", without outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_unet.gui.result import MARK

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_unet.gui.recording import Recording

NAME = "scribbles"
KIND = "kind"
"""Under `MARK` in the metadata of the layers that help to correct: what they show."""
BACKGROUND, OBJECT = 1, 2
"""Values of scribbles, as the journal has them: 1 + the class."""
_COLOURS: dict[int | None, Any] = {
    None: (1, 1, 1, 1),
    0: (0, 0, 0, 0),
    BACKGROUND: (0.25, 0.55, 1.0, 1.0),
    OBJECT: (1.0, 0.75, 0.1, 1.0),
}
PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
"""What says where a layer lies in the world."""


def is_helper(layer: Any) -> bool:
    """Tell whether a layer shows scribbles or what is known, and no objects."""
    return KIND in layer.metadata.get(MARK, {})


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
    layer: Labels = viewer.add_labels(
        values,
        name=NAME,
        opacity=0.9,
        metadata={MARK: {KIND: NAME}},
        colormap=None if with_classes else DirectLabelColormap(color_dict=_COLOURS),
        **{name: getattr(labels, name) for name in PLACE},
    )
    layer = getattr(layer, "__wrapped__", layer)
    layer.brush_size = 4
    recording.scribble_on(layer)
    return layer


def scribble(viewer: Any, recording: Recording, value: int) -> None:
    """Let the user scribble with a value: the layer is chosen, and its brush."""
    layer = scribbles_of(viewer, recording)
    viewer.layers.selection.active = layer
    layer.selected_label = value
    layer.mode = "paint"
