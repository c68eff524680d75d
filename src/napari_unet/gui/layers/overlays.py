"""Layers that the plugin lays over labels, to show something: no objects to choose or measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.gui.layers.result_info import RESULT_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from napari.layers import Labels


KIND = "kind"
"""Under `RESULT_KEY` in the metadata of such a layer: what it shows."""
_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


COMPARES = "compares"
"""An evaluation: the ids of the two layers that it compares."""


def is_evaluation_layer(layer: Any) -> bool:
    """Tell whether a layer shows an evaluation, and no objects."""
    return COMPARES in layer.metadata.get(RESULT_KEY, {})


def is_overlay(layer: Any) -> bool:
    """Tell whether a layer shows scribbles, clicks or what is known, and no objects."""
    return KIND in layer.metadata.get(RESULT_KEY, {})


def place_of(layer: Any) -> dict[str, Any]:
    """Return what says where a layer lies in the world, as arguments of a new one."""
    return {name: getattr(layer, name) for name in _PLACE}


def add_overlay(viewer: Any, labels: Labels, values: np.ndarray, name: str, **look: Any) -> Labels:
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
        values, name=name, metadata={RESULT_KEY: {KIND: name}}, **look, **place_of(labels)
    )
    own: Labels = getattr(layer, "__wrapped__", layer)
    return own


_INSIDE = 0.3  # opacity: the image below and the rims of other objects can be seen


def overlay_colormap(colours: Mapping[str, tuple[int, int, int]]) -> Any:
    """Return the colormap of what `draw_match_status` draws; the kinds in the same order."""
    from napari.utils.colormaps import DirectLabelColormap

    from napari_unet.core.evaluation.match_status import inside_code, outline_code

    kinds = list(colours)
    table: dict[int | None, tuple[float, ...]] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
    for kind, colour in colours.items():
        rgb = tuple(value / 255 for value in colour)
        table[outline_code(kind, kinds)] = (*rgb, 1)
        table[inside_code(kind, kinds)] = (*rgb, _INSIDE)
    return DirectLabelColormap(color_dict=table)


def overlay_names(colours: Mapping[str, tuple[int, int, int]]) -> dict[str, list[Any]]:
    """Name the codes, for the status bar."""
    from napari_unet.core.evaluation.match_status import inside_code, outline_code

    kinds = list(colours)
    names = {code(kind, kinds): kind for code in (outline_code, inside_code) for kind in kinds}
    return {"index": list(names), "object": list(names.values())}


def legend(colours: Mapping[str, tuple[int, int, int]], counts: Mapping[str, int]) -> str:
    """Return how many there are of each kind, in their colours, as rich text."""
    return " &nbsp; ".join(
        f'<span style="color: rgb{colours[kind]}">■</span> {count:,} {kind}'
        for kind, count in counts.items()
    )
