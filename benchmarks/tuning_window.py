"""How the window answers while a model is fine-tuned, compared and kept, and while it learns live.

    python benchmarks/tuning_window.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/tuning_window.py    # without a screen

A 10 ms timer in a real viewer says how late it was. The image is the histology sample, a quarter of
which counts as corrected; the model is the shipped nuclei model (random weights where that is
missing). Nothing is written but into a temporary folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from lab.event_loop import P95_GOAL_MS, after, measure_training, open_viewer, run_until

if TYPE_CHECKING:
    from collections.abc import Callable


def measure(minutes: float) -> dict[str, Any]:
    """Fine-tune in the window; return the delays of each part."""
    from napari_unet.gui.samples import open_histology_sample

    ((image, options, _),) = open_histology_sample()
    viewer = open_viewer(image, **options)
    layer = viewer.layers[0]
    _, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Correct and fine-tune")
    panel.open_step("Fine-tune")
    section = panel.tune
    section.form.choose("nuclei")
    section.form.first.settings["minutes"].set(minutes)
    _correct(layer, image.shape[:2])
    run_until(after(1.5))
    parts = Parts()
    parts.run("idle", after(2.0))
    parts.run(
        "loading torch, reading corrections",
        lambda: section.active is None or section.active.work.usable,
        section.tune,
    )
    parts.run("fine-tuning", lambda: section.active is None)
    work = section.review.work
    if work is None or work.tuning is None:
        raise SystemExit(section.status.text() or section.review.summary.text())
    parts.found["steps"] = work.tuning.state.step
    parts.run("comparing", lambda: section.review.comparison is None)
    parts.run("keeping", lambda: section.review.work is None, section.review.keep.native.click)
    parts.run("looking for doubt", _still(panel.correct), panel.correct.uncertain.go)
    _learn_live(viewer, panel, image.shape[:2], parts)
    viewer.close()
    return parts.found


class Parts:
    """What is done in the window, and the delays of each part, by its name."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def run(
        self, name: str, finished: Callable[[], bool], begin: Callable[[], object] | None = None
    ) -> None:
        """Do a part; see `run_until`."""
        self.found[name] = run_until(finished, name, begin).summarise()


def _learn_live(viewer: Any, panel: Any, shape: tuple[int, int], parts: Parts) -> None:
    """Let the model learn in the background from a painted object."""
    labels = viewer.add_labels(np.zeros(shape, np.uint16), name="own")
    panel.open_step("Correct")
    panel.correct.labels.value = panel.correct.labels.choices[-1]
    labels.data_setitem(np.nonzero(np.hypot(*np.indices(shape)) < 40), 1)
    live = panel.live
    parts.run(
        "first round of live learning",
        lambda: live.work is not None and live.work.looked,
        lambda: live.switch.setChecked(True),
    )
    parts.run("live learning", after(20.0))
    parts.found["it says"] = live.status.text()
    live.cancel()
    run_until(lambda: live.job is None)


def _still(section: Any) -> Callable[[], bool]:
    return lambda: section.uncertain.job is None and section.uncertain.place is not None


def _correct(layer: Any, shape: tuple[int, int]) -> None:
    """Mark a quarter of the image as checked, with discs for objects."""
    from napari_unet.core.annotations.edits import KNOWN
    from napari_unet.core.annotations.journal import Journal
    from napari_unet.core.models.store import get_family
    from napari_unet.gui.layers.convert import layer_stack

    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = ((y // 24) * 64 + x // 24 + 1).astype(np.uint16)
    labels[np.hypot(y % 24 - 12, x % 24 - 12) > 8] = 0
    hash_ = get_family("nuclei")[0].hash
    with Journal.begin(layer_stack(layer), labels, model="nuclei", model_hash=hash_) as journal:
        journal.mark(KNOWN, (), (slice(0, shape[0] // 2), slice(0, shape[1] // 2)))


def show(found: dict[str, Any]) -> None:
    """Print the figures."""
    for what, late in found.items():
        if isinstance(late, dict):
            print(
                f"{what}: p50 {late['p50_ms']} ms, p95 {late['p95_ms']} ms (goal <= "
                f"{P95_GOAL_MS}), p95 over time {late['p95_over_time_ms']} ms, "
                f"longest {late['max_ms']} ms, {late['own_max_ms']} of its own"
            )
        else:
            print(f"{what}: {late}")


if __name__ == "__main__":
    measure_training(measure, show, __doc__)
