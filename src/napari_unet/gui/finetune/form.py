"""The form of the Fine-tune section: which model, which name, how long; the rest folded away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, LineEdit
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_unet.core.errors import ModelError
from napari_unet.core.models.store import ModelEntry, check_name
from napari_unet.core.settings.tasks import DEVICES, TrainSettings
from napari_unet.core.training.run_state import propose_name
from napari_unet.gui.finetune.work import NetworkSettings, TuneRequest, taken_names
from napari_unet.gui.layers.result_info import ResultInfo
from napari_unet.gui.model_events import get_model_events, offer_models
from napari_unet.gui.segment import form as segment_form
from napari_unet.gui.widgets.collapsible import CollapsibleSection
from napari_unet.gui.widgets.settings_form import SettingsForm, remember, remembered, rows_widget

if TYPE_CHECKING:
    import napari

SECTION = "tune"
FIRST = {"minutes": ""}
ADVANCED = {
    "epochs": "",
    "learning_rate": "",
    "batch": "batch size",
    "validation": "validation share",
    "freeze": "keep fixed",
    "replay": "replay share",
}
NETWORK = {
    "classes": "",
    "scratch": "from scratch",
    "ndim": "new: dimensions",
    "depth": "new: depth",
    "width": "new: width",
}
BUDGETS = {"auto": "GPU: 1, CPU: 3", "cpu": "3"}
"""How the box of the minutes says "decide for me", by device; any other stands for a GPU's."""
_TIPS = {
    "base": "The model to start from; it stays as it is.",
    "name": "What the tuned model will be called.",
    "device": "Where the training runs. auto: on the GPU if there is one.",
}


class TuneForm(QWidget):
    """Base model, name and minutes; the other settings folded away.

    Attributes
    ----------
    base, name, device
        The choices. The name follows the base until the user gives one.
    """

    changed = Signal()

    def __init__(self, viewer: napari.Viewer, label_width: int) -> None:
        super().__init__()
        self._viewer = viewer
        self._models: dict[str, ModelEntry] = {}
        self._proposed = ""
        self._build(label_width)
        self.refresh_models()
        self._restore()
        self.choose(used_model(viewer))
        self.propose_name()
        self._connect()
        self._show_budget()

    def _build(self, label_width: int) -> None:
        self.base: Any = ComboBox(name="base", choices=(), tooltip=_TIPS["base"])
        self.name: Any = LineEdit(name="name", tooltip=_TIPS["name"])
        self.device: Any = ComboBox(name="device", choices=DEVICES, tooltip=_TIPS["device"])
        self.first = SettingsForm(TrainSettings, FIRST)
        self.advanced = SettingsForm(TrainSettings, ADVANCED)
        self.network = SettingsForm(NetworkSettings, NETWORK)
        top = [("base model", self.base), ("new name", self.name), *self.first.rows()]
        rows = [("device", self.device), *self.advanced.rows(), *self.network.rows()]
        self.more = CollapsibleSection("Advanced settings", rows_widget(rows, label_width))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(rows_widget(top, label_width))
        layout.addWidget(self.more)

    def _connect(self) -> None:
        self.base.changed.connect(self._base_changed)
        self.name.changed.connect(self._changed)
        self.device.changed.connect(self._show_budget)
        get_model_events().changed.connect(self.refresh_models)
        get_model_events().chosen.connect(self.choose)

    def choose(self, name: str) -> None:
        """Choose the base model, if it is there."""
        self.refresh_models()
        if name in self._models:
            self.base.value = name

    def refresh_models(self, *_: Any) -> None:
        """List the models of the store anew; the chosen one stays chosen if it is still there."""
        self._models = offer_models(self.base, usable=True)
        self.propose_name()

    @property
    def entry(self) -> ModelEntry | None:
        """The chosen model's entry in the store."""
        return self._models.get(self.base.value)

    @property
    def complete(self) -> bool:
        """Whether there is a model to start from and a name for the new one."""
        return self.entry is not None and bool(self.name.value.strip())

    def propose_name(self) -> None:
        """Propose a name that is free, unless the user has given one."""
        if self.name.value not in ("", self._proposed) or self.base.value is None:
            return
        self._proposed = propose_name(self.base.value, taken_names())
        self.name.value = self._proposed

    def request(self) -> TuneRequest:
        """Return what the form asks for.

        Raises
        ------
        UnetError
            No model, no name for a model, or a setting that is not allowed.
        """
        if self.entry is None:
            raise ModelError("There is no model; import one with `napari-unet models import`.")
        name = check_name(self.name.value.strip())
        settings = TrainSettings(**self.first.values(), **self.advanced.values())
        network = NetworkSettings(**self.network.values())
        return TuneRequest(self.entry.name, name, self.device.value, settings, network)

    def save(self) -> None:
        """Remember the settings for the next session; which model and how, not from scratch."""
        settings = self.first.values() | self.advanced.values()
        values = {"device": self.device.value, "settings": settings, "advanced": self.more.is_open}
        remember(SECTION, remembered(SECTION) | values)

    def _restore(self) -> None:
        values = remembered(SECTION)
        if values.get("device") in DEVICES:
            self.device.value = values["device"]
        self.first.restore(values.get("settings"))
        self.advanced.restore(values.get("settings"))
        if values.get("advanced") is True:
            self.more.open()

    def _base_changed(self, *_: Any) -> None:
        self.propose_name()
        self._changed()

    def _changed(self, *_: Any) -> None:
        self.changed.emit()

    def _show_budget(self, *_: Any) -> None:
        """Say what no minutes mean; with epochs given, it is they that count."""
        box: Any = self.first.settings["minutes"].widget.native
        box.setSpecialValueText(BUDGETS.get(self.device.value, "1"))


def used_model(viewer: napari.Viewer) -> str:
    """Return the model that made the last result in the window, or that was used last."""
    for layer in reversed(list(viewer.layers)):
        if model := ResultInfo.from_layer(layer).model:
            return model
    return str(remembered(segment_form.SECTION).get("model", ""))
