"""How fast the window is: imports, opening the panel, delays during a run, the run itself, Cancel.

    python benchmarks/window.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py      # without a screen

Everything is measured in processes of their own, those that are compared in turns. The run is the
panel's, in a real viewer, with the shipped nuclei model (random weights where that is missing).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lab.event_loop import P95_GOAL_MS, after, open_viewer, run_until, temporary_home

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from lab.event_loop import Delays

GOALS = {"dock_ms": 300, "ratio": 1.15, "cancel_s": 0.5}
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
    processor: list[float] = []
    panel.engine = _timed(panel.engine, processor)
    first, _ = _panel_run(panel, "first run")
    delays, worker, plain = [], [], []
    processor.clear()
    for number in range(repeats):
        ticks, provenance = _panel_run(panel, f"run {number + 1}")
        delays.append(ticks)
        worker.append(provenance["seconds"])
        plain.append(_request(script))
    stops = [_cancelled_after(panel, share * min(worker)) for share in (0.2, 0.45, 0.7)]
    threads = _request(script, "end")["threads"]
    viewer.close()
    found = {
        "size": size,
        "tile": provenance["tile"],
        "tiles": (-(-size // provenance["tile"])) ** 2,
        "precision": provenance["precision"],
        "threads": threads,
        "idle": idle.summarise(),
        "first_run": first.summarise(),
        "runs": [ticks.summarise() for ticks in delays],
        "worker_s": worker,
        "script_s": [run["seconds"] for run in plain],
        "ratio": min(worker) / min(run["seconds"] for run in plain),
        "processor_ratio": min(processor[:repeats]) / min(run["processor"] for run in plain),
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
        began = time.thread_time()
        result = run_to_end(segment_steps(image, model, preview=True))
        processor = time.thread_time() - began
        found = {"seconds": result.provenance["seconds"], "processor": processor}
        print(json.dumps(found), flush=True)
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)


def _timed(engine: Callable[..., Any], processor: list[float]) -> Callable[..., Any]:
    """Return an engine that notes the processor time of the thread that it ran in."""

    def timed(*args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
        began = time.thread_time()
        result = yield from engine(*args, **kwargs)
        processor.append(time.thread_time() - began)
        return result

    return timed


def _panel_run(panel: Any, name: str) -> tuple[Delays, dict[str, Any]]:
    """Press Run and wait for the end; return the timer's delays and the result's provenance."""
    runs = []

    def press() -> None:
        panel.run()
        runs.append(panel.active)

    late = run_until(lambda: panel.active is None, name, press)
    (run,) = runs
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
            f"{P95_GOAL_MS}), p95 over time {delay['p95_over_time_ms']} ms, "
            f"longest {delay['max_ms']} ms, {delay['own_max_ms']} of its own"
        )
    print(
        f"  worker {min(run['worker_s']):.2f} s, script {min(run['script_s']):.2f} s: "
        f"{run['ratio']:.3f} (goal <= {GOALS['ratio']:.2f}); of the processor's time in their "
        f"threads {run['processor_ratio']:.3f}"
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
    with temporary_home():
        found = {
            "imports": measure_imports(values.repeats),
            "docks": measure_docks(values.repeats),
            "run": measure_run(values.size, values.repeats),
        }
    report(found)
    if values.json:
        values.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
