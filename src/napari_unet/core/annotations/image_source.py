"""The image of a journal: its file, an open layer, or snapshots of an image in memory only.

A snapshot is a frame kept beside the journal, so that it can be trained on later: a `RecordFile` of
its channels' planes, unchanged. Larger frames than `FRAME_LIMIT` and more than `TOTAL_LIMIT` for an
image are not kept; the user is then told to save the image.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.annotations.append_log import (
    JournalWarning,
    Record,
    RecordFile,
    write_records,
)
from napari_unet.core.errors import InputError, OutputError, UnetError
from napari_unet.core.io.provenance import hash_stack
from napari_unet.core.io.stack import Stack, open_stack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from napari_unet.core.annotations.header import JournalHeader
    from napari_unet.core.tiles import Index


FRAME_LIMIT = 512 * 2**20
"""Bytes of a frame before compression."""
TOTAL_LIMIT = 4 * 2**30
"""Bytes on the disk for each image."""
_ENDING = ".image"


def save_snapshot(folder: Path, stack: Stack, index: tuple[int, ...], ndim: int) -> None:
    """Keep a frame of the image, all its channels, unless it was kept before or is too large.

    A problem is warned of once for each image (`JournalWarning`): the corrections are safe anyway.
    """
    path = _path(folder, index, ndim)
    if path.exists() or _ENDING in stack.notices:
        return
    shape = (stack.channels, *stack.frame_shape(ndim))
    kept = sum(file.stat().st_size for file in folder.glob(f"*{_ENDING}"))
    if math.prod(shape) * stack.dtype.itemsize > FRAME_LIMIT or kept > TOTAL_LIMIT:
        _warn(stack, "is too large to be kept with its corrections")
        return
    try:
        write_records(path, _records(stack, index, shape))
    except OutputError as error:
        _warn(stack, f"could not be kept with its corrections ({error})")


def load_snapshot(folder: Path, index: tuple[int, ...], ndim: int, name: str) -> Stack | None:
    """Return the snapshot of a frame as a stack of one frame; None if there is none."""
    path = _path(folder, index, ndim)
    if not path.exists():
        return None
    with RecordFile(path) as file:
        records = [file.read(offset) for offset, _ in file.scan()]
    if not records:
        return None
    first, *planes = records
    try:
        shape, dtype = tuple(map(int, first.header["shape"])), np.dtype(first.header["dtype"])
        fits = len(shape) == ndim + 1 and dtype.kind in "biuf"
        if not fits or len(planes) != math.prod(shape[:-2]):
            return None
        values = np.frombuffer(b"".join(plane.payload for plane in planes), dtype).reshape(shape)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(f"{path} is damaged ({error}); open the image itself.") from error
    rgb = first.header.get("rgb") is True
    return Stack(values, "CZYX" if ndim == 3 else "CYX", rgb=rgb, name=name)


def _path(folder: Path, index: tuple[int, ...], ndim: int) -> Path:
    return folder / f"{'-'.join(['frame', f'{ndim}d', *map(str, index)])}{_ENDING}"


def _records(stack: Stack, index: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[Record]:
    """Yield the frame's description, then its planes, channel by channel."""
    dtype = stack.dtype.newbyteorder("<")
    yield Record({"kind": "image", "shape": shape, "dtype": dtype.str, "rgb": stack.rgb})
    rows, columns = slice(0, shape[-2]), slice(0, shape[-1])
    for channel in range(shape[0]):
        for plane in range(math.prod(shape[1:-2])):
            window = (
                (slice(plane, plane + 1), rows, columns) if len(shape) == 4 else (rows, columns)
            )
            values = stack.read(index, window, (channel,))
            yield Record({"kind": "plane"}, np.ascontiguousarray(values, dtype).tobytes())


def _warn(stack: Stack, problem: str) -> None:
    stack.notices.add(_ENDING)
    warnings.warn(
        f"{stack.name} lies in memory only and {problem}; save it as a file and open that, so that "
        "a model can learn from it later, too.",
        JournalWarning,
        stacklevel=4,
    )


class ImageSource:
    """The image that a journal belongs to, frame by frame.

    Parameters
    ----------
    header, folder
        The journal's header, and the folder that it lies in.
    path
        The image's file; "" if it lies in none.
    opened
        Stacks that are open already, by their fingerprint; the image may be one of them.

    Raises
    ------
    InputError
        The image's file is gone, or was changed.
    """

    def __init__(
        self, header: JournalHeader, folder: Path, path: str, opened: Mapping[str, Stack]
    ) -> None:
        self.header, self.folder = header, folder
        self.stack = opened.get(header.image)
        if self.stack is None and path:
            self.stack = self._from_file(Path(path))

    def frame(self, index: Index, ndim: int) -> tuple[Stack, Index] | None:
        """Find the plane (`ndim` 2) or volume (3) at an index of the labels: its stack, its index.

        None if the image lies in memory only and the frame was not kept.
        """
        if self.stack is not None:
            return self.stack, index
        if ndim > self.header.ndim:
            return None  # only planes were kept, not their volume
        place = index[: len(self.header.leading)]
        found = load_snapshot(self.folder, place, self.header.ndim, self.header.name)
        return None if found is None else (found, index[len(place) :])

    def _from_file(self, path: Path) -> Stack:
        try:
            stack = open_stack(path, self.header.image_axes)
        except UnetError as error:
            raise InputError(f"The image cannot be read: {error}") from error
        if hash_stack(stack) != self.header.image:
            raise InputError(f"The image {path} was changed since; open it as it was to use them.")
        return stack
