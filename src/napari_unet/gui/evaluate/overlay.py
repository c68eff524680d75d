"""The layer that shows an evaluation: hits, false and missed objects in three colours.

What matches objects is imported by the function that needs it: its libraries take a quarter of a
second, which the window must not wait for when the panel opens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.gui.layers.overlays import (
    COMPARES,
    get_overlay,
    get_transform,
    legend,
    overlay_colormap,
    overlay_metadata,
    overlay_names,
)

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Labels

    from napari_unet.core.evaluation.metrics import Scores


def show_evaluation(viewer: Any, labels: Labels, truth: Labels, codes: np.ndarray) -> Labels:
    """Show an evaluation in the layer of these two layers, which is made if there is none yet.

    The layer that was active stays it, so that the user can go on to correct it.

    Parameters
    ----------
    labels, truth
        What was compared; the layer lies where `labels` lie.
    codes
        uint8, of the labels' shape, as `match_status.draw_match_status` writes them.
    """
    pair = [str(labels.unique_id), str(truth.unique_id)]
    place = get_transform(labels)
    layer = _find(viewer, pair, codes.shape)
    if layer is not None:
        layer.editable = False  # forgets the history of undone edits, too
        layer.data = codes
        for name, value in place.items():
            setattr(layer, name, value)
        return layer
    from napari_unet.core.evaluation.overlay import COLOURS

    active = viewer.layers.selection.active
    layer = viewer.add_labels(
        codes, name=f"{labels.name} vs {truth.name}", metadata=overlay_metadata(COMPARES, pair),
        colormap=overlay_colormap(COLOURS), opacity=1, features=overlay_names(COLOURS), **place
    )  # fmt: skip
    layer.editable = False
    if active is not None:
        viewer.layers.selection.active = active
    return layer


def evaluation_legend(scores: Scores) -> str:
    """Return how many objects were hit, false and missed, in their colours, as rich text."""
    from napari_unet.core.evaluation.overlay import COLOURS

    counts = {"hit": scores.tp[0], "false": scores.fp[0], "missed": scores.fn[0]}
    return legend(COLOURS, counts)


def _find(viewer: Any, pair: list[str], shape: tuple[int, ...]) -> Labels | None:
    """Find the layer of an earlier evaluation; one that has another shape is removed."""
    for layer in list(viewer.layers):
        if get_overlay(layer, COMPARES) != pair:
            continue
        if layer.data.shape == shape:
            found: Labels = layer
            return found
        viewer.layers.remove(layer)
    return None
