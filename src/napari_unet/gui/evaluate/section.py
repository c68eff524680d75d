"""The Evaluate section of the panel: which labels, which truth, and the scores."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox

from napari_unet.core.errors import InputError
from napari_unet.core.io.axes import FRAMES, object_ndim, shared_axes
from napari_unet.gui.evaluate.overlay import evaluation_legend, show_evaluation
from napari_unet.gui.jobs.layer_section import LayerSection
from napari_unet.gui.jobs.run import ResultRun
from napari_unet.gui.jobs.run_button import RunButton
from napari_unet.gui.layers.combos import as_choices, object_layers, refresh_choices
from napari_unet.gui.layers.convert import full_resolution, layer_axes
from napari_unet.gui.layers.result_info import ResultInfo, get_provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import napari
    from napari.layers import Labels
    from qtpy.QtWidgets import QLabel

    from napari_unet.core.evaluation.metrics import Scores
    from napari_unet.core.progress import Progress


SECTION = "evaluate"
_HINT = "Open the true objects as a Labels layer to compare with."
_TIPS = {
    "labels": "The objects to evaluate.",
    "truth": "The objects as they should be.",
    "frames": "How a stack is divided before its objects are matched: into planes, or into the "
    "volumes\nof its time points. auto: planes for what a 2D model found, otherwise volumes.",
    "start": "Score the labels, and show hits, false and missed objects in a layer.",
}


class EvaluateSection(LayerSection):
    """Compares a Labels layer with the truth.

    Attributes
    ----------
    labels, truth, frames
        The choices.
    """

    def __init__(self, viewer: napari.Viewer, label_width: int) -> None:
        super().__init__(viewer)
        self.labels: Any = ComboBox(name="labels", choices=self._choices, tooltip=_TIPS["labels"])
        self.truth: Any = ComboBox(name="truth", choices=self._choices, tooltip=_TIPS["truth"])
        self.frames: Any = ComboBox(name="frames", choices=FRAMES, tooltip=_TIPS["frames"])
        rows = [("labels", self.labels), ("truth", self.truth), ("match in", self.frames)]
        self.build("Evaluate", SECTION, rows, label_width, _HINT, self._button)

    def evaluate(self) -> None:
        """Compare the chosen layers in a job's thread, and show the scores when it is through."""
        labels, truth = self.labels.value, self.truth.value
        if labels is not None and truth is not None and self.active is None:
            self.button.launch(EvaluateRun, labels, truth, self.frames.value)

    def _button(self, line: QLabel) -> RunButton:
        return RunButton(
            self,
            "Evaluate",
            _TIPS["start"],
            doing="Comparing …",
            failing="the evaluation failed",
            line=line,
            start=self.evaluate,
            show=self._show,
        )

    def _show(self, run: EvaluateRun) -> None:
        self.result.setText(result_text(run))
        if run.codes is not None and run.labels in self._viewer.layers:
            show_evaluation(self._viewer, run.labels, run.truth, run.codes)

    def _choices(self, *_: Any) -> list[tuple[str, Labels]]:
        return as_choices(object_layers(self._viewer))

    def _refresh(self) -> None:
        """Offer the layers that there are; guess which is which until the user has chosen."""
        refresh_choices(self.labels, self.truth)
        layers = list(self.labels.choices)
        if len(layers) > 1 and self.labels.value == self.truth.value:
            results = [layer for layer in layers if ResultInfo.from_layer(layer).is_result]
            self.labels.value = results[-1] if results else self.labels.value
            self.truth.value = next(layer for layer in layers if layer != self.labels.value)

    @property
    def _possible(self) -> bool:
        return len(self.labels.choices) > 1


def plan_comparison(labels: Labels, truth: Labels, frames: str) -> tuple[Any, Any, str, int]:
    """Return the arguments of the `Comparison` of two layers.

    Parameters
    ----------
    frames
        One of `napari_unet.core.io.axes.FRAMES`; "auto" asks the labels' provenance.

    Raises
    ------
    InputError
        It is one layer twice, the shapes differ, or the axes cannot be told apart.
    """
    if labels == truth:
        raise InputError(
            f"{labels.name!r} would be compared with itself; choose the true labels under truth."
        )
    found, wanted = full_resolution(labels), full_resolution(truth)
    if tuple(found.shape) != tuple(wanted.shape):
        raise InputError(
            f"{labels.name!r} has shape {tuple(found.shape)}, {truth.name!r} "
            f"{tuple(wanted.shape)}; choose two layers with labels of the same image."
        )
    axes = shared_axes(layer_axes(labels), layer_axes(truth))
    return found, wanted, axes, object_ndim(frames, get_provenance(labels))


class EvaluateRun(ResultRun):
    """One evaluation.

    Parameters
    ----------
    labels, truth
        The layers to compare.
    frames
        How stacks are divided, as for `plan_comparison`.
    progress, ended
        As for `ResultRun`.

    Attributes
    ----------
    scores
        The result; None until it is there.
    codes
        uint8, the labels' shape: what became of each object.
    what
        What was divided into frames: "planes" or "volumes".
    """

    def __init__(
        self,
        labels: Labels,
        truth: Labels,
        frames: str,
        progress: Callable[[Progress], None],
        ended: Callable[[EvaluateRun, str], None],
    ) -> None:
        super().__init__(progress, ended)
        self.labels, self.truth, self.frames = labels, truth, frames
        self.scores: Scores | None = None
        self.codes: np.ndarray | None = None
        self.what = ""

    def _begin(self) -> Generator[Progress, None, Any]:
        """Look at the layers, in the window's thread; return the work itself."""
        return _steps(*plan_comparison(self.labels, self.truth, self.frames))

    def _keep_result(self, result: Any) -> None:
        self.scores, self.codes, self.what = result


# Two columns: three would make the panel wider.
_COLUMNS = ("AP50", "AP75", "AP90", "pq", ""), ("precision", "recall", "f1", "dice", "iou")
_NAMES = {"f1": "F1", "pq": "PQ", "dice": "Dice", "iou": "IoU"}


def result_text(run: EvaluateRun) -> str:
    """Return what an evaluation found as rich text: a short table, and what the colours mean."""
    scores = run.scores
    if scores is None:
        return ""
    row = scores.row()
    table = zip(*_COLUMNS, strict=True)
    lines = [f"{escape(run.labels.name)} against {escape(run.truth.name)}"]
    count = f"{scores.objects:,} objects found, {scores.true_objects:,} are there"
    if scores.images > 1:
        count += f", in {scores.images:,} {run.what}"
    cells = "".join(f"<tr>{_cells(row, left)}{_cells(row, right)}</tr>" for left, right in table)
    lines.append(f"{count}<table>{cells}</table>{evaluation_legend(scores)}")
    return "<br>".join(lines)


def _cells(row: dict[str, float], name: str) -> str:
    """Return a score's name and value as two cells of a table."""
    if not name:
        return "<td></td><td></td>"
    shown = _NAMES.get(name, name)
    return f"<td>{shown}&nbsp;</td><td><b>{row[name]:.3f}</b>&nbsp;&nbsp;&nbsp;</td>"


def _steps(*plan: Any) -> Generator[Progress, None, tuple[Scores, np.ndarray, str]]:
    """Score the labels and draw what became of them, in the job's thread."""
    from napari_unet.core.evaluation.comparison import Comparison, score_steps  # slow, see `hits`

    comparison = Comparison(*plan)
    codes = np.zeros(comparison.labels.shape, np.uint8)
    scores = yield from score_steps(comparison, codes)
    return scores, codes, comparison.what
