"""The form of the Segment panel: what to segment, with which model, how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, Container, LineEdit, PushButton, create_widget
from napari.layers import Image
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_unet.core.errors import InputError, ModelError, SettingsError
from napari_unet.core.settings.tasks import DEVICES, PredictSettings
from napari_unet.gui.jobs.engine import Request
from napari_unet.gui.layers.combos import image_layers
from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.navigation import REGIONS, SEEN, SLICE, WHOLE
from napari_unet.gui.model_events import get_model_events, offer_models
from napari_unet.gui.remembered import remember, remembered
from napari_unet.gui.widgets.panel import CollapsibleSection, vbox
from napari_unet.gui.widgets.settings_form import SettingsForm, restore_choices, rows_widget

if TYPE_CHECKING:
    import napari

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.models.store import ModelEntry

Rows = list[tuple[str, Any]]
SAVE_MS = 400
"""How long after the last change the settings are written to the disk."""
SECTION = "segment"
FIRST = {"diameter": ""}
ADVANCED = {
    "diameter_um": "diameter in µm",
    "channel": "",
    "volumes": "stacks",
    "threshold": "",
    "merge": "",
    "min_size": "smallest object",
    "tile": "",
    "batch": "",
    "augment": "augmentation",
    "precision": "",
    "certify": "check seams",
    "survey": "check the image",
}
LABEL_WIDTH = 100
_TIPS = {
    "image": "The image layer to segment.",
    "model": "The model that finds the objects.",
    "refresh": "Look for new models.",
    "device": "Where the model runs. auto: on the GPU if there is one.",
    "region": f"{SEEN}: the part of the current slice that is in view.\n"
    f"{SLICE}: all of the slice that the sliders point at (a 3D model takes the volume).\n"
    f"{WHOLE}: every slice and time point, those near the current one first.",
    "save_in": "A folder that ends with .zarr: the labels of the whole stack are written into it, "
    "block by block,\nand running again goes on where it was left. Empty: in memory if they fit.",
    "scheduler": "Address of a dask scheduler, such as tcp://host:8786, whose workers do it.\n"
    "They must see the data and the folder of the labels. Empty: this computer.",
}


class PredictForm(QWidget):
    """Model, device and prediction settings: what the forms of Segment and Batch share.

    A subclass calls `build` with its rows. Emits `changed` when there is something new to run.

    Attributes
    ----------
    model, device
        The choices.
    first, advanced
        The settings that are always shown, and the others.
    more
        The section that holds the others.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._models: dict[str, ModelEntry] = {}
        self.model: Any = ComboBox(name="model", choices=(), tooltip=_TIPS["model"])
        self.device: Any = ComboBox(name="device", choices=DEVICES, tooltip=_TIPS["device"])
        self.first = SettingsForm(PredictSettings, FIRST)
        self.advanced = SettingsForm(PredictSettings, ADVANCED)

    def build(self, rows: Rows, advanced: Rows) -> None:
        """Lay out the rows, list the models, and show what the Segment panel used last."""
        self.more = CollapsibleSection("Advanced settings", rows_widget(advanced, LABEL_WIDTH))
        vbox(rows_widget(rows, LABEL_WIDTH), self.more, owner=self)
        self.refresh_models()
        self._restore(remembered(SECTION))
        get_model_events().changed.connect(self.refresh_models)
        get_model_events().chosen.connect(self.choose_model)

    def refresh_models(self, *_: Any) -> None:
        """List the models of the store anew; the chosen one stays chosen if it is still there."""
        self._models = offer_models(self.model)
        self.changed.emit()

    def choose_model(self, name: str) -> None:
        """Choose a model of the store, if it is there."""
        self.refresh_models()
        if name in self._models:
            self.model.value = name

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

    def _restore(self, values: dict[str, Any]) -> None:
        """Show remembered values, as far as they can still be chosen."""
        restore_choices(values, model=self.model, device=self.device)
        self.first.restore(values.get("settings"))
        self.advanced.restore(values.get("settings"))


class SegmentForm(PredictForm):
    """Image, model, device, diameter and region; the other settings in a collapsible section.

    All but the image is remembered between sessions.

    Attributes
    ----------
    image, region, save_in, scheduler
        The choices.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._saver = QTimer(self)
        self._saver.setInterval(SAVE_MS)
        self._saver.setSingleShot(True)
        self._saver.timeout.connect(self.save)
        self._build()
        self._connect()

    def _build(self) -> None:
        self.image: Any = create_widget(annotation=Image, name="image")
        self.image.tooltip = _TIPS["image"]
        refresh = PushButton(name="refresh", text="↻", tooltip=_TIPS["refresh"])
        refresh.native.setFixedWidth(30)
        refresh.changed.connect(self.refresh_models)
        models = Container(
            widgets=[self.model, refresh],
            layout="horizontal",
            labels=False,
            tooltip=_TIPS["model"],
        )
        models.margins = (0, 0, 0, 0)
        self.region = ComboBox(name="region", choices=REGIONS, value=WHOLE, tooltip=_TIPS["region"])
        self.save_in = LineEdit(name="save in", tooltip=_TIPS["save_in"])
        self.scheduler = LineEdit(name="cluster", tooltip=_TIPS["scheduler"])
        rows: Rows = [
            ("image", self.image), ("model", models), ("device", self.device),
            *self.first.rows(), ("run on", self.region),
        ]  # fmt: skip
        large: Rows = [("save in", self.save_in), ("cluster", self.scheduler)]
        self.build(rows, [*self.advanced.rows(), *large])

    def _connect(self) -> None:
        settings = [widget for _, widget in self.first.rows() + self.advanced.rows()]
        for widget in (self.image, self.model, self.device, self.region, *settings):
            widget.changed.connect(self._changed)
        self.more.toggled.connect(self._changed)
        events = self._viewer.layers.events
        events.inserted.connect(self._layers_changed)
        events.removed.connect(self._layers_changed)
        self._viewer.layers.selection.events.active.connect(self._choose_active)
        self._choose_active()

    def _choose_active(self, *_: Any) -> None:
        """Choose the image that the user selects in the layer list, or has just opened."""
        active = self._viewer.layers.selection.active
        active = unwrap(active)  # a plugin's viewer gives proxies
        if active in image_layers(self._viewer) and active in self.image.choices:
            self.image.value = active

    def _layers_changed(self, *_: Any) -> None:
        self.image.reset_choices()
        self.changed.emit()

    def _changed(self, *_: Any) -> None:
        self._saver.start()
        self._describe_model()
        self.changed.emit()

    def refresh_models(self, *_: Any) -> None:
        """List the models of the store anew; the chosen one stays chosen if it is still there."""
        super().refresh_models()
        self._describe_model()

    def _describe_model(self) -> None:
        """Show in the tooltip what the model was made for."""
        entry = self._models.get(self.model.value)
        tip = _TIPS["model"]
        if entry is not None and entry.card is None:
            tip = entry.problem
        elif entry is not None and entry.card is not None:
            kind = "planes" if entry.card.spec.ndim == 2 else "volumes"
            tip = f"{tip}\n{entry.name}: for {kind}"
            if size := entry.card.training.get("diameter_px", {}).get("q50"):
                tip += f", trained on objects of about {size:.0f} px"
        self.model.tooltip = tip

    @property
    def complete(self) -> bool:
        """Whether there is an image and a model."""
        return self.image.value is not None and self.model.value is not None

    def set_diameter(self, diameter: float) -> None:
        """Show a diameter in pixels; one in micrometres would contradict it."""
        self.first.settings["diameter"].set(diameter)
        self.advanced.settings["diameter_um"].set(None)

    def values(self) -> dict[str, Any]:
        """Return what is remembered of the form, as JSON values."""
        return {
            "model": self.model.value,
            "device": self.device.value,
            "region": self.region.value,
            "settings": self.first.values() | self.advanced.values(),
            "advanced": self.more.is_open,
        }

    def save(self) -> None:
        """Remember the settings for the next session."""
        self._saver.stop()
        remember(SECTION, self.values())

    def _restore(self, values: dict[str, Any]) -> None:
        super()._restore(values)
        restore_choices(values, region=self.region)
        self.more.open(values.get("advanced") is True)

    def request(self) -> Request:
        """Return what the form requests.

        Raises
        ------
        UnetError
            No image, no model, or a setting that is not allowed.
        """
        if self.image.value is None:
            raise InputError("There is no image layer; open an image first.")
        card = self.card()
        return Request(
            self.model.value,
            card.spec.ndim,
            self.device.value,
            self.region.value,
            self.settings(),
            self.save_in.value.strip(),
            self.scheduler.value.strip(),
        )


def quick_settings() -> PredictSettings:
    """Return the settings last used, without the checks: for results that are only looked at."""
    quick: dict[str, Any] = {"certify": False, "survey": False}
    values = remembered(SECTION).get("settings")
    try:
        return PredictSettings(**{**(values if isinstance(values, dict) else {}), **quick})
    except (SettingsError, TypeError):
        return PredictSettings(**quick)


def use_model(model: str) -> None:
    """Choose a model in all panels, also in those that are opened later."""
    remember(SECTION, remembered(SECTION) | {"model": model})
    get_model_events().chosen.emit(model)
