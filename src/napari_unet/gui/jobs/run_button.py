"""A button that starts a run, turns into Cancel while it goes on, and says what came of it."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from magicgui.widgets import PushButton
from qtpy.QtCore import QObject, Signal

from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.job import CANCELLED, HOST, abandon_all, get_device_queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QLabel, QWidget

    from napari_unet.core.progress import Progress
    from napari_unet.gui.jobs.run import ResultRun

DRAW_S = 0.15
"""How often the progress is written."""


class RunButton(QObject):
    """Starts one run at a time, beside the devices' work.

    Emits `changed` when a run begins, is cancelled or is over.

    Parameters
    ----------
    owner
        The panel or section; a run does not outlive it.
    text, tip
        What the button says while nothing goes on, and what its tooltip does.
    doing, failing
        What the line says at first, such as "Comparing …", and what the log says of an unexpected
        error, such as "the evaluation failed".
    line
        Where the progress, the end and errors are written.
    start
        Called when the button is pressed and nothing goes on; it calls `launch`.
    show
        Called with a run that found something.

    Attributes
    ----------
    widget
        The button.
    active
        The run that waits or goes on, None if there is none.
    """

    changed = Signal()

    def __init__(
        self,
        owner: QWidget,
        text: str,
        tip: str,
        *,
        doing: str,
        failing: str,
        line: QLabel,
        start: Callable[[], object],
        show: Callable[[Any], object],
    ) -> None:
        super().__init__(owner)
        self.active: ResultRun | None = None
        self._runs: list[ResultRun] = []
        self._text, self._doing, self._failing = text, doing, failing
        self._line, self._start, self._show = line, start, show
        self._written = 0.0
        self.widget: Any = PushButton(text=text, tooltip=tip)
        self.widget.changed.connect(self._pressed)
        owner.destroyed.connect(functools.partial(abandon_all, self._runs))

    def launch(self, kind: Callable[..., ResultRun], *what: Any) -> None:
        """Start a run.

        Parameters
        ----------
        kind
            A `ResultRun`, or what makes one; called with `what` and the run's `progress` and
            `ended`.
        """
        run = kind(*what, self._show_progress, self._run_ended)
        self.active = run
        self._runs[:] = [run]
        self._written = time.perf_counter()
        self._line.setText(self._doing)
        self.changed.emit()
        get_device_queue(HOST).submit(run.job)

    def cancel(self) -> None:
        """Stop the run; what was shown before stays."""
        if self.active is not None:
            self.active.cancel()
            self.changed.emit()

    def enable(self, wanted: bool) -> None:
        """Say what pressing does, and let the user press it if they may and it is not stopping."""
        stopping = self.active is not None and self.active.job.cancelled
        self.widget.text = self._text if self.active is None else "Cancel"
        self.widget.enabled = wanted and not stopping

    def report(self, error: Exception) -> None:
        """Show an error in one sentence, in the line and as a notification."""
        report_error(error, self._failing, self._line.setText)

    def _pressed(self, *_: Any) -> None:
        if self.active is None:
            self._start()
        else:
            self.cancel()

    def _show_progress(self, progress: Progress) -> None:
        now = time.perf_counter()
        if now - self._written > DRAW_S and progress.total > 1:
            self._written = now
            self._line.setText(f"{progress.done} of {progress.total} {progress.what} …")

    def _run_ended(self, run: ResultRun, state: str) -> None:
        self._runs.clear()
        self.active = None
        if run.error is not None:
            self.report(run.error)
        elif state == CANCELLED:
            self._line.setText("Cancelled.")
        else:
            self._show(run)
        self.changed.emit()
