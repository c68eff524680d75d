"""A training from the command line: what is asked for, its checks, the run and what it stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import InputError, ModelError, SettingsError
from napari_unet.core.models.folder import read_card
from napari_unet.core.models.store import check_store, find_model, get_free_folder, home
from napari_unet.core.progress import Progress
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.text import pluralise
from napari_unet.core.training.run_state import (
    CHECKPOINT,
    forget_training,
    lock_training,
    training_folder,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_unet.core.training.pairs import Labelled
    from napari_unet.nn.inference.model import Model
    from napari_unet.nn.training.finetune import Tuning


@dataclass(frozen=True)
class TrainRequest:
    """What to train, on which images: the options of the command.

    Attributes
    ----------
    images, labels, known
        Files, or folders; `known` may be None. Without `labels`, a data set in a known layout.
    image_pattern, label_pattern
        Which files are images, and how their labels are called; see `core.labels.pairing`.
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
    axes, labels_axes
        A letter for each axis of the images, and of the labels; None: as the files have them.
    labels_as
        What the values of labels are, one of `LABELS_AS`; None: ids, unless they look like a mask.
    keep
        Whether a model that has become worse is stored, too.
    """

    images: Path
    labels: Path | None
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
    labels_axes: str | None = None
    labels_as: str | None = None
    image_pattern: str | None = None
    label_pattern: str | None = None
    device: str = "auto"
    resume: bool = False
    keep: bool = False
    settings: TrainSettings = field(default_factory=TrainSettings)


class TrainingRun:
    """One training from the command line: checks, training, result.

    Checkpoint, log and curve lie in ``training/NAME`` in the user's folder.

    Raises
    ------
    UnetError
        Any error that can be known before the first file is read.
    """

    def __init__(self, request: TrainRequest) -> None:
        from napari_unet.core.training.pairs import pair_paths

        self.request = request
        self.folder = training_folder(request.name)
        self.tuning: Tuning | None = None
        self.remarks: list[str] = []
        self._check_options()
        self._overwrite = self._may_overwrite()
        get_free_folder(request.name, overwrite=self._overwrite)
        check_store()
        if request.start is not None:
            spec = read_card(find_model(request.start)).spec  # said before torch is loaded
            self._ndim = spec.ndim
            self._learns_classes = request.classes is not None or spec.head == "semantic"
        else:
            self._ndim = request.ndim or 2
            self._learns_classes = request.classes is not None
        if (self.folder / CHECKPOINT).exists() and not request.resume:
            raise ModelError(
                f"There is an unfinished training of {request.name!r}; go on with --resume, or "
                f"delete {self.folder} to start again."
            )
        self._paths, remark = pair_paths(
            request.images,
            request.labels,
            request.known,
            request.image_pattern,
            request.label_pattern,
        )
        if remark and not self._learns_classes:
            self.remarks.append(remark)

    def steps(self) -> Generator[Progress, None, Path]:
        """Train; yield progress and return the folder of the stored model.

        Raises
        ------
        ModelError
            The tuned model is worse, and was not to be kept; or the checkpoint is of another run.
        InputError
            Another program trains a model of this name right now.
        UnetError
            Any other error that the user can solve.
        """
        lock = lock_training(self.folder)
        try:
            return (yield from self._steps())
        finally:
            lock.release()

    def _steps(self) -> Generator[Progress, None, Path]:
        from napari_unet.core.training.pairs import check_objects

        images = [self._read(name) for name in self._paths]
        self.remarks += [remark for image in images for remark in image.remarks]
        self.remarks += check_objects(images)
        yield Progress(0, 1, "images")
        model = self._model(images)
        from napari_unet.core.instances.heads import get_head
        from napari_unet.core.training.pairs import samples_of
        from napari_unet.nn.training.finetune import begin_tuning

        spec, request = model.spec, self.request
        samples = samples_of(images, spec.ndim, spec.in_channels, get_head(spec), request.channel)
        self.tuning = begin_tuning(
            model,
            samples,
            request.settings,
            self.folder,
            data_hash=samples.card()["data_hash"],
            resume=request.resume,
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
            forget_training(self.folder)
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
        much = ", ".join(pluralise(n, what) for what, n in counts.items())
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
        """Return whether this training stored a model of that name when it was interrupted."""
        folder = home() / "models" / self.request.name
        if not (self.request.resume and folder.is_dir()):
            return False
        return bool(read_card(folder).training.get("unfinished"))

    def _read(self, name: str) -> Labelled:
        from napari_unet.core.labels.label_file import LabelReading
        from napari_unet.core.training.pairs import read_labelled

        request = self.request
        how = LabelReading(
            request.labels_as,
            request.labels_axes,
            classes=self._learns_classes,
            ndim=self._ndim,
        )
        files, known = self._paths[name]
        return read_labelled(
            name,
            files.images,
            files.labels,
            known,
            plane=files.plane,
            axes=request.axes,
            ignore=request.ignore,
            how=how,
        )

    def _model(self, images: list[Labelled]) -> Model:
        """Load the model to tune, with a new head if other classes are asked for, or build one."""
        from napari_unet.nn.inference.model import load_model
        from napari_unet.nn.training.head_transfer import fresh_model, fresh_spec, transfer_head

        request = self.request
        if request.start is not None:
            model = load_model(request.start, request.device)
            check_channels(images, model.spec.in_channels, request)
            return transfer_head(model, request.classes) if request.classes is not None else model
        stack, ndim, channels = images[0].stack, request.ndim or 2, 1
        if request.channel is None:
            channels = max(3 if i.stack.rgb else i.stack.channels for i in images)
            check_channels(images, channels, request)
        size = stack.voxel_size_um if ndim == 3 else None
        width = 16 if request.width is None else request.width
        spec = fresh_spec(ndim, channels, request.classes, request.depth, width, size)
        return fresh_model(spec, request.name, request.device, request.settings.seed)


def check_channels(images: Sequence[Labelled], wanted: int, request: TrainRequest) -> None:
    """Check that images have as many channels as the network has inputs.

    One channel is given to all inputs, and RGB to three; of anything else the user has to choose.

    Raises
    ------
    InputError
        An image has several channels, but not as many as the model has inputs.
    """
    for image in images:
        stack = image.stack
        fits = stack.channels in (1, wanted) or (stack.rgb and wanted == 3)
        if request.channel is None and not fits:
            rival = f"the model {request.start!r} takes" if request.start else "others have"
            way_out = "a model from --scratch" if request.start else "on images of one kind"
            raise InputError(
                f"{image.name} has {stack.channels} channels, {rival} {wanted}; say which one it "
                f"is to learn from (--channel, 0 to {stack.channels - 1}), or train {way_out}."
            )
