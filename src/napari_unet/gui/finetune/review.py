"""After a fine-tuning: is the model better, what changed in view, Keep or Discard, what next."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from magicgui.widgets import PushButton
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.progress import Progress
from napari_unet.core.text import pluralise
from napari_unet.core.training.model_comparison import BETTER, UNITS, WORSE
from napari_unet.gui.errors import describe_error, report_error
from napari_unet.gui.finetune.changes import ChangesRun, hide_changes
from napari_unet.gui.jobs.job import CANCELLED, DONE, HOST, Job, WidgetJobs, get_device_queue
from napari_unet.gui.layers.navigation import image_in_view
from napari_unet.gui.model_events import get_model_events
from napari_unet.gui.shared_inputs import use_model
from napari_unet.gui.widgets.panel import CollapsibleSection, WrappedLabel, hbox, vbox

if TYPE_CHECKING:
    from collections.abc import Generator

    import napari

    from napari_unet.core.training.model_comparison import ModelComparison
    from napari_unet.gui.finetune.run import TuneRun, TuneWork

CHECK, CORRECT, LONGER = "Check one slice", "Correct 20 more", "Train longer"
FEW = 20
"""With fewer objects to compare the models on, more of them tell more than more time."""
FEW_STEPS = 100
"""A training of fewer steps changes little: more time comes before more corrections."""
_TIPS = {
    "keep": "Put the tuned model into the store, beside the old one.",
    "discard": "Forget what was learned; the old model stays as it is.",
    CHECK: "Go to the corrections; key K says that all of the slice in view is right.",
    CORRECT: "Go back to the corrections; the next fine-tuning learns from all of them.",
    LONGER: "Forget this result, and train again for twice as long.",
    "compare": "Run the old and the tuned model on what is in view, and show the difference.",
}


class ReviewBox(QWidget):
    """Shows what a fine-tuning came to, and asks what to do with it; hidden without any.

    Emits `decided`, with whether it was kept, when the tuned model was kept or discarded,
    `corrections_wanted` when the user follows the advice to correct more, `minutes_wanted` when
    that is to train so many minutes, and `state_changed` when there is something to decide on, or
    not any more.

    Attributes
    ----------
    work
        The fine-tuning that is looked at; None without one. One that has made the model worse
        cannot be kept, only looked at.
    summary, difference, figures
        Lines: whether the model is better, what changed in view, and the scores.
    comparison
        The comparison in view that goes on; None without one.
    """

    decided = Signal(bool)
    corrections_wanted = Signal()
    minutes_wanted = Signal(float)
    state_changed = Signal()

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.work: TuneWork | None = None
        self.comparison: ChangesRun | None = None
        self._saving: Job | None = None
        self._minutes = 0.0
        self._jobs = WidgetJobs(self)
        self._undecided: list[TuneWork] = []
        self._build()
        self.destroyed.connect(functools.partial(_release_all, self._undecided))
        self._show_state()

    def _build(self) -> None:
        self.summary, self.difference = WrappedLabel(), WrappedLabel()
        self.keep: Any = PushButton(text="Keep", tooltip=_TIPS["keep"])
        self.discard: Any = PushButton(text="Discard", tooltip=_TIPS["discard"])
        self.compare: Any = PushButton(text="Compare", tooltip=_TIPS["compare"])
        self._buttons = QWidget()
        buttons = (self.keep, self.discard, self.compare)
        hbox(*(button.native for button in buttons), owner=self._buttons, stretch=1)
        self.advice, self.figures = WrappedLabel(), WrappedLabel()
        self.more: Any = PushButton(text=CORRECT, tooltip=_TIPS[CORRECT])
        inside = QWidget()  # a WrappedLabel itself shows what text it has
        vbox(self.figures, margins=(6, 0, 6, 0), owner=inside)
        self._details = CollapsibleSection("Figures", inside)
        parts = (self.summary, self.difference, self._buttons, self.advice, self.more.native)
        vbox(*parts, self._details, owner=self)
        self.more.changed.connect(self._follow_advice)
        self.keep.changed.connect(self._keep)
        self.discard.changed.connect(self._discard)
        self.compare.changed.connect(self.compare_now)

    def show_run(self, run: TuneRun, state: str) -> None:
        """Show what a run came to; a model that has become worse can only be looked at."""
        judgement, tuning = run.judgement, run.work.tuning
        if judgement is None or tuning is None:
            return
        self.summary.setText(describe_judgement(judgement, state, run.request.base))
        self.figures.setText(describe_scores(judgement))
        self.difference.clear()
        self._minutes = 2 * (tuning.config.minutes or 0)
        steps = tuning.state.step if state == DONE else FEW_STEPS  # else the user stopped it
        advice, what = advise_next(judgement, self._minutes, steps)
        self.advice.setText(advice)
        self.more.text, self.more.tooltip = what, _TIPS.get(what, "")
        self.work = run.work
        self._undecided[:] = [run.work]
        if not judgement.keep:
            try:
                run.work.forget()
            except UnetError as error:
                self._report(error)
        self._show_state()
        self.compare_now()

    @property
    def pending(self) -> bool:
        """Whether there is a model that may be kept."""
        judgement = self.work.tuning.judgement if self.work and self.work.tuning else None
        return judgement is not None and judgement.keep

    def clear(self) -> None:
        """Show nothing; a new round begins."""
        if self.work is not None:
            self._discard()
        for label in (self.summary, self.difference, self.advice, self.figures):
            label.clear()
        self._show_state()

    def _follow_advice(self, *_: Any) -> None:
        if self.more.text != LONGER:
            self.corrections_wanted.emit()
            return
        minutes = self._minutes
        if self.work is not None:
            self._discard()
        self.minutes_wanted.emit(minutes)

    def compare_now(self, *_: Any) -> None:
        """Run both models on what is in view, and show what changed."""
        image = image_in_view(self._viewer)
        if self.work is None or self.comparison is not None:
            return
        if image is None:
            self._show_status("Open an image to see what changed.")
            return
        run = ChangesRun(self._viewer, image, self.work, self._show_status, self._compared)
        self.comparison = run
        self._show_status("Comparing the old model with the tuned one …")
        self._show_state()
        self._jobs.start(run, run.request.device)

    def cancel(self) -> None:
        """Stop comparing."""
        if self.comparison is not None:
            self.comparison.cancel()

    def _compared(self, run: ChangesRun, state: str) -> None:
        self.comparison = None
        self._show_state()
        if self.work is None:
            return
        if run.error is not None:
            self._show_status(describe_error(run.error))
        elif state == CANCELLED:
            self._show_status("Not compared.")
        else:
            self._show_status(run.text())
            run.show()

    def _keep(self, *_: Any) -> None:
        """Store the model, in a thread: its files are synced to the disk."""
        if self.work is None or self._saving is not None:
            return
        self.cancel()
        self._saving = Job(
            functools.partial(_save_steps, self.work),
            on_done=self._kept,
            on_error=self._report,
            on_end=self._saving_ended,
        )
        self._show_state()
        get_device_queue(HOST).submit(self._saving)  # goes on when the panel is closed

    def _kept(self, name: str) -> None:
        self._leave_work(f"Kept as {name!r}, and chosen from now on.")
        get_model_events().changed.emit()
        use_model(name)

    def _saving_ended(self, state: str) -> None:
        self._saving = None
        self._show_state()
        if state == DONE:
            self.decided.emit(True)

    def _discard(self, *_: Any) -> None:
        if self.work is None:
            return
        self.cancel()
        base = self.work.request.base
        try:
            self.work.discard()
        except UnetError as error:
            self._report(error)
            return
        self._leave_work(f"Discarded; {base!r} is as it was.")
        self.decided.emit(False)

    def _leave_work(self, summary: str) -> None:
        """Show what was decided, and nothing of the comparison any more."""
        hide_changes(self._viewer)
        self.work = None
        self._undecided.clear()
        for label in (self.difference, self.advice, self.figures):
            label.clear()
        self._show_state()
        self.summary.setText(summary)

    def _show_status(self, text: str) -> None:
        if self.difference.text() != text:
            self.difference.setText(text)

    def _report(self, error: Exception) -> None:
        report_error(error, "the model was not kept", self._show_status)

    def _show_state(self) -> None:
        busy = self._saving is not None
        self.keep.text = "Saving …" if busy else "Keep"
        self.keep.enabled = self.discard.enabled = not busy
        self.compare.enabled = self.comparison is None and not busy
        self._buttons.setVisible(self.work is not None)
        self.keep.visible = self.pending or busy
        self.more.visible = bool(self.advice.text())
        self._details.setVisible(bool(self.figures.text()))
        self.setVisible(bool(self.work or self.summary.text()))
        self.state_changed.emit()


def advise_next(
    judgement: ModelComparison, minutes: float = 0, steps: int = FEW_STEPS
) -> tuple[str, str]:
    """Return what would help where a tuned model is not known to be better, and its button.

    Parameters
    ----------
    minutes
        For how long it would be trained; 0 if it is not trained by the clock.
    steps
        Steps that it was trained for.
    """
    if judgement.verdict == BETTER:
        return "", ""
    if minutes and steps < FEW_STEPS and not judgement.forgotten:
        short = f"this computer had time for {pluralise(steps, 'step')} only"
        return f"What would help: more time, {minutes:.3g} minutes; {short}.", LONGER
    if judgement.before is None and not judgement.forgotten:
        return (
            "What would help: check all of one slice (K), so that there is something to compare "
            "the two models on.",
            CHECK,
        )
    few = UNITS.get(judgement.metric) == "objects" and judgement.objects < FEW
    if few or not minutes or judgement.verdict != WORSE:
        held = f"only {pluralise(judgement.objects, 'object')} to compare on: " if few else ""
        return f"What would help: {held}correct about {FEW} more.", CORRECT
    return f"What would help: more time, {minutes:.3g} minutes.", LONGER


def describe_judgement(judgement: ModelComparison, state: str, base: str) -> str:
    """Return whether a tuned model is better, in a few plain sentences.

    Parameters
    ----------
    state
        How the training ended: "done", or else it was stopped before.
    base
        The model that was tuned.
    """
    head = {BETTER: "Better.", WORSE: f"Worse: {base!r} stays as it is."}
    words = [head.get(judgement.verdict, "Not measurable whether it is better.")]
    if state != DONE:
        words.insert(0, "Stopped; this is the best so far.")
    words.append(judgement.reason)
    return " ".join(word for word in words if word)


def describe_scores(judgement: ModelComparison) -> str:
    """Return the scores that a verdict rests on, for who wants to know; "" without any."""
    words = []
    before, after = judgement.before, judgement.after
    if before is not None and after is not None:
        words.append(f"{judgement.metric} {before:.3f} → {after:.3f} on the {judgement.share}.")
    elif after is not None:
        words.append(f"{judgement.metric} {after:.3f} on what was held out.")
    if judgement.taught_before is not None and judgement.taught_after is not None:
        change = f"{judgement.taught_before:.3f} → {judgement.taught_after:.3f}"
        words.append(f"{judgement.metric} {change} on the corrections that it learned from.")
    old, new = judgement.replay_before, judgement.replay_after
    if old is not None and new is not None:
        words.append(f"{judgement.metric} {old:.3f} → {new:.3f} on what it learned before.")
    return "\n".join(words)


def _save_steps(work: TuneWork) -> Generator[Progress, None, str]:
    """Store a model, in the job's thread."""
    yield Progress(0, 0, "saving")
    return work.keep()


def _release_all(works: list[TuneWork], *_: object) -> None:
    """Let other windows go on with a training that was not decided on."""
    for work in works:
        work.release()
