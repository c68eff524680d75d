"""The Segment step: its form, its buttons, the progress of a run, remarks on an unusual image."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from magicgui.widgets import PushButton
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QProgressBar, QPushButton, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.errors import report_error
from napari_unet.gui.evaluate import EvaluateSection
from napari_unet.gui.how_made import HowMadeSection
from napari_unet.gui.jobs.engine import Engine, engine_steps
from napari_unet.gui.jobs.job import DONE, FAILED, WidgetJobs
from napari_unet.gui.segment.block_run import BlockwiseRun, writes_to_disk
from napari_unet.gui.segment.form import SegmentForm
from napari_unet.gui.segment.run import InMemoryRun, SegmentRun
from napari_unet.gui.track import LinkSection
from napari_unet.gui.widgets.dock import Step
from napari_unet.gui.widgets.panel import WrappedLabel, hbox, vbox
from napari_unet.gui.widgets.question_box import QuestionBox

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_unet.core.image.domain_shift import ShiftRemark
    from napari_unet.gui.shared_inputs import InputForm


_TIPS = {
    "start": "Find the objects of the image chosen above, with the model chosen above.",
    "stop": "Stop. What is finished stays.",
}
DRAW_MS = 150
"""How often finished tiles are drawn and the progress is written; a drawing takes tens of ms."""
SLOW_S, REST, MAX_REST_S = 0.05, 4, 1.0
"""A drawing that blocks the window for longer than SLOW_S is followed by a pause REST times as
long, of MAX_REST_S at most: the window answers most of the time."""


class SegmentPanel(Step):
    """Segments an image layer with a model and shows the objects as they are found.

    Its buttons stand in the footer of every step but those that have no image.

    Parameters
    ----------
    viewer
        The window.
    inputs
        The image and the model, chosen at the top.

    Attributes
    ----------
    form
        What to do.
    active
        The run that waits or goes on; None without one.
    question
        Asks what the axes are before a run that would have to guess.
    engine
        What runs the model, in a job's thread; tests replace it.
    tracker
        Records what the user corrects in the result.
    """

    def __init__(self, viewer: napari.Viewer, inputs: InputForm) -> None:
        super().__init__()
        self.viewer = viewer
        self.inputs = inputs
        self.engine: Engine = engine_steps
        self.active: SegmentRun | None = None
        self._next: SegmentRun | None = None
        self._ticked = self._rest_until = 0.0
        self._drew = self._news = False
        self._timer = QTimer(self)
        self._timer.setInterval(DRAW_MS)
        self._timer.timeout.connect(self._tick)
        self._build()
        self._jobs = WidgetJobs(self)
        self.tracker = get_edit_tracker(viewer)  # from the first stroke on the first result
        self._show_state()

    def _build(self) -> None:
        self.form = SegmentForm(self.viewer, self.inputs)
        self.start: Any = PushButton(text="Run", tooltip=_TIPS["start"])
        self.stop: Any = PushButton(text="Cancel", tooltip=_TIPS["stop"])
        self.bar = QProgressBar()
        self.bar.setRange(0, 1)
        self.bar.hide()
        self.bar.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.status = WrappedLabel()
        self.remarks = RemarkBox()
        self.remarks.diameter_wanted.connect(self._run_with_diameter)
        self.form.size_row.picked.connect(self._run_with_diameter)
        self.evaluation = EvaluateSection(self.viewer)
        self.linking = LinkSection(self.viewer)
        self.how_made = HowMadeSection(self.viewer)
        self._sections = (self.evaluation, self.linking, self.how_made)
        vbox(self.form, *self._sections, owner=self).addStretch(1)
        self._progress = QWidget()
        vbox(self.bar, self.status, self.remarks, owner=self._progress)
        buttons = hbox(self.start.native, self.stop.native, stretch=1)
        self.question = QuestionBox()
        vbox(buttons, self.question, self._progress, owner=self.footer)
        self.form.changed.connect(self._show_state)
        self.inputs.image_changed.connect(self.question.dismiss)
        for part in self._sections:
            part.button.changed.connect(self.state_changed)
        self.start.changed.connect(self._run_pressed)
        self.stop.changed.connect(self.cancel)

    def _run_pressed(self, *_: Any) -> None:
        """Run, but ask first what the axes are if they are a guess: the objects depend on it."""
        taken = self.inputs.unsure_axes()
        if not taken:
            self.run()
            return
        self.question.ask(
            f"Are these {taken}? The file does not say, and what is found depends on it.",
            "Yes, run",
            self._run_as_guessed,
            "Choose axes",
            self.inputs.ask_for_axes,
        )

    def _run_as_guessed(self) -> None:
        self.inputs.confirm_axes()
        self.run()

    def run(self, *_: Any) -> None:
        """Start what the form requests, once a run that is under way has stopped."""
        try:
            request = self.form.request()
        except UnetError as error:
            self.report(error)
            return
        self.form.save()
        image = self.form.image.value
        kind = BlockwiseRun if writes_to_disk(image, request) else InMemoryRun
        run = kind(self.viewer, image, request, self.engine, self._run_ended)
        if self.active is None:
            self._launch(run)
        else:
            self._next = run
            self.active.cancel()
            self._show_state()

    def _run_with_diameter(self, diameter: float) -> None:
        self.form.set_diameter(diameter)
        self.run()

    @property
    def busy(self) -> bool:
        """Whether a run goes on."""
        return self.active is not None

    @property
    def at_work(self) -> bool:
        """Whether a run, or the work of a section, goes on or is being stopped."""
        return any(part.active is not None for part in (self, *self._sections))

    def open_step(self, wanted: bool) -> None:
        """Take in that the step was opened, or left: what the last run came to was read."""
        self._news = False
        super().open_step(wanted)

    def show_footer(self) -> None:
        """Show the buttons, and how the run goes, or what it came to until that was read."""
        self._progress.setVisible(self.is_open or self.busy or self._news)

    def cancel(self, *_: Any) -> None:
        """Stop the run after the tile under way; the finished tiles stay."""
        self._next = None
        if self.active is not None:
            self.active.cancel()
            self._show_state()

    def report(self, error: Exception) -> None:
        """Show an error in one sentence, here and as a notification."""
        report_error(error, "the run failed", self.status.setText)
        self._news = True
        self.show_footer()

    def _launch(self, run: SegmentRun) -> None:
        self.active = run
        self._ticked = self._rest_until = time.perf_counter()
        self._timer.start()
        self._jobs.start(run, run.request.device)
        self._show_state()
        self.state_changed.emit()

    def _run_ended(self, run: SegmentRun, state: str) -> None:
        self._timer.stop()
        self.active = None
        following, self._next = self._next, None
        if following is not None:
            self._launch(following)
            return
        self._show_state()
        self.remarks.show_remarks(run.remarks)
        self.bar.setRange(0, 1)
        self.bar.setValue(1)
        if state != DONE:
            self.bar.reset()
        if state == FAILED and run.error is not None:
            self.report(run.error)
        self.status.setText(run.summary(state))
        self.status.setToolTip(run.details)
        self._keep_size(run, state)
        self._news = not self.is_open
        self.state_changed.emit()

    def _keep_size(self, run: SegmentRun, state: str) -> None:
        """Keep with the image how large "auto" found its objects to be."""
        provenance = getattr(run.result, "provenance", None) or {}
        found, settings = provenance.get("diameter_px"), run.request.settings
        if state == DONE and found and settings.diameter is None and settings.diameter_um is None:
            two = next((remark.sizes for remark in run.remarks if remark.sizes), ())
            self.form.size_row.keep_found(run.image, two or (found,))

    def _tick(self) -> None:
        """Draw what is new, less often where drawing is slow (3D, large planes, no GPU)."""
        now = time.perf_counter()
        late, self._ticked = now - self._ticked - DRAW_MS / 1000, now
        if self._drew and late > SLOW_S:
            self._rest_until = now + min(REST * late, MAX_REST_S)
        self._drew = now >= self._rest_until
        if self.active is not None:
            if self._drew:
                self.active.draw()
            self._show_state()

    def _show_state(self) -> None:
        """Show what can be pressed and how far the run is."""
        run = self.active
        self.bar.setVisible(run is not None)
        self.start.enabled = self.form.complete
        self.stop.enabled = run is not None and not run.job.cancelled
        if run is None:
            if not self.form.complete:
                missing = "Open an image" if self.form.image.value is None else "Import a model"
                self.status.setText(f"{missing} to begin.")
            elif self.status.text().endswith(" to begin."):
                self.status.clear()
            return
        # Only what changed: after any change Qt composes the window anew, canvas and all, which
        # takes tens of milliseconds without a GPU. A busy bar would ask for that all the time.
        progress, text = run.progress, "Stopping …" if run.job.cancelled else run.describe()
        if self.bar.maximum() != max(1, progress.total):
            self.bar.setRange(0, max(1, progress.total))
        if self.bar.value() != progress.done:
            self.bar.setValue(progress.done)
        if self.status.text() != text:
            self.status.setText(text)
        if self.remarks.remarks != run.remarks:
            self.remarks.show_remarks(run.remarks)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look which models there are now."""
        super().showEvent(event)
        self.form.refresh_models()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Remember the settings."""
        super().hideEvent(event)
        self.form.save()

    def cancel_all(self) -> None:
        """Stop all work: the dock was closed."""
        self.cancel()
        for section in self._sections:
            section.cancel()


class RemarkBox(QWidget):
    """Shows what is unusual about the image, and a remedy; hidden without any remark.

    Emits `diameter_wanted` with the diameter in pixels when the user presses the remedy.
    """

    diameter_wanted = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self.remarks: tuple[ShiftRemark, ...] = ()
        self.text = WrappedLabel()
        self.remedy = QPushButton()
        self.remedy.clicked.connect(self._take_remedy)
        vbox(self.text, self.remedy, owner=self)
        self.show_remarks(())

    def show_remarks(self, remarks: Sequence[ShiftRemark]) -> None:
        """Show these remarks instead of the ones before."""
        self.remarks = tuple(remarks)
        self.text.setText("\n".join(f"⚠ {remark.text}" for remark in self.remarks))
        diameter = self._diameter()
        if diameter is not None:
            self.remedy.setText(f"Run again at {diameter:.0f} px")
        self.remedy.setVisible(diameter is not None)
        self.setVisible(bool(self.remarks))

    def _diameter(self) -> float | None:
        """Return the diameter to try instead, or the other one of two."""
        offered = (r.sizes[1] if r.sizes else r.diameter for r in self.remarks)
        return next((diameter for diameter in offered if diameter is not None), None)

    def _take_remedy(self, *_: Any) -> None:
        diameter = self._diameter()
        if diameter is not None:
            self.diameter_wanted.emit(diameter)
