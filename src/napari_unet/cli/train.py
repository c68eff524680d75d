"""`napari-unet train`: from folders of images and labels to a model in the store."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command, add_labels_as, add_settings, settings_from
from napari_unet.cli.terminal import INTERRUPTED, follow, progress_bar, say
from napari_unet.cli.training_run import TrainingRun, TrainRequest
from napari_unet.core.errors import DivergedError
from napari_unet.core.io.files import expand_path
from napari_unet.core.progress import Progress, map_steps
from napari_unet.core.settings.tasks import DEVICES, TrainSettings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Generator
    from pathlib import Path

    from tqdm import tqdm


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
        type=expand_path,
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
    command.add_argument("images", type=expand_path, help="an image, or a folder of images")
    command.add_argument(
        "labels",
        type=expand_path,
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
