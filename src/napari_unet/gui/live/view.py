"""What is in view of the labels that are corrected, for the model to look at while it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import UnetError
from napari_unet.gui.layers.navigation import SEEN, SLICE, get_visible_region, plan_region
from napari_unet.gui.layers.result_info import ResultInfo
from napari_unet.gui.live.work import ViewedPart
from napari_unet.gui.shared_inputs import quick_settings

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.correct.section import CorrectSection
    from napari_unet.gui.layers.label_geometry import LabelGeometry


LARGEST = 2048
"""Edge length, in y and x, of what is predicted anew: of a larger view its middle, in seconds and
with bounded memory, however far the user has zoomed out of a large image."""


@dataclass(frozen=True)
class PlaceInView:
    """A part of labels that is in view; two are equal if they are the same part.

    Attributes
    ----------
    labels, image, geometry
        The layers, and how the labels lie on the image.
    index, window
        The frame, and the part of it.
    """

    labels: Labels
    image: Image
    geometry: LabelGeometry
    index: Index
    window: Window

    def copy(self, recording: LayerRecording, *, classes: bool) -> ViewedPart:
        """Copy the labels as they are now; to be called in the window's thread.

        Parameters
        ----------
        classes
            The model finds classes, not objects.
        """
        labels, geometry = self.labels, self.geometry
        place: Any = (*self.index, *self.window)
        return ViewedPart(
            geometry.stack,
            self.index,
            self.window,
            np.array(geometry.array(labels.data)[place]),
            recording.journal,
            quick_settings(self.image),
            classes,
            (ResultInfo.from_layer(labels).provenance or {}).get("diameter_px"),
        )


def find_place(viewer: Any, correct: CorrectSection, ndim: int, head: str) -> PlaceInView | None:
    """Return what is in view of the labels that are corrected; None if nothing is.

    Parameters
    ----------
    ndim
        The model's: it looks at planes (2) or volumes (3). Of a volume in a 3D view, a model of
        planes looks at the one that the slider is at.
    head
        The model's: classes are never compared with objects.
    """
    labels, recording = correct.labels.value, correct.recording
    image = None if labels is None else correct.tracker.get_image(labels)
    if image is None or image not in viewer.layers:
        return None
    if recording is None or recording.geometry is None:
        return None
    if (recording.learner.ndim, recording.learner.head) != (ndim, head):
        return None
    geometry = recording.geometry
    try:
        region = get_visible_region(viewer, image, geometry.placement.axes)
        what = SLICE if region.volume and ndim == 2 else SEEN
        frames, window = plan_region(what, region, geometry.stack, ndim, image.name)
        window = window or tuple(slice(0, n) for n in geometry.stack.frame_shape(ndim))
    except UnetError:
        return None  # nothing of the image is in view, or the view is a cut across the stack
    return PlaceInView(labels, image, geometry, frames[0], middle_of(window))


def middle_of(window: Window) -> Window:
    """Return the middle of a window that is larger than `LARGEST` in y or x."""
    planes, plane = window[:-2], window[-2:]
    starts = [part.start + max(0, part.stop - part.start - LARGEST) // 2 for part in plane]
    cut = (
        slice(start, min(part.stop, start + LARGEST))
        for start, part in zip(starts, plane, strict=True)
    )
    return (*planes, *cut)
