"""The Evaluate section of the panel: which labels, which truth, and the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox

from napari_unet.core.axes import FRAMES
from napari_unet.gui.evaluate import EvaluateRun, result_text
from napari_unet.gui.layerchoice import named, object_layers, offer_anew
from napari_unet.gui.segmenting.hits import show_hits
from napari_unet.gui.segmenting.result import MARK
from napari_unet.gui.widgets.layersection import LayerSection
from napari_unet.gui.widgets.runbutton import RunButton

if TYPE_CHECKING:
    import napari
    from napari.layers import Labels
    from qtpy.QtWidgets import QLabel

SECTION = "evaluate"
_HINT = "Open the true objects as a Labels layer to compare with."
_TIPS = {
    "labels": "The objects to evaluate.",
    "truth": "The objects as they should be.",
    "frames": "How a stack is divided before its objects are matched: into planes, or into the "
    "volumes\nof its time points. auto: planes for what a 2D model found, otherwise volumes.",
    "start": "Score the labels, and show hits, false and missed objects in a layer.",
}


class EvaluateSection(LayerSection):
    """Compares a Labels layer with the truth.

    Attributes
    ----------
    labels, truth, frames
        The choices.
    """

    def __init__(self, viewer: napari.Viewer, label_width: int) -> None:
        super().__init__(viewer)
        self.labels: Any = ComboBox(name="labels", choices=self._choices, tooltip=_TIPS["labels"])
        self.truth: Any = ComboBox(name="truth", choices=self._choices, tooltip=_TIPS["truth"])
        self.frames: Any = ComboBox(name="frames", choices=FRAMES, tooltip=_TIPS["frames"])
        rows = [("labels", self.labels), ("truth", self.truth), ("match in", self.frames)]
        self.build("Evaluate", SECTION, rows, label_width, _HINT, self._button)

    def evaluate(self) -> None:
        """Compare the chosen layers in a job's thread, and show the scores when it is through."""
        labels, truth = self.labels.value, self.truth.value
        if labels is not None and truth is not None and self.active is None:
            self.button.launch(EvaluateRun, labels, truth, self.frames.value)

    def _button(self, line: QLabel) -> RunButton:
        return RunButton(
            self,
            "Evaluate",
            _TIPS["start"],
            doing="Comparing …",
            failing="the evaluation failed",
            line=line,
            start=self.evaluate,
            show=self._show,
        )

    def _show(self, run: EvaluateRun) -> None:
        self.result.setText(result_text(run))
        if run.codes is not None and run.labels in self._viewer.layers:
            show_hits(self._viewer, run.labels, run.truth, run.codes)

    def _choices(self, *_: Any) -> list[tuple[str, Labels]]:
        return named(object_layers(self._viewer))

    def _refresh(self) -> None:
        """Offer the layers that there are; guess which is which until the user has chosen."""
        offer_anew(self.labels, self.truth)
        layers = list(self.labels.choices)
        if len(layers) > 1 and self.labels.value == self.truth.value:
            results = [layer for layer in layers if "base" in layer.metadata.get(MARK, {})]
            self.labels.value = results[-1] if results else self.labels.value
            self.truth.value = next(layer for layer in layers if layer != self.labels.value)

    @property
    def _possible(self) -> bool:
        return len(self.labels.choices) > 1
