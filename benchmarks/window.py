"""How fast the window is: imports, opening the panel, delays during a run, the run itself, Cancel.

    python benchmarks/window.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py      # without a screen

Everything is measured in processes of their own, those that are compared in turns. The run is the
panel's, in a real viewer, with the shipped nuclei model (random weights where that is missing).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

GOALS = {"dock_ms": 300, "p95_ms": 50, "ratio": 1.10, "cancel_s": 0.5}
TICK_MS = 10
_TIMED = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def measure_imports(repeats: int) -> dict[str, float]:
    """Return the seconds that imports take in a fresh interpreter, the best of several."""
    what = {
        "package": _TIMED.format("import napari_unet"),
        "panel": _TIMED.format("import napari_unet.gui.segment.panel"),
        "napari": _TIMED.format("import napari.qt, napari.layers, magicgui.widgets"),
        "panel_after_napari": "import napari.qt, napari.layers, magicgui.widgets; "
        + _TIMED.format("import napari_unet.gui.segment.panel"),
    }
    times: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(repeats):
        for name, code in what.items():
            done = subprocess.run(
                [sys.executable, "-c", f"{code}; import sys; assert 'torch' not in sys.modules"],
                capture_output=True,
                text=True,
                check=True,
            )
            times[name].append(float(done.stdout))
    return {name: min(values) for name, values in times.items()}


def measure_docks(repeats: int) -> dict[str, float]:
    """Return the seconds that it takes to open an empty dock and the panel, the best of several."""
    times: dict[str, list[float]] = {"empty": [], "panel": []}
    for _ in range(repeats):
        for name, found in times.items():
            found.append(float(_part("dock", name).stdout))
    return {name: min(values) for name, values in times.items()}


def measure_run(size: int, repeats: int) -> dict[str, Any]:
    """Return the figures of `run_part`, in a process of its own."""
    found: dict[str, Any] = json.loads(
        _part("run", str(size), str(repeats)).stdout.splitlines()[-1]
    )
    return found


def _part(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, __file__, "--part", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"part {' '.join(arguments)} ended with status {done.returncode}")
    return done


def dock_part(which: str) -> None:
    """Open a dock in a viewer that is at rest; print the seconds until it is drawn."""
    from qtpy.QtWidgets import QWidget

    viewer = open_viewer(np.zeros((512, 512), np.uint16))
    run_until(after(1.5))
    began = time.perf_counter()
    if which == "panel":
        viewer.window.add_plugin_dock_widget("napari-unet", "Segment")
    else:
        viewer.window.add_dock_widget(QWidget(), name="empty")
    _settle()
    print(time.perf_counter() - began)
    viewer.close()


def run_part(size: int, repeats: int) -> None:
    """Segment in the panel, in turns with a plain script; print what was measured as JSON."""
    from napari_unet.core.io.sample_images import blobs

    script = subprocess.Popen(
        [sys.executable, __file__, "--part", "script", str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    viewer = open_viewer(blobs((size, size)))
    panel = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1].segment
    run_until(after(1.5))
    idle = run_until(after(2.0))
    _request(script)  # it is ready, and has run once
    first, _ = _panel_run(panel)
    delays, worker, plain = [], [], []
    for _ in range(repeats):
        ticks, provenance = _panel_run(panel)
        delays.append(ticks)
        worker.append(provenance["seconds"])
        plain.append(_request(script)["seconds"])
    stops = [_cancelled_after(panel, share * min(worker)) for share in (0.2, 0.45, 0.7)]
    threads = _request(script, "end")["threads"]
    viewer.close()
    found = {
        "size": size,
        "tile": provenance["tile"],
        "tiles": (-(-size // provenance["tile"])) ** 2,
        "precision": provenance["precision"],
        "threads": threads,
        "idle": delay(idle),
        "first_run": delay(first),
        "runs": [delay(ticks) for ticks in delays],
        "worker_s": worker,
        "script_s": plain,
        "ratio": min(worker) / min(plain),
        "cancel_s": stops,
    }
    print(json.dumps(found))


def script_part(size: int) -> None:
    """Segment the same image without a window, once for each line of standard input."""
    import torch

    from napari_unet.core.io.sample_images import blobs
    from napari_unet.core.progress import run_to_end
    from napari_unet.nn.inference.model import load_model
    from napari_unet.nn.inference.segment import segment_steps

    image, model = blobs((size, size)), load_model("nuclei")
    run_to_end(segment_steps(image, model, preview=True))
    for line in sys.stdin:
        if line.strip() == "end":
            break
        result = run_to_end(segment_steps(image, model, preview=True))
        print(json.dumps({"seconds": result.provenance["seconds"]}), flush=True)
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)


def run_until(finished: Callable[[], bool]) -> list[float]:
    """Run the event loop until `finished`; return by how many ms each 10 ms timer was late."""
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    loop, timer = QEventLoop(), QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.setSingleShot(True)
    late: list[float] = []
    began = time.perf_counter()

    def tick() -> None:
        nonlocal began
        late.append(max(0.0, (time.perf_counter() - began) * 1000 - TICK_MS))
        if finished():
            loop.quit()
            return
        began = time.perf_counter()
        timer.start(TICK_MS)

    timer.timeout.connect(tick)
    timer.start(TICK_MS)
    loop.exec()
    return late


def delay(late: list[float]) -> dict[str, float]:
    """Summarise delays: percentiles over the ticks, and over time, where long delays count more."""
    values = np.sort(late)
    time_share = np.cumsum(values + TICK_MS) / (values + TICK_MS).sum()
    over_time = values[np.searchsorted(time_share, 0.95)]
    p50, p95 = np.percentile(values, (50, 95))
    found = {"p50_ms": p50, "p95_ms": p95, "p95_over_time_ms": over_time, "max_ms": values[-1]}
    return {name: round(float(value), 1) for name, value in found.items()}


def _panel_run(panel: Any) -> tuple[list[float], dict[str, Any]]:
    """Press Run and wait for the end; return the timer's delays and the result's provenance."""
    panel.run()
    run = panel.active
    late = run_until(lambda: panel.active is None)
    if run.result is None:
        raise SystemExit(f"the run failed: {panel.status.text()}")
    run_until(after(0.5))
    provenance: dict[str, Any] = run.result.provenance
    return late, provenance


def _cancelled_after(panel: Any, seconds: float) -> float:
    """Start a run and cancel it after some time; return the seconds until it has stopped."""
    panel.run()
    run_until(after(seconds))
    began = time.perf_counter()
    panel.cancel()
    run_until(lambda: panel.active is None)
    return round(time.perf_counter() - began, 3)


def _request(script: subprocess.Popen[str], line: str = "run") -> dict[str, Any]:
    assert script.stdin is not None
    assert script.stdout is not None
    script.stdin.write(f"{line}\n")
    script.stdin.flush()
    answer: dict[str, Any] = json.loads(script.stdout.readline())
    return answer


def open_viewer(image: np.ndarray, **options: Any) -> Any:
    """Open a window with an image in it."""
    import napari
    from napari.utils.notifications import notification_manager

    viewer = napari.Viewer(show_welcome_screen=False)
    notification_manager.install_hooks()  # as napari.run does
    viewer.window.set_geometry(0, 0, 1600, 1000)
    viewer.add_image(image, **({"name": "image"} | options))
    return viewer


def after(seconds: float) -> Callable[[], bool]:
    """Return a function that is true from so many seconds on."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


def _settle() -> None:
    """Handle events until there are none left."""
    from qtpy.QtWidgets import QApplication

    for _ in range(5):
        QApplication.processEvents()


def report(found: dict[str, Any]) -> None:
    """Print the figures."""
    imports, docks, run = found["imports"], found["docks"], found["run"]
    print(
        f"import: package {imports['package'] * 1000:.0f} ms, panel {imports['panel']:.2f} s, "
        f"of that napari and magicgui {imports['napari']:.2f} s; once they are loaded "
        f"{imports['panel_after_napari'] * 1000:.0f} ms (no torch)"
    )
    more = (docks["panel"] - docks["empty"]) * 1000
    print(
        f"opening: panel {docks['panel'] * 1000:.0f} ms, an empty dock "
        f"{docks['empty'] * 1000:.0f} ms: {more:.0f} ms more (goal < {GOALS['dock_ms']})"
    )
    print(
        f"run on {run['size']} x {run['size']}, {run['tiles']} tiles of {run['tile']}, "
        f"{run['precision']}, {run['threads']} threads"
    )
    names = ["idle", "first run", *["run"] * len(run["runs"])]
    for name, delay in zip(names, [run["idle"], run["first_run"], *run["runs"]], strict=True):
        print(
            f"  event loop, {name}: p50 {delay['p50_ms']} ms, p95 {delay['p95_ms']} ms (goal <= "
            f"{GOALS['p95_ms']}), p95 over time {delay['p95_over_time_ms']} ms, "
            f"longest {delay['max_ms']} ms"
        )
    print(
        f"  worker {min(run['worker_s']):.2f} s, script {min(run['script_s']):.2f} s: "
        f"{run['ratio']:.3f} (goal <= {GOALS['ratio']:.2f})"
    )
    each = min(run["worker_s"]) / run["tiles"]
    print(
        f"  Cancel to stopped: {', '.join(f'{s:.2f}' for s in run['cancel_s'])} s (goal: a tile, "
        f"{each:.2f} s, or {GOALS['cancel_s']} s)"
    )


def main() -> None:
    """Measure and print, or run one part in this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=2048, help="edge length of the image, px")
    parser.add_argument("--repeats", type=int, default=3, help="how often each time is taken")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    values = parser.parse_args()
    if values.part:
        sys.argv = sys.argv[:1]  # Qt reads the rest
        part, *arguments = values.part
        if part == "dock":
            dock_part(arguments[0])
        else:
            work: Any = {"run": run_part, "script": script_part}[part]
            work(*map(int, arguments))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET_HOME"] = folder
        os.environ["NAPARI_CONFIG"] = str(Path(folder, "napari.yaml"))
        provide_model()
        found = {
            "imports": measure_imports(values.repeats),
            "docks": measure_docks(values.repeats),
            "run": measure_run(values.size, values.repeats),
        }
    report(found)
    if values.json:
        values.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def provide_model() -> None:
    """Put random weights into the temporary store if the shipped model is missing."""
    from napari_unet.core.models.store import list_models

    if not any(entry.name == "nuclei" for entry in list_models()):
        from napari_unet.nn.bench import stand_in
        from napari_unet.nn.inference.model import save_model

        save_model(stand_in(device="cpu"), "nuclei")


if __name__ == "__main__":
    main()
