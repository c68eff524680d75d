"""One run of the Segment panel: the engine in its thread, its tiles in the Labels layer.

The engine writes into a `LiveLabels`, in the job's thread; what changed since the last drawing is
drawn in the window's thread when the panel's timer asks for it, so that a fast device does not
drown the window in drawings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import InputError
from napari_unet.core.image.domain_shift import ShiftReport
from napari_unet.core.progress import FrameDone, Progress, TileDone
from napari_unet.core.volumes.modes import get_mode_ndim, resolve_volume_mode
from napari_unet.gui.jobs.embeddings import features_of
from napari_unet.gui.jobs.eta import Eta
from napari_unet.gui.jobs.job import CANCELLED, DONE, FAILED
from napari_unet.gui.jobs.run import ResultRun
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.live_labels import LiveLabels, draw_part
from napari_unet.gui.layers.navigation import WHOLE, NearestFirst, get_visible_region, plan_region
from napari_unet.gui.layers.result_info import open_result, seal_result
from napari_unet.gui.widgets.settings_form import sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Image, Labels

    from napari_unet.core.image.domain_shift import ShiftRemark
    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.jobs.engine import Engine, Request


class SegmentRun(ResultRun):
    """One run: the layer that it fills, and what there is to say about it.

    Parameters
    ----------
    viewer, image
        The window and the image layer to segment.
    request
        What to do.
    engine
        `engine_steps`, or something with its arguments.
    ended
        As for `ResultRun`; the layer is in order by then.
    """

    def __init__(
        self,
        viewer: Any,
        image: Image,
        request: Request,
        engine: Engine,
        ended: Callable[[SegmentRun, str], None],
    ) -> None:
        super().__init__(self._take, ended)
        self.viewer, self.image, self.request = viewer, image, request
        self.layer: Labels | None = None
        self.progress = Progress(0, 0, "waiting")
        self._engine = engine
        self._live: LiveLabels | None = None
        self._placement: Placement | None = None
        self._is_new = False
        self._ndim = request.ndim
        self.lost = False
        self.remarks: tuple[ShiftRemark, ...] = ()
        self._dirty: list[tuple[Index, Window]] = []
        self._pace = Eta()
        self._here: Index = ()
        self._focus: tuple[float, ...] | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return self._pace.seconds

    def describe(self) -> str:
        """Return the progress as a line: tiles, tiles a second, time left."""
        return self._pace.describe(self.progress)

    def follow_view(self, *_: Any) -> None:
        """Note what the user looks at, for the order of the tiles and frames."""
        if self._placement is None or self._live is None:
            return
        if self.viewer.dims.ndim < self.image.ndim:
            return  # the layers are being removed
        view = get_visible_region(self.viewer, self.image, self._placement.axes)
        leading = self._placement.labels_axes[: self._live.leading]
        self._here = tuple(view.position[letter] for letter in leading)
        depth = [view.position["Z"]] if self._ndim == 3 else []
        self._focus = (*depth, *view.centre)

    def summary(self, state: str) -> str:
        """Return how the run ended, as a line."""
        if state == FAILED:
            return "" if self.error is None else sentence(self.error)
        if state == CANCELLED:
            if self.lost:
                return "Stopped, for the result's layer was removed."
            done = self.progress.done
            return f"Cancelled; {done} finished tiles stay." if done else "Cancelled."
        provenance = getattr(self.result, "provenance", {})
        count = getattr(self.result, "objects", 0)
        seam = provenance.get("seam")
        return " ".join(
            (
                f"{count} object{'s' * (count != 1)} in {self.seconds:.1f} s",
                f"({provenance.get('device', 'cpu')}, {provenance.get('precision', 'float32')}).",
                "Seams not checked."
                if seam is None
                else f"Largest difference at seams: {f'{seam:.1e}' if seam else 0}.",
            )
        )

    def draw(self) -> None:
        """Draw what came since the last drawing."""
        dirty, self._dirty = self._dirty, []
        layer, live, placement = self.layer, self._live, self._placement
        if layer is None or live is None or placement is None or not dirty:
            return
        if layer.editable:  # switching between 2D and 3D makes it so
            layer.editable = False
        if live.array.dtype != layer.data.dtype:
            layer.data = placement.to_layer(live.array)  # grown to uint32; there is no history
            return
        places = [placement.at(index, window) for index, window in dirty]
        if len(places) > 16 or not all(draw_part(self.viewer, layer, place) for place in places):
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _begin(self) -> Generator[Any, None, Any]:
        """Plan the run and open its layer, in the window's thread; return the work itself."""
        image, request = self.image, self.request
        stack, axes = layer_stack(image), layer_axes(image)
        if request.ndim == 3 and "Z" not in axes:
            raise InputError(
                f"The model {request.model!r} needs volumes, but {image.name!r} has no z axis "
                f"({axes}); choose a model for planes."
            )
        view = get_visible_region(self.viewer, image, axes)
        way = resolve_volume_mode(request.settings.volumes, request.ndim, "instance", stack)
        self._ndim = get_mode_ndim(way)
        frames, window = plan_region(request.region, view, stack, self._ndim, image.name)
        shape = full_resolution(image).shape
        placement = Placement(axes, stack.labels_axes, tuple(shape))
        self.layer, array, self._is_new = open_result(
            self.viewer, image, request.model, placement, stack.labels_shape
        )
        self._placement = placement
        self._live = LiveLabels(array, min(self._ndim, array.ndim), window)
        self.follow_view()
        self._watch(True)
        self._pace = Eta()
        work = self._engine(
            stack,
            request,
            out=self._live,
            focus=lambda: self._focus,
            what=NearestFirst(frames, lambda: self._here),
            window=window,
            features=features_of(image),
        )
        return _show(work, self._live)

    def _take(self, item: Progress) -> None:
        self.progress = item
        if isinstance(item, ShiftReport):
            self.remarks = item.remarks
        elif isinstance(item, TileDone):
            self._pace.tick(item.done)
            self._dirty.append((item.index, item.window))
        elif isinstance(item, FrameDone) and self._live is not None:
            size = self._live.shape[self._live.leading :]
            window = self._live.window or tuple(slice(0, n) for n in size)
            self._dirty.append((item.index, window))

    def _end(self, state: str) -> None:
        """Leave the layer in order, whatever ended the run, and let go of all that is large."""
        try:
            self._leave_layer(state)
        finally:
            self._live = self._placement = None
            self._dirty = []
            super()._end(state)

    def _leave_layer(self, state: str) -> None:
        if self._placement is not None:
            self._watch(False)
        layer = self.layer
        if layer is None or layer not in self.viewer.layers:
            return
        if self._is_new and state != DONE and self._nothing_shown():
            self.viewer.layers.remove(layer)
            return
        self.draw()
        provenance = getattr(self.result, "provenance", None) if state == DONE else None
        seal_result(layer, provenance, self.request.region == WHOLE)

    def _nothing_shown(self) -> bool:
        return self._live is None or self._live.untouched

    def _watch(self, on: bool) -> None:
        """Follow the view and the layer, or stop following them."""
        viewer = self.viewer
        pairs = (
            (viewer.scene.camera.events.center, self.follow_view),
            (viewer.dims.events.point, self.follow_view),
            (viewer.layers.events.removed, self._removed),
        )
        for emitter, callback in pairs:
            if on:
                emitter.connect(callback)
            else:
                emitter.disconnect(callback)

    def _removed(self, event: Any) -> None:
        if event.value == self.layer:
            self.lost = True
            self.cancel()


def _show(work: Generator[Any, None, Any], live: LiveLabels) -> Generator[Any, None, Any]:
    """Copy each tile and each finished frame into the layer's array, in the job's thread."""
    try:
        while True:
            try:
                item = next(work)
            except StopIteration as stop:
                return stop.value
            if isinstance(item, TileDone) and item.labels is not None:
                live.preview(item.index, item.window, item.labels)
                item = replace(item, labels=None)
            elif isinstance(item, FrameDone):
                live.finish(item.index)
            yield item
    finally:
        work.close()  # the engine joins the objects of the tiles that it has, even when cancelled
        live.finish_all()
