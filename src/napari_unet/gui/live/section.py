"""The section that lets the model learn while the user corrects: when, how far, Keep or Discard."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_unet.core.annotations.edits import TAKEN_OVER
from napari_unet.core.errors import InputError
from napari_unet.core.text import pluralise
from napari_unet.core.training.run_state import propose_name
from napari_unet.gui.correct.alike_search import journal_state
from napari_unet.gui.errors import describe_error
from napari_unet.gui.finetune.changes import COLOURS
from napari_unet.gui.finetune.form import taken_names
from napari_unet.gui.finetune.image_changes import ModelVersions
from napari_unet.gui.finetune.other_images import OtherImages
from napari_unet.gui.finetune.review import describe_judgement
from napari_unet.gui.jobs.job import CANCELLED, DONE, FAILED, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.navigation import open_stacks
from napari_unet.gui.layers.overlay_layer import overlay_colormap, overlay_names
from napari_unet.gui.live.activity import UserActivity, on_battery
from napari_unet.gui.live.footer import LiveFooter, describe_round
from napari_unet.gui.live.provisional import ProvisionalLayer
from napari_unet.gui.live.view import PlaceInView, find_place
from napari_unet.gui.live.work import LiveWork, Round, take_over_steps
from napari_unet.gui.model_events import get_model_events
from napari_unet.gui.remembered import remembered
from napari_unet.gui.shared_inputs import SECTION, use_model
from napari_unet.gui.widgets.panel import CollapsibleSection, WrappedLabel, vbox

if TYPE_CHECKING:
    from napari_unet.core.alike.group_edits import GroupEdit
    from napari_unet.core.progress import Progress
    from napari_unet.core.training.model_comparison import ModelComparison
    from napari_unet.gui.correct.layer_recording import LayerRecording
    from napari_unet.gui.correct.section import CorrectSection
    from napari_unet.gui.shared_inputs import InputForm

TICK_MS = 500
"""How often is looked whether a round of learning can begin."""
MOST_MODELS = 3
"""What so many models have learned is kept in the memory, when others are chosen."""
_HINT = "The model learns from your corrections while you go on; nothing is stored until you keep."
_WAITS = "Correct an object: the model learns it when you pause."
_TIP = (
    "Between your corrections the model learns a few steps at a time, and shows what it would find "
    "in view\nnow. What you corrected stays as it is. It rests while you paint or click, while "
    "another step runs,\nand while the computer runs on its battery."
)


class LiveSection(QWidget):
    """Lets the chosen model learn in the background from the corrections.

    Parameters
    ----------
    correct
        The step of corrections: it knows the labels and what is recorded of them.

    Attributes
    ----------
    switch
        Whether it learns.
    footer
        What is learned, in a line, and the buttons, which are this section's attributes, too.
    job
        The round that goes on; None between rounds.
    others
        What was learned, on other images.
    """

    def __init__(self, viewer: Any, inputs: InputForm, correct: CorrectSection) -> None:
        super().__init__()
        self._viewer, self._inputs, self._correct = viewer, inputs, correct
        self._jobs = WidgetJobs(self)
        self._works: dict[str, LiveWork] = {}
        self.job: Job | None = None
        self._saving = False
        self._activity = UserActivity(viewer, self, self._cancel_round)
        self._chosen = inputs.model.value
        self._place: PlaceInView | None = None
        self._looked_at: PlaceInView | None = None
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
        self.switch.setToolTip(_TIP)
        self.others = OtherImages(self._viewer, self._inputs, self._versions)
        inside = QWidget()
        parts = (self.switch, WrappedLabel(_HINT), self.others)
        vbox(*parts, margins=(6, 0, 6, 4), owner=inside)
        vbox(CollapsibleSection("Live learning", inside), owner=self)
        footer = self.footer = LiveFooter()
        self.status, self.take, self.pause = footer.status, footer.take, footer.pause
        self.keep, self.discard = footer.keep, footer.discard

    def _connect(self) -> None:
        self.switch.toggled.connect(self._switched)
        self.take.clicked.connect(self.take_over)
        self.pause.toggled.connect(self._paused)
        self.keep.clicked.connect(self._keep)
        self.discard.clicked.connect(self._discard)
        self._inputs.model_changed.connect(self._model_changed)
        self._correct.tracker.changed.connect(self._recorded)

    @property
    def work(self) -> LiveWork | None:
        """What the chosen model learns; None without anything."""
        return self._works.get(self._inputs.model.value or "")

    @property
    def ready(self) -> bool:
        """Whether a round may begin: nobody paints, and nothing else needs the device."""
        queue = get_device_queue(self._device)
        idle = queue.running is None and queue.waiting is None
        wanted = self.switch.isChecked() and not self.pause.isChecked() and not self._saving
        saved = not any(each.pending for each in self._correct.tracker.recordings.values())
        return wanted and idle and self._activity.quiet and saved and not on_battery()

    def tick(self) -> None:
        """Begin a round if it is time, or end the one that goes on if another job waits."""
        if self.job is not None:
            if get_device_queue(self._device).waiting is not None:
                self.job.cancel()
            return
        if on_battery():
            self.footer.say("Resting: the computer runs on its battery.")
        base = self._inputs.model.value
        if base is None or not self.ready:
            return
        work = self._works.setdefault(base, LiveWork(base, self._device))
        place = self._find_place()
        still, self._place = place == self._place, place
        unseen = place is not None and place != self._looked_at
        if not work.rests or (work.learned and still and unseen):
            self._begin(work)

    def cancel(self) -> None:
        """Learn no longer; what was learned stays, and can be kept."""
        self.switch.setChecked(False)
        self._cancel_round()
        self.others.cancel()

    def user_works(self) -> None:
        """Take in that the user does something that learning must not be in the way of."""
        self._activity.note()

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
        if self._correct.labels.value is not recording.layer:
            self._hide()
            self.footer.say(f"That was of {recording.layer.name!r}: choose these labels again.")
            return
        steps = functools.partial(take_over_steps, recording, found.view, found.found)
        self._cancel_round()
        self.take.setEnabled(False)
        job = Job(
            steps,
            on_done=lambda result: self._taken_over(recording, *result),
            on_error=lambda error: self.footer.say(describe_error(error)),
            on_end=lambda _: self._show_state(),
        )
        self._jobs.run("take over", job)

    def _taken_over(
        self, recording: LayerRecording, edit: GroupEdit, state: tuple[int, ...]
    ) -> None:
        """Record the change; the labels change as soon as it is on the disk."""
        if journal_state(recording) != state:
            self.footer.say("The labels were changed meanwhile; press it again.")
            return
        if edit.done:
            recording.change(edit, TAKEN_OVER)
        what = "pixel" if recording.learner.head == "semantic" else "object"
        self._hide()
        left = f" {edit.left_out} at the edge of the view stay." if edit.left_out else ""
        self.footer.say(f"{pluralise(edit.done, what)} taken over, as one step.{left}")

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
        place, recording, view = self._find_place(), self._correct.recording, None
        if place is not None and recording is not None:
            card = self._inputs.card()
            view = place.copy(recording, classes=card.spec.head == "semantic")
        else:  # what is shown was of something else; there may still be something to learn
            self._hide()
        stacks, touched = open_stacks(self._viewer), self._correct.touched.isChecked()
        self.job = Job(
            lambda: work.round_steps(stacks, view, touched=touched),
            on_item=self._report,
            on_done=lambda found: self._learned(work, recording, found, place),
            on_error=lambda error: self._failed(recording, error),
            on_end=lambda state: self._ended(work, state),
        )
        self._jobs.run_in(get_device_queue(self._device), self.job)

    def _find_place(self) -> PlaceInView | None:
        entry = self._inputs.entry
        if entry is None or entry.card is None:
            return None
        spec = entry.card.spec
        return find_place(self._viewer, self._correct, spec.ndim, spec.head)

    def _report(self, item: Progress) -> None:
        """Say what goes on, until the first round has something to say."""
        if self.work is not None and not self.work.looked:
            self.footer.say(f"{item.what[:1].upper()}{item.what[1:]} …")

    def _learned(
        self,
        work: LiveWork,
        recording: LayerRecording | None,
        found: Round,
        place: PlaceInView | None,
    ) -> None:
        if work is not self.work:
            return
        work.looked, self._looked_at = True, place
        self.footer.say(describe_round(found))
        self._seen = None
        if found.changes is None or place is None or recording is None:
            return
        image, labels, placement = place.image, place.labels, place.geometry.placement
        if image in self._viewer.layers and labels in self._viewer.layers:
            self._seen = recording, found
            codes = found.changes.codes
            self.shown.show(image, placement, place.index, place.window, codes, labels)

    def _failed(self, recording: LayerRecording | None, error: Exception) -> None:
        if recording is not None and recording.closed:
            self.footer.say(_WAITS)  # the labels were removed meanwhile, and their journal closed
            return
        if not isinstance(error, InputError):
            self.switch.setChecked(False)
        self.footer.say(describe_error(error))  # without corrections it waits for some

    def _ended(self, work: LiveWork, state: str) -> None:
        self.job = None
        if state == FAILED:
            work.waiting = False  # until the next correction
        self._show_state()

    def _recorded(self, recording: LayerRecording) -> None:
        if self.work is not None and not recording.pending:
            self.work.waiting = True

    def _cancel_round(self) -> None:
        """End the round that goes on, after the step under way; what was learned stays."""
        if self.job is not None:
            self.job.cancel()

    def _switched(self, wanted: bool) -> None:
        if wanted:
            self.footer.say(_WAITS)
            self._timer.start()
        else:
            self._timer.stop()
            self._cancel_round()
        self.pause.setChecked(False)
        self._show_state()

    def _paused(self, _: bool) -> None:
        self._cancel_round()
        self._show_state()

    def _model_changed(self) -> None:
        """Go on with what the chosen model has learned; what the other has learned is kept."""
        work, chosen = self.work, self._inputs.model.value
        if chosen == self._chosen:
            return
        self._chosen = chosen
        self._cancel_round()
        self.others.clear()
        self._hide()
        self._looked_at = None
        others = {name: each for name, each in self._works.items() if each.learned}
        for name in list(others)[:-MOST_MODELS]:
            del others[name]
        self._works = others | ({} if work is None else {work.base: work})
        others.pop(chosen, None)
        kept = [f"What {name!r} learned is there when you choose it again." for name in others]
        self.footer.say(" ".join([_WAITS, *kept]))
        self._show_state()

    def _discard(self) -> None:
        """Forget what the chosen model has learned, and learn no longer."""
        self.switch.setChecked(False)
        self._forget()

    def _forget(self) -> None:
        self._cancel_round()
        self._works.pop(self._inputs.model.value or "", None)
        self.others.clear()
        self._looked_at = None
        self._hide()

    def _keep(self) -> None:
        """Compare and store, in a job; it is worse, or it becomes a version."""
        work = self.work
        if work is None or self._saving:
            return
        self._cancel_round()
        self._saving = True
        name = propose_name(work.base, taken_names())
        self.footer.say("Comparing it with the model before …")
        self._show_state()
        job = Job(
            lambda: work.keep_steps(name),
            on_done=lambda judgement: self._kept(work, name, judgement),
            on_error=lambda error: self.footer.say(describe_error(error)),
            on_end=self._saved,
        )
        self._jobs.run_in(get_device_queue(self._device), job)

    def _kept(self, work: LiveWork, name: str, judgement: ModelComparison | None) -> None:
        if judgement is None:
            return
        text = describe_judgement(judgement, DONE, work.base)
        if not judgement.keep:
            self.footer.say(text)
            return
        self._forget()
        self._works[name] = LiveWork(name, work.device, waiting=False)
        get_model_events().changed.emit()
        use_model(name)
        self.footer.say(f"{text} Kept as {name!r}, and chosen from now on.")

    def _saved(self, state: str) -> None:
        self._saving = False
        if state == CANCELLED:
            self.footer.say("Not stored: another step came first. Press Keep again.")
        self._show_state()

    def _show_state(self) -> None:
        learned = self.work is not None and self.work.learned
        self.others.setVisible(learned)
        changes = None if self._seen is None else self._seen[1].changes
        learning = self.switch.isChecked()
        self.footer.show_state(changes, learning=learning, learned=learned, saving=self._saving)
