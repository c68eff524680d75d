"""The panel "Correct and fine-tune"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_unet.gui.correct import CorrectSection
from napari_unet.gui.folds import Scrolled

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QShowEvent

LABEL_WIDTH = 60


class FineTunePanel(QWidget):
    """Corrects labels, and tunes a model with the corrections.

    Parameters
    ----------
    napari_viewer
        The window; npe2 passes it by this name.

    Attributes
    ----------
    correct
        The section of the corrections.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.correct = CorrectSection(napari_viewer, LABEL_WIDTH)
        inside = QWidget()
        content = QVBoxLayout(inside)
        content.setAlignment(Qt.AlignmentFlag.AlignTop)
        content.setContentsMargins(4, 4, 4, 4)
        content.addWidget(self.correct)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(Scrolled(inside))

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look which models there are now."""
        super().showEvent(event)
        self.correct.refresh_models()
