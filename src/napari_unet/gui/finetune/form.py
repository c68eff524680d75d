"""The form of the Fine-tune step: under which name the model is tuned, for how long."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, LineEdit
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_unet.core.errors import InputError
from napari_unet.core.models.store import check_name, list_models
from napari_unet.core.settings.fields import setting
from napari_unet.core.settings.tasks import DEVICES, TrainSettings
from napari_unet.core.training.run_state import CHECKPOINT, RunState, propose_name, training_folder
from napari_unet.gui.remembered import remember, remembered
from napari_unet.gui.widgets.panel import CollapsibleSection, WrappedLabel, vbox
from napari_unet.gui.widgets.settings_form import SettingsForm, restore_choices, rows_widget

if TYPE_CHECKING:
    from napari_unet.core.models.store import ModelEntry
    from napari_unet.gui.shared_inputs import InputForm

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
BUDGETS = {
    "auto": "auto: 1 minute on a GPU, 3 minutes without one.",
    "cpu": "auto: 3 minutes.",
}
"""What the empty box of minutes means, by device; another one is a GPU."""
_GPU = "auto: 1 minute."
_TIPS = {
    "name": "What the tuned model will be called.",
    "device": "Where the training runs. auto: on the GPU if there is one.",
}


@dataclass(frozen=True)
class NetworkSettings:
    """Which network is trained: the model's own, or a new one."""

    scratch: bool = setting(False, "forget what the model knows and train a new network")
    ndim: int | None = setting(
        None, "of a new network: 2 for planes, 3 for volumes. Empty: the model's", low=2, high=3
    )
    depth: int | None = setting(
        None, "of a new network: how often it pools. Empty: 4 for planes, 3 for volumes", low=1,
        high=7,
    )  # fmt: skip
    width: int | None = setting(
        None, "of a new network: channels at full resolution. Empty: 16", low=1, high=256
    )
    classes: int | None = setting(
        None, "where labels are classes, how many, background included: another number than the "
        "model's puts a new head on it. Empty: the model's", low=2, high=255,
    )  # fmt: skip


@dataclass(frozen=True)
class TuneRequest:
    """What the form requests.

    Attributes
    ----------
    base
        Name of the model to tune; its corrections are the training data.
    name
        Of the new model.
    touched
        Whether objects that were only touched count as annotated, too.
    resume
        Whether to go on from the checkpoint of an unfinished training.
    """

    # The fields' names are keys in the files of unfinished trainings.
    base: str
    name: str
    device: str = "auto"
    settings: TrainSettings = field(default_factory=TrainSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    touched: bool = True
    resume: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what the file of an unfinished training holds of it."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in ("name", "resume")}

    @classmethod
    def from_run_state(cls, name: str, state: RunState) -> TuneRequest:
        """Return the request to go on with a training.

        Raises
        ------
        InputError
            It was not begun in the window.
        """
        values = dict(state.request)
        try:
            settings = TrainSettings(**values.pop("settings"))
            network = NetworkSettings(**values.pop("network"))
            return cls(name=name, settings=settings, network=network, resume=True, **values)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"The training of {name!r} was not begun in the window; go on with it by "
                "`napari-unet train ... --resume`."
            ) from error


class TuneForm(QWidget):
    """Name and minutes; the other settings in a collapsible section.

    Emits `changed` when another model can be tuned, or under another name.

    Parameters
    ----------
    inputs
        The model to start from, chosen at the top.

    Attributes
    ----------
    base, name, device
        The choices. The name follows the model to start from until the user gives one.
    """

    changed = Signal()

    def __init__(self, inputs: InputForm) -> None:
        super().__init__()
        self.inputs = inputs
        self._proposed = ""
        self._build()
        self._restore()
        self.propose_name()
        self._connect()
        self._show_budget()

    def _build(self) -> None:
        self.base: Any = self.inputs.model
        self.name: Any = LineEdit(name="name", tooltip=_TIPS["name"])
        self.device: Any = ComboBox(name="device", choices=DEVICES, tooltip=_TIPS["device"])
        self.first = SettingsForm(TrainSettings, FIRST)
        self.advanced = SettingsForm(TrainSettings, ADVANCED)
        self.network = SettingsForm(NetworkSettings, NETWORK)
        top = [("new name", self.name), *self.first.rows()]
        rows = [("device", self.device), *self.advanced.rows(), *self.network.rows()]
        self.budget = WrappedLabel()
        self.more = CollapsibleSection("Advanced settings", rows_widget(rows))
        budget = vbox(self.budget, margins=(6, 0, 6, 0))
        vbox(rows_widget(top), budget, self.more, owner=self)

    def _connect(self) -> None:
        self.inputs.model_changed.connect(self._base_changed)
        self.name.changed.connect(self._changed)
        self.device.changed.connect(self._show_budget)

    def choose(self, name: str) -> None:
        """Choose the model to start from, if it is there."""
        self.inputs.choose_model(name)

    def refresh_models(self, *_: Any) -> None:
        """List the models of the store anew; the chosen one stays chosen if it is still there."""
        self.inputs.refresh_models()

    @property
    def entry(self) -> ModelEntry | None:
        """The chosen model's entry in the store; None if it cannot be used."""
        return self.inputs.entry

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
        """Return what the form requests.

        Raises
        ------
        UnetError
            No model, no name for a model, or a setting that is not allowed.
        """
        self.inputs.card()  # raises without a model that can be used
        name = check_name(self.name.value.strip())
        settings = TrainSettings(**self.first.values(), **self.advanced.values())
        network = NetworkSettings(**self.network.values())
        return TuneRequest(self.base.value, name, self.device.value, settings, network)

    def save(self) -> None:
        """Remember the settings for the next session, but not those of a new network."""
        settings = self.first.values() | self.advanced.values()
        values = {"device": self.device.value, "settings": settings, "advanced": self.more.is_open}
        remember(SECTION, remembered(SECTION) | values)

    def _restore(self) -> None:
        values = remembered(SECTION)
        restore_choices(values, device=self.device)
        self.first.restore(values.get("settings"))
        self.advanced.restore(values.get("settings"))
        self.more.open(values.get("advanced") is True)

    def _base_changed(self, *_: Any) -> None:
        self.propose_name()
        self._changed()

    def _changed(self, *_: Any) -> None:
        self.changed.emit()

    def _show_budget(self, *_: Any) -> None:
        """Show which budget an empty box of minutes means; epochs, if given, take precedence."""
        self.budget.setText(BUDGETS.get(self.device.value, _GPU))


def taken_names() -> set[str]:
    """Return the names that a new model cannot have: those of models and unfinished trainings."""
    places = training_folder("").glob(f"*/{CHECKPOINT}")
    return {entry.name for entry in list_models()} | {path.parent.name for path in places}
