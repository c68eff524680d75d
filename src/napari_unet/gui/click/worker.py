"""Runs the clicks beside the window: actions in order, previews when there is nothing else to do.

What the user does is never skipped; of the cursor's places only the newest is previewed. When both
rest, the features around the cursor are computed.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.progress import Progress
from napari_unet.gui.jobs.job import Job, WidgetJobs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_unet.core.prompts.clicks import Click
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.gui.click.target import ClickTarget
    from napari_unet.gui.jobs.engine import KeptFeatures
    from napari_unet.nn.interactive.interaction import Action, Answer
    from napari_unet.nn.interactive.session import ClickSession

REST_MS = 250
"""Features around the cursor are computed when it has rested for so long: it has stopped moving."""


class ClickWorker(QObject):
    """Runs one action after the other in a click session, beside the window.

    Emits, in the window's thread: `opened` when the session is open; `previewed` with what a click
    under the cursor would give; `failed` with an exception; `updated` with each action's progress.

    Parameters
    ----------
    owner
        The widget whose jobs these are; after its end nothing is answered.
    apply
        Called with the `Answer` of each action, in the window's thread; makes its change. An
        error of it is one of the action.

    Attributes
    ----------
    session
        None before it is opened and after `close`.
    progress
        Of the running action.
    """

    opened = Signal()
    previewed = Signal(object)
    failed = Signal(object)
    updated = Signal()

    def __init__(self, owner: QObject, apply: Callable[[Answer], None]) -> None:
        super().__init__(owner)
        self._apply = apply
        self._jobs = WidgetJobs(owner)
        self.session: ClickSession | None = None
        self.progress = Progress(0, 0, "")
        self._actions: deque[Action] = deque()
        self._job: Job | None = None
        self._job_matters = False
        self._warm_job: Job | None = None
        self._hover: tuple[Click, bool] | None = None
        self._place: Click | None = None
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._warm)

    @property
    def busy(self) -> bool:
        """Whether an action of the user is waiting or running, or the session is being opened."""
        return self.has_actions or (self._job is not None and self._job_matters)

    @property
    def has_actions(self) -> bool:
        """Whether an action is waiting or running; opening the session is none."""
        running = self.session is not None and self._job is not None and self._job_matters
        return bool(self._actions) or running

    def open(self, begin: Callable[[], Generator[Progress, None, ClickSession]]) -> None:
        """Open a session with a generator that returns it; the one before is closed."""
        self.close()
        self._run(begin, self._opened, matters=True)

    def put(self, action: Action) -> None:
        """Run an action after all earlier ones."""
        self._actions.append(action)
        self._next()
        self.updated.emit()

    def hover(self, click: Click, join: bool = False) -> None:
        """Preview a click when no action is left; the arguments are those of `take_click`."""
        self._hover, self._place = (click, join), click
        self._next()

    def leave(self) -> None:
        """Preview nothing any more; a preview that is running is dropped."""
        self._hover = None
        if self._job is not None and not self._job_matters:
            self._job.abandon()
            self._job = None
            self._next()

    def warm_up(self, place: Click) -> None:
        """Compute the features around a place, when the cursor rests and no action is left."""
        self._place = place
        self._rest.start()

    def drop(self) -> None:
        """Drop the active object, and all actions that are waiting or running."""
        if self.session is None:
            self._actions.clear()  # the session is still being opened, which goes on
            return
        from napari_unet.nn.interactive.interaction import reset

        self._abandon()
        self.put(reset)

    def close(self) -> None:
        """Let go of the session; late answers are dropped."""
        self._abandon()
        self._stop_warming()
        self._rest.stop()
        self.session = self._place = None

    def _abandon(self) -> None:
        self._actions.clear()
        self._hover = None
        if self._job is not None:
            self._job.abandon()
            self._job = None

    def _next(self) -> None:
        """Begin the next job, if none is running."""
        session = self.session
        if session is None or self._job is not None:
            return
        if self._actions:
            action = self._actions.popleft()
            self._run(
                functools.partial(action, session),
                functools.partial(self._answered, action),
                matters=True,
            )
        elif self._hover is not None:
            (click, join), self._hover = self._hover, None
            self._run(functools.partial(_preview, session, click, join), self.previewed.emit)
        elif self._place is not None:
            self._rest.start()

    def _run(
        self, begin: Callable[[], Any], done: Callable[[Any], None], *, matters: bool = False
    ) -> None:
        self._stop_warming()
        self._job_matters = matters
        self.progress = Progress(0, 0, "")
        job = Job(
            begin,
            on_item=self._keep_progress,
            on_done=done,
            on_error=functools.partial(self._fail, matters),
            on_end=self._ended,
        )
        self._job = job
        self._jobs.run("click", job)

    def _keep_progress(self, item: Progress) -> None:
        self.progress = item
        if self._job_matters:
            self.updated.emit()

    def _opened(self, session: ClickSession) -> None:
        self.session = session
        self.opened.emit()

    def _answered(self, action: Action, answer: Answer) -> None:
        from napari_unet.nn.interactive.interaction import reset

        try:
            self._apply(answer)
        except Exception as error:  # of the layer, too: what is shown must not stay as it was
            self._fail(True, error)
            return
        if answer.again:
            self._actions.appendleft(action)
        if answer.change is not None:
            self._actions.appendleft(reset)

    def _fail(self, matters: bool, error: Exception) -> None:
        if matters or not isinstance(error, UnetError):
            self._actions.clear()  # they were meant for the result of this one
            self.failed.emit(error)

    def _ended(self, _: str) -> None:
        self._job = None
        mattered = self._job_matters
        self._next()
        if mattered:
            self.updated.emit()

    def _warm(self) -> None:
        session, place = self.session, self._place
        if session is None or place is None or self._job is not None:
            return
        self._place = None
        self._warm_job = Job(lambda: _warm(session, place), on_error=self._ignore)
        self._jobs.run("warm", self._warm_job)

    def _ignore(self, error: Exception) -> None:
        if not isinstance(error, UnetError):
            self.failed.emit(error)

    def _stop_warming(self) -> None:
        if self._warm_job is not None:
            self._warm_job.cancel()
            self._warm_job = None


def open_session(
    target: ClickTarget, model: str, device: str, kept: KeptFeatures, overwrite: bool
) -> Generator[Progress, None, ClickSession]:
    """Load the model and open a session for it; runs in a job's thread."""
    yield Progress(0, 0, "loading the model")
    from napari_unet.gui.jobs.engine import loaded_model
    from napari_unet.nn.interactive.session import ClickSession

    network = loaded_model(model, device)
    yield Progress(0, 0, "looking at the image")
    settings: PredictSettings = target.settings(network.card)
    cache = kept.open(network)
    return ClickSession(
        network,
        target.geometry.stack,
        target.array,
        settings=settings,
        overwrite=overwrite,
        cache=cache,
    )


def _warm(session: ClickSession, place: Click) -> Generator[Progress, None, None]:
    yield from session.warm(place.place)


def _preview(session: ClickSession, click: Click, join: bool) -> Generator[Progress, None, Any]:
    from napari_unet.nn.interactive.interaction import preview

    try:
        return (yield from preview(session, click, join=join))
    except InputError:
        return None  # outside the image, for instance
