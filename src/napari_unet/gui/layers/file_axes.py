"""Which file a layer is of, and what it says of axes and channels that napari's reader leaves out.

Only the metadata of TIFFs that name their axes (OME, ImageJ and LSM) are read here: that takes
milliseconds, also for files of many pages. OME-Zarrs are read in `convert`.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_unet.core.errors import InputError
from napari_unet.core.io.files import TIFF_SUFFIXES, UNREADABLE
from napari_unet.core.io.ome_zarr import is_address
from napari_unet.core.io.time_limit import time_limit

if TYPE_CHECKING:
    from napari.layers import Image, Labels

_LETTERS = frozenset("TCZYXS")
FILE_KEY = "napari_unet_file"
"""Under this key an image's metadata say its file: napari does so for its own readers only."""
SHAPE_KEY = "napari_unet_shape"
"""And under this one the file's shape: projections and crops that napari makes keep the metadata,
and are none of the file's."""


class FileAxes(NamedTuple):
    """Axes, their lengths, and the names of the channels, "" where the file has none."""

    axes: str
    shape: tuple[int, ...]
    channels: tuple[str, ...] = ()


def file_of(image: Image | Labels) -> str | None:
    """Return the absolute path, or address, that a layer was opened from, by napari or by us."""
    path, ours = image.source.path, image.metadata
    data = image.data[0] if image.multiscale else image.data
    if not path and tuple(ours.get(SHAPE_KEY, data.shape)) == tuple(data.shape):
        path = ours.get(FILE_KEY)
    if not isinstance(path, str) or is_address(path):
        return path if isinstance(path, str) else None
    return os.path.abspath(path)


def read_file_axes(layer: Image | Labels) -> FileAxes | None:
    """Return the axes that the layer's file names, as far as the layer has them.

    None for layers of no file, files that do not name their axes, and data of another shape.
    """
    found = file_of(layer)
    if found is None or not found.lower().endswith(TIFF_SUFFIXES):
        return None
    try:
        state = os.stat(found)
    except OSError:
        return None
    read = _read(found, state.st_mtime_ns, state.st_size)
    if read is None:
        return None
    data = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(int(n) for n in data.shape)
    return next((fit for fit in _readings(read) if fit.shape == shape), None)


def _readings(read: FileAxes) -> list[FileAxes]:
    """Return the file's axes as readers hand them on: whole, squeezed, or a channel by itself."""
    pairs = list(zip(read.axes, read.shape, strict=True))
    squeezed = [(letter, size) for letter, size in pairs if size > 1 or letter in "YX"]
    found = []
    for kept in (pairs, squeezed):
        for left in (kept, [pair for pair in kept if pair[0] != "C"]):
            axes = "".join(letter for letter, _ in left)
            found.append(FileAxes(axes, tuple(size for _, size in left), read.channels))
    return found


@lru_cache(64)  # the axes of a layer are asked for at each move of a slider
def _read(path: str, changed: int, size: int) -> FileAxes | None:
    from napari_unet.core.io.tiff_checks import CheckedTiff, silence_tifffile
    from napari_unet.core.io.tiff_metadata import channel_names

    with (
        suppress(*UNREADABLE, InputError),
        silence_tifffile(),
        time_limit(Path(path)),
        closing(CheckedTiff(Path(path), count=False)) as file,
    ):
        if not (file.is_ome or file.is_imagej or file.is_lsm):
            return None
        series = file.series[0]
        axes, shape = series.axes, tuple(int(n) for n in series.shape)
        if not set(axes) <= _LETTERS or len(set(axes)) < len(axes):
            return None
        return FileAxes(axes, shape, channel_names(file, 0))
    return None
