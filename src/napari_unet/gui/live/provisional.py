"""A layer that fades in over the image: what a model would find, before anybody has decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.overlay_layer import KIND, overlay_metadata

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.layers.label_geometry import Placement

FADE_MS, FADES = 60, 6
"""How long each step of fading in takes, and how many there are."""


class ProvisionalLayer(QObject):
    """Shows a window of labels over an image; the labels of the user are never touched.

    Parameters
    ----------
    owner
        The widget that it belongs to.
    name
        What is added to the image's name.
    opacity
        When it has faded in.
    look
        Other arguments of the layer, such as its colormap.

    Attributes
    ----------
    layer
        None while nothing is shown.
    """

    def __init__(self, viewer: Any, owner: QObject, name: str, opacity: float, **look: Any) -> None:
        super().__init__(owner)
        self._viewer, self._name, self._opacity, self._look = viewer, name, opacity, look
        self.layer: Labels | None = None
        self._image: Image | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(FADE_MS)
        self._timer.timeout.connect(self._fade)

    def show(
        self,
        image: Image,
        placement: Placement,
        index: Index,
        window: Window,
        values: np.ndarray,
    ) -> None:
        """Show values in a window of a frame, and nothing elsewhere."""
        layer = self.layer
        if layer is None or layer not in self._viewer.layers or self._image is not image:
            self.hide()
            layer = self._add(image, placement, values.dtype)
        data = placement.from_layer(layer.data)
        place: Any = (*index, *window)
        changed = not np.array_equal(data[place], values)
        data[...] = 0
        data[place] = values
        if changed:
            layer.opacity = self._opacity / FADES
            layer.refresh(thumbnail=False, highlight=False, extent=False)
            self._timer.start()

    def hide(self) -> None:
        """Remove the layer."""
        self._timer.stop()
        layer, self.layer, self._image = self.layer, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _add(self, image: Image, placement: Placement, dtype: Any) -> Labels:
        sizes = dict(zip(placement.axes, placement.sizes, strict=False))
        empty = np.zeros([sizes[letter] for letter in placement.labels_axes], dtype)
        active = self._viewer.layers.selection.active
        name = f"{image.name} {self._name}"
        layer: Labels = unwrap(
            self._viewer.add_labels(
                placement.to_layer(empty),
                name=name,
                metadata=overlay_metadata(KIND, self._name),
                opacity=0,
                **self._look,
                **placement.geometry(image),
            )
        )
        layer.editable = False
        if active is not None:
            self._viewer.layers.selection.active = active
        self.layer, self._image = layer, image
        return layer

    def _fade(self) -> None:
        layer = self.layer
        if layer is None or layer not in self._viewer.layers:
            self._timer.stop()
            return
        layer.opacity = min(self._opacity, layer.opacity + self._opacity / FADES)
        if layer.opacity >= self._opacity:
            self._timer.stop()
