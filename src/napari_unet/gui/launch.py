"""Files in the window with their labels: an OME-Zarr from the menu, any image from the terminal.

napari's own reader opens the first group inside a Zarr folder. In an OME-Zarr that holds labels
that is the group of the labels, so it cannot open what a run has written its labels into.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QApplication, QFileDialog

from napari_unet.core.errors import SettingsError
from napari_unet.core.progress import run_to_end
from napari_unet.gui.errors import report_error
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.layers.convert import open_fluorescence_sample
from napari_unet.gui.layers.open_files import read_files, show_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari

    from napari_unet.gui.segment.panel import SegmentPanel


def ask_for_ome_zarr(viewer: napari.Viewer) -> None:
    """Let the user choose an OME-Zarr; open it with the labels that lie in it."""
    chosen = QFileDialog.getExistingDirectory(None, "Open an OME-Zarr with its labels")
    if not chosen:
        return
    job = Job(
        functools.partial(read_files, Path(chosen)),
        on_done=functools.partial(show_files, viewer),
        on_error=lambda error: report_error(error, "an OME-Zarr could not be opened", str),
    )
    _errands().run("open", job)


@functools.cache
def _errands() -> WidgetJobs:
    """Return what opens files, one after the other, in a slot that nothing else waits in."""
    app = QApplication.instance()
    assert app is not None
    return WidgetJobs(app)


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
    files = run_to_end(read_files(image, labels or None))
    import napari

    show_files(napari.Viewer(title=f"{image.name} - napari-unet"), files)
    napari.run()


TILE = 192
"""Edge length of the demo's tiles in pixels: small, so that there is something to watch."""


def open_demo(viewer: napari.Viewer, model: str = "nuclei", device: str = "auto") -> SegmentPanel:
    """Open the sample and the Segment panel in a window, and start a run over the whole image.

    Raises
    ------
    SettingsError
        A model or device that the panel does not offer.
    """
    for data, settings, _ in open_fluorescence_sample():
        viewer.add_image(data, **settings)
    panel: Any = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1]
    for box, value in ((panel.form.model, model), (panel.form.device, device)):
        if value not in box.choices:
            offered = ", ".join(map(str, box.choices))
            raise SettingsError(f"{box.name} is {value!r}; choose one of: {offered}.")
        box.value = value
    tile = panel.form.advanced.settings["tile"]
    chosen = tile.get()
    tile.set(chosen or TILE)
    panel.run()
    tile.set(chosen)  # the demo's tiles are not the user's setting
    found: SegmentPanel = panel
    return found


def run_demo(model: str = "nuclei", device: str = "auto") -> None:
    """Open napari with the demo, and return when the window is closed."""
    import napari

    open_demo(napari.Viewer(title="napari-unet"), model, device)
    napari.run()
