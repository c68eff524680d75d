"""The demo in the window: the bundled sample, the Segment panel, and a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.core.spec import SettingsError
from napari_unet.gui.layers import open_fluorescence_sample

if TYPE_CHECKING:
    import napari

    from napari_unet.gui.panel import SegmentPanel

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
