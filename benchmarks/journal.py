"""What the journal costs while painting, and whether a killed process loses a stroke.

    python benchmarks/journal.py [--strokes 300] [--kills 1000] [--json FILE]

Cost: brush strokes of 2,000 to 20,000 pixels on a 4096 x 4096 uint16 labels array full of objects;
milliseconds from the changed pixels to the record on the disk, with and without the sync, and CPU
time alone, which does not depend on other work on the machine.

Kills: a process paints random strokes (some undone and redone), edits several places at once, as of
objects that are alike, and reports the number of each action as soon as it is saved. It is killed
(SIGKILL) at a random moment. The next process restores the labels from the journal, compares them
with the reports, and goes on.
POSIX only.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lab.kills import run_until_killed
from lab.report import summarise_times, write_results

from napari_unet.core.annotations.append_log import JournalWarning, RecordFile
from napari_unet.core.annotations.header import find_journals
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL_MS = 5.0
SHAPE = (64, 48)


def measure_strokes(strokes: int, size: int = 4096, seed: int = 0) -> dict[str, Any]:
    """Measure recording a stroke: milliseconds with and without the sync, bytes on the disk."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    labels = np.where((y % 40 - 20) ** 2 + (x % 40 - 20) ** 2 < 300, y // 40 * 103 + x // 40 + 1, 0)
    labels = labels.astype(np.uint16)
    image = rng.integers(0, 255, (size, size), np.uint8)
    began = time.perf_counter()
    journal = Journal.begin(open_stack(image, "YX"), labels)
    begin_ms = 1e3 * (time.perf_counter() - began)
    start = journal.path.stat().st_size
    synced: list[float] = []
    sync, spent = os.fsync, [0.0]

    def timed_sync(handle: int) -> None:
        at = time.perf_counter()
        sync(handle)
        spent[0] += time.perf_counter() - at

    os.fsync = timed_sync
    # The first action on an image in memory copies it.
    journal.record(journal.edit(([0], [0]), labels[0, 0], 65535, labels=labels))
    labels[0, 0] = 65535
    times, pixels, busy = [], [], []
    for number in range(strokes):
        where = stroke(rng, size)
        old = labels[where]
        labels[where] = number + 1
        spent[0] = 0.0
        at, working = time.perf_counter(), time.thread_time()
        journal.record(journal.edit(where, old, number + 1, labels=labels, source="paint"))
        times.append(1e3 * (time.perf_counter() - at))
        busy.append(1e3 * (time.thread_time() - working))
        synced.append(1e3 * spent[0])
        pixels.append(len(old))
    os.fsync = sync
    grown = journal.path.stat().st_size - start
    at = time.perf_counter()
    same = bool(np.array_equal(journal.replay(), labels))
    replay_ms = 1e3 * (time.perf_counter() - at)
    journal.close()
    return {
        "strokes": strokes,
        "pixels": [min(pixels), max(pixels)],
        "ms_of_processor": summarise_times(busy),
        "ms_without_sync": summarise_times(np.subtract(times, synced)),
        "ms_with_sync": summarise_times(times),
        "bytes_a_stroke": grown / strokes,
        "begin_ms": begin_ms,
        "replay_ms": replay_ms,
        "restored": same,
    }


def stroke(rng: np.random.Generator, size: int) -> tuple[np.ndarray, ...]:
    """Return the pixels of a brush stroke, as napari reports them: dab by dab, none twice."""
    radius = int(rng.integers(12, 24))
    dabs = int(rng.integers(60, 250))
    steps = np.cumsum(rng.normal(0, 5, (dabs, 2)) + rng.normal(0, 4, 2), axis=0)
    centres = np.round(rng.uniform(size / 5, size * 4 / 5, 2) + steps).astype(int)
    y, x = np.nonzero(np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius)
    points = centres[:, None] + np.stack([y, x], 1)[None] - radius
    flat = np.unique(np.clip(points.reshape(-1, 2), 0, size - 1) @ [size, 1])
    rng.shuffle(flat[: len(flat) // 2])
    return np.divmod(flat[:20000], size)


def kill_test(kills: int, seed: int = 0) -> dict[str, int]:
    """Kill a painting process many times; count kills, saved actions and lost ones."""
    rng = np.random.default_rng(seed)
    found = {"kills": 0, "saved": 0, "lost": 0, "torn": 0, "written_not_reported": 0}
    while found["kills"] < kills:
        # A new image now and then: journals grow, and with them the time to check them.
        image = rng.integers(0, 255, SHAPE, np.uint8)
        first = np.zeros(SHAPE, np.uint16)
        with Journal.begin(open_stack(image, "YX"), first) as journal:
            path = journal.path
        expected = Expected(seed)
        for _ in range(min(20, kills - found["kills"])):
            reported = _paint_until_killed(path, seed, busy=rng.uniform(0, 0.08))
            found["kills"] += 1
            places = find_journals(open_stack(image, "YX"))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", JournalWarning)
                with Journal.open(places[0].path) as journal:
                    labels, written = journal.replay(), _actions(journal)
            found["torn"] += len(caught)
            before = expected.number
            reported = max(reported, before)
            found["saved"] += reported - before
            expected.go_on(max(written, before))
            # The last action may be on the disk without having been reported yet.
            right = written in (reported, reported + 1) and np.array_equal(labels, expected.labels)
            found["lost"] += 0 if right else max(1, reported - written)
            found["written_not_reported"] += written - reported
    return found


class Expected:
    """The expected labels after a number of actions; each action follows from its number."""

    def __init__(self, seed: int) -> None:
        self.seed, self.number = seed, 0
        self.labels = np.zeros(SHAPE, np.uint16)
        self.done: list[np.ndarray] = []
        self.undone: list[np.ndarray] = []

    def go_on(self, number: int) -> None:
        """Perform the actions up to a number."""
        while self.number < number:
            what, where, value = action(self.seed, self.number, len(self.done), len(self.undone))
            self.number += 1
            if what in ("paint", "alike"):
                self.done.append(self.labels.copy())
                self.undone.clear()
                for box in alike(where) if what == "alike" else [where]:
                    self.labels[box] = value
                continue
            source, target = self.done, self.undone
            if what == "redo":
                source, target = target, source
            target.append(self.labels.copy())
            self.labels = source.pop()


def action(
    seed: int, number: int, undoable: int, redoable: int
) -> tuple[str, tuple[slice, slice], int]:
    """Return an action by its number: kind, box to paint and label.

    Kinds are "paint", "alike" (several boxes at once, see `alike`), "undo" and "redo".
    """
    rng = np.random.default_rng((seed, number))
    kind = rng.uniform()
    what = "undo" if kind < 0.15 and undoable else "redo" if kind < 0.25 and redoable else "paint"
    what = "alike" if what == "paint" and kind > 0.7 else what
    top, left = (int(rng.integers(0, n - 12)) for n in SHAPE)
    return what, np.s_[top : top + 8, left : left + 11], number + 1


def alike(box: tuple[slice, slice]) -> list[tuple[slice, slice]]:
    """Return some boxes all over the labels, which one edit of objects that are alike changes."""
    rows = [slice((box[0].start + 13 * n) % 56, (box[0].start + 13 * n) % 56 + 8) for n in range(4)]
    return [(row, box[1]) for row in rows]


def _paint_until_killed(path: Path, seed: int, busy: float) -> int:
    """Start a painting process and kill it; return how many actions it reported as saved."""
    said = run_until_killed(functools.partial(_paint, path, seed), busy)
    return int(said[-1]) if said else 0


def _paint(path: Path, seed: int, say: Callable[[str], object]) -> None:
    """Paint for ever, and report each action when it is saved."""
    with Journal.open(path) as journal:
        labels, number = journal.replay(), _actions(journal)
        while True:
            what, box, value = action(seed, number, journal.undoable, journal.redoable)
            if what == "paint":
                where = tuple(part.ravel() for part in np.mgrid[box])
                old = labels[where].copy()
                labels[where] = value
                journal.record(journal.edit(where, old, value, labels=labels))
            elif what == "alike":  # on the disk first, in the labels then
                changed = np.zeros(SHAPE, bool)
                for part in alike(box):
                    changed[part] = True
                where = np.nonzero(changed)
                journal.record(journal.plan(where, labels[where], value, labels=labels))
                labels[where] = value
            else:
                step = journal.undo() if what == "undo" else journal.redo()
                labels[step.where] = step.values
            number += 1
            say(str(number))


def _actions(journal: Journal) -> int:
    """Return how many actions are in the file: all records but the beginning and its labels."""
    with RecordFile(journal.path) as file:
        return sum(1 for _ in file.scan()) - 2


def main() -> int:
    """Measure, print and judge; status 1 if a stroke was lost or costs more than the goal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--strokes", type=int, default=300)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET_HOME"] = folder
        if arguments.strokes:
            found["cost"] = measure_strokes(arguments.strokes, seed=arguments.seed)
        if arguments.kills:
            found["kills"] = kill_test(arguments.kills, arguments.seed)
    write_results(found, arguments.json)
    slow = "cost" in found and found["cost"]["ms_of_processor"]["p95"] > GOAL_MS
    return int(slow or bool(found.get("kills", {}).get("lost")))


if __name__ == "__main__":
    raise SystemExit(main())
