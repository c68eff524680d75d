"""A first hour: open, segment, correct ten objects, fine-tune, keep, run on another image.

    python benchmarks/journey.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/journey.py    # without a screen

Real clicks of the mouse in a real window are counted, and the seconds of each part; a 10 ms timer
says how late the event loop was. The image is the fluorescence sample, cut in two: one half is
corrected, the other is the new image. Nothing is written but into a temporary folder.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from lab.event_loop import (
    P95_GOAL_MS,
    after,
    measure_training,
    open_viewer,
    run_until,
)
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Steps = Iterator[Callable[[], bool]]


class Journey:
    """A user at the mouse: clicks are counted, parts are timed.

    Attributes
    ----------
    parts
        Clicks, seconds and delays of each part, by its name.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.viewer = open_viewer(image, name="first")
        self.panel = self.viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")[1]
        self.parts: dict[str, dict[str, float]] = {}
        self._clicks = 0
        run_until(after(1.0))

    def press(self, button: Any) -> None:
        """Click on a button, of Qt or of magicgui."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        self._clicks += 1
        QTest.mouseClick(getattr(button, "native", button), Qt.MouseButton.LeftButton)

    def press_canvas(self, y: float, x: float) -> None:
        """Click on a pixel of the image."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        self._clicks += 1
        camera, size = self.viewer.scene.camera, np.array(self.viewer.canvas.size)
        down, right = (np.array((y, x)) - camera.center[-2:]) * camera.zoom + size / 2
        place = QPoint(round(right), round(down))
        canvas = self.viewer.window._qt_viewer.canvas.native
        QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=place)

    def part(self, name: str, steps: Steps) -> None:
        """Do a part step by step; each returns how to know that the next one can come."""
        self._clicks, began = 0, time.perf_counter()
        waiting: Callable[[], bool] | None = after(0)

        def finished() -> bool:
            nonlocal waiting
            if waiting is not None and waiting():
                waiting = next(steps, None)
            return waiting is None

        late = run_until(finished, name)
        seconds = round(time.perf_counter() - began, 1)
        self.parts[name] = {"clicks": self._clicks, "seconds": seconds, **late.summarise()}

    def segment(self) -> Steps:
        """Run the model on the image that is chosen."""
        self.press(self.panel.segment.start)
        yield lambda: self.panel.segment.active is None

    def correct(self, count: int) -> Steps:
        """Delete objects, the smallest first, with napari's bucket and label 0."""
        labels = self.viewer.layers["first nuclei"]
        self.press(self.panel.buttons["Correct"])
        yield after(0.3)
        numbers, sizes = np.unique(labels.data[labels.data > 0], return_counts=True)
        places = ndimage.center_of_mass(labels.data > 0, labels.data, numbers)
        self.viewer.layers.selection.active = labels
        labels.mode, labels.selected_label = "fill", 0
        self._clicks += 2  # the bucket, and the label 0
        yield after(0.3)
        for at in np.argsort(sizes)[:count]:
            self.press_canvas(*places[at])
            yield after(0.05)
        labels.mode = "pan_zoom"
        yield after(0.5)

    def tune(self, minutes: float) -> Steps:
        """Fine-tune, and wait for the comparison."""
        self.press(self.panel.buttons["Fine-tune"])
        step = self.panel.tune
        step.form.first.settings["minutes"].set(minutes)
        yield after(0.3)
        self.press(step.start)
        yield lambda: step.active is None and step.review.comparison is None

    def decide(self) -> Steps:
        """Keep the model, or discard one that became worse."""
        review = self.panel.tune.review
        print(review.summary.text(), review.advice.text(), review.difference.text())
        self.press(review.keep if review.pending else review.discard)
        yield lambda: review.work is None

    def open_another(self, image: np.ndarray) -> Steps:
        """Open another image, and run the model that is chosen now."""
        self.viewer.add_image(image, name="second")
        yield after(0.3)
        self.press(self.panel.buttons["Segment"])
        yield after(0.3)
        yield from self.segment()


def measure(minutes: float) -> dict[str, dict[str, float]]:
    """Make the journey; return clicks, seconds and delays of each part."""
    from napari_unet.gui.samples import open_fluorescence_sample

    ((image, _, _),) = open_fluorescence_sample()
    half = image.shape[-1] // 2
    journey = Journey(image[..., :half])
    journey.part("segment", journey.segment())
    journey.part("correct 10 objects", journey.correct(10))
    journey.part(f"fine-tune {minutes:g} min, compare", journey.tune(minutes))
    journey.part("decide", journey.decide())
    journey.part("run on another image", journey.open_another(image[..., half:]))
    journey.viewer.close()
    return journey.parts


def show(found: dict[str, dict[str, float]]) -> None:
    """Print the figures as a table."""
    print(f"| part | clicks | seconds | p95 ms (goal {P95_GOAL_MS}) | longest ms | its own ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, part in found.items():
        columns = ("clicks", "seconds", "p95_ms", "max_ms", "own_max_ms")
        print(f"| {name} | {' | '.join(str(part[column]) for column in columns)} |")


if __name__ == "__main__":
    measure_training(measure, show, __doc__)
