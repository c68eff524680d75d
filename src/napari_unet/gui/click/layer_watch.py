"""What becomes of click mode from outside: its layers go away, or get other data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_unet.gui.click.target import Target


class LayerWatch:
    """Tells when what is clicked on, or into, is not there any more, or is another array.

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
    renewed
        Called with the target whose labels are other data that can be clicked into as well, such
        as the same in a larger type.
    """

    def __init__(
        self,
        viewer: Any,
        target: Target,
        layer: Labels,
        gone: Callable[[str], None],
        renewed: Callable[[Target], None],
    ) -> None:
        self._target, self._layers = target, (target.image, target.layer, layer)
        self._gone, self._renewed = gone, renewed
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
        target, what = self._target, f"there are other data in {event.source.name!r}."
        if event.source is not target.layer:
            self._gone(f"Click mode has ended: {what}")
        elif target.layer.data is not target.data:
            try:
                self._target = target.renewed()
            except InputError as error:
                self._gone(f"Click mode has ended: {what} {error}")
            else:
                self._renewed(self._target)
