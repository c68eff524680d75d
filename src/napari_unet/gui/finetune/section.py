"""The Fine-tune section: form, buttons, progress, curve, outcome, versions."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from magicgui.widgets import PushButton
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.training.run_state import forget_training, list_unfinished, training_folder
from napari_unet.gui.errors import report_error
from napari_unet.gui.finetune.form import TuneForm
from napari_unet.gui.finetune.review import ReviewBox
from napari_unet.gui.finetune.run import TuneRun
from napari_unet.gui.finetune.uncertain_places import UncertaintySection
from napari_unet.gui.finetune.versions import VersionsBox
from napari_unet.gui.finetune.work import TuneRequest
from napari_unet.gui.jobs.job import CANCELLED, FAILED, abandon_all, get_device_queue
from napari_unet.gui.layers.navigation import open_stacks
from napari_unet.gui.widgets.plots import Plot

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QHideEvent, QShowEvent

DRAW_MS, CURVE_S = 300, 1.0
"""How often the progress is written, and the curve drawn."""
_TIPS = {
    "start": "Learn from all corrections made with this model; the model itself stays as it is.",
    "stop": "Stop. The best so far can be kept.",
}


class TuneSection(QWidget):
    """Fine-tunes a model with what was corrected, and asks whether to keep the result.

    Parameters
    ----------
    viewer
        The window.
    label_width
        Of the labels beside the boxes, in pixels.

    Attributes
    ----------
    form
        What to do.
    active
        The training that waits or goes on, None if there is none.
    touched
        Whether objects that were only touched count as known; set by the corrections' section.
    outcome, versions
        What came of it, and the models before and after.
    doubts
        Where to look next.
    """

    def __init__(self, viewer: napari.Viewer, label_width: int = 90) -> None:
        super().__init__()
        self._viewer = viewer
        self.active: TuneRun | None = None
        self.touched = True
        self._left = ""
        self._drawn = 0.0
        self._runs: list[TuneRun] = []
        self._timer = QTimer(self)
        self._timer.setInterval(DRAW_MS)
        self._timer.timeout.connect(self._tick)
        self._build(label_width)
        self._connect()
        self.destroyed.connect(functools.partial(abandon_all, self._runs))
        self._model_changed()
        self._look_for_unfinished()

    def _build(self, label_width: int) -> None:
        self.form = TuneForm(self._viewer, label_width)
        self.start: Any = PushButton(text="Fine-tune", tooltip=_TIPS["start"])
        self.stop: Any = PushButton(text="Cancel", tooltip=_TIPS["stop"])
        self.bar = QProgressBar()
        self.bar.setRange(0, 100)
        self.bar.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.plot = Plot("steps")
        self.plot.hide()
        self.outcome = ReviewBox(self._viewer)
        self.versions = VersionsBox()
        self.doubts = UncertaintySection(self._viewer, self.form)
        self.resume: Any = PushButton(text="Go on")
        self.forget: Any = PushButton(text="Forget it")
        self._offer, self._offer_text = self._offer_row()
        below = QVBoxLayout()
        below.setContentsMargins(6, 0, 6, 0)
        below.addWidget(self._offer)
        below.addLayout(_row(self.start, self.stop))
        widgets = (self.bar, self.status, self.plot, self.outcome, self.versions)
        for widget in widgets:
            below.addWidget(widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        above = QVBoxLayout()
        above.setContentsMargins(6, 4, 6, 0)
        above.addWidget(self.doubts)
        layout.addLayout(above)
        layout.addWidget(self.form)
        layout.addLayout(below)

    def _offer_row(self) -> tuple[QWidget, QLabel]:
        """Make what offers to go on with a training that did not finish."""
        offer, text = QWidget(), QLabel()
        text.setWordWrap(True)
        content = QVBoxLayout(offer)
        content.setContentsMargins(0, 0, 0, 0)
        content.addWidget(text)
        content.addLayout(_row(self.resume, self.forget))
        return offer, text

    def _connect(self) -> None:
        self.start.changed.connect(self.tune)
        self.stop.changed.connect(self.cancel)
        self.resume.changed.connect(self._resume)
        self.forget.changed.connect(self._forget)
        self.form.changed.connect(self._model_changed)
        self.outcome.decided.connect(self._decided)

    def tune(self, *_: Any) -> None:
        """Start what the form says."""
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
            self.active.job.cancel()
            self._show_state()
        self.outcome.cancel()

    def report(self, error: Exception) -> None:
        """Show an error in one sentence, here and as a notification."""
        report_error(error, "the fine-tuning failed", self.status.setText)

    def _launch(self, request: TuneRequest) -> None:
        if self.active is not None or self.outcome.work is not None:
            return
        self.outcome.clear()
        run = TuneRun(request, open_stacks(self._viewer), self._ended)
        self.active = run
        self._runs[:] = [run]
        self._drawn = time.perf_counter()
        self.plot.show_lines([])
        self.plot.show()
        self._timer.start()
        self._show_state()
        get_device_queue(request.device).submit(run.job)

    def _ended(self, run: TuneRun, state: str) -> None:
        self._timer.stop()
        self._runs.clear()
        self.active = None
        self.plot.show_lines(run.lines())
        self.bar.reset()
        remarks = " ".join(run.work.remarks)
        self.status.setText("Cancelled before anything was learned." if state == CANCELLED else "")
        if run.work.usable:
            self.bar.setValue(100)
            self.status.setText(f"Learned from {run.lesson}. {remarks}".strip())
        self.outcome.show_run(run, state)
        if run.judgement is not None:
            self.versions.show_rounds(run.rounds, run.judgement.metric)
        self._look_for_unfinished()
        self._show_state()
        if state == FAILED and run.error is not None:
            self.report(run.error)

    def _decided(self) -> None:
        self.plot.hide()
        self.bar.reset()
        self.status.clear()
        self.form.propose_name()
        self.versions.show_model(self.form.base.value or "")
        self._look_for_unfinished()

    def _tick(self) -> None:
        """Write the progress, and draw the curve less often."""
        now = time.perf_counter()
        if self.active is not None and now - self._drawn > CURVE_S:
            self._drawn = now
            self.plot.show_lines(self.active.lines())
        self._show_state()

    def _model_changed(self, *_: Any) -> None:
        name = self.form.entry.name if self.form.entry else ""
        if name != self.versions.model:
            self.versions.show_model(name)
        self._show_state()

    def _show_state(self, *_: Any) -> None:
        """Show what can be pressed and how far the training is; only what changed (see Segment)."""
        run, pending = self.active, self.outcome.work is not None
        self.start.enabled = self.form.complete and run is None and not pending
        self.stop.enabled = run is not None and not run.job.cancelled
        self.bar.setVisible(run is not None or pending)
        self._offer.setVisible(bool(self._left) and run is None and not pending)
        if run is None:
            return
        text = "Stopping …" if run.job.cancelled else run.describe()
        if self.bar.value() != run.percent:
            self.bar.setValue(run.percent)
        if self.status.text() != text:
            self.status.setText(text)

    def _look_for_unfinished(self) -> None:
        """Offer to go on with the last training that was begun in the window and did not end."""
        left = [] if self.active else [n for n, plan in list_unfinished().items() if plan.request]
        pending = self.outcome.work.request.name if self.outcome.work else ""
        self._left = next((name for name in left if name != pending), "")
        self._offer_text.setText(f"The training of {self._left!r} was not finished or decided on.")
        self._show_state()

    def _resume(self, *_: Any) -> None:
        plan = list_unfinished().get(self._left)
        if plan is None:
            self._look_for_unfinished()
            return
        try:
            request = TuneRequest.from_plan(self._left, plan)
        except UnetError as error:
            self.report(error)
            return
        self.form.choose(request.base)
        self._launch(request)

    def _forget(self, *_: Any) -> None:
        try:
            if self._left:
                forget_training(training_folder(self._left))
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


def _row(*buttons: Any) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for button in buttons:
        row.addWidget(button.native, 1)
    return row
