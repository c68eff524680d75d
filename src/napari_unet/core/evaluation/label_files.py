"""Scores of label files: two files, or two folders whose files have equal names."""

from __future__ import annotations

import csv
import io
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.evaluation.comparison import Comparison
from napari_unet.core.instances.matching import are_whole
from napari_unet.core.io.atomic import plain_name, whole_file
from napari_unet.core.io.axes import AUTO, frame_ndim, shared_axes
from napari_unet.core.io.label_writer import read_provenance
from napari_unet.core.io.readers import SUFFIXES, UNREADABLE, is_zarr, unreadable
from napari_unet.core.io.stack import list_images, open_stack

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_unet.core.evaluation.metrics import Scores
    from napari_unet.core.regionprops.table import Table


HEADINGS = ("image", "objects", "true", "AP50", "AP75", "AP90", "F1", "PQ", "Dice", "Rand err.")


@dataclass(frozen=True)
class LabelPair:
    """Labels and their truth, one of which may be missing."""

    name: str
    predicted: Path | None
    truth: Path | None


def pair_files(predicted: Path, truth: Path) -> list[LabelPair]:
    """Match predicted labels with their truth: two files, or those of equal name in two folders.

    Names are equal without their endings, so that ``a.tif`` is matched with ``a.png``.

    Raises
    ------
    InputError
        A path that does not exist, a file and a folder, or folders with no name in common.
    """
    for path in (predicted, truth):
        if not path.exists():
            raise InputError(f"{path} does not exist; check the spelling and the folder.")
    folders = [path.is_dir() and not is_zarr(path) for path in (predicted, truth)]
    if not any(folders):
        return [LabelPair(predicted.name, predicted, truth)]
    if not all(folders):
        raise InputError(f"{predicted} and {truth} are a file and a folder; give two of a kind.")
    found, wanted = by_name(predicted), by_name(truth)
    if not set(found) & set(wanted):
        raise InputError(f"{predicted} and {truth} have no file name in common.")
    names = [*wanted, *(name for name in found if name not in wanted)]
    return [LabelPair(name, found.get(name), wanted.get(name)) for name in names]


def read_pair(pair: LabelPair, frames: str = AUTO) -> Comparison:
    """Read two label files, to score one against the other.

    Parameters
    ----------
    frames
        One of `napari_unet.core.io.axes.FRAMES`: what objects are matched in.

    Raises
    ------
    InputError
        One of them is missing, cannot be read or holds no labels, or their shapes differ.
    """
    if pair.predicted is None or pair.truth is None:
        lacking = "prediction" if pair.predicted is None else "truth"
        raise InputError(f"{pair.truth or pair.predicted} has no {lacking} of that name.")
    (labels, axes), (truth, truth_axes) = _read(pair.predicted), _read(pair.truth)
    if labels.shape != truth.shape:
        raise InputError(
            f"{pair.predicted} has shape {labels.shape}, its truth {truth.shape}; "
            "give two labellings of the same image."
        )
    for path, values in ((pair.predicted, labels), (pair.truth, truth)):
        if not are_whole(values):
            raise InputError(
                f"{path} holds {values.dtype} that are no whole numbers; give the objects' "
                "numbers, 0 for background."
            )
    provenance: dict[str, Any] = {}
    with suppress(InputError):  # most labels come from elsewhere
        provenance = read_provenance(pair.predicted)
    ndim = frame_ndim(frames, provenance)
    return Comparison(labels, truth, shared_axes(axes, truth_axes), ndim)


def read_labels(path: Path) -> np.ndarray:
    """Read a label file whole, its axes in the order of "TZYX".

    Raises
    ------
    InputError
        It cannot be read, or has several channels.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[np.ndarray, str]:
    stack = open_stack(path)
    if stack.rgb and stack.axes == "CYX":  # tifffile writes 3 or 4 planes as if they were colours
        stack = open_stack(path, "ZYX")
    if stack.channels > 1:
        raise InputError(f"{path} has {stack.channels} channels; give labels, which have none.")
    try:
        values = np.asarray(stack.data[(slice(None),) * len(stack.axes)])
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    order = [stack.axes.index(letter) for letter in ("C" * ("C" in stack.axes)) + stack.labels_axes]
    return values.transpose(order).reshape(stack.labels_shape), stack.labels_axes


def table_row(name: str, scores: Scores) -> list[str]:
    """Return what stands below `HEADINGS` for one image."""
    row = scores.row()
    shares = ("AP50", "AP75", "AP90", "f1", "pq", "dice", "rand_error")
    counts = [f"{scores.objects:,}", f"{scores.true_objects:,}"]
    return [name, *counts, *(f"{row[share]:.3f}" for share in shares)]


def write_csv(path: Path, rows: dict[str, Scores]) -> None:
    """Write all scores of each image, whole or not at all; a file of that name is replaced.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    text = io.StringIO()
    table = [{"image": name, **scores.row()} for name, scores in rows.items()]
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; a file of that name is replaced.

    Raises
    ------
    OutputError
        The file cannot be written, or has the name of an image.
    """
    check_text_file(path)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def check_text_file(path: Path) -> None:
    """Refuse what no text can be written to, before the work is done whose results it is for.

    The names of images are refused so that a table never takes the place of labels.

    Raises
    ------
    OutputError
        A folder, a name like that of an image, or a place in a folder that does not exist.
    """
    if path.suffix.lower() in SUFFIXES:
        raise OutputError(f"{path} has the name of an image; end the name with .csv or the like.")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file to write.")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: {path.parent} is no folder; make it first.")


def by_name(folder: Path) -> dict[str, Path]:
    """List the images of a folder by their names without endings.

    Raises
    ------
    InputError
        A folder that holds no image, or two of the same name.
    """
    files: dict[str, Path] = {}
    for path in list_images(folder):
        name = plain_name(path)
        if name in files:
            raise InputError(f"{folder} holds {files[name].name} and {path.name}; keep one.")
        files[name] = path
    return files


@dataclass(frozen=True)
class LabelledImage:
    """Labels, and the image that they were found in; None if there is none."""

    name: str
    labels: Path
    image: Path | None


def pair_images(labels: Path, image: Path | None) -> list[LabelledImage]:
    """Match labels with their images: two files, or those of equal name in two folders.

    Raises
    ------
    InputError
        A path that does not exist, a file and a folder, or a folder without images.
    """
    given = [path for path in (labels, image) if path is not None]
    for path in given:
        if not path.exists():
            raise InputError(f"{path} does not exist; check the spelling and the folder.")
    folders = [path.is_dir() and not is_zarr(path) for path in given]
    if not any(folders):
        return [LabelledImage(labels.name, labels, image)]
    if not all(folders):
        raise InputError(f"{labels} and {image} are a file and a folder; give two of a kind.")
    images = {} if image is None else by_name(image)
    return [LabelledImage(name, path, images.get(name)) for name, path in by_name(labels).items()]


def image_of(pair: LabelledImage, images: Path | None) -> Path | None:
    """Return the image of a pair; None where no image was asked for.

    Raises
    ------
    InputError
        There is no image of that name in the folder.
    """
    if images is not None and pair.image is None:
        raise InputError(
            f"{pair.labels} is not measured: {images} has no image of the name {pair.name}; "
            "add it, or measure without images."
        )
    return pair.image


def stacked(tables: Mapping[str, Table]) -> Table:
    """Put tables of images below each other; the first column names the image.

    What only some of the images have, such as sizes in um, is nan for the others.
    """
    columns = list(dict.fromkeys(name for table in tables.values() for name in table))
    counts = {name: len(table["label"]) for name, table in tables.items()}
    whole: Table = {"image": np.repeat(list(counts), list(counts.values()))}
    for column in columns:
        whole[column] = np.concatenate(
            [table.get(column, np.full(counts[name], np.nan)) for name, table in tables.items()]
        )
    return whole
