"""A job with one result, the button that starts and cancels it, and a section around the button."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from magicgui.widgets import PushButton
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QLabel, QWidget

from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.job import CANCELLED, HOST, Job, WidgetJobs, do_nothing
from napari_unet.gui.remembered import remember_open
from napari_unet.gui.widgets.panel import (
    CollapsibleSection,
    WrappedLabel,
    ignore_double_clicks,
    vbox,
)
from napari_unet.gui.widgets.settings_form import rows_widget

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import napari

    from napari_unet.core.progress import Progress

PROGRESS_S = 0.15
"""How often the progress is written: after each change Qt composes the window anew."""


class ResultRun:
    """One job, and its result or error.

    Parameters
    ----------
    begin
        Called in the window's thread when the run's turn comes: it reads the layers, and returns
        the generator that works in the job's thread. It raises a UnetError if it cannot start.
    progress
        Called in the window's thread with what the work yields.
    ended
        Called in the window's thread at the end, with the run and "done", "cancelled" or "failed".

    Attributes
    ----------
    job
        The job; whoever makes the run submits it to a queue.
    result
        What the work returned; None until then.
    error
        The exception that ended it; None without one.
    """

    def __init__(
        self,
        begin: Callable[[], Generator[Any, None, Any]],
        progress: Callable[[Any], None],
        ended: Callable[[Any, str], None],
    ) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self._ended: Callable[[Any, str], object] = ended
        self.job = Job(
            begin,
            on_item=progress,
            on_done=self._keep_result,
            on_error=self._keep_error,
            on_end=self._end,
        )

    def cancel(self) -> None:
        """Stop after the step under way."""
        self.job.cancel()

    def abandon(self) -> None:
        """Cancel, and report to nobody: the panel is gone."""
        self.cancel()
        self._ended = do_nothing

    def _keep_result(self, result: Any) -> None:
        self.result = result

    def _keep_error(self, error: Exception) -> None:
        self.error = error

    def _end(self, state: str) -> None:
        """Report the end, and drop the reference to whoever waits for it."""
        ended, self._ended = self._ended, do_nothing
        ended(self, state)


class RunButton(QObject):
    """A button that starts one run at a time beside the devices' work, and cancels it.

    Emits `changed` when a run begins, is cancelled or is over.

    Parameters
    ----------
    owner
        The panel or section; a run does not outlive it.
    text, tip
        The button's text while nothing runs, and its tooltip.
    doing, failing
        What the line says at first, such as "Comparing …", and what the log says of an unexpected
        error, such as "the evaluation failed".
    line
        Where the progress, the end and errors are written.
    start
        Called when the button is pressed and nothing runs; it calls `launch`.
    show
        Called with a run that has a result.
    answer
        Called with an error that ended a run; it returns whether it has dealt with it, so that
        nothing is reported.

    Attributes
    ----------
    widget
        The button.
    active
        The run that waits or goes on; None without one.
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
        answer: Callable[[Exception], bool] = lambda error: False,
    ) -> None:
        super().__init__(owner)
        self.active: ResultRun | None = None
        self._jobs = WidgetJobs(owner)
        self._text, self._doing, self._failing = text, doing, failing
        self._line, self._start, self._show, self._answer = line, start, show, answer
        self._last_written = 0.0
        self.widget: Any = PushButton(text=text, tooltip=tip)
        ignore_double_clicks(self.widget.native)
        self.widget.changed.connect(self._pressed)

    def launch(self, kind: Callable[..., ResultRun], *arguments: Any, device: str = HOST) -> None:
        """Start a run.

        Parameters
        ----------
        kind
            A `ResultRun`, or what makes one; called with `arguments` and the run's `progress` and
            `ended`.
        device
            The queue that it waits in: that of a device, if it needs the network.
        """
        self.active = run = kind(*arguments, self._show_progress, self._run_ended)
        self._last_written = time.perf_counter()
        self._line.setText(self._doing)
        self.changed.emit()
        self._jobs.start(run, device)

    def cancel(self) -> None:
        """Stop the run; what was shown before stays."""
        if self.active is not None:
            self.active.cancel()
            self.changed.emit()

    def enable(self, wanted: bool) -> None:
        """Show what pressing does, and let the user press it unless the run is stopping."""
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
        if progress.total == 0:  # a part of the work that cannot be counted
            text = f"{progress.what[:1].upper()}{progress.what[1:]} …"
            if self._line.text() != text:
                self._line.setText(text)
        elif now - self._last_written > PROGRESS_S and progress.total > 1:
            self._last_written = now
            self._line.setText(f"{progress.done} of {progress.total} {progress.what} …")

    def _run_ended(self, run: ResultRun, state: str) -> None:
        self.active = None
        if run.error is not None:
            if not self._answer(run.error):
                self.report(run.error)
        elif state == CANCELLED:
            self._line.setText("Cancelled.")
        else:
            self._show(run)
        self.changed.emit()


class LayerSection(QWidget):
    """A section of a panel that works on layers: choices, a button, a line; collapsed at first.

    A subclass makes its choices, calls `build`, and implements `run`, `_show`, `_refresh` and
    `_possible`.

    Attributes
    ----------
    collapsible
        The section that opens and closes; whether it is open is remembered between sessions.
    button, start
        The `RunButton`, and its widget.
    result
        The line for the progress, the result, and errors.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer

    def build(
        self,
        title: str,
        section: str,
        rows: Sequence[tuple[str, Any]],
        hint: str,
        **button: Any,
    ) -> None:
        """Put the section together, and begin to follow the layers.

        Parameters
        ----------
        title
            Of the section.
        section
            The name under which the section is remembered.
        rows
            As for `rows_widget`.
        hint
            Shown in the line as long as there is nothing to work on.
        button
            `text`, `tip`, `doing` and `failing` of the `RunButton`.
        """
        self._hint = hint
        self.result = WrappedLabel(hint)
        self.button = RunButton(self, line=self.result, start=self.run, show=self._show, **button)
        self.start: Any = self.button.widget
        inside = QWidget()
        below = vbox(self.start.native, self.result, margins=(6, 0, 6, 4))
        vbox(rows_widget(rows), below, owner=inside)
        self.collapsible = CollapsibleSection(title, inside)
        remember_open(self.collapsible, section)
        vbox(self.collapsible, owner=self)
        self.button.changed.connect(self._show_state)
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)
        self._layers_changed()

    @property
    def active(self) -> ResultRun | None:
        """The run that waits or goes on; None without one."""
        return self.button.active

    def cancel(self) -> None:
        """Stop; a partial result is not shown."""
        self.button.cancel()

    def run(self) -> None:
        """Start a run on the chosen layers, unless there is one."""
        raise NotImplementedError

    def _show(self, run: Any) -> None:
        """Show the result of a run."""
        raise NotImplementedError

    def _refresh(self) -> None:
        """Offer the layers that there are."""
        raise NotImplementedError

    @property
    def _possible(self) -> bool:
        """Whether there are layers to work on."""
        raise NotImplementedError

    def _layers_changed(self, *_: Any) -> None:
        self._refresh()
        self._show_state()

    def _show_state(self) -> None:
        """Show whether the button can be pressed, and the hint while it cannot."""
        self.button.enable(self._possible)
        before, after = (self._hint, "") if self._possible else ("", self._hint)
        if self.result.text() == before:
            self.result.setText(after)
