"""From the start of the process to the first object: napari, the panel, Run, torch, the model.

    python benchmarks/cold_start.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/cold_start.py    # without a screen

Each start is a process of its own, in which Run is pressed as soon as the panel is drawn, or some
seconds later, as by a user who looks first. The image is the fluorescence sample, the model the
shipped nuclei model (random weights where that is missing). Files are in the system's cache.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.event_loop import after, open_viewer, run_until, temporary_home

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

STEPS = {
    "window": "napari imported, its window with the image drawn",
    "panel": "the panel drawn",
    "torch": "from Run: torch imported",
    "model": "the model loaded",
    "tile": "the first tile computed, the look at the size included",
    "drawn": "the first objects drawn",
}


def start(began: float, pause: float) -> dict[str, list[float]]:
    """Open napari, press Run after a pause; return when each of `STEPS` was reached.

    Returns
    -------
    dict
        For each step the seconds since `began`, the pause not counted, and the seconds of
        processor time that the process has taken.
    """
    from napari_unet.gui.samples import open_fluorescence_sample

    found: dict[str, list[float]] = {}
    paused = [0.0]

    def reached(step: str) -> None:
        if step not in found:
            found[step] = [time.time() - began - paused[0], time.process_time()]

    ((image, _, _),) = open_fluorescence_sample()
    viewer = open_viewer(image)
    run_until(after(0.0))
    reached("window")
    panel = viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")[1].segment
    run_until(after(0.0))
    reached("panel")
    run_until(after(pause))
    paused[0] = pause
    panel.engine = _noted(panel.engine, reached)
    panel.run()
    run = panel.active

    def shown() -> bool:
        layer = None if run is None else run.layer
        return "tile" in found and layer is not None and bool(layer.data.any())

    run_until(lambda: shown() or panel.active is None)
    run_until(after(0.0))
    reached("drawn")
    run_until(lambda: panel.active is None)
    viewer.close()
    return found


def _noted(engine: Callable[..., Any], reached: Callable[[str], None]) -> Callable[..., Any]:
    """Return an engine that says what it has reached; it runs in the job's thread."""

    def noted(*args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
        from napari_unet.core.progress import TileDone
        from napari_unet.gui.jobs import engine as engines

        load = engines.loaded_model

        def loaded(*arguments: Any) -> Any:
            reached("torch")
            model = load(*arguments)
            reached("model")
            return model

        engines.loaded_model = loaded
        work = engine(*args, **kwargs)
        try:
            while True:
                item = next(work)
                if isinstance(item, TileDone):
                    reached("tile")
                yield item
        except StopIteration as stop:
            return stop.value
        finally:
            work.close()
            engines.loaded_model = load

    return noted


def main() -> None:
    """Measure and print, or start once in this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="starts of each kind")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds that a user looks first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--start", nargs=2, type=float, help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.start:
        sys.argv = sys.argv[:1]  # Qt reads the rest
        print(json.dumps(start(*values.start)))
        return
    found: dict[str, Any] = {"at once": [], "after a pause": []}
    with temporary_home():
        for _ in range(values.repeats):
            for runs, pause in zip(found.values(), (0.0, values.pause), strict=True):
                command = [sys.executable, __file__, "--start", str(time.time()), str(pause)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                runs.append(json.loads(done.stdout.splitlines()[-1]))
    print("| reached | at once: seconds | processor | after a pause: seconds | processor |")
    print("| --- | --- | --- | --- | --- |")
    for step, what in STEPS.items():
        best = [min(run[step][k] for run in runs) for runs in found.values() for k in (0, 1)]
        print(f"| {what} | {' | '.join(f'{value:.2f}' for value in best)} |")
    if values.json:
        values.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
