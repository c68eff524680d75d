"""One fine-tuning in the window: its job, what it reports, and what becomes of its result."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_unet.core.progress import Progress, TrainStep
from napari_unet.core.text import pluralise
from napari_unet.core.training.model_comparison import (
    CorrectionRound,
    add_round,
    count_taught,
    get_rounds,
)
from napari_unet.gui.finetune.work import TuneRequest, TuneWork
from napari_unet.gui.jobs.eta import format_duration
from napari_unet.gui.jobs.job import DONE
from napari_unet.gui.jobs.run import ResultRun
from napari_unet.gui.widgets.plots import BLUE, ORANGE, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.training.model_comparison import ModelComparison
    from napari_unet.nn.training.finetune import Tuning


class TuneRun(ResultRun):
    """One fine-tuning: its curve, and what there is to say about it.

    Parameters
    ----------
    request
        What to do.
    opened
        Stacks that are open in the window.
    ended
        As for `ResultRun`.

    Attributes
    ----------
    work
        What runs in the job's thread, and holds the result.
    progress
        The last report.
    """

    def __init__(
        self,
        request: TuneRequest,
        opened: list[Stack],
        ended: Callable[[TuneRun, str], None],
    ) -> None:
        super().__init__(self._take, ended)
        self.request = request
        self.work = TuneWork(request, opened)
        self.progress: Progress = Progress(0, 0, "waiting")
        self._losses: list[tuple[float, float]] = []

    def abandon(self) -> None:
        """Stop; the window is gone. The checkpoint stays, and with it the best so far."""
        super().abandon()
        self._ended = _leave

    @property
    def percent(self) -> int:
        """How much of the training is done; 0 before it."""
        if not isinstance(self.progress, TrainStep) or not self.progress.total:
            return 0
        return min(100, int(100 * self.progress.done / self.progress.total))

    @property
    def lesson(self) -> str:
        """Say what is learned from; "" until that is known."""
        objects, images = self.work.objects, self.work.images
        if not images:
            return ""
        many = f"{pluralise(objects, 'object')} of " if objects else ""
        return f"{many}{images} image{'s' * (images != 1)}"

    def describe(self) -> str:
        """Return the progress as a line: time left, loss, score."""
        progress = self.progress
        if not isinstance(progress, TrainStep) or not progress.total:
            count = f" {progress.done} of {progress.total}" if progress.total else ""
            return f"{progress.what[:1].upper()}{progress.what[1:]}{count} …"
        left = progress.seconds_left
        parts = [f"{format_duration(left)} left" if math.isfinite(left) else ""]
        if progress.what == "validating":
            parts.append("validating")
        parts.append(f"learning from {self.lesson}")
        return " · ".join(part for part in parts if part)

    def lines(self) -> list[Line]:
        """Return the curves: the loss, and the score on what was held out."""
        tuning = self.work.tuning
        history = list(tuning.state.history) if tuning else []
        earlier = [(e["step"], e["loss"]) for e in history if "loss" in e]
        first = self._losses[0][0] if self._losses else math.inf
        losses = [(float(x), float(y)) for x, y in earlier if x < first] + self._losses
        metric = judged(tuning) if tuning else ""
        scores = [(float(e["step"]), float(e[metric])) for e in history if metric in e]
        return [
            Line("loss", tuple(losses), ORANGE),
            Line(metric.replace("corrections", "held out"), tuple(scores), BLUE, right=True),
        ]

    @property
    def judgement(self) -> ModelComparison | None:
        """Whether the result is better; None without a result."""
        return self.work.tuning.judgement if self.work.usable and self.work.tuning else None

    @property
    def rounds(self) -> list[CorrectionRound]:
        """The rounds so far, with this one, and how well the model did after each."""
        tuning = self.work.tuning
        if tuning is None or not self.work.usable:
            return []
        before = tuning.model.card.training
        judgement = tuning.judgement
        taught = count_taught(tuning.samples.card(), judgement.metric)
        return get_rounds({"rounds": add_round(before, taught, judgement)})

    def _begin(self) -> Generator[Progress, None, None]:
        return self.work.steps()

    def _take(self, item: Progress) -> None:
        self.progress = item
        if isinstance(item, TrainStep) and item.what == "training" and math.isfinite(item.loss):
            self._losses.append((float(item.done), item.loss))

    def _end(self, state: str) -> None:
        """Let go of the folder of a training that came to nothing."""
        if not self.work.usable:
            self.work.tuning = None
            self.work.release()
        super()._end(state)


def judged(tuning: Tuning) -> str:
    """Return the name of the score on what was held out; without that, on what was replayed."""
    metric = tuning.judgement.metric
    return f"{metric} {'corrections' if tuning.split.validation else 'replay'}"


def judgement_text(judgement: ModelComparison, state: str, base: str) -> str:
    """Return a judgement as a few plain sentences.

    Parameters
    ----------
    state
        How the training ended: "done", or else it was stopped before.
    base
        The model that was tuned.
    """
    head = {"better": "Better.", "worse": f"Worse: {base!r} stays as it is."}
    words = [head.get(judgement.verdict, "Not measurable whether it is better.")]
    if state != DONE:
        words.insert(0, "Stopped; this is the best so far.")
    words.append(judgement.reason)
    before, after = judgement.before, judgement.after
    if before is not None and after is not None:
        words.append(f"{judgement.metric} {before:.3f} → {after:.3f} on the {judgement.share}.")
    elif after is not None:
        words.append(f"{judgement.metric} {after:.3f} on what was held out.")
    old, new = judgement.replay_before, judgement.replay_after
    if old is not None and new is not None:
        words.append(f"{old:.3f} → {new:.3f} on what it learned before.")
    return " ".join(word for word in words if word)


def _leave(run: TuneRun, _: str) -> None:
    """Stand in for the panel after the end: others may go on with the training now."""
    run.work.release()
