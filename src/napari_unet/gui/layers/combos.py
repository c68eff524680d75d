"""What layers a panel offers to choose: the user's images and objects, not what the plugin draws.

A plugin's viewer gives proxies of its layers; the layers themselves are offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels

from napari_unet.gui.layers.overlays import is_evaluation_layer, is_overlay
from napari_unet.gui.layers.result_info import RESULT_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

DOUBTS = "doubts"
"""Under `RESULT_KEY` in the metadata of the layer that shows the doubt: the search that made it."""


def image_layers(viewer: Any) -> list[Image]:
    """Return the images, lowest first."""
    return [x for x in _layers(viewer) if isinstance(x, Image) and not is_uncertainty_layer(x)]


def object_layers(viewer: Any) -> list[Labels]:
    """Return the labels that hold objects, lowest first: no hits, no scribbles."""
    labels = [layer for layer in _layers(viewer) if isinstance(layer, Labels)]
    return [layer for layer in labels if not (is_evaluation_layer(layer) or is_overlay(layer))]


def named(layers: Iterable[Any]) -> list[tuple[str, Any]]:
    """Return layers as the choices of a magicgui combo box."""
    return [(layer.name, layer) for layer in layers]


def offer_anew(*boxes: Any) -> None:
    """Let magicgui combo boxes ask for their choices again; what is chosen stays if it is there."""
    for box in boxes:
        chosen = box.value
        box.reset_choices()  # goes by the names, which may have changed
        if chosen in box.choices:
            box.value = chosen


def is_uncertainty_layer(layer: Any) -> bool:
    """Tell whether a layer shows where a model is in doubt, and no image."""
    return DOUBTS in layer.metadata.get(RESULT_KEY, {})


def _layers(viewer: Any) -> list[Any]:
    return [getattr(layer, "__wrapped__", layer) for layer in viewer.layers]
