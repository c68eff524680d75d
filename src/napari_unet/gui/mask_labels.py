"""Labels layers that look like masks: the user is told, and offered their pieces as objects."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import Notification, notification_manager
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_unet.core.progress import Progress
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.layers.convert import full_resolution, layer_axes
from napari_unet.gui.layers.overlay_layer import get_transform
from napari_unet.gui.layers.result_info import ResultInfo

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Labels

PIECES = "Make each piece an object"
"""The button below the notification."""
SETTLED_MS = 300
"""When the window that shows it has been laid out: napari does not move it, and cuts it off."""


def doubt_labels(values: np.ndarray, axes: str, ndim: int) -> str:
    """Say why the values of a layer look as if they were no objects; "" if they do not.

    Parameters
    ----------
    values, axes, ndim
        As for `core.labels.object_check.doubt_objects`; values below 0 are background. Large
        labels are not judged.
    """
    from napari_unet.core.labels.label_file import JUDGED
    from napari_unet.core.labels.object_check import doubt_objects

    if math.prod(values.shape) > JUDGED or values.dtype.kind not in "biu":
        return ""
    whole = values.view(np.uint8) if values.dtype.kind == "b" else np.maximum(values, 0)
    return doubt_objects(whole, axes, ndim)


def offer_pieces(viewer: Any, layer: Labels, doubt: str, ndim: int = 3) -> None:
    """Tell what is doubtful about a layer, with a button that makes its pieces objects.

    Parameters
    ----------
    doubt
        What `doubt_labels` returned.
    ndim
        Whether pieces end with their plane (2) or go through z (3).
    """
    show = functools.partial(show_pieces, viewer, layer, ndim)
    note = Notification(
        f"{layer.name}: {doubt}.", "warning", actions=((PIECES, lambda *_: show()),)
    )
    QTimer.singleShot(SETTLED_MS, functools.partial(notification_manager.dispatch, note))


def show_pieces(viewer: Any, layer: Labels, ndim: int = 3) -> None:
    """Add the connected pieces of a layer, as objects, in a layer of their own above it."""
    values, axes = full_resolution(layer), layer_axes(layer)

    def begin() -> Generator[Progress, None, np.ndarray]:
        from napari_unet.core.labels.object_check import connected_components

        yield Progress(0, 0, "separating the pieces")
        return connected_components(np.maximum(np.asarray(values), 0), axes, ndim)

    def show(pieces: np.ndarray) -> None:
        # The image that they belong to, but no run: these labels are the user's.
        info = replace(ResultInfo(), image=ResultInfo.from_layer(layer).image)
        name, place = f"{layer.name} pieces", get_transform(layer)
        viewer.add_labels(pieces, name=name, metadata=info.to_metadata(), **place)
        layer.visible = False

    report = functools.partial(report_error, what="the pieces could not be separated", show=str)
    _get_jobs().run("pieces", Job(begin, on_done=show, on_error=report))


@functools.cache
def _get_jobs() -> WidgetJobs:
    """Return the jobs that separate pieces, in a queue of their own: no run holds them up."""
    app = QApplication.instance()
    assert app is not None
    return WidgetJobs(app)
