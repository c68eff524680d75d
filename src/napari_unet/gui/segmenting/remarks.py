"""What is unusual about the image, under the progress bar, with a button if there is a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.shift import Remark


class RemarkBox(QWidget):
    """Shows remarks; hidden without any.

    Emits `diameter_wanted` with the diameter in pixels when the user takes the remedy.
    """

    diameter_wanted = Signal(float)

    def __init__(self) -> None:
        super().__init__()
        self.remarks: tuple[Remark, ...] = ()
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.remedy = QPushButton()
        self.remedy.clicked.connect(self._take_remedy)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.text)
        layout.addWidget(self.remedy)
        self.show_remarks(())

    def show_remarks(self, remarks: Sequence[Remark]) -> None:
        """Show these remarks instead of the ones before."""
        self.remarks = tuple(remarks)
        self.text.setText("\n".join(f"⚠ {remark.text}" for remark in self.remarks))
        diameter = self._diameter()
        if diameter is not None:
            self.remedy.setText(f"Set Diameter to {diameter:g} and run again")
        self.remedy.setVisible(diameter is not None)
        self.setVisible(bool(self.remarks))

    def _diameter(self) -> float | None:
        return next((r.diameter for r in self.remarks if r.diameter is not None), None)

    def _take_remedy(self, *_: Any) -> None:
        diameter = self._diameter()
        if diameter is not None:
            self.diameter_wanted.emit(diameter)
