"""Long work beside the window: one thread for a job, one job at a time for a device.

napari's own workers swallow a `RuntimeError` raised inside a generator (every torch error is one),
never close a generator that was told to quit, and keep its arguments alive as long as the window. A
`Job` does none of that: whatever happens, its generator is closed in the thread that ran it,
`on_end` is called once, and nothing of it is kept.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from qtpy.QtCore import QObject, Qt, Signal

logger = logging.getLogger(__name__)

Begin = Callable[[], Generator[Any, None, Any]]
WAITING, RUNNING, DONE, CANCELLED, FAILED = "waiting", "running", "done", "cancelled", "failed"
EXIT_S = 30.0
"""How long the end of the program waits for a tile or a training step that is under way: a thread
that is in torch when the interpreter goes down brings the process down with it."""
HOST = "host"
"""The slot of work that needs no network, such as scoring; it goes on beside the devices'."""
_numbers = itertools.count(1)


def _nothing(*_: Any) -> None:
    """Stand in for a callback that was not given."""


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
    All callbacks run in the window's thread. An exception raised by `on_item` ends the job as its
    own would. `number` grows from job to job: an answer that carries an older one is late.
    """

    def __init__(
        self,
        begin: Begin,
        *,
        on_item: Callable[[Any], None] = _nothing,
        on_done: Callable[[Any], None] = _nothing,
        on_error: Callable[[Exception], None] = _nothing,
        on_end: Callable[[str], None] = _nothing,
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
        self._through = threading.Event()

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
        """Cancel; whoever wanted to know of it is gone and is not told."""
        self.cancel()
        self._on_item = self._on_done = self._on_error = self._on_end = _nothing

    def wait(self, seconds: float) -> bool:
        """Wait until the thread is through with the generator; return whether it is."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is None or not self._thread.is_alive()

    def start(self, ring: Callable[[], None]) -> None:
        """Start the thread; `ring` is called from it whenever there is news to `deliver`."""
        self.state = RUNNING
        begin, self._begin = self._begin, None
        try:
            generator = None if begin is None or self.cancelled else begin()
        except Exception as error:
            self._error, generator = error, None
        if generator is None:
            self._through.set()
            ring()
            return
        name = f"napari-unet job {self.number}"
        self._thread = threading.Thread(
            target=self._work, args=(generator, ring), name=name, daemon=True
        )
        self._thread.start()

    def _work(self, generator: Generator[Any, None, Any], ring: Callable[[], None]) -> None:
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
                ring()
        except Exception as error:
            self._error = error
        try:
            generator.close()
        except Exception as error:
            self._error = self._error or error
        del generator
        self._through.set()
        ring()

    def deliver(self) -> bool:
        """Hand the news to the callbacks, in the window's thread; return whether that was all."""
        through = self._through.is_set()  # asked first: nothing is appended after it is set
        try:
            while self._items:
                item = self._items.popleft()
                if not self.cancelled:
                    self._on_item(item)
        except Exception as error:
            self._error = self._error or error
            self.cancel()
        if through:
            self._finish()
        return through

    def _finish(self) -> None:
        """Report the end and let go of everything."""
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
            self._on_item = self._on_done = self._on_error = self._on_end = _nothing
            on_end(self.state)


class DeviceQueue:
    """The place where the jobs of one device run, one after the other.

    A job that has not started yet gives way to a newer one; a running one is left to its owner to
    cancel. Made and used in the window's thread.
    """

    def __init__(self) -> None:
        self.running: Job | None = None
        self.waiting: Job | None = None
        self._bell = MainThreadNotifier(self._answer)

    def submit(self, job: Job) -> Job:
        """Run `job` now, or as the next one; a job that was waiting ends as cancelled."""
        replaced, self.waiting = self.waiting, job
        if replaced is not None:
            replaced.cancel()
            replaced.start(_nothing)  # never begins: it was cancelled
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
            self.running.start(self._bell.ring)

    def _answer(self) -> None:
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


_slots: dict[str, DeviceQueue] = {}


def get_device_queue(device: str) -> DeviceQueue:
    """Return the slot of a device; "auto" shares the accelerator's."""
    key = device if device in ("cpu", HOST) else "accelerator"
    if key not in _slots:
        _slots[key] = DeviceQueue()
    return _slots[key]


class WidgetJobs:
    """Small jobs of a widget that need no network; none answers a widget that is gone.

    Each kind has a slot of its own: of several jobs of a kind that wait, only the newest matters.

    Parameters
    ----------
    owner
        The widget.
    """

    def __init__(self, owner: QObject) -> None:
        self._prefix = f"{HOST} {next(_numbers)}"
        self._jobs: list[Job] = []
        owner.destroyed.connect(functools.partial(abandon_all, self._jobs))

    def run(self, kind: str, job: Job) -> Job:
        """Run a job, or run it next."""
        return self.run_in(_slots.setdefault(f"{self._prefix} {kind}", DeviceQueue()), job)

    def run_in(self, slot: DeviceQueue, job: Job) -> Job:
        """Run a job in a slot that others use, too."""
        self._jobs[:] = [*(other for other in self._jobs if other.active), job]
        return slot.submit(job)


def abandon_all(runs: list[Any], *_: object) -> None:
    """Let go of the runs of a panel that is gone by now."""
    for run in runs:
        run.abandon()


@atexit.register
def stop_all() -> None:
    """Stop every job: a thread must not run torch while the interpreter goes down."""
    for slot in _slots.values():
        slot.stop(EXIT_S)
    _slots.clear()


class MainThreadNotifier(QObject):
    """Has something called in the window's thread, once for all rings since the last time.

    Made in the window's thread.

    Parameters
    ----------
    answer
        What is called.
    """

    _rang = Signal()

    def __init__(self, answer: Callable[[], object]) -> None:
        super().__init__()
        self._on_answer = answer
        self._rung = False
        connect: Any = self._rang.connect  # PyQt's stub leaves out the second argument
        connect(self._answer, Qt.ConnectionType.QueuedConnection)

    def ring(self) -> None:
        """Ask for an answer; returns at once, from any thread."""
        if self._rung:
            return
        self._rung = True
        with contextlib.suppress(RuntimeError):  # Qt has gone down before the thread
            self._rang.emit()

    def _answer(self) -> None:
        self._rung = False  # first: what comes from now on asks for another answer
        self._on_answer()
