"""One evaluation: two Labels layers, their comparison in a job's thread, and what it found."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.axes import frame_ndim, shared_axes
from napari_unet.core.spec import InputError
from napari_unet.gui.layers import full_resolution, layer_axes
from napari_unet.gui.segmenting.hits import hits_legend
from napari_unet.gui.segmenting.result import passport_of
from napari_unet.gui.segmenting.resultrun import ResultRun

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Labels

    from napari_unet.core.metrics import Scores
    from napari_unet.core.spec import Progress


def plan_comparison(labels: Labels, truth: Labels, frames: str) -> tuple[Any, Any, str, int]:
    """Return the arguments of the `Comparison` of two layers.

    Parameters
    ----------
    frames
        One of `napari_unet.core.axes.FRAMES`; "auto" asks the labels' passport.

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
    return found, wanted, axes, frame_ndim(frames, passport_of(labels))


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
    lines.append(f"{count}<table>{cells}</table>{hits_legend(scores)}")
    return "<br>".join(lines)


def _cells(row: dict[str, float], name: str) -> str:
    """Return a score's name and value as two cells of a table."""
    if not name:
        return "<td></td><td></td>"
    shown = _NAMES.get(name, name)
    return f"<td>{shown}&nbsp;</td><td><b>{row[name]:.3f}</b>&nbsp;&nbsp;&nbsp;</td>"


def _steps(*plan: Any) -> Generator[Progress, None, tuple[Scores, np.ndarray, str]]:
    """Score the labels and draw what became of them, in the job's thread."""
    from napari_unet.core.scoring.comparison import Comparison, score_steps  # slow, see `hits`

    comparison = Comparison(*plan)
    codes = np.zeros(comparison.labels.shape, np.uint8)
    scores = yield from score_steps(comparison, codes)
    return scores, codes, comparison.what
