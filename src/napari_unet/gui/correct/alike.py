"""Fix one, fix all alike: the objects that resemble the last corrected ones, and the same edit."""

from __future__ import annotations

import functools
import math
import os
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QSlider, QWidget

from napari_unet.core.alike.group_edits import ACCEPT, RESHAPE
from napari_unet.core.errors import UnetError
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT
from napari_unet.core.progress import Progress
from napari_unet.core.text import pluralise
from napari_unet.gui.correct.alike_edit import AlikeOutcome, edit_alike
from napari_unet.gui.correct.alike_images import (
    MARKED,
    OUT,
    AlikeImages,
    AlikeOutlines,
    objects_clicked,
)
from napari_unet.gui.correct.alike_pictures import AlikePictures
from napari_unet.gui.correct.alike_scope import SCOPES, Files, with_scope
from napari_unet.gui.correct.alike_search import AlikeQuery, find_alike
from napari_unet.gui.correct.edit_tracker import uncover
from napari_unet.gui.correct.file_undo import FileUndo
from napari_unet.gui.correct.image_opener import ImageOpener
from napari_unet.gui.correct.mask_section import tip_button
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.engine import get_features
from napari_unet.gui.jobs.job import CANCELLED, REPLACED, Job, WidgetJobs, get_device_queue
from napari_unet.gui.jobs.job import DONE as DONE_STATE
from napari_unet.gui.layers.combos import image_layers
from napari_unet.gui.layers.file_axes import file_of
from napari_unet.gui.layers.key_bindings import bind_window_key, weak_callback
from napari_unet.gui.layers.navigation import open_stacks, watch_clicks
from napari_unet.gui.remembered import remembered
from napari_unet.gui.shared_inputs import SECTION, quick_settings
from napari_unet.gui.widgets.panel import WrappedLabel, hbox, vbox
from napari_unet.gui.widgets.settings_form import rows_widget

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari.layers import Labels

    from napari_unet.batch.file_job import FileJob
    from napari_unet.core.alike.marked_picture import MarkedPlace
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.gui.correct.alike_search import Alike, SearchedImage
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.gui.shared_inputs import InputForm

KEY = "A"
STEPS = 40
"""The slider goes from minus to plus so many steps; ten are a factor of e in the odds."""
DONE = {
    DELETE: "deleted",
    ACCEPT: "accepted",
    SPLIT: "split",
    MERGE: "merged",
    RESHAPE: "reshaped",
}
"""What was done to the examples, and will be done to those alike."""
_TIPS = {
    "find": "Find the objects that are like those you corrected last, and do the same to all of\n"
    f"them at once (key {KEY}). Corrections of one kind in a row are examples together.",
    "slider": "To the left only what is very much like the examples, to the right more.",
    "scope": "Where to look: in the image that you correct, in all open images, or in these and "
    "in\nthe labels that the Batch step has put into files.",
    "apply": "Do to all outlined objects what you did to the example; one undo takes it back, in\n"
    "each image. Files are edited, too, each as a whole, with an entry in its image's journal.",
    "close": "Change nothing.",
}


class AlikeSection(QWidget):
    """A button that finds objects like the last corrected ones, and edits those that stay marked.

    Parameters
    ----------
    viewer
        The window.
    tracker
        Records the labels.
    inputs
        The image, and the model whose features tell objects apart.
    chosen
        Returns the labels that are corrected, None without any.

    Attributes
    ----------
    alike
        What was found; None before and after.
    images, pictures, outlines
        The list of images that were searched, and what shows the marked objects: in the others,
        and in those that are open.
    undo_button
        Takes back what was done to files.
    files
        Returns the results of the batch, and how the model is run on their images; set by the
        panel.
    """

    def __init__(
        self,
        viewer: Any,
        tracker: EditTracker,
        inputs: InputForm,
        chosen: Callable[[], Labels | None],
    ) -> None:
        super().__init__()
        self._viewer, self._tracker = viewer, tracker
        self._inputs, self._chosen = inputs, chosen
        self._jobs = WidgetJobs(self)
        self.alike: Alike | None = None
        self._job: Job | None = None
        self.outlines = AlikeOutlines(viewer)
        self.files: Files = _no_files
        self._opener = ImageOpener(viewer, self, self._say)
        self._build()
        self._connect()

    def _build(self) -> None:
        self.find_button = tip_button(f"Alike ({KEY})", _TIPS["find"])
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(-STEPS, STEPS)
        self.slider.setToolTip(_TIPS["slider"])
        self.scope: Any = ComboBox(name="scope", choices=list(SCOPES), tooltip=_TIPS["scope"])
        self.images, self.pictures = AlikeImages(), AlikePictures()
        self.apply = tip_button("Apply", _TIPS["apply"])
        self.close_button = tip_button("Close", _TIPS["close"])
        self.status = WrappedLabel()
        self.undo_button = FileUndo(self._viewer, self._tracker, self._say)
        self.found = QWidget()
        vbox(
            self.images,
            self.pictures,
            hbox(QLabel("strict"), self.slider, QLabel("loose")),
            hbox(self.apply, self.close_button, stretch=1),
            owner=self.found,
        )
        self.found.hide()
        vbox(
            self.find_button, rows_widget([("look in", self.scope)], 54, margin=0),
            self.status, self.found,
            self.undo_button,
            margins=(6, 0, 6, 0), owner=self,
        )  # fmt: skip

    def _connect(self) -> None:
        self.find_button.clicked.connect(self.search)
        self.slider.valueChanged.connect(self._show)
        self.apply.clicked.connect(self.apply_all)
        self.close_button.clicked.connect(self.close_found)
        self.images.changed.connect(self._show)
        self.images.wanted.connect(self._look_at)
        self.pictures.wanted.connect(self._look_at)
        bind_window_key(self._viewer, self, KEY, weak_callback(self.search, while_typing=False))
        watch_clicks(self._viewer, self, self._clicked)
        self._viewer.layers.events.removed.connect(self._layer_removed)
        self._viewer.layers.events.inserted.connect(self._files_opened)

    @property
    def least(self) -> float:
        """The score from which on objects are marked, by the slider."""
        return 1 / (1 + math.exp(self.slider.value() / 10))

    @property
    def marked(self) -> list[int]:
        """The places in ``alike.items`` of the objects that are marked."""
        return [] if self.alike is None else self.alike.marked(self.least)

    def search(self, *_: Any) -> None:
        """Find what is like the objects that were corrected last."""
        layer, entry = self._chosen(), self._inputs.entry
        image = None if layer is None else self._tracker.get_image(layer)
        self.close_found()
        if layer is None or image is None or entry is None:
            self._say("Choose an image, labels and a model, and correct an object first.")
            return
        recording = self._tracker.begin_recording(layer)
        device = remembered(SECTION).get("device", "auto")
        settings, kept = quick_settings(image), get_features(image)
        query = AlikeQuery(recording, entry.name, device, settings, kept)
        try:
            query = with_scope(
                query,
                self.scope.value,
                viewer=self._viewer,
                tracker=self._tracker,
                files=self.files,
            )
        except UnetError as error:
            self._say(str(error))
            return
        self._say("Looking for objects alike …")
        self._run(functools.partial(find_alike, query), self._found, device)

    def apply_all(self, *_: Any) -> None:
        """Edit all that are marked, as one step."""
        alike, chosen = self.alike, self.marked
        if alike is None or not chosen or self.job is not None:
            return
        outcome = AlikeOutcome()
        self._run(
            functools.partial(edit_alike, alike, chosen, open_stacks(self._viewer), outcome),
            lambda _: self._edited(alike, outcome),
            alike.query.device,
            outcome,
        )

    def close_found(self, *_: Any) -> None:
        """Forget what was found, and stop what goes on."""
        if self.job is not None:
            self.job.cancel()
        self._job = self.alike = None
        self.outlines.close()
        self.pictures.close_pictures()
        self._opener.forget()
        self.found.hide()
        self._say("")

    @property
    def job(self) -> Job | None:
        """The job that goes on; None without one."""
        return self._job if self._job is not None and self._job.active else None

    def _run(
        self,
        steps: Callable[[], Any],
        done: Callable[[Any], None],
        device: str,
        outcome: AlikeOutcome | None = None,
    ) -> None:
        self._job = job = Job(
            steps,
            on_item=self._progress,
            on_done=done,
            on_error=self._failed,
            on_end=lambda state: self._ended(job, outcome, state),
        )
        self._jobs.run_in(get_device_queue(device), job)

    def _progress(self, item: Progress) -> None:
        if item.total > 1:
            self._say(f"Looking at {item.what}: {item.done} of {item.total} …")

    def _failed(self, error: Exception) -> None:
        if isinstance(error, UnetError):
            self._say(str(error))
        else:
            report_error(error, "looking for objects alike failed", self._say)

    def _found(self, alike: Alike) -> None:
        recording = alike.query.recording
        if recording.layer not in self._viewer.layers:
            return
        self.alike = alike
        cut = alike.first_cut
        self.slider.setValue(round(10 * math.log(1 / cut - 1)))
        self.outlines.open(alike)
        self._viewer.layers.selection.active = recording.layer
        self.images.show_images(alike)
        self.found.show()
        self._show()

    def _edited(self, alike: Alike, outcome: AlikeOutcome) -> None:
        """Record the edits of layers; their labels change as soon as it is on the disk."""
        for image, edit in outcome.edits:
            if not image.is_current():
                outcome.problems.append(f"{image.name}: its labels were changed meanwhile.")
                continue
            if edit.done and image.recording is not None:
                image.recording.change(edit, f"{alike.kind} alike")
            outcome.done += edit.done
            outcome.left_out += edit.left_out
        self.close_found()
        self._say(outcome.describe(DONE[alike.kind], len(alike.images)))

    def _ended(self, job: Job, outcome: AlikeOutcome | None, state: str) -> None:
        """Offer to take back what was done to files, also if it was stopped in between."""
        if state == CANCELLED and job is self._job:  # nobody has closed what was found
            self._say(REPLACED.format("Apply" if outcome else "A"))
        if outcome is None or not outcome.files:  # what was offered before still holds
            return
        if state != DONE_STATE:
            self._say(f"Stopped: {pluralise(len(outcome.files), 'file')} changed already.")
        self.undo_button.offer(outcome.files)

    def _look_at(self, image: SearchedImage, place: MarkedPlace | None = None) -> None:
        """Show an image without what covers it; a file is opened, at a place of it."""
        if image.file is not None:
            if place is None:
                self._say(f"{image.name} is a file: click its picture to open it.")
                return
            self._opener.open(image, image.file.source, image.file.target, place)
            return
        assert image.recording is not None
        layer = image.recording.layer
        shown = self._tracker.get_image(layer)
        if shown is None or layer not in self._viewer.layers:
            return
        if place is None:
            uncover(self._viewer, shown)
        else:
            self._opener.show(shown, place)
        self.outlines.show_only(image)
        layer.visible = True
        self._viewer.layers.selection.active = layer

    def _clicked(self, event: Any) -> None:
        """Take the object under a click out, or in."""
        alike = self.alike
        if alike is None or self.job is not None:
            return
        active = self._viewer.layers.selection.active
        for number, index, label in objects_clicked(alike, active, event):
            if alike.choose(index, label, self.least, number):
                self._show()
                self._rank(alike)
                return

    def _rank(self, alike: Alike) -> None:
        """Rank all objects again, in a thread: seconds, where they are of many images."""
        job = Job(functools.partial(_rank_steps, alike), on_done=self._show)
        self._jobs.run("rank", job)

    def _show(self, *_: Any) -> None:
        """Draw the outlines, and say how many there are."""
        alike = self.alike
        if alike is None:
            return
        marked = self.marked
        codes = dict.fromkeys(alike.negative, OUT) | dict.fromkeys(marked, MARKED)
        self.outlines.draw(alike, codes)
        what, shown = DONE[alike.kind], len(alike.items) - alike.examples
        things = "pairs" if alike.kind == MERGE else "objects"
        places = "" if len(alike.images) == 1 else f" in {len(alike.images)} images"
        words = [
            f"{len(marked)} of {shown} {things}{places} are like the {alike.examples} {what}. "
            "Click on one to take it out or in."
        ]
        left = [
            f"{each.name} is open: Apply leaves it out." for each in alike.images if each.opened
        ]
        self._say(" ".join([*words, *left[:3], *alike.problems[:3]]))
        self.images.show_counts(alike, marked)
        self.pictures.show_marked(alike, alike.marked(self.least, opened=True))
        self.apply.setEnabled(bool(marked))
        self.apply.setText(f"Apply to {len(marked)}")

    def _layer_removed(self, event: Any) -> None:
        alike = self.alike
        if alike is None:
            return
        searched = [each.recording.layer for each in alike.images if each.recording is not None]
        if event.value in (*self.outlines.layers.values(), *searched):
            self.close_found()
        else:
            self._files_opened()

    def _files_opened(self, *_: Any) -> None:
        """Leave files out as long as they are open: their labels in the window may be others."""
        alike = self.alike
        if alike is None or self.job is not None:
            return
        opened = {file_of(image) for image in image_layers(self._viewer)}
        before = [image.opened for image in alike.images]
        for image in alike.images:
            image.opened = image.file is not None and os.path.abspath(image.file.source) in opened
        if before != [image.opened for image in alike.images]:  # else what was said stays
            self._show()

    def _say(self, text: str) -> None:
        if self.status.text() != text:
            self.status.setText(text)


def _rank_steps(alike: Alike) -> Generator[Progress, None, None]:
    yield Progress(0, 0, "ranking")
    alike.rank()


def _no_files() -> tuple[Sequence[FileJob], PredictSettings | None]:
    return (), None
