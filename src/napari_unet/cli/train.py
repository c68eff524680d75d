"""`napari-unet train`: from folders of images and labels to a model in the store."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command, add_labels_as, add_settings, settings_from
from napari_unet.cli.terminal import INTERRUPTED, follow, progress_bar, say
from napari_unet.core.errors import DivergedError, InputError, ModelError, SettingsError
from napari_unet.core.models.folder import read_card
from napari_unet.core.models.store import check_store, find_model, get_free_folder, home
from napari_unet.core.progress import Progress, map_steps
from napari_unet.core.settings.tasks import DEVICES, TrainSettings
from napari_unet.core.text import pluralise
from napari_unet.core.training.run_state import (
    CHECKPOINT,
    forget_training,
    lock_training,
    training_folder,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Generator, Sequence

    from tqdm import tqdm

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
        width = request.width or 16
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


def add_train(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "train", _train, "Tune a model on labelled images, or train a new one"
    )
    _add_files(command)
    command.add_argument("--name", required=True, metavar="NAME", help="of the new model")
    start = command.add_mutually_exclusive_group(required=True)
    start.add_argument("--from", dest="start", metavar="MODEL", help="the model to tune")
    start.add_argument("--scratch", action="store_true", help="begin with a new network")
    command.add_argument(
        "--known",
        type=Path,
        metavar="PATH",
        help="masks, above 0 where the labels are to be learned from. Not given: everywhere, but "
        "for planes of a stack that have no label",
    )
    command.add_argument(
        "--ignore-label",
        dest="ignore",
        type=int,
        metavar="V",
        help="value of labels that says: not looked at",
    )
    command.add_argument(
        "--classes",
        type=int,
        metavar="K",
        help="the labels are classes, 0 to K-1, not objects. Not given: as the model has it",
    )
    command.add_argument("--axes", metavar="A", help="a letter for each axis of the images")
    command.add_argument("--labels-axes", metavar="A", help="a letter for each axis of the labels")
    add_labels_as(command)
    command.add_argument("--channel", type=int, metavar="N", help="which channel, counted from 0")
    command.add_argument(
        "--device", default="auto", metavar="D", help=f"{', '.join(DEVICES)} (default: auto)"
    )
    command.add_argument("--resume", action="store_true", help="go on with an interrupted training")
    command.add_argument(
        "--keep", action="store_true", help="store the result even if it is worse than before"
    )
    new = command.add_argument_group("networks from scratch")
    new.add_argument("--ndim", type=int, choices=(2, 3), help="planes or volumes (default: 2)")
    new.add_argument("--depth", type=int, metavar="N", help="poolings (default: 4, volumes: 3)")
    new.add_argument("--width", type=int, metavar="N", help="channels at full size (default: 16)")
    add_settings(command, TrainSettings)


def _add_files(command: ArgumentParser) -> None:
    """Describe which images and labels are learned from."""
    command.add_argument("images", type=Path, help="an image, or a folder of images")
    command.add_argument(
        "labels",
        type=Path,
        nargs="?",
        help="its labels, or a folder with equal names, or a COCO JSON. Not given: as the layouts "
        "of Cellpose, StarDist, nnU-Net and the Cell Tracking Challenge have it",
    )
    command.add_argument(
        "--images",
        dest="image_pattern",
        metavar="PATTERN",
        help="which files in the folder are images, such as '*.tif'. Not given: all",
    )
    command.add_argument(
        "--labels",
        dest="label_pattern",
        metavar="PATTERN",
        help="how the labels of an image are called, such as '{stem}_masks.tif'. Not given: like "
        "the image, perhaps with an ending such as _masks",
    )


def _train(values: Namespace) -> int:
    options = {
        item.name: getattr(values, item.name)
        for item in fields(TrainRequest)
        if item.name != "settings"
    }
    run = TrainingRun(TrainRequest(**options, settings=settings_from(values, TrainSettings)))
    try:
        with progress_bar(1) as bar:
            place = follow(_show_loss(run, bar), bar)
    except (KeyboardInterrupt, DivergedError) as error:
        kept = run.store_interrupted()
        if kept:
            say(f"the best so far is kept as {values.name!r} in {kept}; --resume goes on.")
        if isinstance(error, DivergedError) or not kept:
            raise
        return INTERRUPTED
    print(f"{values.name}: stored in {place}; {run.summary()}")
    return 0


def _show_loss(run: TrainingRun, bar: tqdm[Any]) -> Generator[Progress, None, Path]:
    """Pass the steps of a training on; show its loss beside the bar, its scores above it."""

    def show(step: Progress) -> Progress:
        while run.remarks:
            say(f"warning: {run.remarks.pop(0)}")
        scores = getattr(step, "validation", None)
        loss = getattr(step, "loss", math.nan)
        if scores:
            shown = ", ".join(f"{k} {v:.3f}" for k, v in scores.items() if math.isfinite(v))
            at = f"step {step.done}: " + ("" if math.isnan(loss) else f"loss {loss:.3f}, ")
            say(at + shown)
        text = step.what if math.isnan(loss) else f"{step.what}: loss {loss:.3f}"
        bar.set_description(text, refresh=False)
        return step

    return (yield from map_steps(run.steps(), show))
