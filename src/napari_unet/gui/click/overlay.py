"""The layer over the labels: the active object, what a click would change, and the clicks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_unet.core.errors import InputError
from napari_unet.gui.layers.live_labels import draw_part
from napari_unet.gui.layers.overlay_layer import add_overlay, remove_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari.layers import Labels

    from napari_unet.core.instances.mask import ObjectMask
    from napari_unet.core.prompts.clicks import Click
    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.click.target import ClickTarget

    Masks = Mapping[Index, ObjectMask]

NAME = "click"
OBJECT, GAINED, LOST, PLUS, MINUS, BOX = range(1, 7)
_COLOURS: dict[int | None, Any] = {
    None: (0, 0, 0, 0),
    0: (0, 0, 0, 0),
    OBJECT: (1.0, 0.8, 0.1, 0.75),
    GAINED: (0.1, 0.85, 1.0, 0.7),
    LOST: (1.0, 0.2, 0.4, 0.7),
    PLUS: (0.1, 1.0, 0.2, 1.0),
    MINUS: (1.0, 0.1, 0.1, 1.0),
    BOX: (1.0, 1.0, 1.0, 1.0),
}
DOT_PX = 4
"""Radius of the dot that shows a click, in pixels of the screen, where the image allows."""


class ClickOverlay:
    """Draws into a layer of its own, only the parts that changed.

    Attributes
    ----------
    layer
        The layer, which `ClickInput` listens to.

    Raises
    ------
    InputError
        There is no memory for it.
    """

    def __init__(self, viewer: Any, target: ClickTarget) -> None:
        self._viewer, self._geometry = viewer, target.geometry
        self._drawn: list[tuple[Index, Window]] = []
        self.layer = _new_layer(viewer, target.layer)
        self._array = target.geometry.array(self.layer.data)

    def show(self, masks: Masks, after: Masks | None, clicks: Iterable[Click]) -> None:
        """Draw the active object.

        Parameters
        ----------
        masks
            The object, by frame.
        after
            The object after a click under the cursor; None: no preview.
        clicks
            Those that made the object.
        """
        shown = masks if after is None else after
        pieces = []
        for index in {**masks, **shown}:
            if (piece := _compared(masks.get(index), shown.get(index))) is not None:
                pieces.append((index, *piece))
        pieces += [self._dot(click) for click in clicks]
        self._draw(pieces)

    def show_box(self, low: tuple[float, ...], high: tuple[float, ...]) -> None:
        """Draw the outline of a box in one plane, corners in the order T, Z, Y, X."""
        index = tuple(round(c) for c in low[:-2])
        size = self._array.shape[-2:]
        ends = np.clip(np.round(np.sort([low[-2:], high[-2:]], axis=0)), 0, np.array(size) - 1)
        window = tuple(slice(int(a), int(b) + 1) for a, b in zip(*ends, strict=True))
        codes = np.full([w.stop - w.start for w in window], BOX, np.uint8)
        codes[1:-1, 1:-1] = 0
        self._draw([(index, window, codes)])

    def close(self) -> None:
        """Remove the layer."""
        remove_layer(self._viewer, self.layer)

    def _dot(self, click: Click) -> tuple[Index, Window, np.ndarray]:
        """Return a disc at a click."""
        *leading, y, x = click.pixel
        pixel = abs(float(self.layer.scale[self._geometry.order[-1]])) or 1.0
        radius = min(12, max(1, round(DOT_PX / (self._viewer.scene.camera.zoom * pixel))))
        height, width = self._array.shape[-2:]
        window = tuple(
            slice(max(0, at - radius), min(n, at + radius + 1))
            for at, n in zip((y, x), (height, width), strict=True)
        )
        rows, columns = np.ogrid[window]
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= (radius + 0.3) ** 2
        codes = inside.astype(np.uint8) * (PLUS if click.positive else MINUS)
        return tuple(leading), window, codes

    def _draw(self, pieces: list[tuple[Index, Window, np.ndarray]]) -> None:
        """Draw pieces in place of those drawn last."""
        touched = list(self._drawn)
        for index, window in self._drawn:
            self._array[(*index, *window)] = 0
        self._drawn = []
        for index, window, codes in pieces:
            part = self._array[(*index, *window)]
            part[codes > 0] = codes[codes > 0]
            self._drawn.append((index, window))
        touched += self._drawn
        placement, layer = self._geometry.placement, self.layer
        if layer.editable:  # napari makes it so when the view switches between 2D and 3D
            layer.editable = False
        places = {i: _union([w for j, w in touched if j == i]) for i in {j for j, _ in touched}}
        if not all(
            draw_part(self._viewer, layer, placement.at(*place)) for place in places.items()
        ):
            layer.refresh(thumbnail=False, highlight=False, extent=False)


def _compared(now: ObjectMask | None, then: ObjectMask | None) -> tuple[Window, np.ndarray] | None:
    """Return which pixels a mask keeps, gains and loses, as codes in a window."""
    there = [mask.cropped() for mask in (now, then) if mask is not None and mask.area]
    if not there:
        return None
    window = _union([mask.window for mask in there])
    empty = np.zeros([w.stop - w.start for w in window], bool)
    before = empty if now is None else now.within(window)
    after = empty if then is None else then.within(window)
    codes = np.zeros(empty.shape, np.uint8)
    codes[before & after], codes[after & ~before], codes[before & ~after] = OBJECT, GAINED, LOST
    return window, codes


def _union(windows: list[Window]) -> Window:
    ends = list(zip(*windows, strict=True))
    return tuple(slice(min(w.start for w in axis), max(w.stop for w in axis)) for axis in ends)


def _new_layer(viewer: Any, labels: Labels) -> Labels:
    shape = tuple(int(n) for n in labels.data.shape)
    try:
        empty = np.zeros(shape, np.uint8)  # the system takes memory page by page, when written
    except (MemoryError, ValueError) as error:
        size = f"{math.prod(shape) / 1e9:.0f} GB"
        raise InputError(
            f"There is no memory for a preview of {size}; click on a part of the image."
        ) from error
    colours = DirectLabelColormap(color_dict=_COLOURS)
    layer = add_overlay(viewer, labels, empty, NAME, opacity=0.8, colormap=colours)
    layer.editable = False
    return layer
