"""The objects of a labelled image, measured: size, place, shape and intensity, one row an object.

Labels and image are read block by block, and what crosses blocks is joined exactly, so that the
memory depends on the number of objects and not on the size of the image. Time points are apart;
planes are, too, where objects end with their plane.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.io.axes import AUTO, object_ndim, shared_axes
from napari_unet.core.io.provenance import find_provenance
from napari_unet.core.io.stack import Stack, open_stack
from napari_unet.core.progress import Progress, run_to_end
from napari_unet.core.regionprops.moments import ObjectParts, hull_points, hull_size
from napari_unet.core.regionprops.table import Table, join_tables, object_table

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import Path

    from napari_unet.core.tiles import Window

BLOCK = {2: (1024, 1024), 3: (32, 256, 256)}
"""Most voxels along each axis that are read at once."""
ROWS = 100_000
"""Parts of objects that are kept before they are joined."""
BREATH_S = 0.2
"""Longest work between two reports of progress, an object's hull aside."""


@dataclass(frozen=True)
class MeasureInput:
    """What is measured: labels, the image below them, and how their stack is divided.

    Attributes
    ----------
    labels
        One channel of whole numbers; 0 and below is background.
    image
        Of the labels' shape, with any number of channels; None: no intensities.
    ndim
        Whether objects are planar (2) or extend through a volume (3).
    voxel_size_um
        (z, y, x), None if unknown.
    solidity
        Whether convex hulls are computed, which takes longer than all the rest.
    """

    labels: Stack
    image: Stack | None
    ndim: int
    voxel_size_um: tuple[float, float, float] | None
    solidity: bool = True

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
    ) -> MeasureInput:
        """Open labels and image, and hold them against each other; see `measure`.

        `provenance` is that of labels which are in no file.
        """
        stack = open_stack(labels, axes, voxel_size_um)
        if stack.dtype.kind not in "iub":
            raise InputError(
                f"The labels {stack.name!r} hold {stack.dtype}; give whole numbers, one for each "
                "object."
            )
        if stack.channels > 1:
            raise InputError(
                f"The labels {stack.name!r} have {stack.channels} channels; give labels, which "
                "have none."
            )
        light = None if image is None else open_stack(image)
        if light is not None:
            stack, light = _matched(stack, light)
        size = stack.voxel_size_um or (light.voxel_size_um if light is not None else None)
        ndim = (
            object_ndim(frames, provenance or find_provenance(stack.path))
            if "Z" in stack.labels_axes
            else 2
        )
        return cls(stack, light, ndim, size, solidity)

    @property
    def blocks(self) -> list[Window]:
        """The blocks of one frame, none of them larger than `BLOCK`."""
        shape = self.labels.frame_shape(self.ndim)
        return list(_windows(tuple(slice(0, n) for n in shape), BLOCK[self.ndim]))

    def read(self, index: tuple[int, ...], window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a window of a frame: the labels, and the image (C, ...)."""
        labels = self.labels.read(index, window, (0,))[0]
        if self.image is None or not labels.any():
            return labels, None
        return labels, self.image.read(index, window, tuple(range(self.image.channels)))


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
        Stacks, arrays or files of the same shape, channels of the image aside.
    voxel_size_um
        (z, y, x), (y, x) or one size for all, in um. None takes it from the files.
    axes
        One letter for each axis of the labels, such as "TYX"; None takes them from the file, or
        else by `napari_unet.core.io.axes.default_axes`.
    frames
        "planes": the objects of a stack end with their plane. "volumes": they do not. "auto" asks
        the provenance of a label file, and takes volumes without one. Time points are apart always.
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
        Labels that are no whole numbers, or an image of another shape.
    """
    what = MeasureInput.open(
        labels, image, voxel_size_um, axes=axes, frames=frames, solidity=solidity
    )
    return run_to_end(measure_steps(what))


def measure_steps(what: MeasureInput) -> Generator[Progress, None, Table]:
    """Measure objects block by block and return their table; yields after each piece of work."""
    frames = what.labels.indices(what.ndim)
    total, tables = len(frames) * len(what.blocks), []
    for number, index in enumerate(frames):
        tables.append((yield from _measure_frame(what, index, number * len(what.blocks), total)))
    yield Progress(total, total, "blocks")
    return join_tables(tables)


def _measure_frame(
    what: MeasureInput, index: tuple[int, ...], done: int, total: int
) -> Generator[Progress, None, Table]:
    """Measure one frame."""
    channels = 0 if what.image is None else what.image.channels
    hulls: dict[int, float] = {}
    kept: list[ObjectParts] = []
    rows, limit = 0, ROWS
    for number, window in enumerate(what.blocks):
        progress = Progress(done + number, total, "blocks")
        yield progress
        labels, light = what.read(index, window)
        if light is None:  # nothing is there
            light = np.zeros((channels, *labels.shape))
        part = ObjectParts.from_block(labels, [span.start for span in window], light)
        kept.append(part)
        rows += len(part)
        if rows > limit:
            kept = [ObjectParts.join(kept)]
            rows = len(kept[0])
            limit = max(ROWS, 2 * rows)
        if what.solidity:
            yield from _hulls(labels, window, part, hulls, progress)
    parts = ObjectParts.join(kept)
    if what.solidity:
        yield from _crossing_hulls(what, index, parts, hulls, progress)
    return object_table(
        parts,
        dict(zip(what.labels.labels_axes, index, strict=False)),
        what.labels.frame_shape(what.ndim),
        what.voxel_size_um,
        np.array([hulls[int(label)] for label in parts.labels]) if what.solidity else None,
    )


def _hulls(
    labels: np.ndarray,
    window: Window,
    part: ObjectParts,
    hulls: dict[int, float],
    progress: Progress,
) -> Generator[Progress, None, None]:
    """Note the hull of what a block holds of each object."""
    origin, began = np.array([span.start for span in window]), time.perf_counter()
    for label, start, stop in zip(part.labels.tolist(), part.start, part.stop, strict=True):
        crop = tuple(slice(*ends) for ends in zip(start - origin, stop - origin, strict=True))
        hulls[label] = hull_size(hull_points(labels[crop] == label, start))
        if time.perf_counter() - began > BREATH_S:
            yield progress
            began = time.perf_counter()


def _crossing_hulls(
    what: MeasureInput,
    index: tuple[int, ...],
    parts: ObjectParts,
    hulls: dict[int, float],
    progress: Progress,
) -> Generator[Progress, None, None]:
    """Note the hulls of objects of several parts, each of which is read once more."""
    for row in np.flatnonzero(parts.pieces > 1):
        label, points = int(parts.labels[row]), []
        ends = zip(parts.start[row].tolist(), parts.stop[row].tolist(), strict=True)
        for window in _windows(tuple(slice(*pair) for pair in ends), BLOCK[what.ndim]):
            yield progress
            mask = what.labels.read(index, window, (0,))[0] == label
            points.append(hull_points(mask, [span.start for span in window]))
        hulls[label] = hull_size(np.concatenate(points))


def _windows(whole: Window, edge: tuple[int, ...]) -> Iterator[Window]:
    """Divide a window into parts that are no longer than `edge` along any axis."""
    spans = [
        [slice(at, min(at + step, span.stop)) for at in range(span.start, span.stop, step)]
        for span, step in zip(whole, edge, strict=True)
    ]
    yield from itertools.product(*spans)


def _matched(labels: Stack, image: Stack) -> tuple[Stack, Stack]:
    """Hold an image against the labels; where only one of them knows time, it is right."""
    if labels.labels_shape != image.labels_shape:
        raise InputError(
            f"The labels {labels.name!r} have shape {labels.labels_shape} ({labels.labels_axes}), "
            f"the image {image.name!r} {image.labels_shape} ({image.labels_axes}) without "
            "channels; give labels of this image."
        )
    axes = shared_axes(labels.labels_axes, image.labels_axes)
    return _renamed(labels, axes), _renamed(image, axes)


def _renamed(stack: Stack, axes: str) -> Stack:
    names = str.maketrans(stack.labels_axes, axes)
    return stack if axes == stack.labels_axes else replace(stack, axes=stack.axes.translate(names))
