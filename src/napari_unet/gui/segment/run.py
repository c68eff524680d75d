"""A run of the Segment panel: the engine in its thread, its progress, its tiles in a Labels layer.

The engine writes into a `LiveLabels`, in the job's thread; what changed since the last drawing is
drawn in the window's thread when the panel's timer asks for it, so that a fast device does not
drown the window in drawings.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import InputError
from napari_unet.core.image.domain_shift import ShiftReport
from napari_unet.core.progress import FrameDone, Progress, TileDone, map_steps
from napari_unet.core.text import format_duration, pluralise
from napari_unet.core.volumes.volume_mode import get_mode_ndim, resolve_volume_mode
from napari_unet.gui.errors import describe_error
from napari_unet.gui.jobs.engine import get_features
from napari_unet.gui.jobs.job import CANCELLED, DONE, FAILED
from napari_unet.gui.jobs.run_button import ResultRun
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.live_labels import LiveLabels, draw_part
from napari_unet.gui.layers.navigation import WHOLE, NearestFirst, get_visible_region, plan_region
from napari_unet.gui.layers.overlay_layer import remove_layer
from napari_unet.gui.layers.result_info import empty_labels, labels_checksum, seal_result
from napari_unet.gui.segment.result_layer import EditsKnown, ResultLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari.layers import Image, Labels

    from napari_unet.core.image.domain_shift import ShiftRemark
    from napari_unet.core.tiles import Index, Window
    from napari_unet.gui.jobs.engine import Engine, Request

MAX_PARTS = 16
"""More new tiles than this are drawn faster by refreshing the whole plane."""


class SegmentRun(ResultRun):
    """What runs in memory and runs in blocks share: progress, remarks, and the layer they fill.

    A subclass implements `_begin` and `_leave_layer`.

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

    Attributes
    ----------
    layer
        The Labels layer; None until there is something to show.
    progress
        The last report.
    remarks
        What is unusual about the image.
    lost
        Whether the user removed the layer, which ends the run.
    """

    def __init__(
        self,
        viewer: Any,
        image: Image,
        request: Request,
        engine: Engine,
        ended: Callable[[SegmentRun, str], None],
    ) -> None:
        super().__init__(self._begin, self._take, ended)
        self.viewer, self.image, self.request = viewer, image, request
        self.layer: Labels | None = None
        self.progress = Progress(0, 0, "waiting")
        self.remarks: tuple[ShiftRemark, ...] = ()
        self.lost = False
        self._engine = engine
        self._placement: Placement | None = None
        self._dirty: list[tuple[Index, Window]] = []
        self._eta = Eta()

    def describe(self) -> str:
        """Return the progress as a line: tiles, tiles a second, time left."""
        return self._eta.describe(self.progress)

    def summary(self, state: str) -> str:
        """Return how the run ended, as a line."""
        if state == FAILED:
            return "" if self.error is None else describe_error(self.error)
        if state == CANCELLED:
            if self.lost:
                return "Stopped, for the result's layer was removed."
            done = self.progress.done
            return f"Cancelled; {done} finished tiles stay." if done else "Cancelled."
        count = getattr(self.result, "objects", 0)
        return f"{pluralise(count, 'object')} in {self._eta.seconds:.1f} s."

    @property
    def details(self) -> str:
        """How a finished run was computed, for who wants to know; "" before its end."""
        provenance = getattr(self.result, "provenance", None)
        if not provenance:
            return ""
        seam = provenance.get("seam")
        parts = [
            f"Computed on {provenance.get('device', 'cpu')}, as "
            f"{provenance.get('precision', 'float32')}.",
            "Seams between tiles were not checked."
            if seam is None
            else f"Largest difference at seams between tiles: {f'{seam:.1e}' if seam else 0}.",
        ]
        return "\n".join(parts)

    def draw(self) -> None:
        """Draw what came since the last drawing."""
        dirty, self._dirty = self._dirty, []
        if self.layer is None or not dirty:
            return
        if self.layer.editable:  # napari makes it so when the view changes between 2D and 3D
            self.layer.editable = False
        if not self._draw_parts(self.layer, dirty):
            self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _draw_parts(self, layer: Labels, dirty: list[tuple[Index, Window]]) -> bool:
        """Draw only what changed; return False where the whole layer must be refreshed."""
        return False

    def _begin(self) -> Generator[Any, None, Any]:
        """Plan the run and open its layer, in the window's thread; return the work itself."""
        raise NotImplementedError

    def _take(self, item: Progress) -> None:
        """Note a report, and which part of the labels has changed."""
        self.progress = item
        if isinstance(item, ShiftReport):
            self.remarks = item.remarks
        elif window := getattr(item, "window", ()):
            self._eta.tick(item.done)
            self._dirty.append((getattr(item, "index", ()), window))

    def _end(self, state: str) -> None:
        """Leave the layer in order, whatever ended the run, and drop all that is large."""
        try:
            self._leave_layer(state)
        finally:
            self._placement = None
            self._dirty = []
            super()._end(state)

    def _leave_layer(self, state: str) -> None:
        """Show the final labels, or those that there are."""
        raise NotImplementedError

    def _watch(self, on: bool) -> None:
        """Notice when the layer is removed; connect the callbacks, or disconnect them."""
        self._follow(self.viewer.layers.events.removed, self._removed, on)

    @staticmethod
    def _follow(emitter: Any, callback: Callable[..., None], on: bool) -> None:
        if on:
            emitter.connect(callback)
        else:
            emitter.disconnect(callback)

    def _removed(self, event: Any) -> None:
        if event.value == self.layer:
            self.lost = True
            self.cancel()


class InMemoryRun(SegmentRun):
    """A run whose labels are held in memory; see `SegmentRun`.

    What the user looks at comes first, also when they turn to another place meanwhile.
    """

    _live: LiveLabels | None = None
    _opening: ResultLayer | None = None
    _checksum: int | None = None
    _ndim = 2
    _here: Index = ()
    _focus: tuple[float, ...] | None = None

    def _begin(self) -> Generator[Any, None, Any]:
        image, request = self.image, self.request
        stack, axes = layer_stack(image), layer_axes(image)
        if request.ndim == 3 and "Z" not in axes:
            raise InputError(
                f"The model {request.model!r} needs volumes, but {image.name!r} has no z axis "
                f"({axes}); choose a model for planes."
            )
        view = get_visible_region(self.viewer, image, axes)
        mode = resolve_volume_mode(request.settings.volumes, request.ndim, "instance", stack)
        self._ndim = get_mode_ndim(mode)
        frames, window = plan_region(request.region, view, stack, self._ndim, image.name)
        shape = full_resolution(image).shape
        placement = Placement(axes, stack.labels_axes, tuple(shape))
        array = empty_labels(stack.labels_shape)
        self._placement = placement
        self._live = live = LiveLabels(array, min(self._ndim, array.ndim), window)
        name = f"{image.name} {request.model}"
        self._opening = opening = ResultLayer(self.viewer, image, name, placement, live)
        self.layer = opening.layer
        self._follow_view()
        self._watch(True)
        self._eta = Eta()  # waiting for another run was not this one's time
        work = self._engine(
            stack,
            request,
            out=live,
            focus=lambda: self._focus,
            what=NearestFirst(frames, lambda: self._here),
            window=window,
            features=get_features(image),
        )
        return self._show_live(opening.steps(), work, live, placement)

    def _show_live(
        self,
        opening: Generator[Any, None, None],
        work: Generator[Any, None, Any],
        live: LiveLabels,
        placement: Placement,
    ) -> Generator[Any, None, Any]:
        """Copy each tile and each finished frame into the layer's array, in the job's thread."""

        def shown(item: Any) -> Any:
            if isinstance(item, TileDone) and item.labels is not None:
                live.preview(item.index, item.window, item.labels)
                return replace(item, labels=None)
            if isinstance(item, FrameDone):
                live.finish(item.index)
            return item

        try:
            yield from opening
            return (yield from map_steps(work, shown))
        finally:
            work.close()  # the engine joins the objects of the tiles that it has, if cancelled, too
            live.finish_all()
            if not live.untouched:
                self._checksum = labels_checksum(placement.to_layer(live.array))

    def _take(self, item: Progress) -> None:
        super()._take(item)
        if isinstance(item, EditsKnown) and self._opening is not None:
            self._opening.answer(item)
            self.layer = self._opening.layer
        if isinstance(item, FrameDone) and self._live is not None:
            size = self._live.shape[self._live.leading :]
            window = self._live.window or tuple(slice(0, n) for n in size)
            self._dirty.append((item.index, window))

    def _draw_parts(self, layer: Labels, dirty: list[tuple[Index, Window]]) -> bool:
        live, placement = self._live, self._placement
        if live is None or placement is None:
            return True
        if live.array.dtype != layer.data.dtype:
            layer.data = placement.to_layer(live.array)  # grown to uint32; there is no history
            return True
        if len(dirty) > MAX_PARTS:
            return False
        places = [placement.at(index, window) for index, window in dirty]
        return all(draw_part(self.viewer, layer, place) for place in places)

    def _end(self, state: str) -> None:
        try:
            super()._end(state)
        finally:
            if self._opening is not None:
                self._opening.close()
            self._live = self._opening = None

    def _leave_layer(self, state: str) -> None:
        if self._placement is not None:
            self._watch(False)
        layer, opening = self.layer, self._opening
        if layer is None or opening is None or layer not in self.viewer.layers:
            return
        untouched = self._live is None or self._live.untouched
        if opening.is_new and state != DONE and untouched:
            remove_layer(self.viewer, layer)
            return
        self.draw()
        provenance = getattr(self.result, "provenance", None) if state == DONE else None
        if provenance is not None and self.request.region != WHOLE:
            provenance = {**provenance, "region": self.request.region}
        checksum = opening.checksum if untouched else self._checksum
        seal_result(layer, provenance, self.request.region == WHOLE, checksum)

    def _watch(self, on: bool) -> None:
        super()._watch(on)
        self._follow(self.viewer.scene.camera.events.center, self._follow_view, on)
        self._follow(self.viewer.dims.events.point, self._follow_view, on)

    def _follow_view(self, *_: Any) -> None:
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


class Eta:
    """How fast a run goes, and how long it will still take."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    def tick(self, done: int) -> None:
        """Note that so many tiles are done now."""
        self._last = (time.perf_counter(), done)
        self._first = self._first or self._last

    def rate(self) -> float:
        """Return tiles a second; 0 until the second one, as the first waited for the model."""
        if self._first is None or self._last is None:
            return 0.0
        (start, before), (end, done) = self._first, self._last
        return (done - before) / (end - start) if end > start else 0.0

    def describe(self, progress: Progress) -> str:
        """Return tiles, tiles a second and time left, as far as they are known."""
        if reason := getattr(progress, "reason", ""):  # a server that does not answer
            return f"{reason[:1].upper()}{reason[1:]} …"
        if not progress.total:
            return f"{progress.what[:1].upper()}{progress.what[1:]} …"
        parts = [f"{progress.done} of {progress.total} {progress.what}"]
        if rate := self.rate():
            parts.append(f"{rate:.1f} tiles/s")
            parts.append(f"{format_duration((progress.total - progress.done) / rate)} left")
        return " · ".join(parts)
