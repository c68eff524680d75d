"""Which Labels layers of a window are recorded, and to which image and model each belongs.

It hears each layer's paint events and hands them to the `LayerRecording` of that layer.
"""

from __future__ import annotations

import time
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, Signal

from napari_unet.core.annotations.journal import Journal
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.models.folder import read_card
from napari_unet.core.models.store import find_model
from napari_unet.core.volumes.volume_mode import JOINED, ORTHOGONAL
from napari_unet.gui.correct.layer_recording import LayerRecording, Learner
from napari_unet.gui.layers.combos import image_layers, object_layers
from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.image_settings import get_image_settings
from napari_unet.gui.layers.label_geometry import find_label_geometry, fits
from napari_unet.gui.layers.result_info import ResultInfo, find_source_image

if TYPE_CHECKING:
    from napari_unet.core.annotations.journal_reader import JournalReader

CLOSING_S = 5.0
"""How long a window that closes waits for pending edits, which a slow network drive may take."""


class EditTracker(QObject):
    """Records the Labels layers of a window: results, own labels, and what the user chooses.

    Labels of the user's own are recorded where they fit the only image.

    `get_edit_tracker` gives the one of a window; it works from then on, whichever panels are open.
    Emits `changed` with a recording that began, ended, or has a new status. What cannot be saved is
    shown as a notification, too, since no panel may be open.

    Attributes
    ----------
    recordings
        Layers, each with its recording.
    unsaved
        Recordings of removed layers of which not all is on the disk yet.
    model
        Name of the model that learns from labels of unknown origin.
    """

    changed = Signal(object)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.recordings: dict[Labels, LayerRecording] = {}
        self.unsaved: list[LayerRecording] = []
        self.model = ""
        self._images: weakref.WeakKeyDictionary[Labels, Image] = weakref.WeakKeyDictionary()
        self._watched: weakref.WeakSet[Labels] = weakref.WeakSet()
        self._choices: weakref.WeakKeyDictionary[Labels, weakref.WeakSet[Image]]
        self._choices = weakref.WeakKeyDictionary()
        self._added_at: weakref.WeakKeyDictionary[Labels, float] = weakref.WeakKeyDictionary()
        self._reported: weakref.WeakSet[LayerRecording] = weakref.WeakSet()
        self._windows: weakref.WeakSet[QObject] = weakref.WeakSet()
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removing.connect(self._removing)
        viewer.layers.events.removed.connect(self._removed)
        for layer in viewer.layers:
            self._watch_result(layer)
        self._watch_own()

    def watch(self, layer: Labels, image: Image | None = None) -> None:
        """Record a layer from its next edit on.

        Parameters
        ----------
        image
            The image that it belongs to; None: the one that it was made from, or that fits. A
            layer that has a journal stays with the image that this began with.
        """
        recording = self.recordings.get(layer)
        if image is not None and (recording is None or recording.journal is None):
            self._images[layer] = image
            if recording is not None:
                self._find_geometry(recording)
                recording.retry()
        if layer not in self._watched:
            self._watched.add(layer)
            viewer = self._viewer()
            self._choices[layer] = weakref.WeakSet([] if viewer is None else image_layers(viewer))
            layer.events.paint.connect(self._painted)
            layer.events.data.connect(self._replaced)
            layer.events.editable.connect(self._locked)

    def watches(self, layer: Labels) -> bool:
        """Return whether a layer is recorded, or will be from its next edit on."""
        return layer in self._watched

    def was_edited(self, layer: Labels) -> bool:
        """Return whether edits of a layer are recorded, or about to be."""
        recording = self.recordings.get(layer)
        return recording is not None and bool(recording.journal is not None or recording.pending)

    def begin_recording(self, layer: Labels) -> LayerRecording:
        """Return a layer's recording; begin it if there is none, as yet without a journal."""
        self.watch(layer)
        if layer not in self.recordings:
            self._begin(LayerRecording(self._viewer(), layer, Learner()))
        return self.recordings[layer]

    def resume_recording(
        self, layer: Labels, image: Image, journal: JournalReader, remark: str = ""
    ) -> LayerRecording:
        """Begin a layer's recording with the journal that it was restored from.

        The arguments are those of `LayerRecording`.
        """
        self._images[layer] = image
        self.watch(layer)
        about = journal.header
        learner = Learner(about.model, about.model_hash, about.head, about.ndim, about.channel)
        self._begin(LayerRecording(self._viewer(), layer, learner, journal, remark))
        return self.recordings[layer]

    def get_image(self, layer: Labels) -> Image | None:
        """Return the image that a layer belongs to; None if there is none that fits."""
        viewer = self._viewer()
        images = [] if viewer is None else [i for i in viewer.layers if isinstance(i, Image)]
        chosen = self._images.get(layer)
        if chosen in images:
            return chosen
        if ResultInfo.from_layer(layer).image is not None:
            return find_source_image(layer, images)
        known = self._choices.get(layer, ())
        before_others = sorted(images, key=lambda image: image not in known)
        return next((image for image in before_others if fits(image, layer)), None)

    def may_belong(self, layer: Labels, image: Image) -> bool:
        """Return whether labels of the user's own may be of an image that is only looked at.

        Not if it was opened after them, and another one that they fit is open: most images of a
        series have the same size. Once their own is closed, any that fits may be it, opened again.
        """
        recording = self.recordings.get(layer)
        free = recording is None or recording.journal is None
        free = free and ResultInfo.from_layer(layer).image is None and fits(image, layer)
        known = self._choices.get(layer)
        return free and (known is None or image in known or self.get_image(layer) is None)

    def get_result_time(self, image: Image) -> float:
        """Return when the latest result of an image was added (seconds since 1970), or 0."""
        viewer = self._viewer()
        shown = [] if viewer is None else [x for x in viewer.layers if x in self._added_at]
        return max((self._added_at[x] for x in shown if self.get_image(x) == image), default=0.0)

    @property
    def journals(self) -> list[Journal]:
        """The journals that this window writes to."""
        found = [recording.journal for recording in (*self.recordings.values(), *self.unsaved)]
        return [journal for journal in found if isinstance(journal, Journal)]

    def retry(self) -> None:
        """Try again to write what could not be written, of any layer."""
        for recording in [*self.recordings.values(), *self.unsaved]:
            if recording.pending:
                recording.retry()

    def close_with(self, window: QObject) -> None:
        """Close with the main window, and not with a panel, which it outlives."""
        if window not in self._windows:
            self._windows.add(window)
            # Not the bound method, which would not keep the tracker: the viewer may be gone first.
            window.destroyed.connect(lambda *_: self.close())

    def close(self) -> None:
        """End every recording; what is pending is written."""
        for layer in list(self.recordings):
            self._end(layer)
        for recording in list(self.unsaved):
            recording.wait(CLOSING_S)

    def _inserted(self, event: Any) -> None:
        self._watch_result(event.value)
        self._watch_own()
        for recording in self.recordings.values():
            if recording.geometry is None:  # it may have waited for this image
                self._find_geometry(recording)
                recording.retry()

    def _watch_result(self, layer: Any) -> None:
        layer = unwrap(layer)
        if isinstance(layer, Labels) and ResultInfo.from_layer(layer).is_result:
            self._added_at[layer] = time.time()
            self.watch(layer)

    def _watch_own(self) -> None:
        """Record labels of the user's own, too, where there is no doubt which image they are of."""
        viewer = self._viewer()
        images = [] if viewer is None else image_layers(viewer)
        if len(images) != 1:
            return
        for layer in object_layers(viewer):
            if layer not in self._watched and layer.editable and fits(images[0], layer):
                self.watch(layer)

    def _begin(self, recording: LayerRecording) -> None:
        self.recordings[recording.layer] = recording
        self._find_geometry(recording)
        recording.changed.connect(self._changed)
        recording.refused.connect(self._refused)
        recording.begins.connect(self._begins)
        self.changed.emit(recording)

    def _find_geometry(self, recording: LayerRecording) -> None:
        image = self.get_image(recording.layer)
        if recording.journal is None:
            recording.learner = get_learner(recording.layer, self.model, image)
        if recording.journal is not None and recording.geometry is not None:
            return  # a journal stays with the image that it began with
        try:
            recording.geometry = (
                None if image is None else find_label_geometry(image, recording.layer)
            )
        except InputError:
            recording.geometry = None

    def _painted(self, event: Any) -> None:
        self.begin_recording(event.source).record(event.value)

    def _replaced(self, event: Any) -> None:
        """End the recording of a layer that got other data; the same in another type go on."""
        layer = event.source
        recording = self.recordings.get(layer)
        if recording is None or layer.data is recording.data:
            return
        if recording.fits(layer.data):
            recording.renew(layer.data)
        else:
            self._end(layer)

    def _locked(self, event: Any) -> None:
        """End the recording of a layer that Segment is about to write into."""
        if ResultInfo.from_layer(event.source).running:
            self._end(event.source)

    def _removing(self, event: Any) -> None:
        """Let labels whose image is about to be closed be of another one that fits."""
        viewer = self._viewer()
        image = None if viewer is None else unwrap(viewer.layers[event.index])
        if isinstance(image, Image):
            for layer in list(self._choices):
                if self.get_image(layer) is image:
                    del self._choices[layer]

    def _removed(self, event: Any) -> None:
        self._end(event.value)
        for recording in self.recordings.values():
            if recording.scribbles == event.value:
                recording.drop_scribbles()

    def _end(self, layer: Any) -> None:
        recording = self.recordings.pop(layer, None)
        if recording is None:
            return
        self.unsaved.append(recording)
        recording.close()
        self.changed.emit(recording)

    def _changed(self) -> None:
        recording: Any = self.sender()
        if recording in self.unsaved and not recording.pending:
            self.unsaved.remove(recording)
        if recording.failed and recording not in self._reported:
            self._reported.add(recording)
            show_error(f"{recording.layer.name}: {recording.describe()}")
        elif not recording.pending:
            self._reported.discard(recording)
        self.changed.emit(recording)

    def _begins(self) -> None:
        """Begin the journal with the image, the model and the channel that are chosen now."""
        recording: Any = self.sender()
        if self.get_image(recording.layer) is not None:  # else what was known of it is kept
            self._find_geometry(recording)

    def _refused(self, reason: str) -> None:
        recording: Any = self.sender()
        show_error(f"{recording.layer.name}: {reason}")


_trackers: weakref.WeakKeyDictionary[Any, EditTracker] = weakref.WeakKeyDictionary()


def get_edit_tracker(viewer: Any) -> EditTracker:
    """Return the edit tracker of a window; the first call makes it."""
    viewer = unwrap(viewer)
    if viewer not in _trackers:
        _trackers[viewer] = EditTracker(viewer)
    return _trackers[viewer]


def get_learner(layer: Labels, model: str, image: Image | None = None) -> Learner:
    """Return the model that made a layer's labels, or else the one that is to learn from them.

    It learns from the channel that the labels were found in, or else the one chosen for the image.
    """
    provenance = ResultInfo.from_layer(layer).provenance or {}
    name = provenance.get("model", model)
    chosen = {"channel": get_image_settings(image).channel}
    channel = provenance.get("settings", chosen).get("channel")
    found = Learner(name, provenance.get("model_hash", ""), channel=channel)
    if OBJECT_AXES in provenance:
        # Objects that were joined across planes teach the model of planes that found them.
        by_planes = provenance.get("volumes") in (JOINED, ORTHOGONAL)
        found = replace(found, ndim=2 if by_planes else len(provenance[OBJECT_AXES]))
    try:
        card = read_card(find_model(name))
    except UnetError:
        return found
    if found.model_hash in ("", card.hash):
        found = replace(found, model_hash=card.hash, ndim=card.spec.ndim)
    return replace(found, head=card.spec.head)


def uncover(viewer: Any, image: Image) -> None:
    """Show an image without what lies above it: other images, and the objects of others."""
    image.visible = True
    layers = [unwrap(layer) for layer in viewer.layers]
    if viewer.canvas.grid.enabled or image not in layers:
        return
    images, results, tracker = image_layers(viewer), object_layers(viewer), get_edit_tracker(viewer)
    for layer in layers[layers.index(image) + 1 :]:
        of_another = layer in results and tracker.get_image(layer) is not image
        if of_another or layer in images:
            layer.visible = False
