"""`napari-unet measure`: the objects of labels as a table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import UNUSABLE, add_command
from napari_unet.cli.terminal import follow, run_all
from napari_unet.core.io.axes import FRAMES
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from argparse import Namespace

    from tqdm import tqdm


def add_measure(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "measure", _measure, "Measure objects: size, place, shape, intensity"
    )
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
    from napari_unet.core.evaluation import label_files as measurefiles
    from napari_unet.core.evaluation.label_files import check_text_file
    from napari_unet.core.regionprops import table as objecttable
    from napari_unet.core.regionprops.measure import Measuring, measure_steps

    if values.csv:
        check_text_file(values.csv)
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
            print(f"{values.csv}: {pluralise(len(table['label']), 'object')}")
        else:
            print(objecttable.table_text(table), end="")
    return UNUSABLE if failed else 0
