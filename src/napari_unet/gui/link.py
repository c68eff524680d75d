"""The Link section of the panel: the objects of a Labels layer are followed through time."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox, PushButton
from napari.layers import Image, Labels
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_unet.core.linking import LinkSettings
from napari_unet.core.spec import InputError, Progress, UnetError
from napari_unet.gui.errors import tell
from napari_unet.gui.folds import Fold
from napari_unet.gui.forms import SettingsForm, remember, remembered, rows_widget
from napari_unet.gui.hits import is_hits_layer
from napari_unet.gui.job import CANCELLED, HOST, Job, abandon_all, slot_for
from napari_unet.gui.layers import full_resolution, layer_axes, voxel_size_um
from napari_unet.gui.result import IMAGE, MARK

if TYPE_CHECKING:
    from collections.abc import Generator

    import napari

    from napari_unet.core.tracks import Tracks

SECTION = "link"
FIELDS = {"link_by": "by", "reach": "", "divisions": ""}
_HINT = "Open the labels of a time-lapse."
_TIPS = {
    "labels": "The objects to follow. The first axis is time, whatever it is called, unless the\n"
    "axes are named otherwise.",
    "start": "Give each object the same number at all times, in a new layer, and draw the tracks.",
}


class LinkSection(QWidget):
    """Links the objects of a Labels layer through time; folded away at first.

    Attributes
    ----------
    labels
        The choice of a layer.
    form
        How objects are followed.
    start
        The button: "Link", or "Cancel" while it goes on.
    result
        What was found, or why not.
    active
        The job that waits or goes on, None if there is none.
    """

    def __init__(self, viewer: napari.Viewer, label_width: int) -> None:
        super().__init__()
        self._viewer = viewer
        self.active: Job | None = None
        self._jobs: list[Job] = []
        self._build(label_width)
        events = viewer.layers.events
        for event in (events.inserted, events.removed, events.renamed):
            event.connect(self._layers_changed)
        self.start.changed.connect(self._pressed)
        self.fold.toggled.connect(self._remember)
        self.destroyed.connect(functools.partial(abandon_all, self._jobs))
        self._layers_changed()

    def _build(self, label_width: int) -> None:
        self.labels: Any = ComboBox(name="labels", choices=self._choices, tooltip=_TIPS["labels"])
        self.form = SettingsForm(LinkSettings, FIELDS)
        self.start: Any = PushButton(text="Link", tooltip=_TIPS["start"])
        self.result = QLabel(_HINT)
        self.result.setWordWrap(True)
        rows: list[tuple[str, Any]] = [("labels", self.labels), *self.form.rows()]
        inside = QWidget()
        content = QVBoxLayout(inside)
        content.setContentsMargins(0, 0, 0, 0)
        content.addWidget(rows_widget(rows, label_width))
        below = QVBoxLayout()
        below.setContentsMargins(6, 0, 6, 4)
        below.addWidget(self.start.native)
        below.addWidget(self.result)
        content.addLayout(below)
        self.fold = Fold("Link through time", inside)
        self.fold.open(remembered(SECTION).get("open") is True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.fold)

    def link(self) -> None:
        """Follow the chosen layer's objects in a job's thread, and show the result after that."""
        layer = self.labels.value
        if layer is None or self.active is not None:
            return
        try:
            settings = LinkSettings(**self.form.values())
        except UnetError as error:
            self._report(error)
            return
        self.active = Job(
            lambda: self._begin(layer, settings),
            on_item=self._show_progress,
            on_done=lambda found: self._show(layer, *found),
            on_error=self._report,
            on_end=self._ended,
        )
        self._jobs[:] = [self.active]
        self.result.setText("Linking …")
        self._show_state()
        slot_for(HOST).submit(self.active)

    def cancel(self) -> None:
        """Stop; nothing is shown."""
        if self.active is not None:
            self.active.cancel()
            self._show_state()

    def _begin(self, layer: Labels, settings: LinkSettings) -> Generator[Progress, None, Any]:
        """Look at the layers, in the window's thread; return the work itself."""
        data, axes = full_resolution(layer), time_axes(layer)
        image = _image_of(self._viewer, layer, tuple(data.shape))
        return _steps(data, axes, settings, voxel_size_um(layer, axes), image)

    def _show_progress(self, progress: Progress) -> None:
        self.result.setText(f"{progress.done} of {progress.total} {progress.what} …")

    def _show(self, layer: Labels, labels: np.ndarray, tracks: Tracks, axes: str) -> None:
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
        self._viewer.add_labels(labels, name=f"{layer.name} linked", **place)
        self._viewer.add_tracks(
            tracks.layer_table(axes), graph=tracks.graph, name=f"{layer.name} tracks", **place
        )
        parents = {parent for (parent,) in tracks.graph.values()}
        self.result.setText(
            f"{tracks.count} tracks, {len(parents)} division{'s' * (len(parents) != 1)}."
        )

    def _ended(self, state: str) -> None:
        self._jobs.clear()
        self.active = None
        if state == CANCELLED:
            self.result.setText("Cancelled.")
        self._show_state()

    def _report(self, error: Exception) -> None:
        tell(error, "linking failed", self.result.setText)

    def _pressed(self, *_: Any) -> None:
        if self.active is None:
            self.link()
        else:
            self.cancel()

    def _choices(self, *_: Any) -> list[tuple[str, Labels]]:
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Labels)]
        return [(la.name, la) for la in layers if not is_hits_layer(la) and la.ndim in (3, 4)]

    def _layers_changed(self, *_: Any) -> None:
        chosen = self.labels.value
        self.labels.reset_choices()  # goes by the names, which may have changed
        if chosen in self.labels.choices:
            self.labels.value = chosen
        self._show_state()

    def _show_state(self) -> None:
        """Show what can be pressed."""
        stopping = self.active is not None and self.active.cancelled
        self.start.text = "Link" if self.active is None else "Cancel"
        self.start.enabled = bool(self.labels.choices) and not stopping

    def _remember(self, expanded: bool) -> None:
        remember(SECTION, {"open": expanded})


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
    wanted = layer.metadata.get(MARK, {}).get(IMAGE)
    for other in viewer.layers:
        if isinstance(other, Image) and str(other.unique_id) == wanted:
            data = full_resolution(other)
            return data if tuple(data.shape) == shape else None
    return None


def _steps(
    labels: Any, axes: str, settings: LinkSettings, voxel: Any, image: Any
) -> Generator[Progress, None, tuple[np.ndarray, Tracks, str]]:
    """Link, in the job's thread."""
    from napari_unet.nn.linking import link_steps

    out = np.zeros(labels.shape, np.uint32)
    steps = link_steps(labels, axes, settings, out=out, voxel_size_um=voxel, image=image)
    tracks = yield from steps
    # napari draws uint16 without a copy.
    return (out.astype(np.uint16) if out.max(initial=0) < 2**16 else out), tracks, axes
