"""The form of the Batch panel: which model, how, and where the results go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.types import FileDialogMode
from magicgui.widgets import CheckBox, ComboBox, FileEdit
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_unet.core.errors import ModelError, OutputError
from napari_unet.core.io.files import expand_path
from napari_unet.core.settings.tasks import DEVICES, PredictSettings
from napari_unet.gui.model_events import get_model_events, offer_models
from napari_unet.gui.segment import form as segment_form
from napari_unet.gui.widgets.collapsible import CollapsibleSection
from napari_unet.gui.widgets.settings_form import SettingsForm, remembered, rows_widget

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.models.store import ModelEntry

LABEL_WIDTH = 100
_TIPS = {
    "model": "The model that finds the objects.",
    "device": "Where the model runs. auto: on the GPU if there is one.",
    "folder": "Where the labels go, one TIFF for each image; it is made if it does not exist.",
    "overwrite": "Replace labels in the output folder that come from elsewhere, or from other\n"
    "settings. Without it such a file is left as it is.",
}


class BatchForm(QWidget):
    """Model, device, diameter and output folder; the other settings folded away.

    It begins with what the Segment panel has. Emits `changed`.

    Attributes
    ----------
    model, device, folder, overwrite
        The choices.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._models: dict[str, ModelEntry] = {}
        self._build()
        self.refresh_models()
        self._restore()
        self.model.changed.connect(self._changed)
        self.folder.changed.connect(self._changed)
        get_model_events().changed.connect(self.refresh_models)
        get_model_events().chosen.connect(self.choose_model)

    def _build(self) -> None:
        self.model: Any = ComboBox(name="model", choices=(), tooltip=_TIPS["model"])
        self.device: Any = ComboBox(name="device", choices=DEVICES, tooltip=_TIPS["device"])
        self.folder: Any = FileEdit(
            name="folder", mode=FileDialogMode.EXISTING_DIRECTORY, tooltip=_TIPS["folder"]
        )
        self.folder.choose_btn.text = "…"
        self.folder.choose_btn.max_width = 30
        self.folder.line_edit.value = ""  # not the folder that napari was started in
        self.overwrite: Any = CheckBox(name="overwrite", tooltip=_TIPS["overwrite"])
        self.overwrite.text = ""
        self.first = SettingsForm(PredictSettings, segment_form.FIRST)
        self.advanced = SettingsForm(PredictSettings, segment_form.ADVANCED)
        top = [
            ("model", self.model),
            ("device", self.device),
            *self.first.rows(),
            ("output folder", self.folder),
            ("replace results", self.overwrite),
        ]
        self.more = CollapsibleSection(
            "Advanced settings", rows_widget(self.advanced.rows(), LABEL_WIDTH)
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(rows_widget(top, LABEL_WIDTH))
        layout.addWidget(self.more)

    @property
    def complete(self) -> bool:
        """Whether there is a model and a place for the results."""
        return self.model.value is not None and self.output is not None

    @property
    def output(self) -> Path | None:
        """The output folder; None until the user has named one."""
        text = self.folder.line_edit.value.strip()
        return expand_path(text) if text else None

    def card(self) -> ModelCard:
        """Return the chosen model's card.

        Raises
        ------
        ModelError
            There is none, or it is damaged.
        """
        entry = self._models.get(self.model.value)
        if entry is None:
            raise ModelError("There is no model; import one with `napari-unet models import`.")
        if entry.card is None:
            raise ModelError(entry.problem)
        return entry.card

    def settings(self) -> PredictSettings:
        """Return how the model is to be run.

        Raises
        ------
        SettingsError
            Settings that contradict each other.
        """
        return PredictSettings(**self.first.values(), **self.advanced.values())

    def target(self) -> Path:
        """Return the output folder.

        Raises
        ------
        OutputError
            None was given, or it is a file.
        """
        folder = self.output
        if folder is None:
            raise OutputError("There is no output folder; choose where the labels are to go.")
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; choose a folder for the labels.")
        return folder

    def propose_folder(self, beside: Path) -> None:
        """Name an output folder beside an image, unless the user has named one."""
        if self.output is None:
            self.folder.value = beside.parent / "segmented"

    def refresh_models(self, *_: Any) -> None:
        """List the models of the store anew; the chosen one stays chosen if it is still there."""
        self._models = offer_models(self.model)
        self.changed.emit()

    def choose_model(self, name: str) -> None:
        """Choose a model of the store, if it is there."""
        self.refresh_models()
        if name in self._models:
            self.model.value = name

    def _restore(self) -> None:
        """Show what the Segment panel has."""
        values = remembered(segment_form.SECTION)
        for name in ("model", "device"):
            box = getattr(self, name)
            if values.get(name) in box.choices:
                box.value = values[name]
        self.first.restore(values.get("settings"))
        self.advanced.restore(values.get("settings"))

    def _changed(self, *_: Any) -> None:
        self.changed.emit()
