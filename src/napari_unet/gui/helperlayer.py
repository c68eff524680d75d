"""Layers that the plugin lays over labels, to show something: no objects to choose or measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.gui.segmenting.result import MARK

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Labels

KIND = "kind"
"""Under `MARK` in the metadata of such a layer: what it shows."""
_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


def is_helper(layer: Any) -> bool:
    """Tell whether a layer shows scribbles, clicks or what is known, and no objects."""
    return KIND in layer.metadata.get(MARK, {})


def place_of(layer: Any) -> dict[str, Any]:
    """Return what says where a layer lies in the world, as arguments of a new one."""
    return {name: getattr(layer, name) for name in _PLACE}


def add_helper(viewer: Any, labels: Labels, values: np.ndarray, name: str, **look: Any) -> Labels:
    """Lay values over labels; return the layer itself, not a plugin's proxy of it.

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
        values, name=name, metadata={MARK: {KIND: name}}, **look, **place_of(labels)
    )
    own: Labels = getattr(layer, "__wrapped__", layer)
    return own
