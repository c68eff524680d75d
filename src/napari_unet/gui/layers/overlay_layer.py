"""Layers that show something over an image or labels, and hold no objects to choose or measure.

What one shows stands in its metadata, under `RESULT_KEY`, by one of the keys below.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from napari_unet.core.garbage import old_objects_spared
from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.result_info import RESULT_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from napari.layers import Labels

KIND = "kind"
"""Scribbles, clicks, boxes, the annotation mask: its name."""
COMPARES = "compares"
"""An evaluation: the ids of the two layers that it compares."""
SHOWS = "changes"
"""What fine-tuning changed: the names of the two models."""
DOUBTS = "doubts"
"""The model's uncertainty, an image: the search that it belongs to."""

_TRANSFORM = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
_INSIDE_OPACITY = 0.3  # the image below and the outlines of other objects can be seen


def overlay_metadata(key: str, value: object) -> dict[str, Any]:
    """Return the `metadata` of a new overlay layer."""
    return {RESULT_KEY: {key: value}}


def get_overlay(layer: Any, key: str) -> Any:
    """Return what an overlay layer shows; None if it is not one of these."""
    return layer.metadata.get(RESULT_KEY, {}).get(key)


def is_overlay(layer: Any) -> bool:
    """Return whether a Labels layer shows an evaluation, changes or scribbles, and no objects."""
    return any(get_overlay(layer, key) is not None for key in (KIND, COMPARES, SHOWS))


def is_uncertainty_layer(layer: Any) -> bool:
    """Return whether a layer shows where a model is uncertain, and no image."""
    return get_overlay(layer, DOUBTS) is not None


def get_transform(layer: Any) -> dict[str, Any]:
    """Return a layer's scale, translation and so on, as arguments of a new layer."""
    return {name: getattr(layer, name) for name in _TRANSFORM}


def add_overlay(viewer: Any, labels: Labels, values: np.ndarray, name: str, **look: Any) -> Labels:
    """Add a layer over labels.

    Parameters
    ----------
    values
        uint8, of the labels' shape.
    name
        The layer's name, and its kind.
    look
        Other arguments of the layer: opacity, colormap.
    """
    layer = viewer.add_labels(
        values, name=name, metadata=overlay_metadata(KIND, name), **look, **get_transform(labels)
    )
    own: Labels = unwrap(layer)
    return own


def add_drawing(
    viewer: Any, labels: Labels, name: str, colours: Mapping[int, Any], opacity: float = 1.0
) -> Labels:
    """Add an empty layer over labels that is drawn into, by code; the active layer stays so.

    Parameters
    ----------
    name
        The layer's name, and its kind.
    colours
        By the values that will be drawn.
    """
    import numpy as np
    from napari.utils.colormaps import DirectLabelColormap

    active = viewer.layers.selection.active
    empty = np.zeros(labels.data.shape, np.uint8)  # memory is taken page by page
    table: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    table.update(colours.items())
    colormap = DirectLabelColormap(color_dict=table)
    layer = add_overlay(viewer, labels, empty, name, opacity=opacity, colormap=colormap)
    layer.editable = False
    if active is not None:
        viewer.layers.selection.active = active
    return layer


def remove_layer(viewer: Any, layer: Any) -> None:
    """Remove a layer, if there is one and it is still there, without a pause.

    napari collects garbage on each removal, which takes 0.2 to 0.4 s where torch is loaded; it has
    to, before it draws again, with some OpenGL drivers of Windows. Elsewhere what there is by now
    is kept out of that collection, and left to a later one.
    """
    if layer not in viewer.layers:
        return
    with nullcontext() if sys.platform == "win32" else old_objects_spared():
        viewer.layers.remove(layer)


def overlay_colormap(colours: Mapping[str, tuple[int, int, int]]) -> Any:
    """Return the colormap of what `draw_match_status` draws; the kinds in the same order."""
    from napari.utils.colormaps import DirectLabelColormap

    from napari_unet.core.evaluation.comparison import inside_code, outline_code

    kinds = list(colours)
    table: dict[int | None, tuple[float, ...]] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    for kind, colour in colours.items():
        rgb = tuple(value / 255 for value in colour)
        table[outline_code(kind, kinds)] = (*rgb, 1)
        table[inside_code(kind, kinds)] = (*rgb, _INSIDE_OPACITY)
    return DirectLabelColormap(color_dict=table)


def overlay_names(colours: Mapping[str, tuple[int, int, int]]) -> dict[str, list[Any]]:
    """Return the layer's `features`: napari shows in the status bar what each code means.

    Set them when the layer is added and another one is active again: of the active layer napari
    looks up what is under the mouse, and fails in a 3D view over which the mouse has not moved yet.
    """
    from napari_unet.core.evaluation.comparison import inside_code, outline_code

    kinds = list(colours)
    names = {code(kind, kinds): kind for code in (outline_code, inside_code) for kind in kinds}
    return {"index": list(names), "object": list(names.values())}


def legend(colours: Mapping[str, tuple[int, int, int]], counts: Mapping[str, int]) -> str:
    """Return how many there are of each kind, in their colours, as rich text."""
    return " &nbsp; ".join(
        f'<span style="color: rgb{colours[kind]}">■</span> {count:,} {kind}'
        for kind, count in counts.items()
    )
