"""A layer that fades in over the image: what a model would find, before anybody has decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine
from qtpy.QtCore import QObject, QTimer

from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.overlay_layer import KIND, overlay_metadata, remove_layer

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.layers.label_geometry import Placement

FADE_MS, FADES = 60, 6
"""How long each step of fading in takes, and how many there are."""


class ProvisionalLayer(QObject):
    """Shows a window of labels over an image; the labels of the user are never touched.

    The layer is as large as the window, however large the image is. It goes with its image.

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
        self._sources: tuple[Image | Labels | None, ...] = ()
        self._offset: tuple[int, ...] = ()
        self._timer = QTimer(self)
        self._timer.setInterval(FADE_MS)
        self._timer.timeout.connect(self._fade)
        viewer.layers.events.removed.connect(self._removed)

    def show(
        self,
        image: Image,
        placement: Placement,
        index: Index,
        window: Window,
        values: np.ndarray,
        labels: Labels | None = None,
    ) -> None:
        """Show values in a window of a frame, and nothing elsewhere.

        It is hidden with the image, and with the labels if any are given.
        """
        shown = placement.to_layer(values.reshape((1,) * len(index) + values.shape))
        offset = tuple(span.start for span in placement.at(index, window))
        layer = self.layer
        if layer is None or layer not in self._viewer.layers or self._sources != (image, labels):
            self.hide()
            self._sources = (image, labels)
            layer = self._add(image, placement, shown, offset)
        elif offset != self._offset or layer.data.shape != shown.shape:
            layer.data = shown
            layer.translate = _place(image, placement, offset)["translate"]
        elif np.array_equal(layer.data, shown):
            return
        else:
            layer.data[...] = shown
        self._offset = offset
        layer.opacity = self._opacity / FADES
        layer.refresh(thumbnail=False, highlight=False, extent=False)
        self._timer.start()

    def hide(self) -> None:
        """Remove the layer."""
        self._timer.stop()
        layer, self.layer, self._sources = self.layer, None, ()
        remove_layer(self._viewer, layer)

    def _removed(self, event: Any) -> None:
        if self.layer is not None and unwrap(event.value) in self._sources:
            self.hide()

    def _add(
        self, image: Image, placement: Placement, data: np.ndarray, offset: tuple[int, ...]
    ) -> Labels:
        selection = self._viewer.layers.selection
        active = image if selection.active is None else selection.active
        name = f"{image.name} {self._name}"
        look = dict(self._look)
        features = look.pop("features", None)
        layer: Labels = unwrap(
            self._viewer.add_labels(
                data.copy(),
                name=name,
                metadata=overlay_metadata(KIND, self._name),
                opacity=0,
                **look,
                **_place(image, placement, offset),
            )
        )
        self.layer = layer
        layer.editable = False
        selection.active = active
        if features is not None:
            layer.features = features  # not before: see `overlay_names`
        return layer

    def _fade(self) -> None:
        layer = self.layer
        if layer is None or layer not in self._viewer.layers:
            self._timer.stop()
            return
        layer.opacity = min(self._opacity, layer.opacity + self._opacity / FADES)
        if layer.opacity >= self._opacity:
            self._timer.stop()


def _place(image: Image, placement: Placement, offset: tuple[int, ...]) -> dict[str, Any]:
    """Return the geometry of a layer that begins at a pixel of the image's labels."""
    found = placement.geometry(image)
    turned = Affine(scale=found["scale"], rotate=found["rotate"], shear=found["shear"])
    found["translate"] = found["translate"] + turned.linear_matrix @ np.array(offset, float)
    return found
