"""The Link section of the panel: the objects of a Labels layer are followed through time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.settings.tasks import LinkSettings
from napari_unet.gui.jobs.layer_section import LayerSection
from napari_unet.gui.jobs.run import ResultRun
from napari_unet.gui.jobs.run_button import RunButton
from napari_unet.gui.layers.combos import as_choices, image_layers, object_layers, refresh_choices
from napari_unet.gui.layers.convert import full_resolution, layer_axes, voxel_size_um
from napari_unet.gui.layers.result_info import find_source_image
from napari_unet.gui.widgets.settings_form import SettingsForm

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import napari
    from napari.layers import Labels
    from qtpy.QtWidgets import QLabel

    from napari_unet.core.progress import Progress
    from napari_unet.core.tracking import Tracks

SECTION = "link"
FIELDS = {"link_by": "by", "reach": "", "divisions": ""}
_HINT = "Open the labels of a time-lapse."
_TIPS = {
    "labels": "The objects to follow. The first axis is time, whatever it is called, unless the\n"
    "axes are named otherwise.",
    "start": "Give each object the same number at all times, in a new layer, and draw the tracks.",
}


class LinkRun(ResultRun):
    """One linking: the objects of a Labels layer, followed in a job's thread.

    Parameters
    ----------
    viewer
        The window, in which the image of the labels is looked for.
    labels
        The layer.
    settings
        How objects are followed.
    progress, ended
        As for `ResultRun`; the result is what `_steps` returns.
    """

    def __init__(
        self,
        viewer: napari.Viewer,
        labels: Labels,
        settings: LinkSettings,
        progress: Callable[[Progress], None],
        ended: Callable[[LinkRun, str], None],
    ) -> None:
        super().__init__(progress, ended)
        self._viewer, self.labels, self.settings = viewer, labels, settings

    def _begin(self) -> Generator[Progress, None, Any]:
        layer = self.labels
        data, axes = full_resolution(layer), time_axes(layer)
        image = _image_of(self._viewer, layer, tuple(data.shape))
        return _steps(data, axes, self.settings, voxel_size_um(layer, axes), image)


class LinkSection(LayerSection):
    """Links the objects of a Labels layer through time.

    Attributes
    ----------
    labels
        The choice of a layer.
    form
        How objects are followed.
    """

    def __init__(self, viewer: napari.Viewer, label_width: int) -> None:
        super().__init__(viewer)
        self.labels: Any = ComboBox(name="labels", choices=self._choices, tooltip=_TIPS["labels"])
        self.form = SettingsForm(LinkSettings, FIELDS)
        rows = [("labels", self.labels), *self.form.rows()]
        self.build("Link through time", SECTION, rows, label_width, _HINT, self._button)

    def link(self) -> None:
        """Follow the chosen layer's objects in a job's thread, and show the result after that."""
        layer = self.labels.value
        if layer is None or self.active is not None:
            return
        try:
            settings = LinkSettings(**self.form.values())
        except UnetError as error:
            self.button.report(error)
            return
        self.button.launch(LinkRun, self._viewer, layer, settings)

    def _button(self, line: QLabel) -> RunButton:
        return RunButton(
            self,
            "Link",
            _TIPS["start"],
            doing="Linking …",
            failing="linking failed",
            line=line,
            start=self.link,
            show=self._show,
        )

    def _show(self, run: LinkRun) -> None:
        layer, tracks, axes = run.labels, run.result[1], run.result[2]
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
        self._viewer.add_labels(run.result[0], name=f"{layer.name} linked", **place)
        self._viewer.add_tracks(
            tracks.layer_table(axes), graph=tracks.graph, name=f"{layer.name} tracks", **place
        )
        parents = {parent for (parent,) in tracks.graph.values()}
        self.result.setText(
            f"{tracks.count} tracks, {len(parents)} division{'s' * (len(parents) != 1)}."
        )

    def _choices(self, *_: Any) -> list[tuple[str, Labels]]:
        return as_choices(la for la in object_layers(self._viewer) if la.ndim in (3, 4))

    def _refresh(self) -> None:
        refresh_choices(self.labels)

    @property
    def _possible(self) -> bool:
        return bool(self.labels.choices)


def time_axes(layer: Labels) -> str:
    """Return the axes of a layer that is a time-lapse: TYX or TZYX.

    Three axes without names are TYX here: who links says that the first one is time.

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
    """Return the data of the image that labels were found in; None if it is not there as such."""
    image = find_source_image(layer, image_layers(viewer))
    data = None if image is None else full_resolution(image)
    return data if data is not None and tuple(data.shape) == shape else None


def _steps(
    labels: Any, axes: str, settings: LinkSettings, voxel: Any, image: Any
) -> Generator[Progress, None, tuple[np.ndarray, Tracks, str]]:
    """Link, in the job's thread."""
    from napari_unet.nn.inference.linking import link_steps

    out = np.zeros(labels.shape, np.uint32)
    steps = link_steps(labels, axes, settings, out=out, voxel_size_um=voxel, image=image)
    tracks = yield from steps
    # napari draws uint16 without a copy.
    return (out.astype(np.uint16) if out.max(initial=0) < 2**16 else out), tracks, axes
