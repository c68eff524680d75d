"""Make the pictures of the documentation, from the real window doing what they show.

    python scripts/pictures.py                    all of them, into docs/pictures (some minutes)
    python scripts/pictures.py segment measure    only these
    python scripts/pictures.py --list             what there is

Without a display a virtual one is started (Xvfb). The window is driven by what its buttons say, so
that a button that is renamed stops the script. `loop` is the animation of the first page: segment,
correct, fine-tune, keep; it takes the minutes that `--minutes` gives to the tuning, and makes
fine-tune.png, too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SIZE = (1366, 768)
LOOP_SIZE = (854, 480)
COLOURS = 200
PATIENCE_S = 900.0
FLUORESCENCE, HISTOLOGY = "nuclei_fluorescence", "nuclei_histology"
CELLS = "cells_phase_contrast"


class Window:
    """napari with the panel, on a sample.

    Parameters
    ----------
    sample
        Key of the sample.
    model
        What is chosen at the top of the panel.
    """

    def __init__(self, sample: str, model: str = "nuclei") -> None:
        import napari

        self.viewer = napari.Viewer(title="napari-unet", show_welcome_screen=False)
        self.viewer.window.set_geometry(0, 0, *SIZE)
        pause(0.3)
        self.viewer.open_sample("napari-unet", sample)
        self.panel = self.viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")[1]
        self.panel.inputs.model.value = model
        pause(1.0)

    def button(self, text: str) -> Any:
        """Return the button in view that says something."""
        from qtpy.QtWidgets import QAbstractButton

        for found in self.panel.findChildren(QAbstractButton):
            if found.text() == text and found.isVisible():
                return found
        raise SystemExit(f"no button in view says {text!r}")

    def press(self, text: str) -> None:
        """Press a button as soon as it can be."""
        wait(lambda: self.button(text).isEnabled(), f"{text!r} can be pressed")
        self.button(text).click()
        pause(0.3)

    def step(self, name: str) -> Any:
        """Open a step and return it."""
        self.panel.open_step(name)
        pause(0.6)
        return self.panel.get_step(name)

    def run(self, watch: Callable[[], None] = lambda: None) -> Any:
        """Run the model on the image and return the labels."""
        from napari.layers import Labels

        self.step("Segment")
        self.press("Run")
        segment = self.panel.segment
        wait(lambda: segment.active is None, "the run ends", watch)
        pause(1.0)
        return next(layer for layer in reversed(self.viewer.layers) if isinstance(layer, Labels))

    def click_on(self, place: np.ndarray) -> None:
        """Click with the mouse on a pixel (y, x) of the image."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        canvas, camera = self.viewer.window._qt_viewer.canvas.native, self.viewer.scene.camera
        y, x = (np.asarray(place) - camera.center[-2:]) * camera.zoom
        where = QPoint(round(canvas.width() / 2 + x), round(canvas.height() / 2 + y))
        QTest.mouseMove(canvas, where)
        pause(0.3)
        QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=where)

    def grab(self) -> Image.Image:
        """Return the window as it is."""
        pause(0.4)
        shot = self.viewer.screenshot(canvas_only=False, flash=False)
        return Image.fromarray(np.ascontiguousarray(shot[..., :3]))

    def close(self) -> None:
        """Close the window and forget what it remembers."""
        for step in ("Segment", "Fine-tune", "Click"):
            self.panel.get_step(step).cancel_all()
        pause(0.5)
        self.viewer.close()
        pause(0.3)


def wait(
    condition: Callable[[], bool], what: str, watch: Callable[[], None] = lambda: None
) -> None:
    """Let the window work until something is so; `watch` is called now and then."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain until {what}")
        QApplication.processEvents()
        watch()
        time.sleep(0.005)


def pause(seconds: float) -> None:
    """Let the window work for some time."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end, "time passes")


def save(picture: Image.Image, name: str) -> None:
    """Write a picture with few colours, which makes it small."""
    few = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(FOLDER / f"{name}.png", optimize=True)


def truth_of(sample: str) -> np.ndarray:
    """Return the outlines that experts drew."""
    from napari_unet.core.io.label_reader import read_labels

    paths = {CELLS: "phase contrast", FLUORESCENCE: "fluorescence", HISTOLOGY: "histology"}
    from napari_unet.core.io.sample_images import truth_path

    return read_labels(truth_path(paths[sample]))


def correct(labels: Any, truth: np.ndarray, ids: list[int]) -> None:
    """Replace what lies at the place of true objects by them, as a brush would."""
    for number in ids:
        inside = truth == number
        hit = np.unique(labels.data[inside])
        wrong = np.isin(labels.data, hit[hit > 0])
        labels.data_setitem(np.nonzero(wrong), 0)
        labels.data_setitem(np.nonzero(inside), int(labels.data.max()) + 1)


def draw_segment() -> None:
    """Show the Segment step after a run."""
    window = Window(FLUORESCENCE)
    window.run()  # which loads torch, so that the second run shows the usual time
    window.run()
    save(window.grab(), "segment")
    window.close()


def draw_measure() -> None:
    """Show the Measure step with its table."""
    window = Window(FLUORESCENCE)
    window.run()
    measure = window.step("Measure")
    measure.start.native.click()
    wait(lambda: measure.shown is not None and measure.active is None, "the table is there")
    pause(1.0)
    save(window.grab(), "measure")
    window.close()


def draw_click() -> None:
    """Show click mode with some objects."""
    window = Window(HISTOLOGY)
    click = window.step("Click")
    window.press("Click (C)")
    pause(2.0)
    truth = truth_of(HISTOLOGY)
    sizes = np.bincount(truth.ravel())
    sizes[0] = 0
    for number in np.argsort(sizes)[-6:]:
        where = np.argwhere(truth == number)
        middle = where[np.argmin(((where - where.mean(0)) ** 2).sum(1))]
        window.click_on(middle)
        pause(0.3)
        wait(lambda: click.mode.shown is not None and not click.mode.worker.busy, "it is segmented")
        pause(1.0)
    save(window.grab(), "click")
    window.close()


def draw_correct() -> None:
    """Show the Correct step with what is known."""
    window = Window(CELLS, "general")
    labels, truth = window.run(), truth_of(CELLS)
    window.viewer.layers.selection.active = labels
    window.step("Correct")
    correct(labels, truth, sorted(set(np.unique(truth)) - {0})[8:20])
    labels.mode = "paint"
    pause(1.5)
    window.press("Show what is known")
    pause(2.0)
    save(window.grab(), "correct")
    window.close()


def draw_loop(minutes: float) -> None:
    """Make the animation, and show the Fine-tune step with its result."""
    window = Window(CELLS, "general")
    frames: list[tuple[Image.Image, str, float]] = []

    def show(caption: str, seconds: float) -> None:
        frames.append((window.grab(), caption, seconds))

    show("Open an image", 1.2)
    last = [time.monotonic()]

    def watch(caption: str, every: float, most: int) -> Callable[[], None]:
        taken = len(frames)

        def look() -> None:
            if time.monotonic() - last[0] > every and len(frames) - taken < most:
                last[0] = time.monotonic()
                shot = window.viewer.screenshot(canvas_only=False, flash=False)
                frames.append((Image.fromarray(shot[..., :3].copy()), caption, 0.7))

        return look

    labels, truth = window.run(watch("1  Segment: press Run", 0.8, 3)), truth_of(CELLS)
    show("1  Segment: press Run", 1.6)
    for layer in [la for la in window.viewer.layers if la.name == "object size"]:
        window.viewer.layers.remove(layer)
    window.viewer.layers.selection.active = labels
    window.step("Correct")
    numbers = sorted(set(np.unique(truth)) - {0})
    for part in np.array_split(numbers, 5):
        correct(labels, truth, list(part))
        show("2  Correct: every stroke is saved", 0.7)
    left = np.isin(labels.data, np.unique(labels.data[truth > 0]), invert=True) & (labels.data > 0)
    labels.data_setitem(np.nonzero(left), 0)
    window.press("I have checked this slice")
    pause(1.0)
    show("2  Correct: say what you have checked", 1.4)
    tune = window.step("Fine-tune")
    tune.form.first.settings["minutes"].set(minutes)
    wait(lambda: tune.start.enabled, "it can be tuned")
    tune.start.native.click()
    pause(1.0)
    wait(
        lambda: tune.active is None and not tune.at_work,
        "the tuning ends",
        watch("3  Fine-tune: a minute or three", minutes * 20, 3),
    )
    wait(lambda: window.button("Compare").isEnabled(), "both models were run on what is in view")
    pause(1.0)
    show("4  Look at what changed, and keep it", 2.2)
    save(frames[-1][0], "fine-tune")
    print(tune.status.text())
    window.press("Keep")
    pause(1.0)
    show("5  Run it on all images", 1.6)
    write_loop(frames)
    window.close()


def write_loop(frames: list[tuple[Image.Image, str, float]]) -> None:
    """Write the animation, each frame with a line that says what happens."""
    font = ImageFont.load_default(20)
    drawn = []
    for picture, caption, _ in frames:
        frame = Image.new("RGB", (LOOP_SIZE[0], LOOP_SIZE[1] + 36), "#1b5e57")
        frame.paste(picture.resize(LOOP_SIZE, Image.Resampling.LANCZOS), (0, 36))
        ImageDraw.Draw(frame).text((12, 6), caption, fill="white", font=font)
        drawn.append(frame)
    durations = [round(1000 * seconds) for _, _, seconds in frames]
    drawn[0].save(
        FOLDER / "loop.webp",
        save_all=True,
        append_images=drawn[1:],
        duration=durations,
        loop=0,
        quality=60,
        method=6,
    )


def draw_models() -> None:
    """Show the Models step after a colleague's .zip was imported, used and run."""
    archive = make_archive("hela-anna")
    window = Window(FLUORESCENCE)
    models = window.step("Models")
    models.exchange.import_models([str(archive)])  # as a drop does
    wait(lambda: not models.at_work, "the model is imported")
    window.press("Use this model")
    window.press("Run")
    segment = window.panel.segment
    wait(lambda: segment.active is None, "the run ends")
    pause(1.0)
    save(window.grab(), "models")
    window.close()


def make_archive(name: str) -> Path:
    """Write a model as a colleague would send it: the shipped one, with another name and parent."""
    from napari_unet.core.models.archive import export_model
    from napari_unet.core.models.folder import read_model
    from napari_unet.core.models.store import BUNDLED, home, put_model, remove_model

    card, tensors = read_model(BUNDLED / "nuclei")
    changed = next(key for key, value in tensors.items() if value.dtype == np.float32)
    tensors[changed] = tensors[changed] * np.float32(1.0001)
    thumbnail = np.asarray(Image.open(BUNDLED / "nuclei" / "thumbnail.png"))
    put_model(name, card.replace(parent=card.hash, replay=""), tensors, thumbnail)
    target = export_model(name, home() / "colleague.zip")
    remove_model(name)
    return target


PICTURES: dict[str, Callable[[], None]] = {
    "segment": draw_segment,
    "measure": draw_measure,
    "click": draw_click,
    "correct": draw_correct,
    "models": draw_models,
}
"""What draws each picture, by its name; `loop` is apart, for it takes minutes."""


def start_display() -> subprocess.Popen[bytes] | None:
    """Start a virtual screen where there is none."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return None
    read, write = os.pipe()
    screen = ["-screen", "0", f"{SIZE[0] + 40}x{SIZE[1] + 40}x24"]
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), *screen], pass_fds=[write], stderr=subprocess.DEVNULL
    )
    os.close(write)
    os.environ["DISPLAY"] = f":{os.read(read, 16).decode().strip()}"
    return server


def main() -> int:
    """Make the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="which; all without any")
    parser.add_argument("--minutes", type=float, default=1.5, help="of the tuning in the loop")
    parser.add_argument("--list", action="store_true", help="only list the names")
    values = parser.parse_args()
    names = values.names or [*PICTURES, "loop"]
    if values.list:
        print(*PICTURES, "loop")
        return 0
    if len(names) > 1:  # each in a process of its own: napari keeps the docks of the last window
        own = [sys.executable, __file__, "--minutes", str(values.minutes)]
        return max(subprocess.run([*own, name], check=False).returncode for name in names)
    sys.argv = sys.argv[:1]  # Qt reads options, too
    FOLDER.mkdir(exist_ok=True)
    server = start_display()
    os.environ.pop("QT_QPA_PLATFORM", None)
    # Neither the user's napari settings nor the panel's remembered ones belong in the pictures.
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_CONFIG"] = str(Path(home, "napari.yaml"))
        os.environ["NAPARI_UNET_HOME"] = str(Path(home, "home"))
        draw_loop(values.minutes) if names == ["loop"] else PICTURES[names[0]]()
    print(f"{names[0]}: done")
    if server:
        server.terminate()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
