"""`napari-unet train`: a model is tuned on labelled images, or a new one trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.command import INTERRUPTED, add_command
from napari_unet.cli.options import add_settings, settings_from
from napari_unet.cli.terminal import follow, progress_bar, say, watched
from napari_unet.core.spec import DEVICES, DivergedError, TrainSettings

if TYPE_CHECKING:
    from argparse import Namespace


def add_train(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "train", _train, "Tune a model on labelled images, or train a new one"
    )
    command.add_argument("images", type=Path, help="an image, or a folder of images")
    command.add_argument("labels", type=Path, help="its labels, or a folder with equal names")
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
        "--ignore-label", type=int, metavar="V", help="value of labels that says: not looked at"
    )
    command.add_argument(
        "--classes",
        type=int,
        metavar="K",
        help="the labels are classes, 0 to K-1, not objects. Not given: as the model has it",
    )
    command.add_argument("--axes", metavar="A", help="a letter for each axis of the images")
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


def _train(values: Namespace) -> int:
    from napari_unet.training import TrainingRun, TrainRequest

    run = TrainingRun(
        TrainRequest(
            images=values.images,
            labels=values.labels,
            name=values.name,
            start=values.start,
            known=values.known,
            ignore=values.ignore_label,
            classes=values.classes,
            ndim=values.ndim,
            depth=values.depth,
            width=values.width,
            channel=values.channel,
            axes=values.axes,
            device=values.device,
            resume=values.resume,
            keep=values.keep,
            settings=settings_from(values, TrainSettings),
        )
    )
    try:
        with progress_bar(1) as bar:
            place = follow(watched(run.steps(), bar), bar)
    except (KeyboardInterrupt, DivergedError) as error:
        kept = run.store_interrupted()
        if kept:
            say(f"the best so far is kept as {values.name!r} in {kept}; --resume goes on.")
        if isinstance(error, DivergedError) or not kept:
            raise
        return INTERRUPTED
    print(f"{values.name}: stored in {place}; {run.summary()}")
    return 0
