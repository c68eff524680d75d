"""Where objects alike are looked for: the slice or stack, open images, files of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import InputError
from napari_unet.gui.correct.alike_search import OpenLabels
from napari_unet.gui.correct.mask_section import plane_in_view, slice_problem
from napari_unet.gui.layers.combos import object_layers
from napari_unet.gui.layers.navigation import SLICE, WHOLE, open_stacks
from napari_unet.gui.shared_inputs import quick_settings

if TYPE_CHECKING:
    from napari_unet.batch.file_job import FileJob
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.gui.correct.alike_search import AlikeQuery
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.gui.correct.layer_recording import LayerRecording

OPEN, FILES = "open images", "batch files"
"""More places to look in than the image that was corrected: all that are open; files, too."""
SCOPES = (SLICE, WHOLE, OPEN, FILES)

Files = Callable[[], "tuple[Sequence[FileJob], PredictSettings | None]"]
"""Returns the results of the batch, and how the model is run on their images."""


def with_scope(
    query: AlikeQuery, scope: str, *, viewer: Any, tracker: EditTracker, files: Files
) -> AlikeQuery:
    """Return a query that looks where the user wishes.

    Raises
    ------
    UnetError
        No slice is in view, or the settings of the batch cannot be used.
    """
    recording = query.recording
    if scope == SLICE and recording.geometry is not None:
        if recording.learner.ndim == 2 and (problem := slice_problem(viewer, recording)):
            raise InputError(problem)
        leading = len(recording.geometry.stack.labels_shape) - recording.learner.ndim
        return replace(query, frames=(plane_in_view(viewer, recording)[:leading],))
    if scope in (OPEN, FILES):
        query = replace(query, others=list_open_labels(viewer, tracker, recording))
    if scope == FILES:
        found, settings = files()
        opened = tuple(open_stacks(viewer))
        query = replace(query, files=tuple(found), file_settings=settings, opened=opened)
    return query


def list_open_labels(
    viewer: Any, tracker: EditTracker, recording: LayerRecording
) -> tuple[OpenLabels, ...]:
    """Return the latest labels of each other open image, of the kind that was corrected."""
    own = {tracker.get_image(recording.layer)}
    found = []
    for layer in reversed(object_layers(viewer)):
        image = tracker.get_image(layer) if tracker.watches(layer) else None
        if image is None or image in own or not layer.editable:
            continue
        own.add(image)
        other, about = tracker.begin_recording(layer), recording.learner
        alike = (other.learner.ndim, other.learner.head) == (about.ndim, about.head)
        if alike and not other.read_only:
            found.append(OpenLabels(other, quick_settings(image)))
    return tuple(found)
