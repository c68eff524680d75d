"""The clicks' own thread: actions one after the other, previews when there is nothing else to do.

What the user does is never skipped; of the places that the cursor passes only the newest matters.
When both rest, the features around the cursor are computed.
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
    from napari_unet.core.settings import PredictSettings
    from napari_unet.gui.click.target import Target
    from napari_unet.gui.jobs.engine import KeptFeatures
    from napari_unet.nn.interactive.interaction import Action, Answer
    from napari_unet.nn.interactive.session import ClickSession

REST_MS = 250
"""The surroundings of the cursor are computed when it has rested for so long."""


class ClickWork(QObject):
    """Does one action after the other in a session, beside the window.

    Emits, in the window's thread: `opened` when the session is there; `previewed` with what a click
    under the cursor would give; `failed` with an exception; `moved` when something began or ended.

    Parameters
    ----------
    owner
        The widget that it belongs to; nothing is answered when that is gone.
    take
        Called with the `Answer` of each action, in the window's thread; makes its change. What it
        raises counts as a failure of the action.

    Attributes
    ----------
    session
        None before it is opened and after `close`.
    progress
        Of the action at work.
    """

    opened = Signal()
    previewed = Signal(object)
    failed = Signal(object)
    moved = Signal()

    def __init__(self, owner: QObject, take: Callable[[Answer], None]) -> None:
        super().__init__(owner)
        self._take_answer = take
        self._errands = WidgetJobs(owner)
        self.session: ClickSession | None = None
        self.progress = Progress(0, 0, "")
        self._actions: deque[Action] = deque()
        self._job: Job | None = None
        self._job_matters = False
        self._warming: Job | None = None
        self._hover: tuple[Click, bool] | None = None
        self._place: Click | None = None
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MS)
        self._rest.timeout.connect(self._warm)

    @property
    def busy(self) -> bool:
        """Whether something that the user did is waiting or at work."""
        return self.asked or (self._job is not None and self._job_matters)

    @property
    def asked(self) -> bool:
        """Whether an action is waiting or at work; a session that is being opened is none."""
        at_work = self.session is not None and self._job is not None and self._job_matters
        return bool(self._actions) or at_work

    def open(self, begin: Callable[[], Generator[Progress, None, ClickSession]]) -> None:
        """Open a session by a generator that returns it; another one is closed."""
        self.close()
        self._run(begin, self._opened, matters=True)

    def put(self, action: Action) -> None:
        """Do this after all that was given before."""
        self._actions.append(action)
        self._next()
        self.moved.emit()

    def hover(self, click: Click, join: bool = False) -> None:
        """Preview a click when nothing else is to be done; arguments as for `take_click`."""
        self._hover, self._place = (click, join), click
        self._next()

    def leave(self) -> None:
        """Preview nothing any more; what is at work comes too late."""
        self._hover = None
        if self._job is not None and not self._job_matters:
            self._job.abandon()
            self._job = None
            self._next()

    def look(self, place: Click) -> None:
        """Compute the features around a place, when nothing else is to be done."""
        self._place = place
        self._rest.start()

    def drop(self) -> None:
        """Drop the object at hand, and all that is waiting or at work."""
        from napari_unet.nn.interactive.interaction import reset

        if self.session is None:
            self._actions.clear()  # what opens the session goes on
        else:
            self._abandon()
            self.put(reset)

    def close(self) -> None:
        """Let go of the session; what is late is not told."""
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
        """Begin what is next, if nothing is at work."""
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
            on_item=self._take,
            on_done=done,
            on_error=functools.partial(self._fail, matters),
            on_end=self._ended,
        )
        self._job = job
        self._errands.run("click", job)

    def _take(self, item: Progress) -> None:
        self.progress = item
        if self._job_matters:
            self.moved.emit()

    def _opened(self, session: ClickSession) -> None:
        self.session = session
        self.opened.emit()

    def _answered(self, action: Action, answer: Answer) -> None:
        from napari_unet.nn.interactive.interaction import reset

        try:
            self._take_answer(answer)
        except UnetError as error:
            self._fail(True, error)
            return
        if answer.again:
            self._actions.appendleft(action)
        if answer.change is not None:
            self._actions.appendleft(reset)

    def _fail(self, matters: bool, error: Exception) -> None:
        if matters or not isinstance(error, UnetError):
            self._actions.clear()  # they were meant for what would have come of this
            self.failed.emit(error)

    def _ended(self, _: str) -> None:
        self._job = None
        mattered = self._job_matters
        self._next()
        if mattered:
            self.moved.emit()

    def _warm(self) -> None:
        session, place = self.session, self._place
        if session is None or place is None or self._job is not None:
            return
        self._place = None
        self._warming = Job(lambda: _warm(session, place), on_error=self._ignore)
        self._errands.run("warm", self._warming)

    def _ignore(self, error: Exception) -> None:
        if not isinstance(error, UnetError):
            self.failed.emit(error)

    def _stop_warming(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
            self._warming = None


def open_session(
    target: Target, model: str, device: str, kept: KeptFeatures, overwrite: bool
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
        target.ground.stack,
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
        return None  # outside the image, say
