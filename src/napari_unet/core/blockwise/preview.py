"""Provisional labels of finished blocks, for somebody who watches a run: nothing is built on them.

They have the levels of the result, so that a wide plane is not read whole to be looked at. They are
not synced; a run that goes on after a crash may show holes in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.blockwise.assembling import label_image

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.blockwise.workplace import Workplace
    from napari_unet.core.tiles import Window

SPREAD = 7919
"""Ids of neighbouring blocks begin this far apart, so that their colours differ."""


def make_preview(place: Workplace) -> None:
    """Make the arrays of provisional labels, one for each level, where they are not there yet."""
    import zarr

    image, leading = label_image(place), len(place.plan.leading)
    for level in range(image.levels):
        if not (path := place.preview / str(level)).exists():
            shape = image.level_shape(level)
            chunks = (1,) * leading + image.chunks[leading:]  # it is written frame by frame
            zarr.create_array(
                str(path),
                shape=shape,
                dtype=np.uint32,
                chunks=tuple(max(1, min(c, n)) for c, n in zip(chunks, shape, strict=True)),
            )


def open_preview(folder: Path) -> list[Any]:
    """Open the arrays of a `Workplace.preview` for reading, the full resolution first."""
    import zarr

    paths = sorted(folder.iterdir(), key=lambda path: int(path.name))
    return [zarr.open_array(str(path), mode="r") for path in paths]


def show_block(place: Workplace, frame: int, window: Window, labels: np.ndarray) -> None:
    """Write a block's provisional labels into every level."""
    import zarr

    plan = place.plan
    if plan.decode is not None:
        first = sum(w.start // max(1, e) for w, e in zip(window, plan.block, strict=True)) * SPREAD
        labels = np.where(labels > 0, labels + np.uint32(first), 0)
    *planes, rows, columns = window
    for level in range(label_image(place).levels):
        step = 2**level  # the first of so many pixels is kept
        y, x = (slice(-(-w.start // step), -(-w.stop // step)) for w in (rows, columns))
        offsets = [at.start * step - w.start for at, w in ((y, rows), (x, columns))]
        part = labels[..., offsets[0] :: step, offsets[1] :: step]
        if part.size:
            array: Any = zarr.open_array(str(place.preview / str(level)), mode="r+")
            array[(*plan.index(frame), *planes, y, x)] = part
