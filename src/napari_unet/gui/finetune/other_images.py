"""The strip of other images: what a tuned model changes in them, the worst first.

Each image is a job of its own, and waits while another step needs the device: a click or a run
comes in between. Nothing is written, neither into a layer nor into a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QListWidgetItem, QPushButton, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.evaluation.change_preview import CHANGED, GAINED, OLD
from napari_unet.core.evaluation.small_picture import PICTURE
from napari_unet.core.text import pluralise
from napari_unet.gui.correct.image_opener import ImageOpener
from napari_unet.gui.errors import describe_error
from napari_unet.gui.finetune.image_changes import image_changes, list_other_images
from napari_unet.gui.jobs.job import CANCELLED, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.overlay_layer import legend
from napari_unet.gui.remembered import remembered
from napari_unet.gui.shared_inputs import SECTION
from napari_unet.gui.widgets.panel import WrappedLabel, vbox
from napari_unet.gui.widgets.picture_strip import PictureStrip, icon_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unet.core.evaluation.change_preview import ChangePreview
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.gui.batch.file_list import FileRow
    from napari_unet.gui.finetune.image_changes import ModelVersions, OtherImage
    from napari_unet.gui.shared_inputs import InputForm

TICK_MS = 200
"""How often is looked whether the next image can begin."""
MOST = 200
"""So many images are shown at most, the worst."""
_SHOW, _CANCEL = "Show on other images", "Cancel"
_COLOURS = {"old": OLD, "found": GAINED, "changed": CHANGED}
_TIPS = {
    "start": "Run the model as it was and as it is now on a part of each other open image and of "
    "each file of the\nBatch step, and show the place where most changes. Nothing is written.",
    "strip": "The images first where most changes that the new version is not sure of, each where "
    "most changes:\nold outlines in orange, new ones in green (found) and blue (changed), the "
    "others in grey.\nA click opens the image there.",
}


class OtherImages(QWidget):
    """Shows what a model's new version changes in other images.

    Parameters
    ----------
    viewer, inputs
        The window, and the image that is worked on.
    versions
        Returns the two versions to compare; raises a UnetError that says why there are none.

    Attributes
    ----------
    files
        Returns the files of the batch, and how the model is run on them; set by the panel.
    start, status, strip
        The button, how far it is, and the pictures.
    job
        The job of one image; None between two.
    """

    def __init__(
        self, viewer: Any, inputs: InputForm, versions: Callable[[], ModelVersions]
    ) -> None:
        super().__init__()
        self._viewer, self._inputs, self._get_versions = viewer, inputs, versions
        self._jobs = WidgetJobs(self)
        self.files: Callable[[], tuple[Sequence[FileRow], PredictSettings | None]] = _no_files
        self.job: Job | None = None
        self._versions: ModelVersions | None = None
        self._left: list[OtherImage] = []
        self._count, self._failed = 0, dict[str, str]()
        self._shown: list[tuple[OtherImage, ChangePreview]] = []
        self._opener = ImageOpener(viewer, self, self._say)
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self.tick)
        self._build()
        self._show_state()

    def _build(self) -> None:
        self.start, self.status = QPushButton(_SHOW), WrappedLabel()
        self.start.setToolTip(_TIPS["start"])
        self.strip = PictureStrip(PICTURE, _TIPS["strip"])
        vbox(self.start, self.status, self.strip, owner=self)
        self.start.clicked.connect(self._pressed)
        self.strip.itemClicked.connect(self._clicked)

    @property
    def running(self) -> bool:
        """Whether images are looked at."""
        return bool(self._left)

    @property
    def device(self) -> str:
        """Where the models run."""
        return str(remembered(SECTION).get("device", "auto"))

    def run(self) -> None:
        """Look at all other images, one after the other."""
        self.clear()
        try:
            self._versions = self._get_versions()
            files, settings = self.files()
        except UnetError as error:
            self._say(describe_error(error))
            return
        self._left = list_other_images(self._viewer, self._inputs.image.value, files, settings)
        self._count = len(self._left)
        if not self._left:
            self._say("There is no other image: open more, or add files in the step Batch.")
            return
        self._timer.start()
        self.tick()
        self._show_state()

    def cancel(self) -> None:
        """Stop; what is shown stays."""
        left, self._left = len(self._left), []
        if self.job is not None:
            self.job.cancel()
        self._end(f"Cancelled: {left} of {self._count} not looked at." if left else "")

    def clear(self) -> None:
        """Stop, and show nothing any more."""
        self.cancel()
        self._shown, self._failed = [], {}
        self._opener.forget()
        self.strip.clear()
        self._say("")
        self._show_state()

    def tick(self) -> None:
        """Begin the next image if nothing else needs the device, or make room for what does."""
        queue = get_device_queue(self.device)
        if self.job is not None:
            if queue.waiting is not None and queue.waiting is not self.job:
                self.job.cancel()
        elif self._left and queue.running is None and queue.waiting is None:
            self._begin(self._left[0])

    def _begin(self, image: OtherImage) -> None:
        versions = self._versions
        if versions is None:
            return
        self._say(
            f"Looking at {image.name}: {self._count - len(self._left) + 1} of {self._count} …"
        )
        self.job = Job(
            lambda: image_changes(self._viewer, image, versions),
            on_done=lambda found: self._add(image, found),
            on_error=lambda error: self._note_failure(image, error),
            on_end=lambda state: self._image_ended(image, state),
        )
        self._jobs.run_in(get_device_queue(self.device), self.job)

    def _note_failure(self, image: OtherImage, error: Exception) -> None:
        if image in self._left:  # else it was cleared meanwhile
            self._failed[image.name] = describe_error(error)

    def _image_ended(self, image: OtherImage, state: str) -> None:
        self.job = None
        if state != CANCELLED and image in self._left:  # else its turn comes again
            self._left.remove(image)
            if not self._left:
                self._end("")

    def _end(self, remark: str) -> None:
        """Say what came of it, and let go of the models."""
        self._timer.stop()
        self._versions = None
        words = [remark] if remark else []
        if self._shown or self._failed:
            changed = sum(found.changes > 0 for _, found in self._shown)
            words.append(f"Of {pluralise(len(self._shown), 'image')}, {changed} would change.")
        for name, reason in list(self._failed.items())[:3]:
            words.append(f"{name}: {reason}")
        self._say(" ".join(words))
        self._show_state()

    def _add(self, image: OtherImage, found: ChangePreview) -> None:
        """Show a picture at its place: the worst come first."""
        if image not in self._left:  # cleared meanwhile
            return
        order = [-other.urgency for _, other in self._shown]
        at = int(np.searchsorted(order, -found.urgency, side="right"))
        self._shown.insert(at, (image, found))
        counts = {"old": found.lost + found.changed, "found": found.gained}
        counts["changed"] = found.changed
        tip = f"{image.name}<br>{legend(_COLOURS, counts)}, {found.same:,} the same" + (
            f"<br>doubt of what changes: {found.doubt:.0%}" if found.changes else ""
        )
        self.strip.add(at, icon_of(found.picture), _caption(image, found), tip)
        if len(self._shown) > MOST:
            self._shown.pop()
            self.strip.takeItem(MOST)
        self._show_state()

    def _pressed(self, *_: Any) -> None:
        if self.running:
            self.cancel()
        else:
            self.run()

    def _clicked(self, item: QListWidgetItem) -> None:
        """Open the image of a picture where it was drawn."""
        image, found = self._shown[self.strip.row(item)]
        layer = image.get_layer(self._viewer)
        if layer is not None:
            self._opener.show(layer, found)
        elif image.file is None:
            self._say(f"{image.name!r} is not open any more.")
        else:
            self._opener.open(image, image.file.source, image.file.target, found)

    def _say(self, text: str) -> None:
        if self.status.text() != text:
            self.status.setText(text)

    def _show_state(self) -> None:
        self.start.setText(_CANCEL if self.running else _SHOW)
        self.strip.setVisible(bool(self._shown))


def _no_files() -> tuple[Sequence[FileRow], PredictSettings | None]:
    return (), None


def _caption(image: OtherImage, found: ChangePreview) -> str:
    many = f"{found.share:.0%} of pixels" if found.what == "pixels" else f"{found.changes:,}"
    return f"{image.name}\n{many} changed" if found.changes else f"{image.name}\nthe same"
