"""Where the image of a journal's frames comes from: its file, an open stack, or kept frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet.core.io.passport import fingerprint
from napari_unet.core.journal.keptimage import kept_frame
from napari_unet.core.spec import InputError, UnetError
from napari_unet.core.stack import Stack, open_stack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.core.journal.begin import Begin

    Index = tuple[int, ...]


class FrameSource:
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

    def __init__(self, begin: Begin, folder: Path, path: str, opened: Mapping[str, Stack]) -> None:
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
        if fingerprint(stack) != self.begin.image:
            raise InputError(f"The image {path} was changed since; open it as it was to use them.")
        return stack
