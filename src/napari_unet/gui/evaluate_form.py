"""The Evaluate section of the panel: which labels, which truth, and the scores."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, PushButton
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_unet.core.axes import FRAMES
from napari_unet.gui.errors import tell
from napari_unet.gui.evaluate import EvaluateRun, result_text
from napari_unet.gui.folds import Fold
from napari_unet.gui.forms import remember, remembered, rows_widget
from napari_unet.gui.hits import is_hits_layer, show_hits
from napari_unet.gui.job import CANCELLED, HOST, abandon_all, slot_for
from napari_unet.gui.result import MARK
from napari_unet.gui.scribbles import is_helper

if TYPE_CHECKING:
    import napari

    from napari_unet.core.spec import Progress

SECTION = "evaluate"
DRAW_S = 0.15
"""How often the progress is written."""
_HINT = "Open the true objects as a Labels layer to compare with."
_TIPS = {
    "labels": "The objects to evaluate.",
    "truth": "The objects as they should be.",
    "frames": "How a stack is divided before its objects are matched: into planes, or into the "
    "volumes\nof its time points. auto: planes for what a 2D model found, otherwise volumes.",
    "start": "Score the labels, and show hits, false and missed objects in a layer.",
}


class EvaluateSection(QWidget):
    """Compares a Labels layer with the truth; folded away at first.

    Attributes
    ----------
    labels, truth, frames
        The choices.
    start
        The button: "Evaluate", or "Cancel" while it goes on.
    result
        What was found, or why not.
    active
        The evaluation that waits or goes on, None if there is none.
    """

    def __init__(self, viewer: napari.Viewer, label_width: int) -> None:
        super().__init__()
        self._viewer = viewer
        self.active: EvaluateRun | None = None
        self._runs: list[EvaluateRun] = []
        self._written = 0.0
        self._build(label_width)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)
        self.start.changed.connect(self._pressed)
        self.fold.toggled.connect(self._remember)
        self.destroyed.connect(functools.partial(abandon_all, self._runs))
        self._layers_changed()

    def _build(self, label_width: int) -> None:
        self.labels: Any = ComboBox(name="labels", choices=self._choices, tooltip=_TIPS["labels"])
        self.truth: Any = ComboBox(name="truth", choices=self._choices, tooltip=_TIPS["truth"])
        self.frames: Any = ComboBox(name="frames", choices=FRAMES, tooltip=_TIPS["frames"])
        self.start: Any = PushButton(text="Evaluate", tooltip=_TIPS["start"])
        self.result = QLabel(_HINT)
        self.result.setWordWrap(True)
        self.result.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        boxes = [("labels", self.labels), ("truth", self.truth), ("match in", self.frames)]
        inside = QWidget()
        content = QVBoxLayout(inside)
        content.setContentsMargins(0, 0, 0, 0)
        content.addWidget(rows_widget(boxes, label_width))
        below = QVBoxLayout()
        below.setContentsMargins(6, 0, 6, 4)
        below.addWidget(self.start.native)
        below.addWidget(self.result)
        content.addLayout(below)
        self.fold = Fold("Evaluate", inside)
        self.fold.open(remembered(SECTION).get("open") is True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.fold)

    def evaluate(self) -> None:
        """Compare the chosen layers in a job's thread, and show the scores when it is through."""
        if self.labels.value is None or self.truth.value is None or self.active is not None:
            return
        run = EvaluateRun(
            self.labels.value, self.truth.value, self.frames.value, self._show_progress, self._ended
        )
        self.active = run
        self._runs[:] = [run]
        self._written = time.perf_counter()
        self.result.setText("Comparing …")
        self._show_state()
        slot_for(HOST).submit(run.job)

    def cancel(self) -> None:
        """Stop; the scores of a part would say nothing."""
        if self.active is not None:
            self.active.job.cancel()
            self._show_state()

    def _pressed(self, *_: Any) -> None:
        if self.active is None:
            self.evaluate()
        else:
            self.cancel()

    def _show_progress(self, progress: Progress) -> None:
        now = time.perf_counter()
        if now - self._written > DRAW_S and progress.total > 1:
            self._written = now
            self.result.setText(f"{progress.done} of {progress.total} {progress.what} …")

    def _ended(self, run: EvaluateRun, state: str) -> None:
        self._runs.clear()
        self.active = None
        self._show_state()
        if run.error is not None:
            self._report(run.error)
        elif state == CANCELLED:
            self.result.setText("Cancelled.")
        elif run.codes is not None:
            self.result.setText(result_text(run))
            if run.labels in self._viewer.layers:
                show_hits(self._viewer, run.labels, run.truth, run.codes)

    def _report(self, error: Exception) -> None:
        tell(error, "the evaluation failed", self.result.setText)

    def _choices(self, *_: Any) -> list[tuple[str, Labels]]:
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Labels)]
        objects = [layer for layer in layers if not is_hits_layer(layer) and not is_helper(layer)]
        return [(layer.name, layer) for layer in objects]

    def _layers_changed(self, *_: Any) -> None:
        """Offer the layers that there are; guess which is which until the user has chosen."""
        for box in (self.labels, self.truth):
            chosen = box.value
            box.reset_choices()  # goes by the names, which may have changed
            if chosen in box.choices:
                box.value = chosen
        layers = list(self.labels.choices)
        if len(layers) > 1 and self.labels.value == self.truth.value:
            results = [layer for layer in layers if "base" in layer.metadata.get(MARK, {})]
            self.labels.value = results[-1] if results else self.labels.value
            self.truth.value = next(layer for layer in layers if layer != self.labels.value)
        self._show_state()

    def _show_state(self) -> None:
        """Show what can be pressed."""
        stopping = self.active is not None and self.active.job.cancelled
        self.start.text = "Evaluate" if self.active is None else "Cancel"
        self.start.enabled = len(self.labels.choices) > 1 and not stopping

    def _remember(self, expanded: bool) -> None:
        remember(SECTION, {"open": expanded})
