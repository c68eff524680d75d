"""The section "How was this made?": a result in words, for a paper, and made once again.

What compares labels is imported by the functions that need it: its libraries take a quarter of a
second, which the window must not wait for when the panel opens.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox
from qtpy.QtWidgets import QApplication, QPushButton, QWidget

from napari_unet.core.errors import InputError, UnetError
from napari_unet.core.io.files import image_name
from napari_unet.core.io.methods_text import explain, methods_paragraph
from napari_unet.core.progress import Progress
from napari_unet.gui.jobs.engine import loaded_model
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.jobs.run_button import LayerSection, ResultRun
from napari_unet.gui.layers.combos import as_choices, image_layers, object_layers, refresh_choices
from napari_unet.gui.layers.convert import full_resolution, layer_axes, layer_stack
from napari_unet.gui.layers.file_axes import file_of
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.result_info import (
    ResultInfo,
    add_labels,
    find_source_image,
    get_provenance,
    labels_checksum,
)
from napari_unet.gui.remembered import remembered
from napari_unet.gui.shared_inputs import SECTION
from napari_unet.gui.widgets.panel import WrappedLabel, vbox

if TYPE_CHECKING:
    from collections.abc import Generator

    import napari
    from napari.layers import Image, Labels

    from napari_unet.batch.replay import ReplayPlan, ReplayResult

OPEN_SECTION = "how made"
"""The name under which it is remembered whether the section is open."""
UNKNOWN = "It is not known how this was made: no run of napari-unet is recorded with it."
_HINT = "Segment an image, or open labels that napari-unet wrote."
_TIPS = {
    "labels": "The labels in question.",
    "start": "Run the model on the image once more, with the settings of then, and compare.",
    "copy": "Copy the paragraph for the methods of a paper, with its references.",
}


class HowMadeSection(LayerSection):
    """Says how a Labels layer was made, and makes it again.

    Attributes
    ----------
    labels
        The choice of a layer.
    words, copy
        How it was made, and the button that copies the paragraph for a paper.
    paragraph
        That paragraph; "" where nothing is known.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__(viewer)
        self.paragraph = ""
        self._shown: tuple[Any, Any] | None = None
        self._jobs = WidgetJobs(self)
        self.labels: Any = ComboBox(name="labels", choices=self._choices, tooltip=_TIPS["labels"])
        self.words = WrappedLabel()
        self.copy = QPushButton("Copy for a paper")
        self.copy.setToolTip(_TIPS["copy"])
        self.copy.clicked.connect(lambda: self.copy_paragraph())
        self._said = QWidget()
        vbox(self.copy, self.words, margins=(6, 0, 6, 0), owner=self._said)
        self.build(
            "How was this made?",
            OPEN_SECTION,
            [("labels", self.labels)],
            _HINT,
            text="Make it again",
            tip=_TIPS["start"],
            doing="Making it again …",
            failing="it could not be made again",
        )
        self.start.native.parentWidget().layout().addWidget(self._said)  # below the buttons
        self.labels.changed.connect(self._explain)
        self.collapsible.toggled.connect(self._explain)

    def show_layer(self, layer: Labels) -> None:
        """Open the section for a layer."""
        self._refresh()
        if layer in self.labels.choices:
            self.labels.value = layer
        self.collapsible.open()
        self._explain()

    def copy_paragraph(self) -> None:
        """Copy the paragraph for a paper."""
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.paragraph)
        self.result.setText("Copied.")

    def run(self) -> None:
        """Make the chosen labels again, in the queue of the device."""
        layer = self.labels.value
        if layer is None or self.active is not None:
            return
        device = str(remembered(SECTION).get("device") or "auto")
        begin = functools.partial(begin_replay, self._viewer, layer, device)
        self.button.launch(ResultRun, begin, device=device)

    def _show(self, run: ResultRun) -> None:
        from napari_unet.batch.replay import DIFFERENT

        plan, found, image = run.result
        lines = [f"{found.line()[:1].upper()}{found.line()[1:]}.", *found.reasons]
        if plan.strokes:
            lines.append(f"{plan.strokes} corrections were recorded since")
        layer = self.labels.value
        if found.verdict == DIFFERENT and layer in self._viewer.layers:
            again = self._add_again(layer, image, found.labels)
            lines.append(f"what the run gave is in the layer {again.name!r}, which is hidden")
        self.result.setText("\n- ".join(lines))

    def _add_again(self, layer: Labels, image: Image, labels: np.ndarray) -> Labels:
        """Add what the run of now gives as a layer, for comparison."""
        placement = placement_of(image)
        data = placement.to_layer(np.ascontiguousarray(labels))
        name = f"{layer.name} again"
        return add_labels(self._viewer, data, image, name, placement, ResultInfo(), visible=False)

    def _explain(self, *_: Any) -> None:
        """Say how the chosen labels were made; corrections are counted beside the window."""
        layer = self.labels.value
        if layer is None or not self.collapsible.is_open:
            self._shown = None
            self._said.hide()
            return
        provenance = get_provenance(layer)
        if self._shown == (layer, provenance):
            return
        self._shown = (layer, provenance)
        if not self.active:
            self.result.clear()
        self._say(provenance, 0)
        if provenance is not None:
            count = Job(
                functools.partial(_begin_count, self._viewer, layer, provenance),
                on_done=lambda strokes: self._say(provenance, strokes),
            )
            self._jobs.run("count", count)  # without the image or model, none are counted

    def _say(self, provenance: dict[str, Any] | None, strokes: int) -> None:
        self._said.show()
        self.copy.setVisible(provenance is not None)
        if provenance is None:
            self.paragraph = ""
            self.words.setText(UNKNOWN)
            return
        self.paragraph = methods_paragraph(provenance, strokes)
        lines = explain(provenance)
        if strokes:
            lines.append(f"{strokes} corrections were recorded since on its image.")
        self.words.setText("\n".join([*lines, "", self.paragraph]))

    def _choices(self, *_: Any) -> list[tuple[str, Labels]]:
        return as_choices(object_layers(self._viewer))

    def _refresh(self) -> None:
        refresh_choices(self.labels)

    def _layers_changed(self, *_: Any) -> None:
        super()._layers_changed()
        self._explain()

    @property
    def _possible(self) -> bool:
        return bool(self.labels.choices)


def find_image(viewer: Any, layer: Labels) -> Image:
    """Return the image that labels were made of.

    Raises
    ------
    InputError
        It is not open.
    """
    images = image_layers(viewer)
    image = find_source_image(layer, images)
    if image is not None:
        return image
    recorded = (get_provenance(layer) or {}).get("image") or {}
    name = str(recorded.get("name", ""))
    for image in images:
        file = Path(file_of(image) or "")
        if name and name in (image.name, file.name, image_name(file)):
            return image
    raise InputError(
        f"The image of {layer.name!r}{f', {name},' if name else ''} is not open; open it first."
    )


def placement_of(image: Image) -> Placement:
    """Return where the labels of an image lie in a layer."""
    stack = layer_stack(image)
    shape = tuple(full_resolution(image).shape)
    return Placement(layer_axes(image), stack.labels_axes, shape)


def begin_replay(
    viewer: Any, layer: Labels, device: str
) -> Generator[Progress, None, tuple[ReplayPlan, ReplayResult, Image]]:
    """Read a layer, in the window's thread; return the work that makes it again.

    The work returns the plan, what came of it, and the image.

    Raises
    ------
    InputError
        It is no result of a whole stack, or its image is not open.
    ModelError
        Its model is not in the store.
    """
    from napari_unet.batch.replay import find_by_hash, plan_again, replay_steps

    provenance = get_provenance(layer)
    if not provenance or "model_hash" not in provenance or "settings" not in provenance:
        raise InputError(f"{layer.name!r} does not record how it was made; segment once more.")
    info = ResultInfo.from_layer(layer)
    if "region" in provenance or len(info.runs or ()) > 1:
        raise InputError(
            f"{layer.name!r} was made in parts; only a run of the whole stack can be made again."
        )
    entry = find_by_hash(str(provenance["model_hash"]), str(provenance.get("model", "")))
    image = find_image(viewer, layer)
    stack, placement, data = layer_stack(image), placement_of(image), full_resolution(layer)
    checksum = info.checksum

    def steps() -> Generator[Progress, None, tuple[ReplayPlan, ReplayResult, Image]]:
        yield Progress(0, 0, "comparing the image with that of then")
        made = np.asarray(data)
        plan = plan_again(placement.from_layer(made), provenance, stack, entry)
        if checksum is not None and checksum != labels_checksum(made):
            reason = "the labels were changed since they were made"
            plan = replace(plan, reasons=(*plan.reasons, reason))
        yield Progress(0, 0, "loading the model")
        model = loaded_model(str(entry.path), device)
        return plan, (yield from replay_steps(plan, model)), image

    return steps()


def _begin_count(
    viewer: Any, layer: Labels, provenance: dict[str, Any]
) -> Generator[None, None, int]:
    """Return the work that counts the corrections recorded since; 0 without image or model."""
    from napari_unet.batch.replay import count_strokes, find_by_hash

    try:
        stack = layer_stack(find_image(viewer, layer))
        entry = find_by_hash(str(provenance.get("model_hash", "")), "")
    except UnetError:
        return _nothing()

    def steps() -> Generator[None, None, int]:
        yield
        return count_strokes(stack, entry)

    return steps()


def _nothing() -> Generator[None, None, int]:
    yield
    return 0
