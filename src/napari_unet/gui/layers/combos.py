"""The layers that combo boxes offer: the user's images and objects, not the plugin's overlays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels

from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.overlay_layer import is_overlay, is_uncertainty_layer

if TYPE_CHECKING:
    from collections.abc import Iterable


def image_layers(viewer: Any) -> list[Image]:
    """Return the images, lowest first."""
    layers = map(unwrap, viewer.layers)
    return [x for x in layers if isinstance(x, Image) and not is_uncertainty_layer(x)]


def object_layers(viewer: Any) -> list[Labels]:
    """Return the labels that hold objects, lowest first: no evaluation, no scribbles."""
    layers = map(unwrap, viewer.layers)
    return [x for x in layers if isinstance(x, Labels) and not is_overlay(x)]


def as_choices(layers: Iterable[Any]) -> list[tuple[str, Any]]:
    """Return layers as the choices of a magicgui combo box."""
    return [(layer.name, layer) for layer in layers]


def refresh_choices(*boxes: Any) -> None:
    """Update the choices of magicgui combo boxes; what is chosen stays if it is there."""
    for box in boxes:
        chosen = box.value
        box.reset_choices()  # magicgui keeps the choice by its name, which may have changed
        if chosen in box.choices:
            box.value = chosen
