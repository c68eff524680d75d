"""The labels that clicks go into: how they lie on the image, and the changes made to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.instances.label_edits import check_writable
from napari_unet.core.io.axes import OBJECT_AXES
from napari_unet.core.prompts.rays import Ray
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.gui.layers.label_geometry import find_label_geometry, get_label_geometry
from napari_unet.gui.layers.live_labels import LIVE_DTYPE, set_labels
from napari_unet.gui.layers.result_info import ResultInfo, add_labels, update_info
from napari_unet.gui.shared_inputs import quick_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.layers import Image

    from napari_unet.core.instances.label_edits import LabelEdit
    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.prompts.clicks import Click
    from napari_unet.gui.correct.edit_tracker import EditTracker
    from napari_unet.gui.correct.layer_recording import Clicks
    from napari_unet.gui.layers.label_geometry import LabelGeometry


@dataclass(frozen=True)
class Pointed:
    """Where the mouse is.

    Attributes
    ----------
    position
        In the world.
    direction
        In a 3D view, the direction in which the user looks, in the world; None in a 2D view.
    """

    position: tuple[float, ...]
    direction: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class ClickTarget:
    """Labels, and the image that they belong to.

    Attributes
    ----------
    image, layer
        The layers.
    geometry
        How the labels lie on the image.
    data
        The labels' array as it was when clicking began.
    """

    image: Image
    layer: Labels
    geometry: LabelGeometry
    data: Any

    @property
    def array(self) -> Any:
        """The labels in the order T, Z, Y, X."""
        return self.geometry.array(self.data)

    def place(self, viewer: Any, position: Sequence[float]) -> tuple[float, ...]:
        """Return a position in the world as one in the labels, in the order T, Z, Y, X.

        Along an axis with a slider it is rounded to the plane in view.
        """
        layer = self.layer
        here = np.array(layer.world_to_data(position), float)
        first = viewer.dims.ndim - layer.ndim
        for axis in range(layer.ndim):
            if axis + first not in viewer.dims.displayed:
                here[axis] = np.round(here[axis])
        return tuple(float(here[axis]) for axis in self.geometry.order)

    def ray(self, viewer: Any, pointed: Pointed) -> Ray | None:
        """Return the line of sight in a 3D view, through the labels; None if it passes them by."""
        layer, offset = self.layer, viewer.dims.ndim - self.layer.ndim
        shown = [axis - offset for axis in viewer.dims.displayed]
        near, far = layer.get_ray_intersections(pointed.position, pointed.direction, shown)
        if near is None or far is None:
            return None
        return Ray(
            tuple(float(near[axis]) for axis in self.geometry.order),
            tuple(float(far[axis]) for axis in self.geometry.order),
        )

    def renewed(self) -> ClickTarget:
        """Return the target with the data that the layer has now.

        Raises
        ------
        InputError
            They have another shape, or cannot be changed.
        """
        now, before = self.layer.data.shape, self.data.shape
        if now != before:
            raise InputError(f"Their shape is {now}, and was {before}; turn click mode on again.")
        _check_data(self.layer)
        found = replace(self, data=self.layer.data)
        _ = found.array  # raises if its axes cannot be put into order
        return found

    def check(self) -> None:
        """Raise InputError if the labels cannot be changed now."""
        layer = self.layer
        if ResultInfo.from_layer(layer).running:
            raise InputError(
                f"Segment is writing into the labels {layer.name!r}; wait for it, or cancel it."
            )
        if not layer.editable:
            raise InputError(f"The labels {layer.name!r} cannot be edited; choose others.")

    def apply(self, change: LabelEdit, tracker: EditTracker, source: str, clicks: Clicks) -> None:
        """Make a change to the layer, as one step of napari's history and of the journal.

        Parameters
        ----------
        source, clicks
            For the journal: what made the change.

        Raises
        ------
        InputError
            The labels cannot be changed now.
        """
        self.check()
        where, _, after = change.pixels()
        if not len(after):
            return
        span = self.geometry.place(tuple((w.start, w.stop) for w in change.window))
        if change.label and _reaches_through_planes(span, self.geometry):
            grown = ResultInfo.from_layer(self.layer).grown or []
            update_info(self.layer, grown=[*grown, int(change.label)])
        with tracker.begin_recording(self.layer).with_source(source, clicks):
            set_labels(self.layer, self.geometry.to_layer(where), after)

    def settings(self, card: ModelCard) -> PredictSettings:
        """Return the settings for the model: those of the labels, if it made them."""
        provenance = ResultInfo.from_layer(self.layer).provenance or {}
        usual = quick_settings(self.image)
        if provenance.get("model_hash") != card.hash:
            return usual
        try:
            made = PredictSettings(**provenance["settings"])
        except (KeyError, SettingsError, TypeError):
            return usual
        diameter = provenance.get("diameter_px", made.diameter)
        return replace(made, diameter=diameter, diameter_um=None, certify=False, survey=False)

    def is_volume(self, click: Click, ndim: int) -> bool:
        """Return whether the object under a click is one in 3D, or one of a single plane.

        Parameters
        ----------
        ndim
            The clicking model's.
        """
        info, array = ResultInfo.from_layer(self.layer), self.array
        inside = all(0 <= p < n for p, n in zip(click.pixel, array.shape, strict=True))
        label = int(np.asarray(array[click.pixel])) if inside else 0
        object_axes = (info.provenance or {}).get(OBJECT_AXES)
        return bool(ndim == 3 or label in (info.grown or ()) or object_axes in (None, "ZYX"))


class LayerWatch:
    """Notices when the image or the labels are removed, or get other data.

    Parameters
    ----------
    target
        The image and the labels.
    layer
        The layer of click mode itself.
    gone
        Called with the reason, in a sentence.
    renewed
        Called with a new target, if the labels' other data can be clicked into as well: the same
        in a larger type, for instance.
    """

    def __init__(
        self,
        viewer: Any,
        target: ClickTarget,
        layer: Labels,
        gone: Callable[[str], None],
        renewed: Callable[[ClickTarget], None],
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


def open_target(
    viewer: Any, image: Image, layer: Labels | None, tracker: EditTracker, card: ModelCard
) -> ClickTarget:
    """Prepare labels for clicks, or add empty ones.

    Parameters
    ----------
    layer
        None: a new one is added.
    tracker
        Records the layer from then on.
    card
        Of the model that answers the clicks.

    Raises
    ------
    InputError
        The labels do not fit the image, are taken for those of another, lie elsewhere in the world,
        or cannot be changed.
    """
    if layer is None:
        layer = _new_labels(viewer, image, card)
    target = ClickTarget(image, layer, find_label_geometry(image, layer), layer.data)
    target.check()
    _check_data(layer)
    _check_place(target)
    _check_image(target, tracker)
    _ = target.array  # raises if its axes cannot be put into order
    if not tracker.model:
        tracker.model = card.name  # which labels of unknown origin teach
    tracker.watch(layer, image)
    return target


def _new_labels(viewer: Any, image: Image, card: ModelCard) -> Labels:
    geometry = get_label_geometry(image)
    try:
        empty = np.zeros(geometry.stack.labels_shape, LIVE_DTYPE)
    except (MemoryError, ValueError) as error:
        size = " x ".join(map(str, geometry.stack.labels_shape))
        raise InputError(
            f"Labels of {size} pixels do not fit into memory; choose labels that lie in a file."
        ) from error
    # Each id is used once in the whole stack, so an object may reach through planes.
    axes = "ZYX" if "Z" in geometry.stack.labels_axes else "YX"
    provenance = {"model": card.name, "model_hash": card.hash, OBJECT_AXES: axes}
    info, data = ResultInfo(provenance=provenance), geometry.placement.to_layer(empty)
    return add_labels(viewer, data, image, f"{image.name} clicks", geometry.placement, info)


def _check_data(layer: Labels) -> None:
    """Raise InputError if a layer's data cannot be changed at all."""
    if layer.data.dtype.kind not in "ui":
        raise InputError(f"The labels {layer.name!r} are {layer.data.dtype}; choose whole numbers.")
    if type(layer.data).__module__.split(".")[0] == "dask":
        raise InputError(
            f"The labels {layer.name!r} are a dask array, which cannot be changed; convert them to "
            "a plain array (numpy.asarray), or choose others."
        )
    try:
        check_writable(layer.data)
    except InputError as error:
        raise InputError(f"{layer.name!r}: {error}") from error


def _check_place(target: ClickTarget) -> None:
    """Raise InputError if the labels do not lie where the image does, to a pixel.

    A click is on what is seen of the image, and its answer is seen where the labels lie.
    """
    layer, image = target.layer, target.image
    wanted = target.geometry.placement.geometry(image)
    if len(wanted["scale"]) != layer.ndim:
        return  # channels lie between the axes: napari does not line the two up
    like = Labels(np.zeros((1,) * layer.ndim, np.uint8), **wanted)
    last = np.array(layer.data.shape) - 1
    for corner in (0 * last, last):
        away = np.array(like.world_to_data(layer.data_to_world(corner))) - corner
        if np.abs(away).max() > 1:
            raise InputError(
                f"The labels {layer.name!r} do not lie on the image {image.name!r}: their scale or "
                "translation is another. Copy that of the image to them (right click in the layer "
                "list, Copy scale and transforms), or choose others."
            )


def _check_image(target: ClickTarget, tracker: EditTracker) -> None:
    """Raise InputError if the labels are, or are taken for, those of another image that is open."""
    image, layer = target.image, target.layer
    own = tracker.get_image(layer)
    if own is not None and own is not image and not tracker.may_belong(layer, image):
        raise InputError(
            f"The labels {layer.name!r} are taken for those of {own.name!r}; choose that image, or "
            f"labels of {image.name!r}."
        )


def _reaches_through_planes(span: tuple[slice, ...], geometry: LabelGeometry) -> bool:
    """Return whether a window of the layer holds more than one plane along Z."""
    found = dict(zip(geometry.placement.shown, span, strict=True))
    depth = found.get("Z", slice(0, 1))
    return bool(depth.stop - depth.start > 1)
