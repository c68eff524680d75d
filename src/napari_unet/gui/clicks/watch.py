"""What ends click mode from outside: its layers go away, or get other data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_unet.gui.clicks.target import Target


class LayerWatch:
    """Tells when what is clicked on, or into, is not there any more.

    Parameters
    ----------
    viewer
        The window.
    target
        The image and the labels.
    layer
        The layer of click mode itself.
    gone
        Called with the reason, in a sentence.
    """

    def __init__(
        self, viewer: Any, target: Target, layer: Labels, gone: Callable[[str], None]
    ) -> None:
        self._target, self._layers = target, (target.image, target.layer, layer)
        self._gone = gone
        self._emitters = (
            (viewer.layers.events.removed, self._removed),
            (target.image.events.data, self._replaced),
            (target.layer.events.data, self._replaced),
        )
        for emitter, callback in self._emitters:
            emitter.connect(callback)

    def close(self) -> None:
        """Watch no more."""
        for emitter, callback in self._emitters:
            emitter.disconnect(callback)

    def _removed(self, event: Any) -> None:
        if event.value in self._layers:
            self._gone(f"Click mode has ended: the layer {event.value.name!r} was removed.")

    def _replaced(self, event: Any) -> None:
        target = self._target
        if event.source is not target.layer or target.layer.data is not target.data:
            self._gone(f"Click mode has ended: there are other data in {event.source.name!r}.")
