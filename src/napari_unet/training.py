"""From folders of images and labels to a model in the store: what `napari-unet train` does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unet.core.heads import head_of
from napari_unet.core.spec import InputError, ModelError, SettingsError, TrainSettings
from napari_unet.core.store import check_store, find_model, free_place, home, read_card
from napari_unet.core.training.pairs import Labelled, pair_paths, read_labelled, samples_of
from napari_unet.core.training.plans import (
    CHECKPOINT,
    TrainPlan,
    forget,
    lock_training,
    note_plan,
    training_folder,
)
from napari_unet.core.words import counted

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_unet.core.spec import Progress
    from napari_unet.nn.finetune import Tuning
    from napari_unet.nn.model import Model


@dataclass(frozen=True)
class TrainRequest:
    """What the command line asks for.

    Attributes
    ----------
    images, labels, known
        Files, or folders with equal names; `known` may be None.
    name
        Of the new model.
    start
        Name or folder of the model to tune; None: from scratch.
    ignore
        The value of labels that stands for "not looked at".
    classes
        Of a semantic head, background included; None: the head that `start` has, or objects.
    ndim, depth, width
        Of a network from scratch; None: planes, and what suits them.
    channel
        Of the images, counted from 0; None: all for RGB, else as many as the model takes.
    keep
        Whether a model that has become worse is stored, too.
    """

    images: Path
    labels: Path
    name: str
    start: str | None = None
    known: Path | None = None
    ignore: int | None = None
    classes: int | None = None
    ndim: int | None = None
    depth: int | None = None
    width: int | None = None
    channel: int | None = None
    axes: str | None = None
    device: str = "auto"
    resume: bool = False
    keep: bool = False
    settings: TrainSettings = field(default_factory=TrainSettings)


class TrainingRun:
    """One training from the command line: checks, training, result.

    What it works with lies in ``training/NAME`` in the user's folder: checkpoint, log and curve.

    Raises
    ------
    UnetError
        Whatever can be known to be wrong before the first file is read.
    """

    def __init__(self, request: TrainRequest) -> None:
        self.request = request
        self.folder = training_folder(request.name)
        self.tuning: Tuning | None = None
        self._check_options()
        self._overwrite = self._may_overwrite()
        free_place(request.name, overwrite=self._overwrite)
        check_store()
        if request.start is not None:
            find_model(request.start)  # an unknown one is known before torch is loaded
        if (self.folder / CHECKPOINT).exists() and not request.resume:
            raise ModelError(
                f"There is an unfinished training of {request.name!r}; go on with --resume, or "
                f"delete {self.folder} to start again."
            )
        self._paths = pair_paths(request.images, request.labels, request.known)

    def steps(self) -> Generator[Progress, None, Path]:
        """Train, yielding progress; return the folder of the stored model.

        Raises
        ------
        ModelError
            The tuned model is worse, and was not to be kept; or the checkpoint is of another run.
        InputError
            Another program trains a model of this name right now.
        UnetError
            Whatever else the user can mend.
        """
        lock = lock_training(self.folder)
        try:
            return (yield from self._steps())
        finally:
            lock.release()

    def _steps(self) -> Generator[Progress, None, Path]:
        images = [self._read(name) for name in self._paths]
        model = self._model(images)
        from napari_unet.nn.finetune import Tuning

        spec, request = model.spec, self.request
        samples = samples_of(images, spec.ndim, spec.in_channels, head_of(spec), request.channel)
        data = samples.card()["data_hash"]
        note_plan(self.folder, TrainPlan(model.card.hash, model.spec.to_json(), data))
        self.tuning = Tuning(
            model, samples, request.settings, folder=self.folder, resume=request.resume
        )
        yield from self.tuning.steps()
        if not (self.tuning.judgement.keep or request.keep):
            raise ModelError(
                f"The tuned model was not kept; {self.tuning.judgement}. Correct more images, or "
                "store it all the same with --resume --keep."
            )
        return self.store()

    def store(self, **notes: Any) -> Path:
        """Store the best model so far; the checkpoint goes when the training is finished."""
        if self.tuning is None:
            raise ModelError("Nothing was trained yet.")
        place = self.tuning.save(self.request.name, overwrite=self._overwrite, **notes)
        if not notes:
            forget(self.folder)
        return place

    def store_interrupted(self) -> Path | None:
        """Store what an interrupted training has reached; None if that is nothing yet."""
        if self.tuning is None or not self.tuning.state.step:
            return None
        return self.store(unfinished=True)

    def summary(self) -> str:
        """Say what was learned from and how well the model does now."""
        if self.tuning is None:
            return "nothing was trained"
        card, steps = self.tuning.samples.card(), self.tuning.state.step
        counts = {"image": card["images"], "object": card["objects"], "step": steps}
        if self.tuning.model.spec.head == "semantic":
            del counts["object"]
        much = ", ".join(counted(n, what) for what, n in counts.items())
        judgement = str(self.tuning.judgement).rstrip(".")
        return f"{much}; {judgement}; log and curve in {self.folder}"

    def _check_options(self) -> None:
        """Raise SettingsError for options that exclude each other."""
        request = self.request
        shape = {"ndim": request.ndim, "depth": request.depth, "width": request.width}
        given = [name for name, value in shape.items() if value is not None]
        if request.start is not None and given:
            raise SettingsError(
                f"--{given[0]} is for networks from scratch; a tuned model has the shape of "
                f"{request.start!r}. Leave it out, or give --scratch instead of --from."
            )

    def _may_overwrite(self) -> bool:
        """Tell whether a model of that name is what this very training left when interrupted."""
        place = home() / "models" / self.request.name
        if not (self.request.resume and place.is_dir()):
            return False
        return bool(read_card(place).training.get("unfinished"))

    def _read(self, name: str) -> Labelled:
        request = self.request
        image, labels, known = self._paths[name]
        return read_labelled(name, image, labels, known, axes=request.axes, ignore=request.ignore)

    def _model(self, images: list[Labelled]) -> Model:
        """Load the model to tune, with a new head if other classes are asked for, or build one."""
        from napari_unet.nn.graft import fresh_model, fresh_spec, graft
        from napari_unet.nn.model import load_model

        request = self.request
        if request.start is not None:
            model = load_model(request.start, request.device)
            check_channels(images, model.spec.in_channels, request)
            return graft(model, request.classes) if request.classes is not None else model
        stack, ndim = images[0].stack, request.ndim or 2
        if request.channel is not None or stack.channels == 1:
            channels = 1
        else:
            channels = 3 if stack.rgb else stack.channels
        size = stack.voxel_size_um if ndim == 3 else None
        width = request.width or 16
        spec = fresh_spec(ndim, channels, request.classes, request.depth, width, size)
        return fresh_model(spec, request.name, request.device, request.settings.seed)


def check_channels(images: Sequence[Labelled], wanted: int, request: TrainRequest) -> None:
    """Hold the channels of images against those that the model to tune takes.

    One channel is given to all of its inputs, and colours go to three; anything else is a choice
    that only the user can make.

    Raises
    ------
    InputError
        An image has several channels, and not as many as the model has inputs.
    """
    for image in images:
        stack = image.stack
        fits = stack.channels in (1, wanted) or (stack.rgb and wanted == 3)
        if request.channel is None and not fits:
            raise InputError(
                f"{image.name} has {stack.channels} channels, the model {request.start!r} takes "
                f"{wanted}; say which one it is to learn from (--channel, 0 to "
                f"{stack.channels - 1}), or train a model from --scratch."
            )
