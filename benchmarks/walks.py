"""Which files of the package a run, a correction and a click pass through, in the real window.

    python benchmarks/walks.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/walks.py    # without a screen

Each walk is done with the mouse and the buttons that a user presses, and every function of the
package that is called on the way is noted, in all threads. A file counts when something in it was
called; those of which only one or two functions were needed are counted apart, because a reader who
follows the walk need not open them. The model is the shipped nuclei model, the image the
fluorescence sample.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import napari_unet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCE = Path(napari_unet.__file__).parent
SETTING = ("core/settings", "core/errors", "core/progress", "core/text")
"""Vocabulary that every file uses: not counted."""


class Walk:
    """Notes which functions of the package are called while it is on."""

    def __init__(self) -> None:
        self.functions: dict[str, Counter[str]] = defaultdict(Counter)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Note calls in this thread, and in those that begin meanwhile."""
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]

    def _called(self, frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        # Bodies of modules and classes are not "optimized": they run when a file is imported.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:
            name = getattr(code, "co_qualname", code.co_name)
            if code.co_filename.startswith(str(SOURCE)) and "<" not in name.rpartition(".")[2]:
                file = Path(code.co_filename).relative_to(SOURCE).as_posix()
                self.functions[file][name] += 1

    def files(self) -> list[str]:
        """Return the files, but for those of settings, errors and progress."""
        return sorted(f for f in self.functions if not f.startswith(SETTING))


def wait(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    """Let the window work until something is so."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("the window did not come to an end of what was asked of it")
        QApplication.processEvents()
        time.sleep(0.002)


def pause(seconds: float) -> None:
    """Let the window work for some time."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def button(panel: Any, text: str) -> Any:
    """Return the button of a panel that says something."""
    from qtpy.QtWidgets import QAbstractButton

    for found in panel.findChildren(QAbstractButton):
        if found.text() == text:
            return found
    raise SystemExit(f"no button says {text!r}")


def is_on(panel: Any, text: str) -> bool:
    """Tell whether a button that says something can be pressed."""
    from qtpy.QtWidgets import QAbstractButton

    buttons = panel.findChildren(QAbstractButton)
    return any(b.text() == text and b.isEnabled() and b.isVisible() for b in buttons)


def walk_run(viewer: Any) -> Walk:
    """Press Run, until the objects are there."""
    from napari.layers import Labels

    _, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")
    wait(lambda: is_on(panel, "Run"))
    pause(1)
    walk = Walk()
    with walk.on():
        button(panel, "Run").click()
        wait(lambda: is_on(panel, "Cancel"))
        wait(lambda: not is_on(panel, "Cancel"))
        pause(0.5)
    if not any(isinstance(layer, Labels) for layer in viewer.layers):
        raise SystemExit("the run gave no labels")
    return walk


def walk_correction(viewer: Any, minutes: float) -> Walk:
    """Paint over an object, say that the slice is right, fine-tune, and keep the model."""
    from napari.layers import Labels
    from qtpy.QtWidgets import QDoubleSpinBox

    labels = next(layer for layer in viewer.layers if isinstance(layer, Labels))
    _, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Correct and fine-tune")
    panel.open_step("Fine-tune")
    panel.open_step("Correct")
    viewer.layers.selection.active = labels
    pause(2)
    budget = next(b for b in panel.findChildren(QDoubleSpinBox) if "min" in b.suffix())
    budget.setValue(minutes)
    walk = Walk()
    with walk.on():
        labels.selected_label = int(np.max(labels.data)) + 1
        labels.brush_size = 9
        labels.paint((30, 40), labels.selected_label)
        pause(1)
        button(panel, "I have checked this slice").click()
        wait(lambda: panel.tune.start.enabled)
        panel.tune.start.native.click()
        wait(lambda: is_on(panel, "Keep"))
        pause(1)
        button(panel, "Keep").click()
        wait(lambda: not is_on(panel, "Keep"))
        pause(1)
    return walk


def walk_click(viewer: Any) -> Walk:
    """Click on an object in click mode, and keep it."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    _, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Click")
    pause(1)
    button(panel, "Click (C)").click()
    pause(8)
    canvas = viewer.window._qt_viewer.canvas.native
    walk = Walk()
    with walk.on():
        QTest.mouseClick(
            canvas, Qt.MouseButton.LeftButton, pos=QPoint(canvas.width() // 2, canvas.height() // 2)
        )
        pause(3)
        QTest.keyClick(canvas, Qt.Key.Key_Return)
        pause(2)
    button(panel, "Click (C)").click()
    return walk


def report(name: str, walk: Walk, functions: bool) -> None:
    """Print a walk."""
    files = walk.files()
    brief = [f for f in files if len(walk.functions[f]) <= 2]
    count = sum(len(walk.functions[f]) for f in files)
    print(f"\n{name}: {len(files)} files ({len(brief)} with 1 or 2 functions), {count} functions")
    for file in files:
        names = walk.functions[file]
        print(f"  {file} ({len(names)})" + (": " + ", ".join(names) if functions else ""))


def main() -> None:
    """Walk and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--functions", action="store_true", help="name the functions, too")
    parser.add_argument("--minutes", type=float, default=0.2, help="of the fine-tuning")
    values = parser.parse_args()
    sys.argv = sys.argv[:1]  # Qt reads the rest
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET_HOME"] = folder
        os.environ["NAPARI_CONFIG"] = str(Path(folder, "napari.yaml"))
        import napari

        viewer = napari.Viewer(show=True)
        viewer.open_sample("napari-unet", "nuclei_fluorescence")
        pause(1)
        report("Run", walk_run(viewer), values.functions)
        report("Click", walk_click(viewer), values.functions)
        report(
            "Correct, fine-tune, keep", walk_correction(viewer, values.minutes), values.functions
        )
        viewer.close()


if __name__ == "__main__":
    main()
