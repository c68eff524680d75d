"""The form of the Segment step: how large the objects are, on what the model runs, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, LineEdit
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_unet.core.errors import InputError
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.gui.jobs.engine import Request
from napari_unet.gui.layers.image_settings import (
    IN_PREDICTION,
    get_image_settings,
    update_image_settings,
)
from napari_unet.gui.layers.navigation import REGIONS, SEEN, SLICE, WHOLE
from napari_unet.gui.remembered import remember, remembered
from napari_unet.gui.segment.device_box import DeviceBox
from napari_unet.gui.segment.object_size import DiameterRow
from napari_unet.gui.shared_inputs import SECTION, InputForm
from napari_unet.gui.widgets.panel import CollapsibleSection, vbox
from napari_unet.gui.widgets.settings_form import SettingsForm, restore_choices, rows_widget

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_unet.core.models.card import ModelCard

Rows = list[tuple[str | None, Any]]
SAVE_MS = 400
"""How long after the last change the settings are written to the disk."""
FIRST = {"diameter": ""}
ADVANCED = {
    "diameter_um": "diameter in µm",
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
_TIPS = {
    "region": f"{SEEN}: the part of the current slice that is in view.\n"
    f"{SLICE}: all of the slice that the sliders point at (a 3D model takes the volume).\n"
    f"{WHOLE}: every slice and time point, those near the current one first.",
    "save_in": "A folder that ends with .zarr: the labels of the whole stack are written into it, "
    "block by block,\nand running again goes on where it was left. Empty: in memory if they fit.",
    "scheduler": "Address of a dask scheduler, such as tcp://host:8786, whose workers do it.\n"
    "They must see the data and the folder of the labels. Empty: this computer.",
}


class PredictForm(QWidget):
    """Device and prediction settings: what the forms of Segment and Batch share.

    A subclass calls `build` with its rows. Emits `changed` when there is something new to run.

    Parameters
    ----------
    inputs
        The image and the model, chosen at the top of the panel.

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

    def __init__(self, inputs: InputForm, advanced: dict[str, str]) -> None:
        super().__init__()
        self.inputs = inputs
        self.model: Any = inputs.model
        self.device: Any = DeviceBox()
        self.first = SettingsForm(PredictSettings, FIRST)
        self.advanced = SettingsForm(PredictSettings, advanced)

    def build(self, rows: Rows, advanced: Rows) -> None:
        """Lay out the rows, and show what the Segment step used last."""
        self.more = CollapsibleSection("Advanced settings", rows_widget(advanced))
        vbox(rows_widget(rows), self.more, owner=self)
        self._restore(remembered(SECTION))
        self.inputs.model_changed.connect(self.changed)

    def refresh_models(self, *_: Any) -> None:
        """List the models of the store anew; the chosen one stays chosen if it is still there."""
        self.inputs.refresh_models()

    def card(self) -> ModelCard:
        """Return the chosen model's card; raises ModelError without one."""
        return self.inputs.card()

    def settings(self) -> PredictSettings:
        """Return how the model is to be run.

        Raises
        ------
        SettingsError
            Settings that contradict each other.
        """
        return PredictSettings(**self.first.values(), **self.advanced.values())

    def _restore(self, values: dict[str, Any]) -> None:
        """Show remembered values, as far as they can still be chosen; none that are an image's."""
        restore_choices(values, device=self.device)
        settings = values.get("settings")
        kept = settings.items() if isinstance(settings, dict) else ()
        self.advanced.restore({k: v for k, v in kept if k not in IN_PREDICTION})


class SegmentForm(PredictForm):
    """Diameter and region; the other settings in a collapsible section.

    The sizes belong to the image, and are kept with it; the rest is remembered between sessions.

    Attributes
    ----------
    image, region, save_in, scheduler
        The choices.
    """

    def __init__(self, viewer: napari.Viewer, inputs: InputForm) -> None:
        super().__init__(inputs, ADVANCED)
        self._viewer = viewer
        self._shown: Image | None = None
        self._setting = False
        self._saver = QTimer(self)
        self._saver.setInterval(SAVE_MS)
        self._saver.setSingleShot(True)
        self._saver.timeout.connect(self.save)
        self._build()
        self._connect()
        self._show_image()

    def _build(self) -> None:
        self.image: Any = self.inputs.image
        self.region = ComboBox(name="region", choices=REGIONS, value=WHOLE, tooltip=_TIPS["region"])
        self.save_in = LineEdit(name="save in", tooltip=_TIPS["save_in"])
        self.scheduler = LineEdit(name="cluster", tooltip=_TIPS["scheduler"])
        self.size_row = DiameterRow(self._viewer, self.inputs, self.first.settings["diameter"])
        rows: Rows = [*self.first.rows(), (None, self.size_row), ("run on", self.region)]
        large: Rows = [("save in", self.save_in), ("cluster", self.scheduler)]
        self.build(rows, [("device", self.device), *self.advanced.rows(), *large])

    def _connect(self) -> None:
        sizes = self._size_settings
        for name, setting in {**self.first.settings, **self.advanced.settings}.items():
            if name in sizes:
                setting.widget.changed.connect(self._size_changed)
            setting.widget.changed.connect(self._changed)
        for widget in (self.device, self.region):
            widget.changed.connect(self._changed)
        self.model.changed.connect(self._changed)
        self.more.toggled.connect(self._changed)
        self.inputs.image_changed.connect(self._show_image)

    @property
    def _size_settings(self) -> dict[str, Any]:
        return {
            "diameter": self.first.settings["diameter"],
            "diameter_um": self.advanced.settings["diameter_um"],
        }

    def _show_image(self, *_: Any) -> None:
        """Show the sizes of the image that is chosen now."""
        image = self.inputs.image.value
        if image is not None and self._shown is None and get_image_settings(image).diameter is None:
            self._shown = image  # what was given before an image was opened is meant for it
            self._size_changed()
        if image is not self._shown:
            self._shown, self._setting = image, True
            try:
                for name, setting in self._size_settings.items():
                    setting.set(getattr(get_image_settings(image), name))
            finally:
                self._setting = False
        self.size_row.show_found()
        self.changed.emit()

    def _size_changed(self, *_: Any) -> None:
        if not self._setting:
            sizes = {name: setting.get() for name, setting in self._size_settings.items()}
            update_image_settings(self.inputs.image.value, **sizes)
            self.size_row.show_found()

    def _changed(self, *_: Any) -> None:
        self._saver.start()
        self.changed.emit()

    @property
    def complete(self) -> bool:
        """Whether there is an image and a model."""
        return self.image.value is not None and self.model.value is not None

    def set_diameter(self, diameter: float) -> None:
        """Show a diameter in pixels; one in micrometres would contradict it."""
        self.advanced.settings["diameter_um"].set(None)
        self.first.settings["diameter"].set(diameter)

    def settings(self) -> PredictSettings:
        """Return how the model is to be run, on the channel that is chosen for the image."""
        channel = get_image_settings(self.image.value).channel
        return PredictSettings(**self.first.values(), **self.advanced.values(), channel=channel)

    def values(self) -> dict[str, Any]:
        """Return what is remembered of the form, as JSON values."""
        return {
            "model": self.model.value,
            "device": self.device.value,
            "region": self.region.value,
            "settings": {k: v for k, v in self.advanced.values().items() if k not in IN_PREDICTION},
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
