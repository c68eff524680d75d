"""Long work beside the window: each job has a thread, each device works at one job at a time.

napari's own workers swallow a `RuntimeError` raised inside a generator (every torch error is one),
never close a generator that was told to quit, and keep its arguments alive as long as the window. A
`Job` does none of that: whatever happens, its generator is closed in the thread that ran it,
`on_end` is called once, and nothing of it is kept. `Job.cancel` is how any of it is stopped: it
takes effect at the generator's next yield.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

from qtpy.QtCore import QObject, Qt, Signal

from napari_unet.core.server_access import is_remote

logger = logging.getLogger(__name__)

Begin = Callable[[], Generator[Any, None, Any]]
WAITING, RUNNING, DONE, CANCELLED, FAILED = "waiting", "running", "done", "cancelled", "failed"
EXIT_S = 30.0
"""How long the end of the program waits for a tile or a training step that is under way: a thread
that is still in torch when the interpreter shuts down crashes the process."""
REPLACED = "Another step came first; press {} again."
"""To be said of a job that was cancelled by nobody: a newer one took its place in the queue."""
HOST = "host"
"""The queue of work that needs no network, such as scoring; it goes on beside the devices'."""
_numbers = itertools.count(1)


def do_nothing(*_: object) -> None:
    """Take the place of a callback that was not given, or whose owner is gone."""


class Job:
    """One piece of long work.

    Parameters
    ----------
    begin
        Called in the window's thread when the job's turn comes; returns the generator whose body
        then runs in the job's own thread. What it raises is reported like any other error.
    on_item
        Called with each item that the generator yields, unless the job was cancelled.
    on_done
        Called with the generator's return value.
    on_error
        Called with the exception that ended the job.
    on_end
        Called last and always, with "done", "cancelled" or "failed".

    Notes
    -----
    All callbacks run in the window's thread. An exception raised by `on_item` ends the job as one
    of its own does. `number` grows from job to job: an answer that carries an older one is late.
    """

    def __init__(
        self,
        begin: Begin,
        *,
        on_item: Callable[[Any], None] = do_nothing,
        on_done: Callable[[Any], None] = do_nothing,
        on_error: Callable[[Exception], None] = do_nothing,
        on_end: Callable[[str], None] = do_nothing,
    ) -> None:
        self.number = next(_numbers)
        self.state = WAITING
        self._begin: Begin | None = begin
        self._on_item, self._on_done = on_item, on_done
        self._on_error, self._on_end = on_error, on_end
        self._stop = threading.Event()
        self._items: deque[Any] = deque()
        self._thread: threading.Thread | None = None
        self._result: Any = None
        self._error: Exception | None = None
        self._finished = threading.Event()

    @property
    def active(self) -> bool:
        """Whether the job waits or runs."""
        return self.state in (WAITING, RUNNING)

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Ask the job to stop after the item it works at; safe from any thread, at any time."""
        self._stop.set()

    def abandon(self) -> None:
        """Cancel, and call no callback any more: their owner is gone."""
        self.cancel()
        self._on_item = self._on_done = self._on_error = self._on_end = do_nothing

    def wait(self, seconds: float) -> bool:
        """Wait until the thread has ended; return whether it has."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def start(self, notify: Callable[[], None]) -> None:
        """Start the thread; it calls `notify` whenever there is something to `deliver`."""
        self.state = RUNNING
        begin, self._begin = self._begin, None
        try:
            generator = None if begin is None or self.cancelled else begin()
        except Exception as error:
            self._error, generator = error, None
        if generator is None:
            self._finished.set()
            notify()
            return
        name = f"napari-unet job {self.number}"
        self._thread = threading.Thread(
            target=self._work, args=(generator, notify), name=name, daemon=True
        )
        self._thread.start()

    def _work(self, generator: Generator[Any, None, Any], notify: Callable[[], None]) -> None:
        """Drive the generator to its end, its failure or the stop; runs in the job's thread."""
        try:
            while not self._stop.is_set():
                try:
                    item = next(generator)
                except StopIteration as stop:
                    self._result = stop.value
                    break
                self._items.append(item)
                del item
                notify()
        except Exception as error:
            self._error = error
        try:
            generator.close()
        except Exception as error:
            self._error = self._error or error
        del generator
        self._finished.set()
        notify()

    def deliver(self) -> bool:
        """Call the callbacks, in the window's thread; return whether the job is over."""
        finished = self._finished.is_set()  # read first: nothing is appended after it is set
        try:
            # Those that come meanwhile are delivered later: the window has other things to do, too.
            for _ in range(len(self._items)):
                item = self._items.popleft()
                if not self.cancelled:
                    self._on_item(item)
        except Exception as error:
            self._error = self._error or error
            self.cancel()
        if finished:
            self._finish()
        return finished

    def _finish(self) -> None:
        """Report the end, and drop all references."""
        if self._thread is not None:
            self._thread.join()
        try:
            if self._error is not None:
                self.state = FAILED
                self._on_error(self._error)
            elif self.cancelled:
                self.state = CANCELLED
            else:
                self.state = DONE
                self._on_done(self._result)
        finally:
            on_end, self._result, self._error = self._on_end, None, None
            self._on_item = self._on_done = self._on_error = self._on_end = do_nothing
            on_end(self.state)


class DeviceQueue:
    """Runs the jobs of one device, one after the other.

    A job that has not started yet is replaced by a newer one; a running one goes on until its owner
    cancels it. To be made and used in the window's thread.
    """

    def __init__(self) -> None:
        self.running: Job | None = None
        self.waiting: Job | None = None
        self._notifier = MainThreadNotifier(self._deliver)

    def submit(self, job: Job) -> Job:
        """Run `job` now, or as the next one; a job that was waiting ends as cancelled."""
        replaced, self.waiting = self.waiting, job
        if replaced is not None:
            replaced.cancel()
            replaced.start(do_nothing)  # never begins: it was cancelled
            replaced.deliver()
        self._next()
        return job

    def stop(self, seconds: float = 5.0) -> None:
        """Cancel everything and wait for the thread; nothing is delivered any more."""
        jobs = [job for job in (self.running, self.waiting) if job is not None]
        self.running = self.waiting = None
        for job in jobs:
            job.cancel()
        for job in jobs:
            if not job.wait(seconds):
                logger.warning("job %d does not stop", job.number)

    def _next(self) -> None:
        if self.running is None and self.waiting is not None:
            self.running, self.waiting = self.waiting, None
            self.running.start(self._notifier.notify)

    def _deliver(self) -> None:
        job = self.running
        if job is None:
            return
        try:
            over = job.deliver()
        except Exception:
            over = True
            raise
        finally:
            if over:
                self.running = None
                self._next()


_queues: dict[str, DeviceQueue] = {}


def get_device_queue(device: str) -> DeviceQueue:
    """Return the queue of a device; "auto" shares the accelerator's, a server has its own."""
    own = device in ("cpu", HOST) or is_remote(device)
    return _get_queue(device if own else "accelerator")


def _get_queue(name: str) -> DeviceQueue:
    if name not in _queues:
        _queues[name] = DeviceQueue()
    return _queues[name]


class JobOwner(Protocol):
    """What has a job and more to tidy up, such as `napari_unet.gui.jobs.run_button.ResultRun`."""

    job: Job

    def abandon(self) -> None:
        """Cancel the job, and report to nobody."""


class WidgetJobs:
    """The jobs of a widget; they are abandoned when the widget is gone.

    Parameters
    ----------
    owner
        The widget.
    """

    def __init__(self, owner: QObject) -> None:
        self._prefix = f"{HOST} {next(_numbers)}"
        # Weak: a job or run at work is held by its queue, and one that is over may go.
        self._jobs: weakref.WeakSet[Job | JobOwner] = weakref.WeakSet()
        owner.destroyed.connect(functools.partial(_abandon_all, self._jobs))

    def run(self, kind: str, job: Job) -> Job:
        """Run a small job that needs no network, now or as the next one of its kind.

        Each kind has a queue of its own: of several that wait, only the newest matters.
        """
        return self.run_in(_get_queue(f"{self._prefix} {kind}"), job)

    def run_in(self, queue: DeviceQueue, job: Job) -> Job:
        """Run a job in a queue that others use, too."""
        self._jobs.add(job)
        return queue.submit(job)

    def start(self, run: JobOwner, device: str) -> None:
        """Start a run in the queue of a device."""
        self._jobs.add(run)
        get_device_queue(device).submit(run.job)


def _abandon_all(jobs: Iterable[Job | JobOwner], *_: object) -> None:
    """Abandon the jobs of a widget that is gone by now."""
    for job in list(jobs):
        job.abandon()


@atexit.register
def stop_all() -> None:
    """Stop every job: no thread may be in torch while the interpreter shuts down."""
    for queue in _queues.values():
        queue.stop(EXIT_S)
    _queues.clear()


class MainThreadNotifier(QObject):
    """Calls a function in the window's thread, once for all notifications since the last call.

    To be made in the window's thread.

    Parameters
    ----------
    respond
        The function.
    """

    _notified = Signal()

    def __init__(self, respond: Callable[[], object]) -> None:
        super().__init__()
        self._on_notified = respond
        self._pending = False
        connect: Any = self._notified.connect  # PyQt's stub leaves out the second argument
        connect(self._respond, Qt.ConnectionType.QueuedConnection)

    def notify(self) -> None:
        """Have the function called soon; returns at once, safe from any thread."""
        if self._pending:
            return
        self._pending = True
        with contextlib.suppress(RuntimeError):  # Qt may be deleted before the thread has ended
            self._notified.emit()

    def _respond(self) -> None:
        self._pending = False  # first: what comes from now on needs another call
        self._on_notified()
