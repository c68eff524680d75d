"""A real window for a benchmark: opened, its event loop run, and how late the loop was, and why.

A 10 ms timer says how late the event loop is. On a busy machine much of that is waiting for a
processor, so what the window's thread itself computed is reported beside it. With `STALLS=1` in
the environment the longest delays are printed, and where the window's thread was meanwhile.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

P95_GOAL_MS = 30
TICK_MS = 10
SAMPLE_S = 0.005
STALL_MS = 40.0
"""A tick that is so late counts as a stall, whose causes are sampled."""
OWN_FRAMES = 5
"""How many calls of a stack, the innermost first, say where a stall was."""


@dataclass
class Delays:
    """How late the ticks of a 10 ms timer were.

    Attributes
    ----------
    late, own
        Of each tick, in milliseconds: by how much it was late, and for how long the window's
        thread itself was computing meanwhile.
    """

    late: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    def summarise(self) -> dict[str, float]:
        """Return percentiles over the ticks, and over time, where long delays count more."""
        values = np.sort(self.late)
        time_share = np.cumsum(values + TICK_MS) / (values + TICK_MS).sum()
        over_time = values[np.searchsorted(time_share, 0.95)]
        p50, p95 = np.percentile(values, (50, 95))
        found = {
            "p50_ms": p50,
            "p95_ms": p95,
            "p95_over_time_ms": over_time,
            "max_ms": values[-1],
            "own_p95_ms": np.percentile(self.own, 95),
            "own_max_ms": max(self.own),
        }
        return {name: round(float(value), 1) for name, value in found.items()}


def run_until(
    finished: Callable[[], bool], name: str = "", begin: Callable[[], object] | None = None
) -> Delays:
    """Run the event loop until `finished`; return by how much each 10 ms timer was late.

    Parameters
    ----------
    finished
        Called at each tick; the time that it takes makes the next one late.
    name
        Of what goes on, for the report of stalls, if they are watched.
    begin
        Called in the loop before the first tick, which it may make late: what the user presses.
    """
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    loop, timer, found = QEventLoop(), QTimer(), Delays()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.setSingleShot(True)
    began = computed = 0.0

    def wait() -> None:
        nonlocal began, computed
        began, computed = time.perf_counter(), time.thread_time()
        STALLS.tick()
        timer.start(TICK_MS)

    def tick() -> None:
        found.late.append(max(0.0, (time.perf_counter() - began) * 1000 - TICK_MS))
        found.own.append((time.thread_time() - computed) * 1000)
        wait()
        if finished():
            timer.stop()
            loop.quit()

    timer.timeout.connect(tick)
    if begin is not None:
        QTimer.singleShot(0, begin)
    wait()
    loop.exec()
    if report := STALLS.report():
        print(f"{name}\n{report}", file=sys.stderr)
    return found


def after(seconds: float) -> Callable[[], bool]:
    """Return a function that is true from so many seconds on."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


def open_viewer(image: np.ndarray, **options: Any) -> Any:
    """Open a window with an image in it."""
    import napari
    from napari.utils.notifications import notification_manager

    viewer = napari.Viewer(show_welcome_screen=False)
    notification_manager.install_hooks()  # as napari.run does
    viewer.window.set_geometry(0, 0, 1600, 1000)
    viewer.add_image(image, **({"name": "image"} | options))
    return viewer


class Stalls:
    """Where the window's thread was whenever it was late, sampled from a thread beside it.

    Samples cannot be taken while a library holds Python's lock; what was computed meanwhile is
    counted where it lets go.
    """

    def __init__(self) -> None:
        self._ticked = self._computed = 0.0
        self._clock: int | None = None
        self._samples: list[Sample] = []
        self._longest: list[list[Sample]] = []

    def tick(self) -> None:
        """Note that the event loop of the calling thread has answered."""
        if self._clock is None:
            if not os.environ.get("STALLS"):
                return
            self._ticked, self._computed = time.perf_counter(), time.thread_time()
            thread = threading.get_ident()
            self._clock = time.pthread_getcpuclockid(thread)
            threading.Thread(target=self._sample, args=(thread,), daemon=True).start()
        samples, self._samples = self._samples, []
        if samples:
            self._longest.append(samples)
        self._ticked, self._computed = time.perf_counter(), time.thread_time()

    def report(self, count: int = 3) -> str:
        """Return the longest stalls since the last report, and where most of each was computed."""
        self._longest.sort(key=lambda stall: -stall[-1].computed)
        lines = []
        for samples in self._longest[:count]:
            late, computed, _ = samples[-1]
            lines.append(f"  {late * 1000:.0f} ms late, {computed * 1000:.0f} ms computed")
            spent: collections.Counter[tuple[str, ...]] = collections.Counter()
            before = 0.0
            for sample in samples:
                spent[sample.place] += sample.computed - before
                before = sample.computed
            lines += [f"    {s * 1000:4.0f}  {' < '.join(p)}" for p, s in spent.most_common(5)]
        self._longest.clear()
        return "\n".join(lines)

    def _sample(self, thread: int) -> None:
        assert self._clock is not None
        while thread in (frames := sys._current_frames()):
            late = time.perf_counter() - self._ticked - TICK_MS / 1000
            if late * 1000 > STALL_MS:
                computed = time.clock_gettime(self._clock) - self._computed
                self._samples.append(Sample(late, computed, _describe(frames[thread])))
            del frames
            time.sleep(SAMPLE_S)


class Sample(NamedTuple):
    """Where a thread is, and for how many seconds it is late and has computed until then."""

    late: float
    computed: float
    place: tuple[str, ...]


def _describe(frame: FrameType | None) -> tuple[str, ...]:
    """Return the innermost calls of a stack, and the innermost one of the package."""
    calls, ours = [], ""
    while frame is not None and not ours:
        path = Path(frame.f_code.co_filename)
        call = f"{path.name}:{frame.f_lineno} {frame.f_code.co_name}"
        if "napari_unet" in path.parts:
            ours = call
        elif len(calls) < OWN_FRAMES:
            calls.append(call)
        frame = frame.f_back
    return (*calls, "...", ours) if ours else tuple(calls)


STALLS = Stalls()


@contextlib.contextmanager
def temporary_home() -> Iterator[None]:
    """Keep models, settings and journals in a temporary folder; nothing else is written."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET_HOME"] = folder
        os.environ["NAPARI_CONFIG"] = str(Path(folder, "napari.yaml"))
        provide_model()
        yield


def provide_model() -> None:
    """Put random weights into the temporary store if the shipped model is missing."""
    from napari_unet.core.models.store import list_models

    if not any(entry.name == "nuclei" for entry in list_models()):
        from napari_unet.nn.bench import stand_in
        from napari_unet.nn.inference.model import save_model

        save_model(stand_in(device="cpu"), "nuclei")


def measure_training(
    measure: Callable[[float], dict[str, Any]], show: Callable[[dict[str, Any]], None], about: str
) -> None:
    """Be the `main` of a benchmark that fine-tunes in a window.

    Parameters
    ----------
    measure
        Gets the minutes of the fine-tuning, and returns the figures.
    show
        Prints them.
    about
        The benchmark's docstring.
    """
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=0.5, help="budget of the fine-tuning")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    values = parser.parse_args()
    sys.argv = sys.argv[:1]  # Qt reads the rest
    with temporary_home():
        found = measure(values.minutes)
    show(found)
    if values.json:
        values.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
