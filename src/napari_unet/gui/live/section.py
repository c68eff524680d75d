"""The section that lets the model learn while the user corrects: when, how far, Keep or Discard."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QPushButton, QWidget

from napari_unet.core.annotations.edits import TAKEN_OVER
from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.models.store import get_free_folder
from napari_unet.core.progress import Progress
from napari_unet.core.text import pluralise
from napari_unet.core.training.run_state import propose_name
from napari_unet.gui.correct.alike_search import journal_state
from napari_unet.gui.errors import describe_error
from napari_unet.gui.finetune.changes import COLOURS, FIELDS
from napari_unet.gui.finetune.form import taken_names
from napari_unet.gui.finetune.image_changes import ModelVersions
from napari_unet.gui.finetune.other_images import OtherImages
from napari_unet.gui.finetune.review import describe_judgement
from napari_unet.gui.jobs.job import CANCELLED, DONE, FAILED, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.navigation import (
    SEEN,
    get_visible_region,
    open_stacks,
    plan_region,
    watch_presses,
)
from napari_unet.gui.layers.overlay_layer import legend, overlay_colormap, overlay_names
from napari_unet.gui.live.provisional import ProvisionalLayer
from napari_unet.gui.live.work import LiveWork, Round, ViewedPart, take_over_steps
from napari_unet.gui.model_events import get_model_events
from napari_unet.gui.remembered import remembered
from napari_unet.gui.shared_inputs import SECTION, quick_settings, use_model
from napari_unet.gui.widgets.panel import CollapsibleSection, WrappedLabel, hbox, vbox

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari.layers import Labels

    from napari_unet.core.alike.group_edits import GroupEdit
    from napari_unet.core.training.model_comparison import ModelComparison
    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.correct.section import CorrectSection
    from napari_unet.gui.shared_inputs import InputForm

TICK_MS = 500
"""How often is looked whether a round of learning can begin."""
QUIET_S = 2.0
"""Nothing is learned until the mouse has not been pressed in the window for so long."""
_HINT = "The model learns from your corrections while you go on; nothing is stored until you keep."
_TIPS = {
    "switch": "Between your corrections the model learns a few steps at a time, and shows what it "
    "would find in view\nnow. What you corrected stays as it is. It rests while you paint or "
    "click, while another step runs,\nand while the computer runs on its battery.",
    "take": "Put what the model finds now into the labels, where you did not correct: one step of "
    "undo. Nothing is\nlearned from it. Objects that the edge of the view cuts stay as they are.",
    "pause": "Stop learning for now; what was learned is kept in the memory.",
    "keep": "Compare it with the model before, as Fine-tune does, and store it unless it is worse.",
    "discard": "Forget what was learned; nothing of it is left, on the disk or in a layer.",
}


class LiveSection(QWidget):
    """Lets the chosen model learn in the background from the corrections.

    Parameters
    ----------
    correct
        The step of corrections: it knows the labels and what is recorded of them.

    Attributes
    ----------
    switch, take, pause, keep, discard
        The switch and the buttons.
    work
        What is being learned; None without anything.
    job
        The round that goes on; None between rounds.
    others
        What was learned, on other images.
    """

    def __init__(self, viewer: Any, inputs: InputForm, correct: CorrectSection) -> None:
        super().__init__()
        self._viewer, self._inputs, self._correct = viewer, inputs, correct
        self._jobs = WidgetJobs(self)
        self.work: LiveWork | None = None
        self.job: Job | None = None
        self._saving = False
        self._down, self._pressed_at = False, 0.0
        self._seen: tuple[LayerRecording, Round] | None = None
        self.shown = ProvisionalLayer(
            viewer, self, "learned", 1.0, colormap=overlay_colormap(COLOURS),
            features=overlay_names(COLOURS),
        )  # fmt: skip
        self._timer = QTimer(self)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self.tick)
        self._build()
        self._connect()
        self._show_state()

    def _build(self) -> None:
        self.switch = QCheckBox("Learn while I correct")
        self.take, self.pause = QPushButton("Take over"), QPushButton("Pause")
        self.pause.setCheckable(True)
        self.keep, self.discard = QPushButton("Keep"), QPushButton("Discard")
        for name, tip in _TIPS.items():
            getattr(self, name).setToolTip(tip)
        self.status = WrappedLabel(_HINT)
        self._buttons = QWidget()
        hbox(self.pause, self.keep, self.discard, stretch=1, owner=self._buttons)
        self.others = OtherImages(self._viewer, self._inputs, self._versions)
        inside = QWidget()
        parts = (self.switch, self.status, self.take, self._buttons, self.others)
        vbox(*parts, margins=(6, 0, 6, 4), owner=inside)
        vbox(CollapsibleSection("Live learning", inside), owner=self)

    def _connect(self) -> None:
        self.switch.toggled.connect(self._switched)
        self.take.clicked.connect(self.take_over)
        self.pause.toggled.connect(self._paused)
        self.keep.clicked.connect(self._keep)
        self.discard.clicked.connect(self.clear)
        self._inputs.model_changed.connect(self._model_changed)
        self._correct.tracker.changed.connect(self._recorded)
        watch_presses(self._viewer, self, self._pressed)

    @property
    def ready(self) -> bool:
        """Whether a round may begin: nobody paints, and nothing else needs the device."""
        queue = get_device_queue(self._device)
        idle = queue.running is None and queue.waiting is None
        wanted = self.switch.isChecked() and not self.pause.isChecked() and not self._saving
        quiet = not self._down and time.monotonic() - self._pressed_at > QUIET_S
        saved = not any(each.pending for each in self._correct.tracker.recordings.values())
        return wanted and idle and quiet and saved and not on_battery()

    def tick(self) -> None:
        """Begin a round if it is time, or end the one that goes on if another job waits."""
        if self.job is not None:
            if get_device_queue(self._device).waiting is not None:
                self.job.cancel()
            return
        if self.switch.isChecked() and on_battery():
            self._say("Resting: the computer runs on its battery.")
        base = self._inputs.model.value
        if base is None or not self.ready:
            return
        if self.work is None:
            self.work = LiveWork(base, self._device)
        if not self.work.rests:
            self._begin(self.work)

    def cancel(self) -> None:
        """Learn no longer; what was learned stays, and can be kept."""
        self.switch.setChecked(False)
        self._cancel_round()
        self.others.cancel()

    def clear(self) -> None:
        """Forget what was learned."""
        self._cancel_round()
        self.work = None
        self.others.clear()
        self._hide()
        self._say(_HINT)
        self._show_state()

    def take_over(self) -> None:
        """Put what would change in view into the labels, as one correction; in a job."""
        if self._seen is None:
            return
        recording, found = self._seen
        if found.view is None or found.found is None:
            return
        if self._correct.tracker.recordings.get(recording.layer) is not recording:
            self._hide()  # the labels are gone, or Segment writes into them
            return
        steps = functools.partial(take_over_steps, recording, found.view, found.found)
        self._cancel_round()
        self.take.setEnabled(False)
        job = Job(
            steps,
            on_done=lambda result: self._taken_over(recording, *result),
            on_error=lambda error: self._say(describe_error(error)),
            on_end=lambda _: self._show_state(),
        )
        self._jobs.run("take over", job)

    def _taken_over(
        self, recording: LayerRecording, edit: GroupEdit, state: tuple[int, ...]
    ) -> None:
        """Record the change; the labels change as soon as it is on the disk."""
        if journal_state(recording) != state:
            self._say("The labels were changed meanwhile; press it again.")
            return
        if edit.done:
            recording.change(edit, TAKEN_OVER)
        what = "pixel" if recording.learner.head == "semantic" else "object"
        self._hide()
        left = f" {edit.left_out} at the edge of the view stay." if edit.left_out else ""
        self._say(f"{pluralise(edit.done, what)} taken over, as one step.{left}")

    def _hide(self) -> None:
        """Show no changes any more."""
        self._seen = None
        self.shown.hide()
        self._show_state()

    @property
    def _device(self) -> str:
        return str(remembered(SECTION).get("device", "auto"))

    def _versions(self) -> ModelVersions:
        """Return the model before and as it has become, to compare them."""
        work = self.work
        if work is None or not work.learned:
            raise InputError("Nothing was learned yet; correct some objects first.")
        return ModelVersions(work.versions)

    def _begin(self, work: LiveWork) -> None:
        try:
            recording, view = self._view()
        except UnetError:  # nothing of the image is in view; there is still something to learn
            recording = view = None
        stacks, touched = open_stacks(self._viewer), self._correct.touched.isChecked()
        self.job = Job(
            lambda: work.round_steps(stacks, view, touched=touched),
            on_item=self._report,
            on_done=lambda found: self._learned(work, recording, found),
            on_error=self._failed,
            on_end=self._ended,
        )
        self._jobs.run_in(get_device_queue(self._device), self.job)

    def _view(self) -> tuple[LayerRecording | None, ViewedPart | None]:
        """Return what is in view of the labels that are corrected, as it is now."""
        labels: Labels | None = self._correct.labels.value
        entry = self._inputs.entry
        if labels is None or entry is None or entry.card is None:
            return None, None
        recording = self._correct.tracker.recordings.get(labels)
        image = self._correct.tracker.get_image(labels)
        if recording is None or recording.geometry is None or image is None:
            return None, None
        geometry, ndim = recording.geometry, entry.card.spec.ndim
        stack = geometry.stack
        region = get_visible_region(self._viewer, image, geometry.placement.axes)
        frames, window = plan_region(SEEN, region, stack, ndim, image.name)
        window = window or tuple(slice(0, size) for size in stack.frame_shape(ndim))
        values = np.array(geometry.array(labels.data)[(*frames[0], *window)])
        settings, classes = quick_settings(image), entry.card.spec.head == "semantic"
        part = (stack, frames[0], window, values, recording.journal, settings, classes)
        return recording, ViewedPart(*part)

    def _report(self, item: Progress) -> None:
        """Say what goes on, until the first round has something to say."""
        if self.work is not None and not self.work.looked:
            self._say(f"{item.what[:1].upper()}{item.what[1:]} …")

    def _learned(self, work: LiveWork, recording: LayerRecording | None, found: Round) -> None:
        if work is not self.work:
            return
        work.looked = True
        words = [f"{pluralise(found.objects, 'correction')} learned"]
        changes = found.changes
        if changes is not None:
            counts = {kind: getattr(changes, field) for kind, field in FIELDS.items()}
            total = sum(counts.values())
            words.append(f"{pluralise(total, changes.what[:-1])} would change here")
            if total:
                words.append(legend(COLOURS, counts))
        self._say(", ".join(words[:2]) + ". " + " ".join(words[2:]))
        self._seen = None
        if recording is None or found.view is None or changes is None:
            return
        image = self._correct.tracker.get_image(recording.layer)
        if image is not None and recording.geometry is not None:
            self._seen = recording, found
            part = (found.view.index, found.view.window, changes.codes)
            self.shown.show(image, recording.geometry.placement, *part)

    def _failed(self, error: Exception) -> None:
        self._say(describe_error(error))
        if not isinstance(error, InputError):  # without corrections it waits for some
            self.switch.setChecked(False)

    def _ended(self, state: str) -> None:
        self.job = None
        if state == FAILED and self.work is not None:
            self.work.waiting = False  # until the next correction
        self._show_state()

    def _recorded(self, recording: LayerRecording) -> None:
        if self.work is not None and not recording.pending:
            self.work.waiting = True

    def _pressed(self, down: bool) -> None:
        """Take in that a mouse button was pressed or released: the user works."""
        self._down, self._pressed_at = down, time.monotonic()
        self._cancel_round()

    def _cancel_round(self) -> None:
        """End the round that goes on, after the step under way; what was learned stays."""
        if self.job is not None:
            self.job.cancel()

    def _switched(self, wanted: bool) -> None:
        if wanted:
            self._timer.start()
        else:
            self._timer.stop()
            self._cancel_round()
        self._show_state()

    def _paused(self, _: bool) -> None:
        self._cancel_round()
        self._show_state()

    def _model_changed(self) -> None:
        if self.work is not None and self.work.base != self._inputs.model.value:
            self.clear()

    def _keep(self) -> None:
        """Compare and store, in a job; it is worse, or it becomes a version."""
        work = self.work
        if work is None or self._saving:
            return
        self._cancel_round()
        self._saving = True
        name = propose_name(work.base, taken_names())
        self._say("Comparing it with the model before …")
        self._show_state()
        job = Job(
            lambda: _keep_steps(work, name),
            on_done=lambda judgement: self._kept(work, name, judgement),
            on_error=lambda error: self._say(describe_error(error)),
            on_end=self._saved,
        )
        self._jobs.run_in(get_device_queue(self._device), job)

    def _kept(self, work: LiveWork, name: str, judgement: ModelComparison | None) -> None:
        if judgement is None:
            return
        text = describe_judgement(judgement, DONE, work.base)
        if not judgement.keep:
            self._say(text)
            return
        self.clear()
        get_model_events().changed.emit()
        use_model(name)
        self._say(f"{text} Kept as {name!r}, and chosen from now on.")

    def _saved(self, state: str) -> None:
        self._saving = False
        if state == CANCELLED:
            self._say("Not stored: another step came first. Press Keep again.")
        self._show_state()

    def _say(self, text: str) -> None:
        if self.status.text() != text:
            self.status.setText(text)

    def _show_state(self) -> None:
        learned = self.work is not None and self.work.learned
        changes = None if self._seen is None else self._seen[1].changes
        self.take.setVisible(changes is not None and not changes.none)
        self.take.setEnabled(True)
        self._buttons.setVisible(self.switch.isChecked() or learned)
        self.others.setVisible(learned)
        self.keep.setEnabled(learned and not self._saving)
        self.discard.setEnabled(learned and not self._saving)
        self.pause.setText("Go on" if self.pause.isChecked() else "Pause")


def on_battery() -> bool:
    """Return whether the computer runs on its battery, as far as that can be known."""
    find = getattr(psutil, "sensors_battery", None)  # not there on every system
    state = None if find is None else find()
    return state is not None and state.power_plugged is False


def _keep_steps(work: LiveWork, name: str) -> Generator[Progress, None, ModelComparison | None]:
    """Judge, and store unless it is worse; in the job's thread."""
    yield Progress(0, 0, "comparing")
    get_free_folder(name)
    judgement = yield from work.conclude()
    if judgement is not None and judgement.keep:
        work.save(name)
    return judgement
