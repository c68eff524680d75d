"""The Link section of the Segment panel: follows the objects of a Labels layer through time."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Labels

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.settings.tasks import LinkSettings
from napari_unet.gui.jobs.run_button import LayerSection, ResultRun
from napari_unet.gui.layers.combos import as_choices, image_layers, object_layers, refresh_choices
from napari_unet.gui.layers.convert import full_resolution, layer_axes, unwrap, voxel_size_um
from napari_unet.gui.layers.edits import EditCheck
from napari_unet.gui.layers.overlay_layer import remove_layer
from napari_unet.gui.layers.result_info import (
    RESULT_KEY,
    ResultInfo,
    find_source_image,
    is_unedited,
    labels_checksum,
    update_info,
)
from napari_unet.gui.widgets.settings_form import SettingsForm

if TYPE_CHECKING:
    from collections.abc import Generator

    import napari

    from napari_unet.core.progress import Progress
    from napari_unet.core.tracking import Tracks

SECTION = "link"
_LINKED = "linked"  # key in the metadata of a layer that Link made: the id of the linked layer
FIELDS = {"link_by": "by", "reach": "", "divisions": ""}
_HINT = "Open the labels of a time-lapse."
_TIPS = {
    "labels": "The objects to follow. The first axis is time, whatever it is called, unless the\n"
    "axes are named otherwise.",
    "start": "Give each object the same number at all times, in a new layer, and draw the tracks.",
}


@dataclass(frozen=True)
class LinkedLabels:
    """The objects of a Labels layer, numbered by track.

    Attributes
    ----------
    layer
        The layer whose objects were followed.
    labels
        uint16 or uint32, its shape: objects of a track have the same number at all times.
    tracks
        The tracks.
    axes
        TYX or TZYX.
    checksum
        Of `labels`.
    earlier
        Which labels that Link made of the layer before were edited.
    """

    layer: Labels
    labels: np.ndarray
    tracks: Tracks
    axes: str
    checksum: int
    earlier: EditCheck


class LinkSection(LayerSection):
    """Links the objects of a Labels layer through time.

    Attributes
    ----------
    labels
        The choice of a layer.
    form
        The settings of the linking.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self.labels: Any = ComboBox(name="labels", choices=self._choices, tooltip=_TIPS["labels"])
        self.form = SettingsForm(LinkSettings, FIELDS)
        self.build(
            "Link through time",
            SECTION,
            [("labels", self.labels), *self.form.rows()],
            _HINT,
            text="Link",
            tip=_TIPS["start"],
            doing="Linking …",
            failing="linking failed",
        )

    def run(self) -> None:
        """Follow the chosen layer's objects in a job's thread, and show the result at the end."""
        layer = self.labels.value
        if layer is None or self.active is not None:
            return
        try:
            settings = LinkSettings(**self.form.values())
        except UnetError as error:
            self.button.report(error)
            return
        begin = functools.partial(begin_linking, self._viewer, layer, settings)
        self.button.launch(ResultRun, begin)

    def _show(self, run: ResultRun) -> None:
        found: LinkedLabels = run.result
        layer, tracks = found.layer, found.tracks
        if layer not in self._viewer.layers:
            return
        if not len(tracks.table):
            self.result.setText(f"There are no objects in {layer.name!r}.")
            return
        place = {
            "scale": layer.scale,
            "translate": layer.translate,
            "units": layer.units,
            "axis_labels": layer.axis_labels,
        }
        self._remove_earlier(found)
        mark = {RESULT_KEY: {_LINKED: str(layer.unique_id)}}
        linked = self._viewer.add_labels(
            found.labels, name=f"{layer.name} linked", metadata=mark, **place
        )
        update_info(unwrap(linked), checksum=found.checksum)
        self._viewer.add_tracks(
            tracks.layer_table(found.axes),
            graph=tracks.graph,
            name=f"{layer.name} tracks",
            metadata={RESULT_KEY: {_LINKED: str(layer.unique_id)}},
            **place,
        )
        parents = {parent for (parent,) in tracks.graph.values()}
        self.result.setText(
            f"{tracks.count} tracks, {len(parents)} division{'s' * (len(parents) != 1)}."
        )

    def _remove_earlier(self, found: LinkedLabels) -> None:
        """Remove what an earlier run made of a layer, unless the user has edited it."""
        unedited = found.earlier.unedited()
        found.earlier.close()
        for other in _linked_layers(self._viewer, found.layer):
            same = other in unedited or not isinstance(other, Labels)
            # A slider that moved counts as touched: such layers are looked at once more.
            if same or is_unedited(other, ResultInfo.from_layer(other)):
                remove_layer(self._viewer, other)

    def _choices(self, *_: Any) -> list[tuple[str, Labels]]:
        return as_choices(la for la in object_layers(self._viewer) if la.ndim in (3, 4))

    def _refresh(self) -> None:
        refresh_choices(self.labels)

    @property
    def _possible(self) -> bool:
        return bool(self.labels.choices)


def _linked_layers(viewer: Any, layer: Labels) -> list[Any]:
    """Return the layers that Link made of a layer: labels and tracks."""
    own, layers = str(layer.unique_id), list(viewer.layers)
    return [x for x in layers if x.metadata.get(RESULT_KEY, {}).get(_LINKED) == own]


def time_axes(layer: Labels) -> str:
    """Return the axes of a layer that is a time-lapse: TYX or TZYX.

    Three axes without names are TYX here: whoever links objects means that the first one is time.

    Raises
    ------
    InputError
        The axes are others.
    """
    axes = layer_axes(layer)
    if axes == "ZYX" and "z" not in "".join(layer.axis_labels).casefold():
        axes = "TYX"
    if axes not in ("TYX", "TZYX"):
        raise InputError(
            f"{layer.name!r} has the axes {axes}; objects are followed in TYX and TZYX, so name "
            "the axes of the layer, or move time to the front."
        )
    return axes


def _image_of(viewer: Any, layer: Labels, shape: tuple[int, ...]) -> Any:
    """Return the image that labels were made from; None if it is closed, or has other axes."""
    image = find_source_image(layer, image_layers(viewer))
    data = None if image is None else full_resolution(image)
    return data if data is not None and tuple(data.shape) == shape else None


def begin_linking(
    viewer: napari.Viewer, layer: Labels, settings: LinkSettings
) -> Generator[Progress, None, LinkedLabels]:
    """Read a layer, in the window's thread; return the work that links its objects.

    Raises
    ------
    InputError
        The layer is no time-lapse.
    """
    data, axes = full_resolution(layer), time_axes(layer)
    image = _image_of(viewer, layer, tuple(data.shape))
    voxel_size = voxel_size_um(layer, axes)
    earlier = EditCheck([x for x in _linked_layers(viewer, layer) if isinstance(x, Labels)])

    def steps() -> Generator[Progress, None, LinkedLabels]:
        from napari_unet.nn.inference.linking import link_steps

        out = np.zeros(data.shape, np.uint32)
        tracks = yield from link_steps(
            data, axes, settings, out=out, voxel_size_um=voxel_size, image=image
        )
        if out.max(initial=0) < 2**16:
            out = out.astype(np.uint16)  # napari shows uint16 without a copy
        yield from earlier.steps()
        return LinkedLabels(layer, out, tracks, axes, labels_checksum(out), earlier)

    return steps()
