"""One fine-tuning: from the journals to a tuned model, its job, its progress and its curve."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.core.errors import ModelError
from napari_unet.core.models.store import check_name, check_store, get_free_folder
from napari_unet.core.progress import Progress, TrainStep, map_steps
from napari_unet.core.text import format_duration, pluralise
from napari_unet.core.training.model_comparison import (
    CorrectionRound,
    add_round,
    count_taught,
    get_rounds,
)
from napari_unet.core.training.run_state import (
    CHECKPOINT,
    forget_training,
    lock_training,
    training_folder,
)
from napari_unet.gui.jobs.run_button import ResultRun
from napari_unet.gui.widgets.plots import BLUE, ORANGE, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from filelock import FileLock

    from napari_unet.core.annotations.corrections import Correction
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.training.model_comparison import ModelComparison
    from napari_unet.core.training.samples import Samples
    from napari_unet.gui.finetune.form import TuneRequest
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.finetune import Tuning

WIDTH = 16
"""Channels of a network from scratch, at full resolution."""


class TuneWork:
    """One fine-tuning with the corrections of a model; nothing is in the store before `keep`.

    Parameters
    ----------
    request
        What to do.
    opened
        Stacks that are open in the window: images that lie in no file are read from them.

    Attributes
    ----------
    tuning
        The training itself; None until the corrections are read.
    objects, images
        How many it is trained on; classes have no objects.
    removed
        How many objects the user has deleted: what was there is learned as background.
    remarks
        A sentence for each image that was left out.
    """

    def __init__(self, request: TuneRequest, opened: Sequence[Stack] = ()) -> None:
        self.request, self.opened = request, tuple(opened)
        self.folder = training_folder(request.name)
        self.tuning: Tuning | None = None
        self.objects = self.images = self.removed = 0
        self.remarks: list[str] = []
        self._lock: FileLock | None = None

    @property
    def usable(self) -> bool:
        """Whether anything was learned, so that there is something to keep or discard."""
        return self.tuning is not None and self.tuning.state.step > 0

    def steps(self) -> Generator[Progress, None, None]:
        """Read the corrections and train; yields at least twice a second, so that Cancel works.

        Raises
        ------
        UnetError
            What the user can fix: nothing corrected, a store that cannot be written.
        """
        request = self.request
        yield Progress(0, 0, "loading the model")
        get_free_folder(check_name(request.name))
        check_store()
        self._lock = lock_training(self.folder)
        if (self.folder / CHECKPOINT).exists() and not request.resume:
            raise ModelError(
                f"A training of {request.name!r} did not finish; go on with it or forget it, or "
                "choose another name."
            )
        from napari_unet.nn.training.finetune import begin_tuning

        model = self._model()
        yield Progress(0, 0, "reading the corrections")
        corrections = yield from self._corrections()
        samples = yield from self._samples(model, corrections)
        card = samples.card()
        self.objects, self.images = card["objects"], len({item.source for item in samples.items})
        if request.touched:
            self.removed = sum(correction.removed for correction in corrections)
        yield Progress(0, 0, "preparing")
        self.tuning = begin_tuning(
            model,
            samples,
            request.settings,
            self.folder,
            data_hash=card["data_hash"],
            resume=request.resume,
            request=request.to_json(),
        )
        yield from self.tuning.steps()
        if self.tuning.state.step == 1:
            self.remarks.append("There was time for one step only; give it more minutes.")

    def keep(self) -> str:
        """Store the best model so far; return its name.

        Raises
        ------
        UnetError
            The store cannot be written, or the name was taken meanwhile; nothing is lost.
        """
        if self.tuning is None:
            raise ModelError("Nothing was trained yet; press Start first.")
        self.tuning.save(self.request.name)
        self.discard()
        return self.request.name

    def discard(self) -> None:
        """Forget the training; its log and curve stay."""
        self.forget()
        self.tuning = None

    def forget(self) -> None:
        """Forget the training on the disk; what it came to can still be looked at."""
        forget_training(self.folder)
        self.release()

    def release(self) -> None:
        """Unlock the training's folder, for other windows and programs."""
        if self._lock is not None:
            self._lock.release()

    def _model(self) -> Model:
        """Load the model, put another head on it, or build a new one."""
        from napari_unet.nn.inference.model import load_model
        from napari_unet.nn.training.head_transfer import fresh_model, fresh_spec, transfer_head

        request, network = self.request, self.request.network
        model = load_model(request.base, request.device)
        if not network.scratch:
            return model if network.classes is None else transfer_head(model, network.classes)
        spec = model.spec
        ndim = network.ndim or spec.ndim
        classes = network.classes or (spec.classes if spec.head == "semantic" else None)
        sizes = [stack.voxel_size_um for stack in self.opened if "Z" in stack.axes]
        size = sizes[0] if sizes and ndim == 3 else None
        fresh = fresh_spec(
            ndim, spec.in_channels, classes, network.depth, network.width or WIDTH, size
        )
        return fresh_model(fresh, request.name, request.device, request.settings.seed)

    def _corrections(self) -> Generator[Progress, None, list[Correction]]:
        from napari_unet.core.annotations.corrections import list_corrections

        found = []
        for correction in list_corrections(self.request.base):
            yield Progress(0, 0, "reading the corrections")
            if correction.frames:
                found.append(correction)
        return found

    def _samples(
        self, model: Model, corrections: list[Correction]
    ) -> Generator[Progress, None, Samples]:
        from napari_unet.core.annotations.training_set import to_samples
        from napari_unet.core.instances.heads import get_head

        spec = model.spec
        work = to_samples(
            corrections,
            get_head(spec),
            ndim=spec.ndim,
            channels=spec.in_channels,
            touched=self.request.touched,
            as_classes=self.request.network.classes is not None,
            opened=self.opened,
        )
        steps = map_steps(work, lambda step: replace(step, what="corrected images read"))
        samples, self.remarks = yield from steps
        return samples


class TuneRun(ResultRun):
    """The run of a fine-tuning, and how far it is.

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
        The work in the job's thread; it holds the result.
    progress
        The last report.
    """

    def __init__(
        self,
        request: TuneRequest,
        opened: list[Stack],
        ended: Callable[[TuneRun, str], None],
    ) -> None:
        self.work = TuneWork(request, opened)
        super().__init__(self.work.steps, self._take, ended)
        self.request = request
        self.progress: Progress = Progress(0, 0, "waiting")
        self._losses: list[tuple[float, float]] = []

    def abandon(self) -> None:
        """Stop, for the window is gone. The checkpoint stays, and with it the best model so far."""
        super().abandon()
        self._ended = _release

    @property
    def percent(self) -> int:
        """How much of the training is done, or after it of the teaching of clicks; 0 before it."""
        if not isinstance(self.progress, TrainStep):
            return 0
        if not self.progress.total:
            return 100 if self.progress.done else 0
        return min(100, int(100 * self.progress.done / self.progress.total))

    @property
    def training_data(self) -> str:
        """What it is trained on, as text; "" until that is known."""
        objects, images, removed = self.work.objects, self.work.images, self.work.removed
        if not images:
            return ""
        many = f"{pluralise(objects, 'object')} of " if objects else ""
        text = f"{many}{images} image{'s' * (images != 1)}"
        if removed:
            counts = "counts" if removed == 1 else "count"
            text += f"; {pluralise(removed, 'deletion')} {counts} as background"
        return text

    def describe(self) -> str:
        """Return the progress as a line: time left, and what it is trained on."""
        progress = self.progress
        step = progress if isinstance(progress, TrainStep) else None
        if step is None or not step.total or step.what not in ("training", "validating"):
            count = f" {progress.done} of {progress.total}" if progress.total and not step else ""
            left = step.seconds_left if step else math.nan
            end = f": {format_duration(left)} left" if math.isfinite(left) else " …"
            return f"{progress.what[:1].upper()}{progress.what[1:]}{count}{end}"
        left = step.seconds_left
        parts = [f"{format_duration(left)} left" if math.isfinite(left) else ""]
        if step.what == "validating":
            parts.append("validating")
        parts.append(f"learning from {self.training_data}")
        return " · ".join(part for part in parts if part)

    def lines(self) -> list[Line]:
        """Return the curves: the loss, and the validation score."""
        tuning = self.work.tuning
        history = list(tuning.state.history) if tuning else []
        earlier = [(e["step"], e["loss"]) for e in history if "loss" in e]
        first = self._losses[0][0] if self._losses else math.inf
        losses = [(float(x), float(y)) for x, y in earlier if x < first] + self._losses
        metric = validation_metric(tuning) if tuning else ""
        scores = [(float(e["step"]), float(e[metric])) for e in history if metric in e]
        return [
            Line("loss", tuple(losses), ORANGE),
            Line(metric.replace("corrections", "held out"), tuple(scores), BLUE, right=True),
        ]

    @property
    def judgement(self) -> ModelComparison | None:
        """Whether the tuned model is better; None without a result."""
        return self.work.tuning.judgement if self.work.usable and self.work.tuning else None

    @property
    def rounds(self) -> list[CorrectionRound]:
        """The rounds so far, this one included, with the model's score after each."""
        tuning = self.work.tuning
        if tuning is None or not self.work.usable:
            return []
        before = tuning.model.card.training
        judgement = tuning.judgement
        taught = count_taught(tuning.samples.card(), judgement.metric)
        return get_rounds({"rounds": add_round(before, taught, judgement)})

    def _take(self, item: Progress) -> None:
        self.progress = item
        if isinstance(item, TrainStep) and item.what == "training" and math.isfinite(item.loss):
            self._losses.append((float(item.done), item.loss))

    def _end(self, state: str) -> None:
        """Release the folder of a training that has no result."""
        if not self.work.usable:
            self.work.tuning = None
            self.work.release()
        super()._end(state)


def validation_metric(tuning: Tuning) -> str:
    """Return the name of the score on held-out corrections; without any, on rehearsed samples."""
    metric = tuning.judgement.metric
    return f"{metric} {'corrections' if tuning.split.validation else 'replay'}"


def _release(run: TuneRun, _: str) -> None:
    """Take the panel's place at the end: another window may go on with the training."""
    run.work.release()
