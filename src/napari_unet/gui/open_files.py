"""Opening files in the window: an image with its labels.

They are opened from the menu, from the terminal (`napari-unet view`) and from the Batch panel.
napari's own reader opens the first group inside a Zarr folder. In an OME-Zarr that holds labels
that is the group of the labels, so it cannot open what a run has written its labels into.
"""

from __future__ import annotations

import functools
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_warning
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_unet.core.errors import InputError
from napari_unet.core.io.coordinate_transform import CoordinateTransform
from napari_unet.core.io.provenance import find_provenance
from napari_unet.core.io.stack import open_stack
from napari_unet.core.io.zarr_groups import LABELS, count_levels, registered_labels
from napari_unet.core.progress import Progress, run_to_end
from napari_unet.core.settings.tasks import IDS
from napari_unet.gui.errors import describe_error, report_error
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.layers.convert import full_resolution
from napari_unet.gui.layers.file_axes import FILE_KEY, SHAPE_KEY
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.result_info import (
    add_result,
    labels_checksum,
    seal_result,
    update_info,
)
from napari_unet.gui.mask_labels import offer_pieces

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    import napari
    from napari.layers import Image, Labels

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.labels.label_file import LabelReading

IN_MEMORY = 2**30
"""Larger images and labels, in bytes, are not read into memory: napari reads what it shows."""


@dataclass(frozen=True)
class LabelFile:
    """Labels of an image, read as far as they fit into memory.

    Attributes
    ----------
    name
        What the layer's name says after that of the image.
    levels
        In the order T, Z, Y, X, the full resolution first: a single array if it lies in memory,
        all levels of the pyramid if it stays on the disk.
    provenance
        Of the file; empty if another program made it.
    remarks
        What was noticed when it was read, in sentences.
    doubt
        Why the values look as if they were no objects, see `core.labels.object_check`.
    checksum
        Of the values in the order of the layer, if they lie in memory: `labels_checksum`.
    """

    name: str
    levels: list[Any]
    provenance: dict[str, Any]
    remarks: tuple[str, ...] = ()
    doubt: str = ""
    checksum: int | None = None


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
        Why other labels are not shown, in sentences.
    """

    stack: Stack
    levels: list[Any]
    labels: list[LabelFile]
    problems: list[str]


def read_files(
    source: Path, targets: Sequence[Path] | None = None, how: LabelReading | None = None
) -> Generator[Progress, None, ImageFiles]:
    """Read an image and its labels, in a job's thread.

    Parameters
    ----------
    targets
        Files of labels; those that do not exist are left out. None: the label images inside an
        OME-Zarr.
    how
        How the files of labels are read; None: as ids, of which a doubt is raised where they look
        like a mask.

    Raises
    ------
    InputError
        The image cannot be read, or labels that were named are of another size.
    """
    yield Progress(0, 0, "reading the image")
    stack = open_stack(source)
    levels = _levels(stack) if _is_large(stack) else [np.asarray(stack.data)]
    requested, found, problems = targets is not None, [], []
    if targets is None:
        try:
            targets = registered_labels(source)
        except InputError as error:
            targets, problems = [], [f"not shown: {describe_error(error)}"]
    for target in targets:
        yield Progress(0, 0, "reading the labels")
        try:
            if target.exists():
                labels = _read_labels(target, stack, how)
                first = labels.levels[0]
                if isinstance(first, np.ndarray):  # in this thread: it takes a moment
                    shown = _placement(stack, levels[0].shape).to_layer(first)
                    labels = replace(labels, checksum=labels_checksum(shown))
                found.append(labels)
        except InputError as error:
            if requested:
                raise
            problems.append(f"not shown: {describe_error(error)}")
    return ImageFiles(stack, levels, found, problems)


def show_files(viewer: Any, files: ImageFiles) -> Image:
    """Add an image and its labels to the viewer; return the image's layer."""
    stack = files.stack
    letters, rgb = _letters(stack)
    transform = stack.transform and stack.transform.select_axes(letters)
    transform = transform or CoordinateTransform.from_voxel_size(letters, stack.voxel_size_um)
    image: Image = viewer.add_image(
        _data(files.levels),
        name=stack.name,
        rgb=rgb,
        multiscale=len(files.levels) > 1,
        axis_labels=tuple(letters.lower()),
        scale=transform.scale,
        translate=transform.translation,
        units=[_unit(axis) for axis in transform.axes],
        metadata=_metadata(stack),
    )
    for labels in files.labels:
        layer = _show_labels(viewer, image, stack, labels)
        if labels.doubt:
            offer_pieces(viewer, layer, labels.doubt)
    remarks = [remark for labels in files.labels for remark in labels.remarks]
    for text in (*files.stack.remarks, *remarks, *files.problems):
        show_warning(text)
    return image


def _metadata(stack: Stack) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if stack.path is not None:
        metadata |= {FILE_KEY: str(stack.path.absolute()), SHAPE_KEY: tuple(stack.data.shape)}
    if stack.channel_names:
        metadata["channel_names"] = list(stack.channel_names)
    return metadata


def _unit(axis: dict[str, Any]) -> str:
    """Return the unit of an axis of an OME-Zarr, "pixel" for one that napari does not know."""
    from pint import Unit

    with suppress(Exception):  # pint raises all kinds of errors for a text that is no unit
        unit = Unit(axis["unit"]) if isinstance(axis["unit"], str) else None
        if unit is not None and str(unit.dimensionality) in ("[length]", "[time]"):
            return str(unit)
    return "pixel"


def _letters(stack: Stack) -> tuple[str, bool]:
    """Return the axes of an image's layer, and whether it shows colours, which are no axis."""
    rgb = stack.rgb and stack.axes.endswith("C")
    return stack.axes.removesuffix("C") if rgb else stack.axes, rgb


def _placement(stack: Stack, shape: tuple[int, ...]) -> Placement:
    """Return where labels lie over an image of this shape."""
    letters, _ = _letters(stack)
    return Placement(letters, stack.labels_axes, shape[: len(letters)])


def _show_labels(viewer: Any, image: Image, stack: Stack, labels: LabelFile) -> Labels:
    """Add labels over their image, as a result that can be corrected and run again."""
    placement = _placement(stack, full_resolution(image).shape)
    layer = add_result(
        viewer,
        _data([placement.to_layer(level) for level in labels.levels]),
        image,
        f"{image.name} {labels.name}",
        placement,
        multiscale=len(labels.levels) > 1,
    )
    if isinstance(layer.data, np.ndarray):
        seal_result(layer, labels.provenance, True, labels.checksum)
    else:
        update_info(layer, provenance=labels.provenance)
        layer.editable = False
    return layer


def _data(levels: list[Any]) -> Any:
    """Return levels as a layer's data."""
    return levels if len(levels) > 1 else levels[0]


def _is_large(stack: Stack) -> bool:
    return int(math.prod(stack.data.shape)) * stack.dtype.itemsize > IN_MEMORY


def _levels(stack: Stack) -> list[Any]:
    """Return all levels of a stack's pyramid; without a file there is only one."""
    if stack.path is None:
        return [stack.data]
    return [open_stack(stack.path, level=n).data for n in range(count_levels(stack.path))]


def _read_labels(target: Path, stack: Stack, how: LabelReading | None) -> LabelFile:
    """Read labels of an image, also those from another program."""
    from napari_unet.core.labels.foreign import foreign_kind  # slow to import
    from napari_unet.core.labels.label_file import (
        LabelReading,
        fit_to_shape,
        open_labels,
        read_label_file,
    )

    provenance = find_provenance(target)
    # A result may be a mask, as of classes; nobody else's is taken for objects without a look.
    how = how or LabelReading(IDS if provenance else None)
    name = None if stack.path is None else stack.path.name
    how = replace(how, image=(stack.labels_shape, stack.labels_axes), name=name)
    remarks, doubt = tuple[str, ...](), ""
    found = None if foreign_kind(target) else open_stack(target, how.axes, raw=True)
    if found is not None and how.labels_as in (None, IDS) and _is_large(found):
        open_labels(target, how)  # refuses what cannot be labels
        levels = _lazy_levels(found)
    else:
        read = read_label_file(target, how)
        fitting = fit_to_shape(read.values, read.axes, stack.labels_shape)
        levels = [read.values if fitting is None else fitting]
        remarks, doubt = read.remarks, read.doubt
    if levels[0].shape != stack.labels_shape:
        raise InputError(
            f"{target} has the size {levels[0].shape}, the image {stack.labels_shape}; give "
            "labels of this image."
        )
    shown = provenance.get("model", target.name if target.parent.name == LABELS else "labels")
    return LabelFile(shown, levels, provenance, remarks, doubt)


def _lazy_levels(labels: Stack) -> list[Any]:
    """Return labels on the disk as dask arrays in the order T, Z, Y, X, one a level."""
    import dask.array as da

    left = labels.axes.replace("C", "")
    order = [left.index(letter) for letter in labels.labels_axes]
    plain = tuple(0 if letter == "C" else slice(None) for letter in labels.axes)
    lazy: list[Any] = [
        da.from_array(level, getattr(level, "chunks", "auto"))  # type: ignore[no-untyped-call]
        for level in _levels(labels)
    ]
    return [level[plain].transpose(order) for level in lazy]


def ask_for_ome_zarr(viewer: napari.Viewer) -> None:
    """Let the user choose an OME-Zarr, and open it with the labels inside it."""
    chosen = QFileDialog.getExistingDirectory(None, "Open an OME-Zarr with its labels")
    if not chosen:
        return
    job = Job(
        functools.partial(read_files, Path(chosen)),
        on_done=functools.partial(show_files, viewer),
        on_error=lambda error: report_error(error, "an OME-Zarr could not be opened", str),
    )
    _get_jobs().run("open", job)


@functools.cache
def _get_jobs() -> WidgetJobs:
    """Return the jobs that open files, in a queue of their own: no run holds them up."""
    app = QApplication.instance()
    assert app is not None
    return WidgetJobs(app)


def run_view(image: Path, labels: Sequence[Path], how: LabelReading | None = None) -> None:
    """Open napari with an image and its labels, and return when the window is closed.

    Parameters
    ----------
    labels
        Label files; without any, the labels inside an OME-Zarr.
    how
        How they are read, as for `read_files`.

    Raises
    ------
    InputError
        A file does not exist, cannot be read or does not fit the image.
    """
    files = run_to_end(read_files(image, labels or None, how))
    import napari

    show_files(napari.Viewer(title=f"{image.name} - napari-unet"), files)
    napari.run()
