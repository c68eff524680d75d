"""Labels written for other programs: which kinds there are, their names, what each can hold."""

from __future__ import annotations

import csv
import uuid
from contextlib import suppress
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.files import SUFFIXES, UNREADABLE, first_line, image_stem, write_text
from napari_unet.core.io.label_writer import OUTPUT_SUFFIXES, create_output
from napari_unet.core.io.provenance import find_provenance
from napari_unet.core.labels.cellpose_seg import write_cellpose_seg
from napari_unet.core.labels.coco import write_coco
from napari_unet.core.labels.foreign import CELLPOSE, COCO, GEOJSON, ROIS
from napari_unet.core.labels.geojson import write_geojson
from napari_unet.core.labels.imagej_rois import write_rois
from napari_unet.core.labels.outlines import trace_objects
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unet.core.io.stack import Stack

CHALLENGE = "ctc"
"""The layout of the Cell Tracking Challenge: an image for each frame, and ``res_track.txt``."""
ENDINGS = {
    ROIS: "_rois.zip",
    GEOJSON: ".geojson",
    COCO: ".json",
    CELLPOSE: "_seg.npy",
    CHALLENGE: "",
    **{suffix[1:]: suffix for suffix in OUTPUT_SUFFIXES if suffix != ".tiff"},
}
"""Kinds of files that labels are written as, and how their names end."""
BESIDE = (ROIS, GEOJSON, COCO, CELLPOSE)
"""Kinds that are written beside a result, for other programs."""


def kind_of_target(target: Path) -> str:
    """Return the kind of a file to write, by its name.

    Raises
    ------
    OutputError
        The name does not say.
    """
    name = target.name.lower()
    for kind, ending in {**ENDINGS, ROIS: ".zip"}.items():
        if ending and name.endswith(ending):
            return kind
    if name.endswith(".tiff"):
        return "tif"
    endings = ", ".join(ending for ending in ENDINGS.values() if ending)
    raise OutputError(
        f"{target} does not say what to write; end it with one of {endings}, or name the kind "
        f"(--to {', '.join(ENDINGS)})."
    )


def path_beside(target: Path, kind: str) -> Path:
    """Return the name of a file of a kind beside a result."""
    return target.with_name(f"{image_stem(target)}{ENDINGS[kind]}")


def check_export(kind: str, axes: str, target: Path, *, overwrite: bool = False) -> None:
    """Refuse what cannot be written, before the work whose result it is.

    Raises
    ------
    InputError
        Labels that the kind cannot hold.
    OutputError
        An existing file without `overwrite`, or an unknown kind.
    """
    if kind not in ENDINGS:
        raise OutputError(f"{kind!r} is no kind of labels; choose from: {', '.join(ENDINGS)}.")
    if kind in (COCO, "png") and axes != "YX":
        raise InputError(f"Labels of axes {axes} are no plane, which {kind} holds alone.")
    if kind == CELLPOSE and "T" in axes:
        raise InputError("Labels with a time axis are no masks of Cellpose; give one time point.")
    if kind == CHALLENGE and "T" not in axes:
        raise InputError(
            f"Labels of axes {axes} have no time; name it (--axes) for the Cell Tracking Challenge."
        )
    if target.exists() and not overwrite:
        raise OutputError(
            f"{target} exists already; choose another name, or overwrite it (--overwrite)."
        )
    if target.is_dir() and kind not in ("zarr", CHALLENGE):
        raise OutputError(f"{target} is a folder; give the name of a file to write.")


def export_labels(
    labels: Stack,
    target: Path,
    kind: str,
    *,
    image: Path | None = None,
    overwrite: bool = False,
    source: Path | None = None,
) -> str:
    """Write labels as a file of a kind, whole or not at all; return a line on it.

    Parameters
    ----------
    labels
        Whole numbers from 0 on.
    kind
        One of `ENDINGS`.
    image
        The image that they belong to, which some files name.
    source
        The file that they come from, whose provenance and tracks are kept; None: `labels.path`.

    Raises
    ------
    InputError
        Labels that the kind cannot hold.
    OutputError
        The file cannot be written.
    """
    axes, source = labels.labels_axes, source or labels.path
    check_export(kind, axes, target, overwrite=overwrite)
    values = np.asarray(labels.data[(slice(None),) * len(labels.axes)])
    order = [labels.axes.index(letter) for letter in ("C" * ("C" in labels.axes)) + axes]
    values = values.transpose(order).reshape(labels.labels_shape)
    top = int(values.max(initial=0))
    if top >= 2**32:
        raise InputError(
            f"{source or 'The array'} holds ids up to {top:,}, and label files hold them below "
            f"{2**32:,}; renumber its objects first."
        )
    values = values.astype(np.uint16 if top < 2**16 else np.uint32)
    objects = pluralise(len(np.unique(values[values > 0])), "object")
    if kind == ROIS:
        objects = pluralise(write_rois(target, trace_objects(values, axes)), "ROI")
    elif kind == GEOJSON:
        objects = pluralise(write_geojson(target, trace_objects(values, axes)), "outline")
    elif kind == COCO:
        name = f"{image_stem(target)}.tif" if image is None else image.name
        write_coco(target, {name: values})
    elif kind == CELLPOSE:
        write_cellpose_seg(target, values, image)
    elif kind == CHALLENGE:
        _write_challenge(target, values, _parents(source))
    else:
        _write_image(labels, values, target, find_provenance(source), overwrite)
    return f"{target}: {objects}"


def _write_image(
    labels: Stack, values: np.ndarray, target: Path, provenance: dict[str, Any], overwrite: bool
) -> None:
    axes, size_um = labels.labels_axes, labels.voxel_size_um
    described = (target, values.shape, axes, values.dtype, size_um, provenance, overwrite)
    with create_output(*described, transform=labels.labels_transform) as output:
        output.array[...] = values


def _write_challenge(folder: Path, values: np.ndarray, parents: dict[int, int]) -> None:
    """Write an image for each frame, and where tracks begin, end and come from."""
    import tifffile

    if folder.exists():
        raise OutputError(f"{folder} exists already; choose another name for the folder.")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    spans: dict[int, list[int]] = {}
    digits = max(3, len(str(len(values) - 1)))
    try:
        partial.mkdir(parents=True)
        for t, frame in enumerate(values):
            for label in np.unique(frame[frame > 0]).tolist():
                spans.setdefault(label, [t, t])[1] = t
            if frame.max(initial=0) >= 2**16:
                raise InputError(f"{folder} holds ids below 65,536; these go to {frame.max()}.")
            name = partial / f"mask{t:0{digits}}.tif"
            tifffile.imwrite(name, frame.astype(np.uint16), compression="zlib")
        rows = [f"{n} {low} {high} {parents.get(n, 0)}" for n, (low, high) in sorted(spans.items())]
        write_text(partial / "res_track.txt", "\n".join([*rows, ""]))
        partial.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            rmtree(partial)


def _parents(source: Path | None) -> dict[int, int]:
    """Return the parent of each track, from the table beside linked labels."""
    table = None if source is None else source.with_name(f"{image_stem(source)}.tracks.csv")
    if table is None or not table.is_file():
        return {}
    try:
        with table.open(newline="", encoding="utf-8") as file:
            return {int(row["id"]): int(row["parent"]) for row in csv.DictReader(file)}
    except (csv.Error, *UNREADABLE) as error:
        raise InputError(f"{table} cannot be read as tracks ({first_line(error)}).") from error


def read_challenge(folder: Path, files: Sequence[Path]) -> np.ndarray:
    """Join the frames of a folder of the Cell Tracking Challenge, integers (T, [Z,] Y, X).

    Raises
    ------
    InputError
        A frame cannot be read, or has another shape.
    """
    from napari_unet.core.labels.label_file import read_label_file

    frames = [read_label_file(path).values for path in files if path.suffix.lower() in SUFFIXES]
    if not frames or len({frame.shape for frame in frames}) > 1:
        raise InputError(f"{folder} holds no frames of one shape; give the folder of the masks.")
    return np.stack(frames)
