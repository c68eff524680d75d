"""Frames of images that lie in no file, kept beside the journal to be trained on later.

A frame is one `RecordFile` of its channels' planes, unchanged. Frames of up to `FRAME_LIMIT` bytes
are kept, and `TOTAL_LIMIT` bytes on the disk for each image; of what is beyond only the labels are
in the journal, and the user is told to save the image.
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
TOTAL_LIMIT = 4 * 2**30
_ENDING = ".image"


def save_snapshot(folder: Path, stack: Stack, index: tuple[int, ...], ndim: int) -> None:
    """Keep a frame of the image, all its channels, unless it is kept or too large.

    What goes wrong is a `JournalWarning` for each image: the corrections are safe without it.
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


def kept_frame(folder: Path, index: tuple[int, ...], ndim: int, name: str) -> Stack | None:
    """Return a frame that was kept as a stack of one frame; None if there is none."""
    path = _path(folder, index, ndim)
    if not path.exists():
        return None
    with RecordFile(path) as file:
        records = [file.read(offset) for offset, _ in file.scan()]
    head, *planes = records
    shape = tuple(head.header["shape"])
    if len(planes) != math.prod(shape[:-2]):
        return None
    values = np.frombuffer(b"".join(plane.payload for plane in planes), head.header["dtype"])
    return Stack(
        values.reshape(shape), "CZYX" if ndim == 3 else "CYX", rgb=head.header["rgb"], name=name
    )


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
    begin, folder
        How the journal begins, and the folder it lies in.
    path
        Where the image lies; "" if it lies in no file.
    opened
        Stacks that are open already, by what `identify` says of them; the image may be there.

    Raises
    ------
    InputError
        The image's file is gone, or holds something else by now.
    """

    def __init__(
        self, begin: JournalHeader, folder: Path, path: str, opened: Mapping[str, Stack]
    ) -> None:
        self.begin, self.folder = begin, folder
        self.stack = opened.get(begin.image)
        if self.stack is None and path:
            self.stack = self._from_file(Path(path))

    def frame(self, index: Index, ndim: int) -> tuple[Stack, Index] | None:
        """Return a stack, and where in it the plane (2) or volume (3) of an index of the labels is.

        None if the frame is not at hand.
        """
        if self.stack is not None:
            return self.stack, index
        if ndim > self.begin.ndim:
            return None  # planes were kept, not the volume that they are from
        place = index[: len(self.begin.leading)]
        kept = kept_frame(self.folder, place, self.begin.ndim, self.begin.name)
        return None if kept is None else (kept, index[len(place) :])

    def _from_file(self, path: Path) -> Stack:
        try:
            stack = open_stack(path, self.begin.image_axes)
        except UnetError as error:
            raise InputError(f"The image cannot be read: {error}") from error
        if hash_stack(stack) != self.begin.image:
            raise InputError(f"The image {path} was changed since; open it as it was to use them.")
        return stack
