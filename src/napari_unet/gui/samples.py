"""The samples in the window: those of napari's menu, and the demo, which segments one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import SettingsError

if TYPE_CHECKING:
    import napari
    import numpy as np

    from napari_unet.gui.segment.panel import SegmentPanel

DEMO_TILE = 192
"""Edge length of the demo's tiles in pixels: small, so that there is something to watch."""


def open_demo(viewer: napari.Viewer, model: str = "nuclei", device: str = "auto") -> SegmentPanel:
    """Open the sample and the panel, at Segment, in a window, and start a run over the whole image.

    Raises
    ------
    SettingsError
        The panel does not offer the model or device.
    """
    for data, settings, _ in open_fluorescence_sample():
        viewer.add_image(data, **settings)
    panel: Any = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1].segment
    for box, value in ((panel.form.model, model), (panel.form.device, device)):
        if value not in box.choices:
            offered = ", ".join(map(str, box.choices))
            raise SettingsError(f"{box.name} is {value!r}; choose one of: {offered}.")
        box.value = value
    tile = panel.form.advanced.settings["tile"]
    chosen = tile.get()
    tile.set(chosen or DEMO_TILE)
    panel.run()
    tile.set(chosen)  # the demo's tiles are not the user's setting
    found: SegmentPanel = panel
    return found


def run_demo(model: str = "nuclei", device: str = "auto") -> None:
    """Open napari with the demo, and return when the window is closed."""
    import napari

    open_demo(napari.Viewer(title="napari-unet"), model, device)
    napari.run()


def open_fluorescence_sample() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """Return the bundled fluorescence image as napari's layer data."""
    return _sample("fluorescence")


def open_histology_sample() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """Return the bundled stained tissue image as napari's layer data."""
    return _sample("histology")


def open_phase_contrast_sample() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """Return the bundled image of cells in phase contrast as napari's layer data."""
    return _sample("phase contrast")


def open_neuron_sample() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """Return the bundled bright-field image of a neuron as napari's layer data."""
    return _sample("neuron")


def _sample(name: str) -> list[tuple[np.ndarray, dict[str, Any], str]]:
    from skimage.io import imread

    from napari_unet.core.io.sample_images import sample_path

    image = imread(sample_path(name))
    return [(image, {"name": name, "rgb": image.ndim == 3}, "image")]
