"""Files in the window with their labels: an OME-Zarr from the menu, any image from the terminal.

napari's own reader opens the first group inside a Zarr folder. In an OME-Zarr that holds labels
that is the group of the labels, so it cannot open what a run has written its labels into.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QApplication, QFileDialog

from napari_unet.core.steps import drained
from napari_unet.gui.errors import tell
from napari_unet.gui.job import Errands, Job
from napari_unet.gui.segmenting.resultfile import read_files, show_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari


def ask_for_ome_zarr(viewer: napari.Viewer) -> None:
    """Let the user choose an OME-Zarr; open it with the labels that lie in it."""
    chosen = QFileDialog.getExistingDirectory(None, "Open an OME-Zarr with its labels")
    if not chosen:
        return
    job = Job(
        functools.partial(read_files, Path(chosen)),
        on_done=functools.partial(show_files, viewer),
        on_error=lambda error: tell(error, "an OME-Zarr could not be opened", str),
    )
    _errands().run("open", job)


@functools.cache
def _errands() -> Errands:
    """Return what opens files, one after the other, in a slot that nothing else waits in."""
    app = QApplication.instance()
    assert app is not None
    return Errands(app)


def run_view(image: Path, labels: Sequence[Path]) -> None:
    """Open napari with an image and its labels, and return when the window is closed.

    Parameters
    ----------
    labels
        Label files; without any, those that lie in an OME-Zarr.

    Raises
    ------
    InputError
        A file that does not exist, cannot be read or does not fit the image.
    """
    files = drained(read_files(image, labels or None))
    import napari

    show_files(napari.Viewer(title=f"{image.name} - napari-unet"), files)
    napari.run()
