"""`napari-unet measure`: the objects of labels as a table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from napari_unet.cli.options import add_command, add_labels_as
from napari_unet.cli.terminal import UNUSABLE, follow, run_all, say
from napari_unet.core.errors import InputError
from napari_unet.core.io.axes import FRAMES
from napari_unet.core.io.files import expand_path
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from argparse import Namespace

    from tqdm import tqdm


def add_measure(commands: Any) -> None:
    """Describe the command and its options."""
    command = add_command(
        commands, "measure", _measure, "Measure objects: size, place, shape, intensity"
    )
    command.add_argument("labels", type=expand_path, help="labels, or a folder of labels")
    command.add_argument(
        "image",
        type=expand_path,
        nargs="?",
        help="the image, or a folder with equal names. Not given: no intensities",
    )
    command.add_argument(
        "--csv", type=expand_path, metavar="FILE", help="the table. Not given: standard output"
    )
    command.add_argument(
        "--voxel-size-um",
        type=float,
        nargs="+",
        metavar="UM",
        help="z y x, y x, or one size for all. Not given: as the files have it",
    )
    command.add_argument("--axes", metavar="A", help="a letter for each axis of the labels")
    command.add_argument("--image-axes", metavar="A", help="a letter for each axis of the image")
    add_labels_as(command)
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
    from napari_unet.core.io.files import check_text_file
    from napari_unet.core.labels.pairing import match_images
    from napari_unet.core.regionprops.measure import MeasureInput, measure_steps
    from napari_unet.core.regionprops.table import Table, stack_tables, table_text, write_table
    from napari_unet.core.regionprops.table_provenance import (
        describe_measured,
        write_table_provenance,
    )

    if values.csv:
        check_text_file(values.csv)
    labels, images = match_images(values.labels, values.image)
    size = None if values.voxel_size_um is None else tuple(values.voxel_size_um)
    tables: dict[str, Table] = {}
    files: list[dict[str, Any]] = []

    def run(name: str, bar: tqdm[Any]) -> None:
        bar.set_description(name, refresh=False)
        if values.image is not None and name not in images:
            raise InputError(
                f"{labels[name]} is not measured: {values.image} has no image of the name {name}; "
                "add it, or measure without images."
            )
        opened = MeasureInput.open(
            labels[name],
            images.get(name),
            size,
            axes=values.axes,
            frames=values.frames,
            solidity=values.solidity,
            labels_as=values.labels_as,
            image_axes=values.image_axes,
        )
        for remark in opened.remarks:
            say(f"warning: {remark}")
        tables[name] = follow(measure_steps(opened), bar)
        if values.csv:
            place = (values.csv, name, labels[name], images.get(name))
            files.append(describe_measured(*place, opened))

    failed = run_all(list(labels), run, keep_going=len(labels) > 1)
    if tables:
        table = stack_tables(tables) if len(labels) > 1 else tables[next(iter(labels))]
        if values.csv:
            write_table(values.csv, table)
            names = ("axes", "frames", "solidity", "labels_as", "image_axes")
            options = {key: getattr(values, key) for key in names} | {"voxel_size_um": size}
            write_table_provenance(values.csv, table_text(table), options, files)
            print(f"{values.csv}: {pluralise(len(table['label']), 'object')}")
        else:
            print(table_text(table), end="")
    return UNUSABLE if failed else 0
