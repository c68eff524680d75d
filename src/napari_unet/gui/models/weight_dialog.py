"""Asks what plain weights in ONNX or TorchScript do not say of themselves."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from magicgui.widgets import LineEdit
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QWidget

from napari_unet.core.errors import SettingsError
from napari_unet.core.settings.weight_options import WeightOptions
from napari_unet.gui.widgets.panel import WrappedLabel, vbox
from napari_unet.gui.widgets.settings_form import SettingsForm, rows_widget

FIELDS = {
    "decode": "output means",
    "channels": "",
    "normalise": "intensities",
    "activation": "to be done",
    "halo": "",
    "multiple": "multiple of",
    "size": "only size",
    "boundary": "",
    "distance": "",
}


class WeightDialog(QDialog):
    """Shows the options of plain weights.

    Attributes
    ----------
    axes, form
        What is asked.
    options
        The answer; None until it was given.
    """

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Import {name}")
        self.options: WeightOptions | None = None
        tip = next(item.metadata["help"] for item in fields(WeightOptions) if item.name == "axes")
        self.axes: Any = LineEdit(name="axes", value=WeightOptions().axes, tooltip=tip)
        self.form = SettingsForm(WeightOptions, FIELDS)
        self.problem = WrappedLabel()
        intro = WrappedLabel(
            "Weights alone do not say how they are used. Leave what you do not know."
        )
        choices = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(choices.Ok | choices.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        rows = rows_widget([("axes", self.axes), *self.form.rows()], label_width=90)
        vbox(intro, rows, self.problem, buttons, margins=(8, 8, 8, 8), owner=self)

    def accept(self) -> None:
        """Keep the answer, if it is allowed."""
        try:
            self.options = WeightOptions(axes=self.axes.value.strip(), **self.form.values())
        except SettingsError as error:
            self.problem.setText(str(error))
            return
        super().accept()


def ask_weight_options(name: str, parent: QWidget) -> WeightOptions | None:
    """Ask for the options of a file; None if the user does not want to import it."""
    dialog = WeightDialog(name, parent)
    dialog.exec()
    dialog.deleteLater()  # it would stay as long as its parent
    return dialog.options
