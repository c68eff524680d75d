"""What every step works on, chosen once at the top: the image, its axes and channel, the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_unet.core.errors import InputError, ModelError, SettingsError
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.text import pluralise
from napari_unet.gui.layers.combos import as_choices, image_layers, refresh_choices
from napari_unet.gui.layers.convert import (
    full_resolution,
    layer_axes,
    layer_channel_names,
    letters_of_names,
    possible_axes,
    read_axes,
    unwrap,
)
from napari_unet.gui.layers.file_axes import read_file_axes
from napari_unet.gui.layers.image_settings import get_image_settings, update_image_settings
from napari_unet.gui.layers.navigation import image_in_view
from napari_unet.gui.layers.result_info import ResultInfo
from napari_unet.gui.model_events import get_model_events, offer_models
from napari_unet.gui.remembered import remember, remembered
from napari_unet.gui.widgets.panel import WrappedLabel, make_narrow, vbox
from napari_unet.gui.widgets.settings_form import restore_choices, rows_widget

if TYPE_CHECKING:
    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.models.store import ModelEntry

SECTION = "segment"
"""Where the model and the device are remembered, with the settings of the Segment step."""
DEFAULTS = "models"
"""Where it is remembered which model new windows begin with."""
WORDS = {"T": "time", "Z": "slice", "C": "channel"}
_TIPS = {
    "image": "The image that all steps work on: the one that you selected or opened last.",
    "axes": "What the axes of the image are: t time, c channel, z slice, y, x. It comes from the\n"
    "file, the names of the axes or the viewer's sliders; a guess is marked by a question.",
    "channel": "The channel that the model sees.",
    "model": "The model that finds the objects; Fine-tune starts from it.",
}
_AUTO = "auto"


class InputForm(QWidget):
    """The choice of image, axes, channel and model, which all steps share.

    Emits `image_changed` when there is another image, or its axes or channel are others; and
    `model_changed` when another model is chosen, or models came or
    went.

    Attributes
    ----------
    image, axes, channel, model
        The choices. Values are a layer, letters such as "TZYX", a number or None, a name.
    models
        The models of the store, by name.
    """

    image_changed = Signal()
    model_changed = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = unwrap(viewer)
        self._setting = False
        self._locked = False
        self._shown: Image | None = None
        self._told: tuple[Image | None, str | None] = (None, None)
        self.models: dict[str, ModelEntry] = {}
        self._build()
        self.refresh_models()
        restore_choices(remembered(SECTION), model=self.model)
        restore_choices({"model": default_model()}, model=self.model)
        self._layers_changed()
        self._follow()
        self._connect()

    def _build(self) -> None:
        self.image: Any = ComboBox(name="image", choices=self._images, tooltip=_TIPS["image"])
        self.axes: Any = ComboBox(name="axes", choices=(), tooltip=_TIPS["axes"])
        self.channel: Any = ComboBox(
            name="channel", choices=[(_AUTO, None)], tooltip=_TIPS["channel"]
        )
        self.model: Any = ComboBox(name="model", choices=(), tooltip=_TIPS["model"])
        self.question = WrappedLabel()
        rows = {"image": self.image, "axes": self.axes, "channel": self.channel}
        self._rows = {name: rows_widget([(name, row)]) for name, row in rows.items()}
        model = rows_widget([("model", self.model)])
        vbox(
            self._rows["image"], self._rows["axes"], self.question, self._rows["channel"], model,
            margins=(0, 4, 0, 0), owner=self,
        ).setSpacing(0)  # fmt: skip
        make_narrow(self)

    def _connect(self) -> None:
        self.image.changed.connect(self._image_chosen)
        self.axes.changed.connect(self._axes_chosen)
        # A guess is confirmed by choosing it, which changes nothing in the menu.
        self.axes.native.activated.connect(self.confirm_axes)
        self.channel.changed.connect(self._channel_chosen)
        self.model.changed.connect(self._model_chosen)
        get_model_events().changed.connect(self.refresh_models)
        get_model_events().chosen.connect(self.choose_model)
        layers = self._viewer.layers
        for event in (layers.events.inserted, layers.events.removed, layers.events.renamed):
            event.connect(self._layers_changed)
        layers.selection.events.active.connect(self._follow)
        self._viewer.dims.events.axis_labels.connect(self._show_image)

    # The model

    def refresh_models(self, *_: Any) -> None:
        """List the models of the store anew; the chosen one stays chosen if it is still there."""
        self.models = offer_models(self.model)
        self._describe_model()
        self.model_changed.emit()

    def choose_model(self, name: str | None) -> None:
        """Choose a model of the store, if it is there."""
        if name not in self.models:
            self.refresh_models()
        if name in self.models and name != self.model.value:
            self.model.value = name

    @property
    def entry(self) -> ModelEntry | None:
        """The chosen model's entry in the store; None if it is not there, or cannot be used."""
        entry = self.models.get(self.model.value)
        return entry if entry is not None and entry.card is not None else None

    def card(self) -> ModelCard:
        """Return the chosen model's card.

        Raises
        ------
        ModelError
            There is none, or it is damaged.
        """
        entry = self.models.get(self.model.value)
        if entry is None:
            raise ModelError("There is no model; import one with `napari-unet models import`.")
        if entry.card is None:
            raise ModelError(entry.problem)
        return entry.card

    def _model_chosen(self, *_: Any) -> None:
        self._describe_model()
        self._show_channels()
        self.model_changed.emit()

    def _describe_model(self) -> None:
        """Show in the tooltip what the model was made for."""
        entry = self.models.get(self.model.value)
        tip = _TIPS["model"]
        if entry is not None and entry.card is None:
            tip = entry.problem
        elif entry is not None and entry.card is not None:
            kind = "planes" if entry.card.spec.ndim == 2 else "volumes"
            tip = f"{tip}\n{entry.name}: for {kind}"
            if size := entry.card.training.get("diameter_px", {}).get("q50"):
                tip += f", trained on objects of about {size:.0f} px"
        self.model.tooltip = tip

    # The image

    def lock(self, image: Image | None) -> None:
        """Keep an image chosen while clicks go into its labels; None: choose freely again."""
        self._locked = image is not None
        for box in (self.image, self.axes, self.channel):
            box.enabled = image is None
        if image is not None and image in self.image.choices:
            self.image.value = image

    def _images(self, *_: Any) -> list[tuple[str, Image]]:
        return as_choices(image_layers(self._viewer))

    def _layers_changed(self, *_: Any) -> None:
        refresh_choices(self.image)
        self._show_image()

    def _follow(self, *_: Any) -> None:
        """Choose the image that the user selects, has just opened, or selects a result of."""
        if self._locked:
            return
        active = unwrap(self._viewer.layers.selection.active)
        source = isinstance(active, Labels) and ResultInfo.from_layer(active)
        # Own labels, circles and scribbles say nothing: the image stays the one that is chosen.
        follows = isinstance(active, Image) or (source and (source.image or source.base))
        image = image_in_view(self._viewer) if follows else None
        if image is not None and image in self.image.choices and image is not self.image.value:
            self.image.value = image

    def _image_chosen(self, *_: Any) -> None:
        self._show_image()

    def _show_image(self, *_: Any) -> None:
        """Show the axes and the channels of the image, and whether the axes are a guess."""
        image = self.image.value
        self._take_slider_names(image)
        choices, text, current = [], "", None
        try:
            if image is not None:
                current, certain = read_axes(image)
                choices = [(describe_axes(axes, image), axes) for axes in possible_axes(image)]
                text = "" if certain else ask_about_axes(current, image)
        except InputError as error:
            text = str(error)
        self._setting = True
        try:
            self.axes.choices = choices
            if current is not None:
                self.axes.value = current
        finally:
            self._setting = False
        self._rows["axes"].setVisible(len(choices) > 1)
        self.question.setText(text)
        self._show_channels()
        if image is not self._shown:
            self._shown = image
            self._show_planes(image, current)
        if (image, current) != self._told:  # other layers come and go, too
            self._told = (image, current)
            self.image_changed.emit()

    def _take_slider_names(self, image: Image | None) -> None:
        """Take the axes from the viewer's sliders, if the user has named only those."""
        if image is None or image.ndim < 3:
            return
        letters = letters_of_names(self._viewer.dims.axis_labels[-image.ndim :])
        named = letters_of_names(image.axis_labels) or get_image_settings(image).axes
        if letters and not named and not read_file_axes(image) and letters in possible_axes(image):
            update_image_settings(image, axes=letters)

    def _axes_chosen(self, axes: str | None) -> None:
        image = self.image.value
        if self._setting or image is None or axes is None:
            return
        update_image_settings(image, axes=axes, channel=None)
        self._shown = None  # the planes in view are others, too
        self._show_image()

    def unsure_axes(self) -> str:
        """Return what the image is taken for, such as "2 slices"; "" if that is no guess."""
        image = self.image.value
        try:
            axes, certain = read_axes(image) if image is not None else ("", True)
        except InputError:
            return ""
        return "" if certain else taken_for(axes, image)

    def confirm_axes(self, *_: Any) -> None:
        """Take the axes that are shown for the right ones, if they are a guess."""
        if self.unsure_axes():
            update_image_settings(self.image.value, axes=self.axes.value)
            self._told = (None, None)  # it is not asked any more
            self._show_image()

    def ask_for_axes(self) -> None:
        """Open the menu of the axes."""
        self.axes.native.setFocus()
        self.axes.native.showPopup()

    def _show_planes(self, image: Image | None, axes: str | None) -> None:
        """Show y and x of an image whose last axes are others, if nothing else is open."""
        dims = self._viewer.dims
        if image is None or axes is None or len(axes) != dims.ndim or dims.ndisplay != 2:
            return
        if axes.endswith("YX") or len(self._viewer.layers) > 1:
            return
        others = [at for at, letter in enumerate(axes) if letter not in "YX"]
        dims.order = (*others, axes.index("Y"), axes.index("X"))
        self._viewer.reset_view()

    # The channel

    def _show_channels(self) -> None:
        image = self.image.value
        names = channel_names(image)
        entry = self.entry
        wanted = 1 if entry is None or entry.card is None else entry.card.spec.in_channels
        rgb = bool(image is not None and image.rgb)
        choices: list[tuple[str, int | None]] = []
        if len(names) > 1:
            every = wanted == 3 if rgb else wanted == len(names)
            choices = [("all colours" if rgb else "all channels", None)] if every else []
            choices += list(zip(names, range(len(names)), strict=True))
        chosen = get_image_settings(image).channel
        values = [value for _, value in choices]
        self._setting = True
        try:
            self.channel.choices = choices or [(_AUTO, None)]
            self.channel.value = chosen if chosen in values else next(iter(values), None)
        finally:
            self._setting = False
        self._rows["channel"].setVisible(len(choices) > 1)

    def _channel_chosen(self, channel: int | None) -> None:
        if not self._setting and self.image.value is not None:
            update_image_settings(self.image.value, channel=channel)
            self.image_changed.emit()


def channel_names(image: Image | None) -> list[str]:
    """Return a name for each channel of an image; [] if it has one only, or cannot be used."""
    if image is None:
        return []
    if image.rgb:
        count = int(full_resolution(image).shape[-1])
        return ["red", "green", "blue", "alpha"][:count]
    try:
        axes = layer_axes(image)
    except InputError:
        return []
    if "C" not in axes:
        return []
    count = int(full_resolution(image).shape[axes.index("C")])
    names = layer_channel_names(image, axes) or ("",) * count
    return [
        f"{number}: {name}" if name else f"channel {number}" for number, name in enumerate(names)
    ]


def describe_axes(axes: str, image: Image) -> str:
    """Return axes with what lies along them, such as "TYX (88 times)"."""
    sizes = dict(zip(axes, full_resolution(image).shape, strict=False))
    parts = [pluralise(int(sizes[a]), WORDS[a]) for a in axes if a in WORDS]
    return f"{axes} ({', '.join(parts)})" if parts else axes


def taken_for(axes: str, image: Image) -> str:
    """Return what axes make of an image, such as "5 times of 2 slices"; "" for a single plane."""
    sizes = dict(zip(axes, full_resolution(image).shape, strict=False))
    return " of ".join(
        pluralise(int(sizes[a]), WORDS[a]) for a in axes if a in WORDS and sizes[a] > 1
    )


def ask_about_axes(axes: str, image: Image) -> str:
    """Return the question whether a guess is right."""
    taken = taken_for(axes, image)
    return f"⚠ Taken for {taken}: the file does not say. If not, choose the axes." if taken else ""


def image_pixel_um(image: Image) -> float | None:
    """Return the size of an image's pixel in x, in micrometres; None if it is unknown."""
    from napari_unet.gui.layers.convert import voxel_size_um

    try:
        size = voxel_size_um(image, layer_axes(image))
    except InputError:
        return None
    return None if size is None or not np.isfinite(size[-1]) else size[-1]


def quick_settings(image: Image | None) -> PredictSettings:
    """Return the settings last used, with the image's own size of objects and channel.

    Without the checks: for results that are only looked at.
    """
    quick: dict[str, Any] = {"certify": False, "survey": False}
    quick |= get_image_settings(image).prediction()
    values = remembered(SECTION).get("settings")
    try:
        return PredictSettings(**{**(values if isinstance(values, dict) else {}), **quick})
    except (SettingsError, TypeError):
        return PredictSettings(**quick)


def default_model() -> str:
    """Return the model that new windows begin with; "" for the one that was used last."""
    return str(remembered(DEFAULTS).get("model", ""))


def use_model(model: str) -> None:
    """Choose a model in all windows, also in those that are opened later."""
    remember(SECTION, remembered(SECTION) | {"model": model})
    get_model_events().chosen.emit(model)
