"""The images that were searched for objects alike: their list, and outlines in those open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QTreeWidget, QTreeWidgetItem
from scipy import ndimage

from napari_unet.gui.layers.navigation import READ_ONLY_MODES, object_under
from napari_unet.gui.layers.overlay_layer import add_drawing, remove_layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari.layers import Labels

    from napari_unet.core.tiles import Index
    from napari_unet.gui.correct.alike_search import Alike, SearchedImage

LAYER = "alike"
MARKED, OUT = 1, 2
"""What is drawn around objects that will be edited, and around those that the user took out."""
COLOURS = {
    MARKED: (1.0, 0.35, 0.9, 1),
    OUT: (0.6, 0.6, 0.6, 1),
}
_TIP = "Where was searched. Uncheck an image to leave it as it is; double-click it to look at it."
ROWS = 5
"""So many rows are seen at once, at most."""
_NAME, _COUNT = range(2)


class AlikeImages(QTreeWidget):
    """Lists the images, each with a box to leave it out; hidden if there is one only.

    Emits `changed` when an image was left out or taken in, and `wanted` with the image that was
    double-clicked, to look at it.
    """

    changed = Signal()
    wanted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._alike: Alike | None = None
        self.setHeaderLabels(["image", "marked"])
        self.setHeaderHidden(True)
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setToolTip(_TIP)
        header: Any = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(_NAME, header.ResizeMode.Stretch)
        header.setSectionResizeMode(_COUNT, header.ResizeMode.ResizeToContents)
        self.itemChanged.connect(self._item_changed)
        self.itemDoubleClicked.connect(self._double_clicked)
        self.hide()

    def show_images(self, alike: Alike) -> None:
        """List the images that were searched; the one that was corrected comes first."""
        self._alike = None
        self.clear()
        for image in alike.images:
            item = QTreeWidgetItem([image.name, ""])
            item.setToolTip(_NAME, image.name if image.file is None else str(image.file.target))
            item.setCheckState(_NAME, Qt.CheckState.Checked)
            self.addTopLevelItem(item)
        self._alike = alike
        height = self.sizeHintForRow(0) * min(ROWS, len(alike.images))
        self.setFixedHeight(height + 2 * self.frameWidth())
        self.setVisible(len(alike.images) > 1)

    def show_counts(self, alike: Alike, marked: Sequence[int]) -> None:
        """Show how many objects are marked in each image."""
        if alike is not self._alike:
            return
        self.blockSignals(True)
        for number, (image, places) in enumerate(count_marked(alike, marked)):
            item = self.topLevelItem(number)
            if item is not None:
                of = f"{len(places)} of {len(image.places)}"
                item.setText(_COUNT, "open" if image.opened else of)
        self.blockSignals(False)

    def _item_changed(self, item: QTreeWidgetItem, *_: Any) -> None:
        if self._alike is None:
            return
        image = self._alike.images[self.indexOfTopLevelItem(item)]
        wanted = item.checkState(_NAME) == Qt.CheckState.Checked
        if wanted != image.wanted:
            image.wanted = wanted
            self.changed.emit()

    def _double_clicked(self, item: QTreeWidgetItem, *_: Any) -> None:
        if self._alike is not None:
            self.wanted.emit(self._alike.images[self.indexOfTopLevelItem(item)])


def count_marked(alike: Alike, marked: Sequence[int]) -> Iterator[tuple[SearchedImage, np.ndarray]]:
    """Yield each image, with the places in ``alike.items`` of what is marked in it, ascending."""
    places = np.asarray(marked, np.int64)
    for image in alike.images:
        first, stop = np.searchsorted(places, [image.places.start, image.places.stop])
        yield image, places[first:stop]


class AlikeOutlines:
    """Outlines the objects that are marked, over the images that are open.

    Attributes
    ----------
    layers
        By the number of the image.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self.layers: dict[int, Labels] = {}
        self._drawn: dict[int, int] = {}
        self._alike: Alike | None = None

    def open(self, alike: Alike) -> None:
        """Add a layer over each image that is open; a click must not paint from now on."""
        self._alike = alike
        for number, image in enumerate(alike.images):
            if image.recording is not None and image.recording.layer in self._viewer.layers:
                layer = image.recording.layer
                self.layers[number] = add_drawing(self._viewer, layer, LAYER, COLOURS)
                layer.mode = "pan_zoom"
        self._drawn = {}  # what was drawn before had no layers

    def close(self) -> None:
        """Remove the layers."""
        layers, self.layers, self._drawn, self._alike = self.layers, {}, {}, None
        for layer in layers.values():
            remove_layer(self._viewer, layer)

    def show_only(self, image: SearchedImage) -> None:
        """Hide the outlines of all other images."""
        images = () if self._alike is None else self._alike.images
        for number, layer in self.layers.items():
            layer.visible = images[number] is image

    def draw(self, alike: Alike, codes: Mapping[int, int]) -> None:
        """Draw what changed: each object's outline by its code, none without one."""
        for number, layer in self.layers.items():
            image = alike.images[number]
            if image.recording is None or image.recording.geometry is None:
                continue
            array = image.recording.geometry.array(layer.data)
            for place in {*self._drawn, *codes} & {*image.places}:
                code = codes.get(place, 0)
                if self._drawn.get(place, 0) != code:
                    item = alike.items[place]
                    edge = item.mask.inside & ~ndimage.binary_erosion(item.mask.inside)
                    array[(*item.index, *item.mask.window)][edge] = code
            layer.refresh(thumbnail=False, highlight=False, extent=False)
        self._drawn = dict(codes)


def objects_clicked(alike: Alike, active: Any, event: Any) -> Iterator[tuple[int, Index, int]]:
    """Yield the objects under a click, those of the layer that is active first.

    Parameters
    ----------
    active
        The layer that is active in the window.
    event
        Of the mouse.

    Yields
    ------
    number, index, label
        Of the image, of the frame in it, and the object's id.
    """
    images = [(n, each.recording) for n, each in enumerate(alike.images)]
    for number, recording in sorted(
        images, key=lambda each: each[1] is None or each[1].layer is not active
    ):
        if recording is None or recording.geometry is None or not recording.layer.visible:
            continue
        if str(recording.layer.mode) not in READ_ONLY_MODES:
            continue
        found = object_under(recording.layer, event)
        if found is None:
            continue
        label, place = found
        leading = len(recording.geometry.stack.labels_shape) - recording.learner.ndim
        yield number, recording.geometry.plane(place)[:leading], label
