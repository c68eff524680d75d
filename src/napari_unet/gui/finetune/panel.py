"""The panel "Correct and fine-tune"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_unet.gui.correct.section import CorrectSection
from napari_unet.gui.finetune.section import TuneSection
from napari_unet.gui.model_events import get_model_events
from napari_unet.gui.widgets.collapsible import ScrollPanel
from napari_unet.gui.widgets.dock_panel import DockPanel

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QShowEvent

LABEL_WIDTH = 88
"""That of the longest label: the boxes of all sections begin below each other."""
WIDTH = 324
"""Room for the name of the panel in napari's title bar, in pixels."""


class FineTunePanel(DockPanel):
    """Corrects labels, and tunes a model with the corrections.

    Parameters
    ----------
    napari_viewer
        The window; npe2 passes it by this name.

    Attributes
    ----------
    correct
        The section of the corrections.
    tune
        The section that learns from them.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(self._cancel_all)
        self.correct = CorrectSection(napari_viewer, LABEL_WIDTH)
        self.tune = TuneSection(napari_viewer, LABEL_WIDTH)
        inside = QWidget()
        inside.setMinimumWidth(WIDTH)
        content = QVBoxLayout(inside)
        content.setContentsMargins(4, 4, 4, 4)
        content.addWidget(self.correct)
        content.addWidget(self.tune)
        # Not by the layout's alignment: that gives wrapped text no more height than its hint.
        content.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(ScrollPanel(inside))
        self._connect()

    def _connect(self) -> None:
        self.docked.connect(self.correct.tracker.close_with)
        self.correct.model.changed.connect(self._model_chosen)
        self.tune.form.base.changed.connect(self._base_chosen)
        self.correct.touched.toggled.connect(self._touched_changed)
        get_model_events().changed.connect(self.correct.refresh_models)
        self._model_chosen()
        self._touched_changed(self.correct.touched.isChecked())

    def _model_chosen(self, *_: Any) -> None:
        """Tune the model whose corrections are shown."""
        if self.correct.model.value:
            self.tune.form.choose(self.correct.model.value)

    def _base_chosen(self, name: str | None) -> None:
        """Show the corrections of the model that is tuned."""
        if name in self.correct.model.choices:
            self.correct.model.value = name

    def _touched_changed(self, wanted: bool) -> None:
        self.tune.touched = wanted

    def _cancel_all(self) -> None:
        self.tune.cancel()
        self.tune.doubts.cancel()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look which models there are now."""
        super().showEvent(event)
        self.correct.refresh_models()
