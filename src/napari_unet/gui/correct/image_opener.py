"""Bringing the user to a place in an image: one that is open, or a file, which is opened."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from napari_unet.core.errors import UnetError
from napari_unet.gui.correct.edit_tracker import uncover
from napari_unet.gui.errors import describe_error, report_error
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.layers.convert import layer_stack, unwrap
from napari_unet.gui.layers.navigation import go_to
from napari_unet.gui.open_files import ImageFiles, read_files, show_files

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    from napari.layers import Image
    from qtpy.QtCore import QObject

    from napari_unet.core.tiles import Index


class SeenPlace(Protocol):
    """A place in an image that a small picture shows."""

    @property
    def index(self) -> Index:
        """The frame."""

    @property
    def centre(self) -> tuple[float, ...]:
        """The position in the frame, ([z,] y, x) in pixels."""

    @property
    def extent(self) -> float:
        """Pixels of the image along an edge of the picture."""


class ImageOpener:
    """Shows an image alone, at a place; a file is opened once, with its labels, in a job.

    Parameters
    ----------
    viewer, owner
        The window, and the widget whose jobs these are.
    say
        Told in a sentence what went wrong.
    """

    def __init__(self, viewer: Any, owner: QObject, say: Callable[[str], None]) -> None:
        self._viewer, self._say = viewer, say
        self._jobs = WidgetJobs(owner)
        self._opened: dict[Hashable, weakref.ref[Image]] = {}

    def forget(self) -> None:
        """Open files anew from now on."""
        self._opened = {}

    def open(
        self,
        key: Hashable,
        source: Path,
        target: Path | None,
        place: SeenPlace,
    ) -> None:
        """Show a file.

        Parameters
        ----------
        key
            By which it is known that it was opened already.
        source, target
            The image's file, and that of its labels.
        """
        if self._show_known(key, place):
            return
        targets = [] if target is None or not target.exists() else [target]
        opened = self._opened

        def done(files: ImageFiles) -> None:
            # Meanwhile the images may have been forgotten, or this one clicked on twice.
            if opened is not self._opened or self._show_known(key, place):
                return
            shown = unwrap(show_files(self._viewer, files))  # nobody keeps a proxy alive
            self._opened[key] = weakref.ref(shown)
            self.show(shown, place)

        job = Job(
            functools.partial(read_files, source, targets),
            on_done=done,
            on_error=lambda error: report_error(error, "it could not be opened", self._say),
        )
        self._jobs.run("open", job)

    def _show_known(self, key: Hashable, place: SeenPlace) -> bool:
        """Show an image that was opened before; return whether it is still there."""
        known = self._opened.get(key)
        layer = None if known is None else known()
        if layer is None or layer not in self._viewer.layers:
            return False
        self.show(layer, place)
        return True

    def show(self, image: Image, place: SeenPlace) -> None:
        """Show an open image."""
        position = (*place.index, *place.centre)
        try:
            letters = layer_stack(image).labels_axes
        except UnetError as error:
            self._say(describe_error(error))
            return
        if len(letters) != len(position):
            self._say(f"The axes of {image.name!r} were changed meanwhile; look at it again.")
            return
        uncover(self._viewer, image)
        self._viewer.layers.selection.active = image
        go_to(self._viewer, image, dict(zip(letters, position, strict=True)), place.extent / 2)
