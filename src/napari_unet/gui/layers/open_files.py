"""Opening an image file and its labels in the viewer, as if they had been segmented there."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_warning

from napari_unet.core.errors import InputError
from napari_unet.core.instances.matching import are_whole
from napari_unet.core.io.coordinate_transform import CoordinateTransform
from napari_unet.core.io.label_writer import read_provenance
from napari_unet.core.io.ome_zarr import LABELS, registered_labels
from napari_unet.core.io.readers import count_levels
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import Progress
from napari_unet.gui.errors import describe_error
from napari_unet.gui.layers.convert import full_resolution
from napari_unet.gui.layers.result_info import IMAGE, RESULT_KEY, Placement, seal_result

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari.layers import Image

    from napari_unet.core.io.stack import Stack

IN_MEMORY = 2**30
"""Images and labels of more bytes are not read whole: the viewer reads what it shows."""


@dataclass(frozen=True)
class LabelFile:
    """Labels as the viewer gets them.

    Attributes
    ----------
    name
        What they are called beside their image's name.
    levels
        In the order T, Z, Y, X, the full resolution first: one array in memory, or all levels of
        those that stay on the disk.
    provenance
        What is known of how they were made.
    """

    name: str
    levels: list[Any]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class ImageFiles:
    """An image and its labels, read as far as they fit into memory.

    Attributes
    ----------
    stack, levels
        The image, and its values in the stack's order; as in `LabelFile`.
    labels
        Its labels.
    problems
        What there is, too, but cannot be shown, in sentences.
    """

    stack: Stack
    levels: list[Any]
    labels: list[LabelFile]
    problems: list[str]


def read_files(
    source: Path, targets: Sequence[Path] | None = None
) -> Generator[Progress, None, ImageFiles]:
    """Read an image and its labels, in a job's thread.

    Parameters
    ----------
    targets
        Files of labels; those that do not exist are passed over. None: the label images that an
        OME-Zarr holds.

    Raises
    ------
    InputError
        The image cannot be read, or labels that were asked for are of another size.
    """
    yield Progress(0, 0, "reading the image")
    stack = open_stack(source)
    levels = _levels(stack) if _is_large(stack) else [np.asarray(stack.data)]
    asked, found, problems = targets is not None, [], []
    if targets is None:
        try:
            targets = registered_labels(source)
        except InputError as error:
            targets, problems = [], [f"not shown: {describe_error(error)}"]
    for target in targets:
        yield Progress(0, 0, "reading the labels")
        try:
            found += [_read_labels(target, stack)] if target.exists() else []
        except InputError as error:
            if asked:
                raise
            problems.append(f"not shown: {describe_error(error)}")
    return ImageFiles(stack, levels, found, problems)


def show_files(viewer: Any, files: ImageFiles) -> Image:
    """Add an image and its labels to the viewer; return the image's layer."""
    stack, axes = files.stack, files.stack.axes
    rgb = stack.rgb and axes.endswith("C")
    letters = axes.removesuffix("C") if rgb else axes
    place = stack.place and stack.place.along(letters)
    place = place or CoordinateTransform.of_voxels(letters, stack.voxel_size_um)
    image: Image = viewer.add_image(
        _data(files.levels),
        name=stack.name,
        rgb=rgb,
        multiscale=len(files.levels) > 1,
        axis_labels=tuple(letters.lower()),
        scale=place.scale,
        translate=place.translation,
        units=[_unit(axis) for axis in place.axes],
    )
    for labels in files.labels:
        _show_labels(viewer, image, letters, stack, labels)
    for problem in files.problems:
        show_warning(problem)
    return image


def _unit(axis: dict[str, Any]) -> str:
    """Return the unit of an axis of an OME-Zarr, "pixel" for one that napari does not know."""
    from pint import Unit

    with suppress(Exception):  # whatever pint makes of a text that is no unit
        unit = Unit(axis["unit"]) if isinstance(axis["unit"], str) else None
        if unit is not None and str(unit.dimensionality) in ("[length]", "[time]"):
            return str(unit)
    return "pixel"


def _show_labels(viewer: Any, image: Image, axes: str, stack: Stack, labels: LabelFile) -> None:
    """Add labels over their image, as a result that can be corrected and run again."""
    placement = Placement(axes, stack.labels_axes, full_resolution(image).shape[: len(axes)])
    base = f"{image.name} {labels.name}"
    mark = {"base": base, IMAGE: str(image.unique_id), "runs": []}
    layer = viewer.add_labels(
        _data([placement.to_layer(level) for level in labels.levels]),
        name=base,
        multiscale=len(labels.levels) > 1,
        metadata={RESULT_KEY: mark},
        **placement.geometry(image),
    )
    layer.metadata[RESULT_KEY]["name"] = layer.name  # the viewer may have added a number
    if isinstance(layer.data, np.ndarray):
        seal_result(layer, labels.provenance, True)
    else:
        layer.metadata[RESULT_KEY]["passport"] = labels.provenance
        layer.editable = False


def _data(levels: list[Any]) -> Any:
    return levels if len(levels) > 1 else levels[0]


def _is_large(stack: Stack) -> bool:
    return int(math.prod(stack.data.shape)) * stack.dtype.itemsize > IN_MEMORY


def _levels(stack: Stack) -> list[Any]:
    """Return all levels of a stack that a file holds."""
    if stack.path is None:
        return [stack.data]
    return [open_stack(stack.path, level=n).data for n in range(count_levels(stack.path))]


def _read_labels(target: Path, stack: Stack) -> LabelFile:
    """Read labels of an image; they may come from another program."""
    from napari_unet.core.evaluation.label_files import read_labels  # slow, see `hits`

    provenance: dict[str, Any] = {}
    with suppress(InputError):
        provenance = read_provenance(target)
    found = open_stack(target)
    if _is_large(found) and found.channels == 1:
        levels = _lazy_levels(found)
    else:
        levels = [read_labels(target)]  # refuses channels
    if levels[0].dtype.kind == "f" and isinstance(levels[0], np.ndarray) and are_whole(levels[0]):
        levels = [levels[0].astype(np.int64)]
    if levels[0].dtype.kind not in "biu":
        raise InputError(f"{target} holds {levels[0].dtype}; give labels, which are whole numbers.")
    if levels[0].shape != stack.labels_shape:
        raise InputError(
            f"{target} has the size {levels[0].shape}, the image {stack.labels_shape}; give "
            "labels of this image."
        )
    inside = target.parent.name == LABELS
    return LabelFile(
        provenance.get("model", target.name if inside else "labels"), levels, provenance
    )


def _lazy_levels(labels: Stack) -> list[Any]:
    """Return labels that stay on the disk as dask arrays, their axes in the order of "TZYX"."""
    import dask.array as da

    left = labels.axes.replace("C", "")
    order = [left.index(letter) for letter in labels.labels_axes]
    plain = tuple(0 if letter == "C" else slice(None) for letter in labels.axes)
    lazy: list[Any] = [
        da.from_array(level, getattr(level, "chunks", "auto"))  # type: ignore[no-untyped-call]
        for level in _levels(labels)
    ]
    return [level[plain].transpose(order) for level in lazy]
