"""The Fine-tune step: tunes a model with the corrections, and asks whether to keep the result."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from magicgui.widgets import PushButton
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QProgressBar, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.training.run_state import forget_training, list_unfinished, training_folder
from napari_unet.gui.errors import report_error
from napari_unet.gui.finetune.changes import old_model
from napari_unet.gui.finetune.form import TuneForm, TuneRequest
from napari_unet.gui.finetune.image_changes import ModelVersions, stored_versions
from napari_unet.gui.finetune.other_images import OtherImages
from napari_unet.gui.finetune.review import ReviewBox
from napari_unet.gui.finetune.run import TuneRun
from napari_unet.gui.finetune.versions import VersionsBox
from napari_unet.gui.jobs.job import CANCELLED, FAILED, WidgetJobs
from napari_unet.gui.layers.navigation import open_stacks
from napari_unet.gui.shared_inputs import InputForm
from napari_unet.gui.widgets.dock import Step
from napari_unet.gui.widgets.panel import CollapsibleSection, WrappedLabel, hbox, vbox
from napari_unet.gui.widgets.plots import Plot

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QHideEvent, QShowEvent

DRAW_MS, CURVE_S = 300, 1.0
"""How often the progress is written, and the curve drawn: rarely, as each has Qt compose the whole
window anew, canvas and all."""
_TIPS = {
    "start": "Learn from all corrections made with this model; the model itself stays as it is.",
    "stop": "Stop. The best so far can be kept.",
}


class TuneSection(Step):
    """Fine-tunes a model with the corrections, and asks whether to keep the result.

    Parameters
    ----------
    viewer
        The window.
    inputs
        The model to start from, chosen at the top; None: a choice of its own.

    Attributes
    ----------
    form
        What to do.
    active
        The training that waits or goes on; None without one.
    touched
        Whether objects that were only touched count as annotated; set by the corrections' section.
    review, versions
        The result to decide on, and the models before and after.
    others
        What the result, or the chosen model, changes in other images.
    """

    def __init__(self, viewer: napari.Viewer, inputs: InputForm | None = None) -> None:
        super().__init__()
        self._viewer = viewer
        self.inputs = inputs or InputForm(viewer)
        self.active: TuneRun | None = None
        self.touched = True
        self._unfinished = ""
        self._last_drawn = 0.0
        self._jobs = WidgetJobs(self)
        self._timer = QTimer(self)
        self._timer.setInterval(DRAW_MS)
        self._timer.timeout.connect(self._tick)
        self._build()
        self._connect()
        self._model_changed()
        self._look_for_unfinished()

    def _build(self) -> None:
        self.form = TuneForm(self.inputs)
        self.start: Any = PushButton(text="Fine-tune", tooltip=_TIPS["start"])
        self.stop: Any = PushButton(text="Cancel", tooltip=_TIPS["stop"])
        self.bar = QProgressBar()
        self.bar.setRange(0, 100)
        self.bar.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.status = WrappedLabel()
        self.plot = Plot("steps")
        self.details = CollapsibleSection("Details", self.plot)
        self.details.hide()
        self.review = ReviewBox(self._viewer)
        self.versions = VersionsBox()
        self.others = OtherImages(self._viewer, self.inputs, self._compared_versions)
        inside = QWidget()
        vbox(self.others, margins=(6, 0, 6, 4), owner=inside)
        self.others_section = CollapsibleSection("Other images", inside)
        self.resume: Any = PushButton(text="Go on")
        self.forget: Any = PushButton(text="Forget it")
        self._resume_row, self._resume_text = QWidget(), WrappedLabel()
        choice = hbox(self.resume.native, self.forget.native, stretch=1)
        vbox(self._resume_text, choice, owner=self._resume_row)
        parts = (self.form, self._resume_row, self.others_section, self.details, self.versions)
        vbox(*parts, owner=self).addStretch(1)
        self._buttons = QWidget()
        hbox(self.start.native, self.stop.native, stretch=1, owner=self._buttons)
        vbox(self._buttons, self.bar, self.status, self.review, owner=self.footer)

    def _connect(self) -> None:
        self.start.changed.connect(self.tune)
        self.stop.changed.connect(self.cancel)
        self.resume.changed.connect(self._resume)
        self.forget.changed.connect(self._forget)
        self.form.changed.connect(self._model_changed)
        self.review.decided.connect(self._decided)
        self.review.minutes_wanted.connect(self._train_longer)
        self.review.state_changed.connect(self.state_changed)

    def set_touched(self, wanted: bool) -> None:
        """Count objects that were only touched as annotated, or not."""
        self.touched = wanted

    @property
    def busy(self) -> bool:
        """Whether a training goes on, or its result is to be decided on."""
        return self.active is not None or self.review.work is not None

    @property
    def at_work(self) -> bool:
        """Whether a training goes on, or is being stopped; one to decide on is offered again."""
        return self.active is not None

    def show_footer(self) -> None:
        """Show the footer while the step is open, or while there is something to decide on."""
        self.footer.setVisible(self.is_open or self.busy)
        self._buttons.setVisible(self.is_open or self.active is not None)

    def cancel_all(self) -> None:
        """Stop all work: the dock was closed."""
        self.cancel()
        self.others.cancel()

    def tune(self, *_: Any) -> None:
        """Start what the form requests."""
        try:
            request = replace(self.form.request(), touched=self.touched)
        except UnetError as error:
            self.report(error)
            return
        self.form.save()
        self._launch(request)

    def cancel(self, *_: Any) -> None:
        """Stop after the step under way; the best so far can be kept."""
        if self.active is not None:
            self.active.cancel()
            self._show_state()
        self.review.cancel()

    def report(self, error: Exception) -> None:
        """Show an error in one sentence, here and as a notification."""
        report_error(error, "the fine-tuning failed", self.status.setText)

    def _launch(self, request: TuneRequest) -> None:
        if self.active is not None or self.review.pending:
            return
        self.review.clear()
        self.others.clear()
        run = TuneRun(request, open_stacks(self._viewer), self._ended)
        self.active = run
        self._last_drawn = time.perf_counter()
        self.plot.show_lines([])
        self.details.show()
        self._timer.start()
        self._show_state()
        self.state_changed.emit()
        self._jobs.start(run, request.device)

    def _ended(self, run: TuneRun, state: str) -> None:
        self._timer.stop()
        self.active = None
        self.plot.show_lines(run.lines())
        self.bar.reset()
        remarks = " ".join(run.work.remarks)
        self.status.setText("Cancelled before anything was learned." if state == CANCELLED else "")
        if run.work.usable:
            self.bar.setValue(100)
            self.status.setText(f"Learned from {run.training_data}. {remarks}".strip())
            self.others_section.open()
        self.review.show_run(run, state)
        if run.judgement is not None:
            self.versions.show_rounds(run.rounds, run.judgement.metric)
        self._look_for_unfinished()
        self._show_state()
        self.state_changed.emit()
        if state == FAILED and run.error is not None:
            self.report(run.error)

    def _train_longer(self, minutes: float) -> None:
        self.form.first.settings["minutes"].set(minutes)
        self.tune()

    def _compared_versions(self) -> ModelVersions:
        """Return the result and the model before, or else the chosen model and its parent."""
        work = self.review.work
        if work is not None and (tuning := work.tuning) is not None:
            return ModelVersions(lambda: (old_model(work), tuning.best()))
        return stored_versions(self.inputs.model.value or "", self.others.device)

    def _decided(self, kept: bool) -> None:
        if not kept:
            self.others.clear()
        self.details.hide()
        self.bar.reset()
        self.status.clear()
        self.form.propose_name()
        self.versions.show_model(self.form.base.value or "")
        self._look_for_unfinished()
        self.state_changed.emit()

    def _tick(self) -> None:
        """Write the progress, and draw the curve less often."""
        now = time.perf_counter()
        if self.active is not None and now - self._last_drawn > CURVE_S:
            self._last_drawn = now
            self.plot.show_lines(self.active.lines())
        self._show_state()

    def _model_changed(self, *_: Any) -> None:
        name = self.form.entry.name if self.form.entry else ""
        if name != self.versions.model:
            self.versions.show_model(name)
        self._show_state()

    def _show_state(self, *_: Any) -> None:
        """Show what can be pressed and how far the training is.

        Only what changed is written, see `SegmentPanel`.
        """
        run, pending = self.active, self.review.pending
        self.start.enabled = self.form.complete and run is None and not pending
        self.stop.enabled = run is not None and not run.job.cancelled
        self.bar.setVisible(run is not None)  # once it has ended, the room is for what it says
        self._resume_row.setVisible(bool(self._unfinished) and run is None and not pending)
        if run is None:
            return
        text = "Stopping …" if run.job.cancelled else run.describe()
        if self.bar.value() != run.percent:
            self.bar.setValue(run.percent)
        if self.status.text() != text:
            self.status.setText(text)

    def _look_for_unfinished(self) -> None:
        """Offer to go on with the last training that was begun in the window and did not end."""
        left = [] if self.active else [n for n, state in list_unfinished().items() if state.request]
        pending = self.review.work.request.name if self.review.work else ""
        self._unfinished = next((name for name in left if name != pending), "")
        self._resume_text.setText(
            f"The training of {self._unfinished!r} was not finished or decided on."
        )
        self._show_state()

    def _resume(self, *_: Any) -> None:
        state = list_unfinished().get(self._unfinished)
        if state is None:
            self._look_for_unfinished()
            return
        try:
            request = TuneRequest.from_run_state(self._unfinished, state)
        except UnetError as error:
            self.report(error)
            return
        self.form.choose(request.base)
        self._launch(request)

    def _forget(self, *_: Any) -> None:
        try:
            if self._unfinished:
                forget_training(training_folder(self._unfinished))
        except UnetError as error:
            self.report(error)
        self.form.propose_name()
        self._look_for_unfinished()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look which models there are now."""
        super().showEvent(event)
        self.form.refresh_models()
        self._look_for_unfinished()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Remember the settings."""
        super().hideEvent(event)
        self.form.save()
