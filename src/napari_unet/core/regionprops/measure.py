"""Measure the objects of a labelled image: size, position, shape and intensity, one row an object.

Labels and image are read block by block, and objects that cross blocks are joined exactly, so that
the memory depends on the number of objects and not on the size of the image. Each time point is
measured by itself; so is each plane where objects end with their plane.
"""

from __future__ import annotations

import itertools
import time
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.image.normalise import NonFiniteWarning
from napari_unet.core.io.axes import AUTO, PLANES, object_ndim, shared_axes
from napari_unet.core.io.provenance import find_provenance
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.labels.label_file import (
    LabelReading,
    doubt_sentence,
    judge_stack,
    open_labels,
)
from napari_unet.core.labels.lazy_labels import without_single_axes
from napari_unet.core.progress import Progress, run_to_end
from napari_unet.core.regionprops.moments import ObjectParts, hull_points, hull_size
from napari_unet.core.regionprops.table import Table, join_tables, object_table

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path

    from napari_unet.core.tiles import Window

BLOCK = {2: (1024, 1024), 3: (32, 256, 256)}
"""Size of a block, for planar objects and volumes: 1 and 2 million voxels."""
ROWS = 100_000
"""Parts of objects that are kept before they are joined: about 20 MB."""
YIELD_S = 0.2
"""Seconds between two records of progress, at which a run can be cancelled."""


@dataclass(frozen=True)
class MeasureInput:
    """Labels, their image, and the frames in which objects are measured.

    Attributes
    ----------
    labels
        Whole numbers in one channel; 0 and below is background.
    image
        Of the labels' shape, with any number of channels; None: no intensities.
    ndim
        Dimensions of an object: 2 (it ends with its plane) or 3.
    voxel_size_um
        (z, y, x), None if unknown.
    solidity
        Whether convex hulls are computed, which takes longer than all the rest.
    remarks
        What was noticed in a label file, a sentence each.
    """

    labels: Stack
    image: Stack | None
    ndim: int
    voxel_size_um: tuple[float, float, float] | None
    solidity: bool = True
    remarks: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        labels: Any,
        image: Any = None,
        voxel_size_um: tuple[float, ...] | float | None = None,
        *,
        axes: str | None = None,
        frames: str = AUTO,
        solidity: bool = True,
        provenance: Mapping[str, Any] | None = None,
        labels_as: str | None = None,
        image_axes: str | None = None,
    ) -> MeasureInput:
        """Open labels and image, and check that they fit; see `measure` for parameters and errors.

        Parameters
        ----------
        provenance
            That of labels that are not in a file.
        labels_as
            What the values of a label file are, one of `core.labels.label_file.LABELS_AS`.
        image_axes
            One letter for each axis of the image; None: as the file has them.
        """
        how = LabelReading(labels_as, axes, ndim=2 if frames == PLANES else 3)
        picture = None if image is None else open_stack(image, image_axes)
        if picture is not None:
            shape = (picture.labels_shape, picture.labels_axes)
            how = replace(how, image=shape, name=picture.path.name if picture.path else None)
        stack = open_labels(labels, how, voxel_size_um)
        if picture is not None:
            stack, picture = _match_axes(stack, picture)
        size = stack.voxel_size_um or (picture.voxel_size_um if picture is not None else None)
        ndim = 2
        if "Z" in stack.labels_axes:
            ndim = object_ndim(frames, provenance or find_provenance(stack.path))
        doubt, below = judge_stack(stack, ndim) if stack.path is not None else ("", "")
        if below:
            how.remarks.append(f"{stack.path}: {below}")
        if doubt and labels_as is None:
            how.remarks.append(doubt_sentence(stack.path, doubt))
        return cls(stack, picture, ndim, size, solidity, tuple(how.remarks))

    @property
    def blocks(self) -> list[Window]:
        """The blocks of a frame, at most as large as `BLOCK`."""
        whole = tuple(slice(0, n) for n in self.labels.frame_shape(self.ndim))
        return list(_windows(whole, BLOCK[self.ndim])) or [whole]  # of a frame of no pixel

    def read(self, index: tuple[int, ...], window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a window of a frame: the labels, and the image (C, ...)."""
        labels = self.labels.read(index, window, (0,))[0]
        if self.image is None or not labels.any():
            return labels, None
        intensities = self.image.read(index, window, tuple(range(self.image.channels)))
        told = "non-finite intensities" in self.image.notices
        if not told and not np.isfinite(intensities[:, labels > 0]).all():
            self.image.notices.add("non-finite intensities")
            warnings.warn(
                f"{self.image.name} holds NaN or infinity: an object with such pixels has no "
                "finite intensities.",
                NonFiniteWarning,
                stacklevel=2,
            )
        return labels, intensities


def measure(
    labels: Stack | np.ndarray | str | Path | Any,
    image: Stack | np.ndarray | str | Path | Any = None,
    voxel_size_um: tuple[float, ...] | float | None = None,
    *,
    axes: str | None = None,
    frames: str = AUTO,
    solidity: bool = True,
) -> Table:
    """Measure the objects of a labelled image.

    Parameters
    ----------
    labels, image
        Stacks, arrays or files of the same shape; the image may have channels besides.
    voxel_size_um
        (z, y, x), (y, x) or one size for all, in um. None takes it from the files.
    axes
        One letter for each axis of the labels, such as "TYX"; None takes them from the file, or
        else by `napari_unet.core.io.axes.default_axes`.
    frames
        "planes": the objects of a stack end with their plane. "volumes": they do not. "auto" looks
        at the provenance of a label file, and takes volumes if there is none.
    solidity
        Whether convex hulls are computed, which takes longer than all the rest.

    Returns
    -------
    dict of str to np.ndarray
        Columns of equal length, one row an object, ordered by frame and label:

        - ``label``; ``t`` of a series, ``z`` of planes in a stack;
        - ``area_px`` or ``volume_voxels``, ``touches_border`` (of the frame);
        - ``centroid_*``, and ``start_*`` to ``stop_*``, the bounding box, in pixels;
        - ``equivalent_diameter_px``, of the disc or ball of the same size;
        - ``major_axis_px``, ``minor_axis_px``: longest and shortest axis of the ellipse or
          ellipsoid with the same second moments; ``elongation``, their ratio, nan for what is one
          pixel thin; and for planar objects ``eccentricity``;
        - ``solidity``, the share of its convex hull that the object fills; pixels count as squares
          and voxels as cubes, which gives less than `skimage.measure.regionprops`, mostly for small
          objects, and never more than 1;
        - ``intensity_mean``, ``_std``, ``_min`` and ``_max``, with ``_c0``, ``_c1``, ... where the
          image has several channels.

        With a voxel size the axes are in um (``major_axis_um``), and ``area_um2`` or
        ``volume_um3`` and ``equivalent_diameter_um`` are there, too. ``pandas.DataFrame(table)``
        makes a data frame.

    Raises
    ------
    InputError
        The labels are no whole numbers, or the image has another shape.
    """
    inputs = MeasureInput.open(
        labels, image, voxel_size_um, axes=axes, frames=frames, solidity=solidity
    )
    return run_to_end(measure_steps(inputs))


def measure_steps(inputs: MeasureInput) -> Generator[Progress, None, Table]:
    """Measure objects block by block and return their table, see `measure`; yields progress."""
    frames = inputs.labels.indices(inputs.ndim)
    if not frames:
        raise InputError(
            f"The labels {inputs.labels.name!r} have shape {inputs.labels.labels_shape} "
            f"({inputs.labels.labels_axes}), no frame to measure; give labels with one."
        )
    total, tables = len(frames) * len(inputs.blocks), []
    for number, index in enumerate(frames):
        tables.append(
            (yield from _measure_frame(inputs, index, number * len(inputs.blocks), total))
        )
    yield Progress(total, total, "blocks")
    return join_tables(tables)


def _measure_frame(
    inputs: MeasureInput, index: tuple[int, ...], done: int, total: int
) -> Generator[Progress, None, Table]:
    """Measure one frame, of whose blocks `done` of `total` lie before it."""
    channels = 0 if inputs.image is None else inputs.image.channels
    hulls: dict[int, float] = {}
    kept: list[ObjectParts] = []
    rows, limit = 0, ROWS
    for number, window in enumerate(inputs.blocks):
        progress = Progress(done + number, total, "blocks")
        yield progress
        labels, intensities = inputs.read(index, window)
        if intensities is None:  # no image, or no object in the block
            intensities = np.zeros((channels, *labels.shape))
        part = ObjectParts.from_block(labels, [span.start for span in window], intensities)
        kept.append(part)
        rows += len(part)
        if rows > limit:
            kept = [ObjectParts.join(kept)]
            rows = len(kept[0])
            limit = max(ROWS, 2 * rows)  # doubled, so that joining stays linear in the rows
        if inputs.solidity:
            yield from _hulls(labels, window, part, hulls, progress)
    parts = ObjectParts.join(kept)
    if inputs.solidity:
        yield from _crossing_hulls(inputs, index, parts, hulls, progress)
    return object_table(
        parts,
        dict(zip(inputs.labels.labels_axes, index, strict=False)),
        inputs.labels.frame_shape(inputs.ndim),
        inputs.voxel_size_um,
        np.array([hulls[int(label)] for label in parts.labels]) if inputs.solidity else None,
    )


def _hulls(
    labels: np.ndarray,
    window: Window,
    part: ObjectParts,
    hulls: dict[int, float],
    progress: Progress,
) -> Generator[Progress, None, None]:
    """Compute the hull of the part of each object in a block, into `hulls`."""
    origin, began = np.array([span.start for span in window]), time.perf_counter()
    for label, start, stop in zip(part.labels.tolist(), part.start, part.stop, strict=True):
        crop = tuple(slice(*ends) for ends in zip(start - origin, stop - origin, strict=True))
        hulls[label] = hull_size(hull_points(labels[crop] == label, start))
        if time.perf_counter() - began > YIELD_S:
            yield progress
            began = time.perf_counter()


def _crossing_hulls(
    inputs: MeasureInput,
    index: tuple[int, ...],
    parts: ObjectParts,
    hulls: dict[int, float],
    progress: Progress,
) -> Generator[Progress, None, None]:
    """Compute the hulls of objects in several blocks, which are read once more, into `hulls`."""
    for row in np.flatnonzero(parts.pieces > 1):
        label, points = int(parts.labels[row]), []
        ends = zip(parts.start[row].tolist(), parts.stop[row].tolist(), strict=True)
        for window in _windows(tuple(slice(*pair) for pair in ends), BLOCK[inputs.ndim]):
            yield progress
            mask = inputs.labels.read(index, window, (0,))[0] == label
            points.append(hull_points(mask, [span.start for span in window]))
        hulls[label] = hull_size(np.concatenate(points))


def _windows(whole: Window, edge: tuple[int, ...]) -> Iterator[Window]:
    """Divide a window into parts of at most `edge` along each axis."""
    spans = [
        [slice(at, min(at + step, span.stop)) for at in range(span.start, span.stop, step)]
        for span, step in zip(whole, edge, strict=True)
    ]
    yield from itertools.product(*spans)


def _match_axes(labels: Stack, image: Stack) -> tuple[Stack, Stack]:
    """Check that an image has the shape of the labels; give both the axes of `shared_axes`.

    Axes of one time point or plane do not count where the two differ in them.
    """
    if labels.labels_shape != image.labels_shape:
        flat, ground = without_single_axes(labels), without_single_axes(image)
        if flat.labels_shape == ground.labels_shape:
            return _match_axes(flat, ground)
        raise InputError(
            f"The labels {labels.name!r} have shape {labels.labels_shape} ({labels.labels_axes}), "
            f"the image {image.name!r} {image.labels_shape} ({image.labels_axes}) without "
            "channels; give labels of this image."
        )
    axes = shared_axes(labels.labels_axes, image.labels_axes)
    return _rename_axes(labels, axes), _rename_axes(image, axes)


def _rename_axes(stack: Stack, axes: str) -> Stack:
    names = str.maketrans(stack.labels_axes, axes)
    return stack if axes == stack.labels_axes else replace(stack, axes=stack.axes.translate(names))
