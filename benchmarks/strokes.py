"""What recording costs the main thread while the user paints.

    xvfb-run -a python benchmarks/strokes.py [--strokes 200] [--size 4096] [--json FILE]

Brush strokes of 60 to 250 dabs on a 4096 x 4096 uint16 labels layer full of objects, in a viewer
that records. Milliseconds in the main thread: what recording adds to a stroke (handling napari's
`paint` event and the journal's messages), the stroke itself with recording and without, and an
undo, including its sync.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lab.report import summarise_times, write_results

GOAL_MS = 5.0


def main() -> int:
    """Measure, print and judge; status 1 if a stroke costs more than the goal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--strokes", type=int, default=200)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET_HOME"] = folder
        found = measure(arguments.strokes, arguments.size)
    write_results(found, arguments.json)
    return int(found["added_ms"]["p95"] > GOAL_MS or not found["restored"])


def measure(strokes: int, size: int) -> dict[str, Any]:
    """Return the milliseconds of strokes with and without recording."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_unet.gui.correct.edit_tracker import get_edit_tracker

    rng = np.random.default_rng(0)
    viewer = napari.Viewer(show=False)
    image = viewer.add_image(rng.integers(0, 255, (size, size), np.uint8), name="image")
    viewer.window.add_plugin_dock_widget("napari-unet", "Correct and fine-tune")
    recorder, clock = get_edit_tracker(viewer), _Clock()
    plain = viewer.add_labels(make_labels(size), name="not recorded")
    without = [clock.time(functools.partial(paint, rng, plain, n)) for n in range(strokes)]
    viewer.layers.remove(plain)
    layer = viewer.add_labels(make_labels(size), name="recorded")
    clock.watch(layer)
    recorder.watch(layer, image)
    paint(rng, layer, 1)  # begins the journal
    recording = recorder.recordings[layer]
    recording.wait(60)
    QApplication.processEvents()
    within, added = [], []
    for number in range(strokes):
        clock.spent = 0.0
        within.append(clock.time(functools.partial(paint, rng, layer, number + 2)))
        # Messages that arrive while the next stroke is painted are handled here, too.
        news = clock.time(QApplication.processEvents)
        added.append(clock.spent + news)
    recording.wait(60)
    QApplication.processEvents()
    undone = [clock.time(recording.undo) for _ in range(min(20, strokes))]
    with_journal = recording.journal
    assert with_journal is not None
    restored = bool(np.array_equal(with_journal.replay(), layer.data))
    viewer.close()
    return {
        "strokes": strokes,
        "added_ms": summarise_times(added),
        "stroke_ms_recorded": summarise_times(within),
        "stroke_ms_not_recorded": summarise_times(without),
        "undo_ms": summarise_times(undone),
        "restored": restored,
    }


class _Clock:
    """Times calls, and the handlers of a layer's `paint` event."""

    def __init__(self) -> None:
        self.spent = self._began = 0.0

    def time(self, work: Any) -> float:
        began = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - began)

    def watch(self, layer: Any) -> None:
        """Connect a start before all handlers of the event, and a stop after them."""
        layer.events.paint.connect(self._stop, position="last")
        layer.events.paint.connect(self._start, position="first")

    def _start(self, _: Any) -> None:
        self._began = time.perf_counter()

    def _stop(self, _: Any) -> None:
        self.spent += 1e3 * (time.perf_counter() - self._began)


def make_labels(size: int) -> np.ndarray:
    """Return labels full of discs."""
    y, x = np.mgrid[:size, :size]
    inside = (y % 40 - 20) ** 2 + (x % 40 - 20) ** 2 < 300
    return np.where(inside, y // 40 * 103 + x // 40 + 1, 0).astype(np.uint16)


def paint(rng: np.random.Generator, layer: Any, label: int) -> None:
    """Paint one stroke of many dabs, as the mouse does, but for the drawing on the screen."""
    layer.brush_size = int(rng.integers(24, 48))
    steps = np.cumsum(rng.normal(0, 5, (int(rng.integers(60, 250)), 2)) + 3, axis=0)
    points = np.clip(rng.uniform(0, layer.data.shape[0], 2) + steps, 0, layer.data.shape[0] - 1)
    with layer.block_history():
        for point in points:
            layer.paint(point, 60000 + label % 5000, refresh=False)


if __name__ == "__main__":
    raise SystemExit(main())
