"""The command line: ``napari-unet COMMAND``, also ``python -m napari_unet``.

Exit status: 0 done; 2 unusable arguments or input, with one line on standard error; 130
interrupted. Progress and remarks go to standard error, results to files and standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet import __version__
from napari_unet.core.axes import FRAMES
from napari_unet.core.linking import LinkSettings
from napari_unet.core.spec import DEVICES, DivergedError, PredictSettings, TrainSettings, UnetError
from napari_unet.options import Parser, add_settings, settings_from
from napari_unet.terminal import follow, one_line_remarks, progress_bar, run_all, say, watched

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

    from tqdm import tqdm

    from napari_unet.nn.model import Model

UNUSABLE, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status.

    Parameters
    ----------
    argv
        The arguments behind the program's name; None takes those of the process.
    """
    with one_line_remarks():
        try:
            values = build_parser().parse_args(argv)
            return int(values.run(values))
        except UnetError as error:
            say(f"error: {error}")
            return UNUSABLE
        except KeyboardInterrupt:
            say("interrupted; no half-written file is left.")
            return INTERRUPTED
        except SystemExit as end:  # --help and --version
            return int(end.code or 0)


def build_parser() -> Parser:
    """Describe all commands and their options."""
    parser = Parser(prog="napari-unet", description="Segment microscopy images with a U-Net.")
    parser.add_argument("--version", action="version", version=f"napari-unet {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_segment(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_measure(commands)
    _add_models(commands)
    _add_bench(commands)
    return parser


def _add_demo(commands: Any) -> None:
    command = _add(commands, "demo", _demo, "Segment a sample image: in napari, or into files")
    command.add_argument("--headless", action="store_true", help="write files, open no window")
    command.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)"
    )
    _add_model_options(command)


def _demo(values: Namespace) -> int:
    from napari_unet import demo, report

    problem = "" if values.headless else demo.why_no_window()
    if not values.headless and not problem:
        from napari_unet.gui.demo import run_demo

        run_demo(values.model, values.device)
        return 0
    if problem:
        say(f"{problem}; the demo runs without a window and writes files.")
    model = _load_model(values)
    with progress_bar(1) as bar:
        files, row = follow(demo.demo_steps(model, values.out), bar)
    print(report.format_table(demo.HEADINGS, [row]))
    print(f"written: {', '.join(map(str, files))}")
    return 0


def _add_segment(commands: Any) -> None:
    command = _add(
        commands, "segment", _segment, "Find the objects in an image or a folder of them"
    )
    command.add_argument(
        "input",
        type=_source,
        help="image (TIFF, PNG, JPEG, Zarr), address of a Zarr (http, https, s3), or a folder",
    )
    command.add_argument(
        "output",
        type=Path,
        nargs="?",
        help="labels (.tif, .png, .zarr), or a folder. Not given: into the OME-Zarr of the input",
    )
    _add_model_options(command)
    command.add_argument(
        "--axes", metavar="A", help="a letter for each axis, such as TZCYX. Not given: the file's"
    )
    command.add_argument("--overwrite", action="store_true", help="replace existing results")
    command.add_argument(
        "--link",
        action="store_true",
        help="follow objects through time: labels are numbered by track, and OUTPUT.tracks.csv is "
        "written beside them",
    )
    add_settings(command, LinkSettings)
    large = command.add_argument_group("large data (labels that become a .zarr)")
    large.add_argument("--resume", action="store_true", help="go on with an unfinished run")
    large.add_argument(
        "--scheduler", metavar="ADDRESS", help="work on a dask cluster, such as tcp://host:8786"
    )
    large.add_argument(
        "--level", type=int, default=0, metavar="N", help="level of a multiscale image (default: 0)"
    )
    large.add_argument(
        "--block",
        type=int,
        metavar="PX",
        help="edge length of a block. Not given: 4096, volumes 512",
    )
    add_settings(command, PredictSettings)


def _source(text: str) -> Path | str:
    from napari_unet.core.remote import is_address

    return text if is_address(text) else Path(text)


def _segment(values: Namespace) -> int:
    from napari_unet import batch, report
    from napari_unet.core.files import make_folder
    from napari_unet.core.stack import open_stack

    settings = settings_from(values, PredictSettings)
    linking = settings_from(values, LinkSettings)
    link = linking if values.link else None
    jobs, many = batch.plan_jobs(values.input, values.output), batch.is_batch(values.input)
    blocks = batch.BlockOptions(values.block, values.resume, values.scheduler, values.level)
    if many:
        make_folder(values.output)
        if blocks.resume:  # each result is whole, so what is there is done
            jobs = [job for job in jobs if job.target and not job.target.exists()]
        blocks = batch.BlockOptions()
    else:  # what is wrong is said before torch loads
        batch.goes_in_blocks(values.output, blocks, linked=values.link)
        open_stack(values.input, values.axes, level=values.level)
    model, empty = _load_model(values), list[Any]()

    def run(job: batch.FileJob, bar: tqdm[Any]) -> None:
        bar.set_description(Path(job.source).name, refresh=False)
        steps = batch.segment_file(
            job, model, settings, values.axes, values.overwrite, link, blocks
        )
        passport = follow(steps, bar)
        empty.extend(passport.get("failed_blocks", []))
        target = job.target or f"labels of {job.source}"
        bar.write(report.run_line(target, passport), file=sys.stdout)

    failed = run_all(jobs, run, keep_going=many)
    if empty:
        say(f"{len(empty)} blocks could not be read and are empty; --resume tries them again.")
        failed += 1
    if many:
        print(f"{len(jobs) - failed} of {len(jobs)} images segmented")
    return UNUSABLE if failed else 0


def _add_train(commands: Any) -> None:
    command = _add(commands, "train", _train, "Tune a model on labelled images, or train a new one")
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


def _add_evaluate(commands: Any) -> None:
    command = _add(commands, "evaluate", _evaluate, "Score labels against the truth")
    command.add_argument("predicted", type=Path, help="labels, or a folder of labels")
    command.add_argument("truth", type=Path, help="the true labels, or a folder with equal names")
    command.add_argument("--csv", type=Path, metavar="FILE", help="write all scores to a table")
    command.add_argument(
        "--overlay",
        type=Path,
        metavar="DIR",
        help="draw hits (green), false (red) and missed objects (blue) into a PNG for each image, "
        "of the plane with the most objects; for one image, the name of the PNG will do",
    )
    command.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="what to draw on: an image, or a folder with equal names. Not given: on black",
    )
    command.add_argument(
        "--frames",
        choices=FRAMES,
        default=FRAMES[0],
        help="match the objects of a stack plane by plane or in its volumes; time points are "
        "apart always (default: auto, planes for what a 2D model found, else volumes)",
    )


def _evaluate(values: Namespace) -> int:
    from napari_unet.core import pictures, scoring
    from napari_unet.core.comparison import score_steps
    from napari_unet.core.metrics import Scores
    from napari_unet.report import format_table

    pairs, scores = scoring.pair_files(values.predicted, values.truth), dict[str, Scores]()
    drawn = pictures.plan_pictures(pairs, values.overlay, values.images)

    def run(pair: scoring.LabelPair, bar: tqdm[Any]) -> None:
        bar.set_description(pair.name, refresh=False)
        comparison = scoring.read_pair(pair, values.frames)
        scores[pair.name] = follow(score_steps(comparison), bar)
        if picture := drawn.get(pair.name):
            bar.write(pictures.draw_picture(picture, comparison), file=sys.stdout)

    failed = run_all(pairs, run, keep_going=len(pairs) > 1)
    if len(scores) > 1:
        scores[f"pooled ({len(scores)} images)"] = Scores.pooled(scores.values())
    rows = [scoring.table_row(name, score) for name, score in scores.items()]
    print(format_table(scoring.HEADINGS, rows))
    if values.csv and scores:
        scoring.write_csv(values.csv, scores)
    return UNUSABLE if failed else 0


def _add_measure(commands: Any) -> None:
    command = _add(commands, "measure", _measure, "Measure objects: size, place, shape, intensity")
    command.add_argument("labels", type=Path, help="labels, or a folder of labels")
    command.add_argument(
        "image",
        type=Path,
        nargs="?",
        help="the image, or a folder with equal names. Not given: no intensities",
    )
    command.add_argument(
        "--csv", type=Path, metavar="FILE", help="the table. Not given: standard output"
    )
    command.add_argument(
        "--voxel-size-um",
        type=float,
        nargs="+",
        metavar="UM",
        help="z y x, y x, or one size for all. Not given: as the files have it",
    )
    command.add_argument("--axes", metavar="A", help="a letter for each axis of the labels")
    command.add_argument(
        "--frames",
        choices=FRAMES,
        default=FRAMES[0],
        help="whether the objects of a stack end with their plane; time points are apart always "
        "(default: auto, planes for what a 2D model found, else volumes)",
    )
    command.add_argument(
        "--solidity",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compute convex hulls, which takes longest (default: yes)",
    )


def _measure(values: Namespace) -> int:
    from napari_unet.core import measurefiles, objecttable
    from napari_unet.core.measure import Measuring, measure_steps

    pairs = measurefiles.pair_images(values.labels, values.image)
    size, tables = values.voxel_size_um, dict[str, objecttable.Table]()

    def run(pair: measurefiles.LabelledImage, bar: tqdm[Any]) -> None:
        bar.set_description(pair.name, refresh=False)
        what = Measuring.of(
            pair.labels,
            measurefiles.image_of(pair, values.image),
            None if size is None else tuple(size),
            axes=values.axes,
            frames=values.frames,
            solidity=values.solidity,
        )
        tables[pair.name] = follow(measure_steps(what), bar)

    failed = run_all(pairs, run, keep_going=len(pairs) > 1)
    if tables:
        table = measurefiles.stacked(tables) if len(pairs) > 1 else tables[pairs[0].name]
        if values.csv:
            objecttable.write_table(values.csv, table)
            print(f"{values.csv}: {len(table['label']):,} objects")
        else:
            print(objecttable.table_text(table), end="")
    return UNUSABLE if failed else 0


def _add_models(commands: Any) -> None:
    actions = commands.add_parser("models", help="List, show, exchange models").add_subparsers(
        required=True, metavar="ACTION"
    )
    _add(actions, "list", _models_list, "List the models that there are")
    show = _add(actions, "show", _models_show, "Show a model's card and its network's layers")
    show.add_argument("name", help="name or folder of a model")
    take = _add(actions, "import", _models_import, "Copy a model into the store")
    take.add_argument("path", type=Path, help="the .zip file or folder of a model")
    take.add_argument("--name", help="its name in the store. Not given: the one it has")
    give = _add(actions, "export", _models_export, "Write a model into one .zip file")
    give.add_argument("name", help="name or folder of a model")
    give.add_argument("zip", type=Path, help="the .zip file to write")
    remove = _add(actions, "remove", _models_remove, "Delete a model of yours")
    remove.add_argument("name", help="name of a model")


def _models_list(values: Namespace) -> int:
    from napari_unet.core.store import list_models
    from napari_unet.report import MODEL_HEADINGS, format_table, model_row

    entries = list_models()
    print(format_table(MODEL_HEADINGS, [model_row(entry) for entry in entries]))
    for entry in entries:
        if entry.problem:
            say(f"warning: {entry.problem}")
    return 0


def _models_show(values: Namespace) -> int:
    from napari_unet.core.store import find_model, read_card
    from napari_unet.report import card_lines

    folder = find_model(values.name)
    card = read_card(folder)
    from napari_unet.nn.summary import format_summary  # torch: once the rest is known to be good

    print(f"{folder}\n", *card_lines(card), "", format_summary(card.spec), sep="\n")
    return 0


def _models_import(values: Namespace) -> int:
    from napari_unet.core.store import import_model

    entry = import_model(values.path, values.name)
    print(f"{entry.name}: imported into {entry.path}")
    return 0


def _models_export(values: Namespace) -> int:
    from napari_unet.core.store import export_model

    print(f"{values.name}: exported to {export_model(values.name, values.zip)}")
    return 0


def _models_remove(values: Namespace) -> int:
    from napari_unet.core.store import remove_model

    remove_model(values.name)
    print(f"{values.name}: removed")
    return 0


def _add_bench(commands: Any) -> None:
    command = _add(commands, "bench", _bench, "Measure speed and accuracy on this computer")
    command.add_argument("--quick", action="store_true", help="a few minutes instead of many")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")


def _bench(values: Namespace) -> int:
    from napari_unet.core.scoring import write_text
    from napari_unet.nn.bench import run_bench

    figures = run_bench(quick=values.quick, report=print)
    if values.json:
        write_text(values.json, json.dumps(figures, indent=2) + "\n")
    return 0


def _add(commands: Any, name: str, run: Callable[[Namespace], int], help: str) -> Parser:
    command: Parser = commands.add_parser(name, help=help, description=f"{help}.")
    command.set_defaults(run=run)
    return command


def _add_model_options(command: Parser) -> None:
    command.add_argument(
        "--model", default="nuclei", metavar="M", help="name or folder of a model (default: nuclei)"
    )
    command.add_argument(
        "--device", default="auto", metavar="D", help=f"{', '.join(DEVICES)} (default: auto)"
    )


def _load_model(values: Namespace) -> Model:
    from napari_unet.core.store import find_model

    find_model(values.model)  # an unknown one is known before torch is loaded
    from napari_unet.nn.model import load_model

    return load_model(values.model, values.device)
