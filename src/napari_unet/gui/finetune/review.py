"""After a round: the judgement, what changed in view, Keep or Discard."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from magicgui.widgets import PushButton
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.progress import Progress
from napari_unet.gui.errors import report_error
from napari_unet.gui.finetune.changes import ChangesRun, hide_changes
from napari_unet.gui.finetune.run import TuneRun, judgement_text
from napari_unet.gui.jobs.job import CANCELLED, DONE, HOST, Job, abandon_all, get_device_queue
from napari_unet.gui.layers.navigation import image_in_view
from napari_unet.gui.model_events import get_model_events
from napari_unet.gui.segment.form import go_on_with
from napari_unet.gui.widgets.settings_form import sentence

if TYPE_CHECKING:
    from collections.abc import Generator

    import napari

    from napari_unet.gui.finetune.work import TuneWork

_TIPS = {
    "keep": "Put the tuned model into the store, beside the old one.",
    "discard": "Forget what was learned; the old model stays as it is.",
    "compare": "Run the old and the tuned model on what is in view, and show the difference.",
}


class ReviewBox(QWidget):
    """Shows what a fine-tuning came to, and asks what to do with it; hidden without any.

    Emits `decided` when the tuned model was kept or discarded.

    Attributes
    ----------
    work
        The fine-tuning to decide on; None if there is none.
    verdict, difference
        The judgement, and what changed in view.
    """

    decided = Signal()

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.work: TuneWork | None = None
        self.comparison: ChangesRun | None = None
        self._saving: Job | None = None
        self._runs: list[Any] = []
        self._works: list[TuneWork] = []
        self._build()
        self.destroyed.connect(functools.partial(abandon_all, self._runs))
        self.destroyed.connect(functools.partial(_release_all, self._works))
        self._show_state()

    def _build(self) -> None:
        self.verdict, self.difference = QLabel(), QLabel()
        for label in (self.verdict, self.difference):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.keep: Any = PushButton(text="Keep", tooltip=_TIPS["keep"])
        self.discard: Any = PushButton(text="Discard", tooltip=_TIPS["discard"])
        self.compare: Any = PushButton(text="Compare", tooltip=_TIPS["compare"])
        self._buttons = QWidget()
        row = QHBoxLayout(self._buttons)
        row.setContentsMargins(0, 0, 0, 0)
        for button in (self.keep, self.discard, self.compare):
            row.addWidget(button.native, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.verdict, self.difference, self._buttons):
            layout.addWidget(widget)
        self.keep.changed.connect(self._keep)
        self.discard.changed.connect(self._discard)
        self.compare.changed.connect(self.compare_now)

    def show_run(self, run: TuneRun, state: str) -> None:
        """Show what a run came to; a model that has become worse is not kept."""
        judgement = run.judgement
        if judgement is None:
            return
        self.verdict.setText(judgement_text(judgement, state, run.request.base))
        self.difference.clear()
        self.show()
        if not judgement.keep:
            try:
                run.work.discard()
            except UnetError as error:
                self._report(error)
            return
        self.work = run.work
        self._works[:] = [run.work]
        self._show_state()
        self.compare_now()

    def clear(self) -> None:
        """Show nothing; a new round begins."""
        self.verdict.clear()
        self.difference.clear()
        self._show_state()

    def compare_now(self, *_: Any) -> None:
        """Run both models on what is in view, and show what changed."""
        image = image_in_view(self._viewer)
        if self.work is None or self.comparison is not None:
            return
        if image is None:
            self._say("Open an image to see what changed.")
            return
        run = ChangesRun(self._viewer, image, self.work, self._say, self._compared)
        self.comparison = run
        self._runs[:] = [run]
        self._say("Comparing the old model with the tuned one …")
        self._show_state()
        get_device_queue(run.request.device).submit(run.job)

    def cancel(self) -> None:
        """Stop comparing."""
        if self.comparison is not None:
            self.comparison.job.cancel()

    def _compared(self, run: ChangesRun, state: str) -> None:
        self._runs.clear()
        self.comparison = None
        self._show_state()
        if self.work is None:
            return
        if run.error is not None:
            self._say(sentence(run.error))
        elif state == CANCELLED:
            self._say("Not compared.")
        else:
            self._say(run.text())
            run.show()

    def _keep(self, *_: Any) -> None:
        """Store the model, in a thread: its files are synced to the disk."""
        if self.work is None or self._saving is not None:
            return
        self.cancel()
        self._saving = Job(
            functools.partial(_saved, self.work),
            on_done=self._kept,
            on_error=self._report,
            on_end=self._saved,
        )
        self._show_state()
        get_device_queue(HOST).submit(self._saving)

    def _kept(self, name: str) -> None:
        hide_changes(self._viewer)
        self._settled()
        self.verdict.setText(f"Kept as {name!r}, and chosen from now on.")
        get_model_events().changed.emit()
        go_on_with(name)

    def _saved(self, state: str) -> None:
        self._saving = None
        self._show_state()
        if state == DONE:
            self.decided.emit()

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
        hide_changes(self._viewer)
        self._settled()
        self.verdict.setText(f"Discarded; {base!r} is as it was.")
        self.decided.emit()

    def _settled(self) -> None:
        self.work = None
        self._works.clear()
        self.difference.clear()
        self._show_state()

    def _say(self, text: str) -> None:
        if self.difference.text() != text:
            self.difference.setText(text)

    def _report(self, error: Exception) -> None:
        report_error(error, "the model was not kept", self._say)

    def _show_state(self) -> None:
        busy = self._saving is not None
        self.keep.text = "Saving …" if busy else "Keep"
        self.keep.enabled = self.discard.enabled = not busy
        self.compare.enabled = self.comparison is None and not busy
        self._buttons.setVisible(self.work is not None)
        self.setVisible(bool(self.work or self.verdict.text()))


def _saved(work: TuneWork) -> Generator[Progress, None, str]:
    """Store a model, in the job's thread."""
    yield Progress(0, 0, "saving")
    return work.keep()


def _release_all(works: list[TuneWork], *_: object) -> None:
    """Let others go on with a training that was not decided on."""
    for work in works:
        work.release()
