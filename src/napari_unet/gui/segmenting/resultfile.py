"""Opening an image file and its label file in the viewer, as if they had been segmented there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.io.results import read_passport
from napari_unet.core.spec import Progress
from napari_unet.core.stack import open_stack
from napari_unet.gui.segmenting.result import IMAGE, MARK, Placement, seal_result

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari.layers import Image

    from napari_unet.core.stack import Stack

IN_MEMORY = 2**30
"""Images of more bytes are not read whole: the viewer reads what it shows."""


@dataclass(frozen=True)
class FilePair:
    """An image and its labels, read as far as they fit into memory.

    Attributes
    ----------
    stack, data
        The image, and its values in the stack's order.
    labels
        In the order T, Z, Y, X, as they are on the disk if they are large; None without a label
        file.
    passport
        Of the labels.
    """

    stack: Stack
    data: Any
    labels: Any
    passport: dict[str, Any]


def read_files(source: Path, target: Path | None) -> Generator[Progress, None, FilePair]:
    """Read an image and its labels, in a job's thread."""
    from napari_unet.core.scoring.files import read_labels  # slow, see `hits`

    yield Progress(0, 0, "reading the image")
    stack = open_stack(source)
    data, axes = stack.data, stack.axes
    if math.prod(data.shape) * stack.dtype.itemsize <= IN_MEMORY:
        data = np.asarray(data[(slice(None),) * len(axes)])
    if target is None or not target.exists():
        return FilePair(stack, data, None, {})
    yield Progress(0, 0, "reading the labels")
    found = open_stack(target)
    if math.prod(found.data.shape) * found.dtype.itemsize > IN_MEMORY:
        return FilePair(stack, data, found.data, read_passport(target))
    return FilePair(stack, data, read_labels(target), read_passport(target))


def show_files(viewer: Any, pair: FilePair) -> Image:
    """Add an image and its labels to the viewer; return the image's layer."""
    stack, data = pair.stack, pair.data
    axes = stack.axes
    rgb = stack.rgb and axes.endswith("C")
    letters = axes.removesuffix("C") if rgb else axes
    size = dict(zip("ZYX", stack.voxel_size_um or (1.0, 1.0, 1.0), strict=True))
    unit = "pixel" if stack.voxel_size_um is None else "um"
    image: Image = viewer.add_image(
        data,
        name=stack.name,
        rgb=rgb,
        multiscale=False,
        axis_labels=tuple(letters.lower()),
        scale=[size.get(letter, 1.0) for letter in letters],
        units=[unit if letter in size else "pixel" for letter in letters],
    )
    if pair.labels is not None:
        _show_labels(viewer, image, letters, pair)
    return image


def _show_labels(viewer: Any, image: Image, axes: str, pair: FilePair) -> None:
    """Add the labels over their image, as a result that can be corrected and run again."""
    labels = pair.labels
    assert labels is not None
    placement = Placement(axes, pair.stack.labels_axes, tuple(image.data.shape[: len(axes)]))
    base = f"{image.name} {pair.passport.get('model', 'labels')}"
    mark = {"base": base, IMAGE: str(image.unique_id), "runs": []}
    layer = viewer.add_labels(
        placement.to_layer(labels), name=base, metadata={MARK: mark}, **placement.geometry(image)
    )
    layer.metadata[MARK]["name"] = layer.name  # the viewer may have added a number
    seal_result(layer, pair.passport, True)
