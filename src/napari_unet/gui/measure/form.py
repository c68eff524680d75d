"""The form of the Measure panel: which labels, which image, and how objects are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_unet.core.io.axes import FRAMES
from napari_unet.gui.layers.combos import as_choices, image_layers, object_layers, refresh_choices
from napari_unet.gui.layers.result_info import find_source_image
from napari_unet.gui.widgets.settings_form import remember, remembered, rows_widget

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Labels

SECTION = "measure"
LABEL_WIDTH = 80
_TIPS = {
    "objects": "The labels whose objects are measured.",
    "image": "The image whose intensities are measured, in each of its channels.",
    "frames": "Whether the objects of a stack end with their plane, or extend through volumes.\n"
    "auto: planes for what a 2D model found, otherwise volumes.",
    "solidity": "Measure how much of its convex hull each object fills; takes longest.",
}


class MeasureForm(QWidget):
    """Labels, image and how to measure; the latter is remembered between sessions.

    Emits `changed` when there are other layers to choose from.

    Attributes
    ----------
    objects, image, frames, solidity
        The choices.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.objects: Any = ComboBox(
            name="objects", choices=self._labels_layers, tooltip=_TIPS["objects"]
        )
        self.image: Any = ComboBox(
            name="image", choices=self._image_layers, nullable=True, tooltip=_TIPS["image"]
        )
        self.frames: Any = ComboBox(name="frames", choices=FRAMES, tooltip=_TIPS["frames"])
        self.solidity: Any = CheckBox(name="solidity", value=True, tooltip=_TIPS["solidity"])
        self.solidity.text = ""
        rows = [
            ("labels", self.objects),
            ("image", self.image),
            ("objects in", self.frames),
            ("solidity", self.solidity),
        ]
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(rows_widget(rows, LABEL_WIDTH))
        self._restore()
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)
        self.objects.changed.connect(self._guess_image)
        self._layers_changed()

    def save(self) -> None:
        """Remember how to measure for the next session."""
        remember(SECTION, {"frames": self.frames.value, "solidity": self.solidity.value})

    def _restore(self) -> None:
        values = remembered(SECTION)
        if values.get("frames") in FRAMES:
            self.frames.value = values["frames"]
        if isinstance(values.get("solidity"), bool):
            self.solidity.value = values["solidity"]

    def _labels_layers(self, *_: Any) -> list[tuple[str, Labels]]:
        return as_choices(object_layers(self._viewer))

    def _image_layers(self, *_: Any) -> list[tuple[str, Image]]:
        return as_choices(image_layers(self._viewer))

    def _layers_changed(self, *_: Any) -> None:
        """Offer the layers that there are."""
        refresh_choices(self.objects, self.image)
        if self.image.value is None:
            self._guess_image()
        self.changed.emit()

    def _guess_image(self, *_: Any) -> None:
        """Choose the image that the labels were found in, or else the only one that fits."""
        layer = self.objects.value
        if layer is None:
            return
        images = [image for image in self.image.choices if image is not None]
        found = find_source_image(layer, images)
        if found is None and len(images) == 1:
            found = images[0]
        if found is not None:
            self.image.value = found
