"""The Click panel: the choices of image, model and labels, the buttons, and the status line."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet.core.errors import InputError, ModelError, UnetError
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT
from napari_unet.core.settings.tasks import ClickSettings
from napari_unet.gui.click.input import ToggleKey
from napari_unet.gui.click.mode import ClickMode
from napari_unet.gui.click.text import KEY_LIST, TIPS
from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.errors import report_error
from napari_unet.gui.layers.combos import as_choices, image_layers, object_layers, refresh_choices
from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.label_geometry import fits
from napari_unet.gui.layers.navigation import image_in_view
from napari_unet.gui.layers.result_info import ResultInfo
from napari_unet.gui.model_events import get_model_events, offer_models
from napari_unet.gui.remembered import remember, remembered
from napari_unet.gui.segment.form import SECTION as SEGMENT
from napari_unet.gui.widgets.panel import CollapsibleSection, DockPanel, ScrollPanel, WrappedLabel
from napari_unet.gui.widgets.settings_form import SettingsForm, rows_widget

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_unet.core.models.store import ModelEntry

SECTION = "click"
LABEL_WIDTH = 60
_NEW = "new labels"
_ROWS = {
    "hover": "show under the cursor",
    "grow": "grow through slices",
    "overwrite": "allow overwriting",
    "cache": "keep features",
}
_OFF = "Press the button, or C, and click on objects."


class ClickPanel(DockPanel):
    """Segments by clicks, on the features of an automatic model.

    Parameters
    ----------
    napari_viewer
        The window; npe2 passes it by this name.

    Attributes
    ----------
    mode
        Click mode.
    image, model, labels
        The choices; values are layers, or None for new labels, and the model's name.
    settings
        The form of the settings.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(self._dock_closed)
        self.viewer: Any = unwrap(napari_viewer)
        self.tracker = get_edit_tracker(self.viewer)
        self.mode = ClickMode(self.viewer, self.tracker, self)
        self._models: dict[str, ModelEntry] = {}
        self._next_model, self._followed = "", None
        self._hidden = QTimer(self)
        self._hidden.setSingleShot(True)
        self._hidden.timeout.connect(self._close_if_hidden)
        self._build()
        self.settings_section.open(remembered(SECTION).get("open") is True)
        self.settings.restore(remembered(SECTION).get("settings"))
        self.refresh_models()
        self._layers_changed()
        self._connect()
        self._settings_changed()
        self._show_state()

    def _build(self) -> None:
        self.image: Any = ComboBox(name="image", choices=self._images, tooltip=TIPS["image"])
        self.model: Any = ComboBox(name="model", choices=(), tooltip=TIPS["model"])
        self.labels: Any = ComboBox(
            name="labels", choices=self._label_choices, tooltip=TIPS["labels"]
        )
        rows = [("image", self.image), ("model", self.model), ("labels", self.labels)]
        self.settings = SettingsForm(ClickSettings, _ROWS)
        self.settings_section = CollapsibleSection(
            "Settings", rows_widget(self.settings.rows(), 140)
        )
        keys = QLabel(KEY_LIST)
        keys.setTextFormat(Qt.TextFormat.RichText)
        self.keys_section = CollapsibleSection("Keys", keys)
        inside = QWidget()
        content = QVBoxLayout(inside)
        content.setContentsMargins(4, 4, 4, 4)
        content.addWidget(rows_widget(rows, LABEL_WIDTH))
        content.addLayout(self._buttons())
        content.addWidget(self.settings_section)
        content.addWidget(self.keys_section)
        # Not by the layout's alignment: Qt then gives wrapped text no more height than its hint.
        content.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(ScrollPanel(inside))

    def _buttons(self) -> QVBoxLayout:
        mode = self.mode
        self.toggle_button = _button("Click (C)", TIPS["mode"], checkable=True)
        self.add = _button("Add", TIPS["add"], checkable=True)
        self.take_away = _button("Take away", TIPS["take away"], checkable=True)
        kinds = QButtonGroup(self)
        for button in (self.add, self.take_away):
            kinds.addButton(button)
        self.add.setChecked(True)
        self.keep = _button("Keep (Enter)", TIPS["keep"], mode.keep)
        self.drop = _button("Drop (Esc)", TIPS["drop"], mode.drop)
        self.undo = _button("Undo", TIPS["undo"], mode.undo)
        self.redo = _button("Redo", TIPS["redo"], mode.redo)
        names = {SPLIT: "Split (S)", MERGE: "Merge (M)", DELETE: "Delete (D)"}
        self.edits = {
            edit: _button(
                name, TIPS[edit], functools.partial(self._edit_pressed, edit), checkable=True
            )
            for edit, name in names.items()
        }
        self.status = WrappedLabel(_OFF)
        whole = QVBoxLayout()
        whole.setContentsMargins(6, 0, 6, 0)
        whole.addWidget(self.toggle_button)
        for row in ((self.add, self.take_away), (self.keep, self.drop), (self.undo, self.redo),
                    tuple(self.edits.values())):  # fmt: skip
            line = QHBoxLayout()
            for button in row:
                line.addWidget(button, 1)
            whole.addLayout(line)
        whole.addWidget(self.status)
        return whole

    def _connect(self) -> None:
        self.toggle_button.clicked.connect(lambda: self.toggle())
        self.take_away.toggled.connect(self._negative_toggled)
        self.mode.changed.connect(self._show_state)
        self.mode.changed.connect(self.leave)
        self.image.changed.connect(self._guess_labels)
        self.model.changed.connect(self._show_state)
        for setting in self.settings.settings.values():
            setting.widget.changed.connect(self._settings_changed)
        self.settings_section.toggled.connect(self._settings_changed)
        get_model_events().changed.connect(self.refresh_models)
        get_model_events().chosen.connect(self._choose_next)
        layers = self.viewer.layers
        layers.events.inserted.connect(self._inserted)
        for event in (layers.events.inserted, layers.events.removed, layers.events.renamed):
            event.connect(self._layers_changed)
        layers.selection.events.active.connect(self._follow)
        self.docked.connect(self.tracker.close_with)
        self._key = ToggleKey(self.viewer, self, self.toggle)
        self._follow()

    def toggle(self) -> None:
        """Turn click mode on or off; if another layer is active, go on with click mode."""
        if not self.mode.on:
            self._start()
        elif not self.mode.active:
            self.mode.resume()
        else:
            self.mode.stop()
        self._show_state()

    def refresh_models(self, *_: Any) -> None:
        """List the models of the store again; at first one that has a click head is chosen."""
        chosen = self.model.value
        self._models = offer_models(self.model)
        able = [name for name, entry in self._models.items() if entry.card and entry.card.click]
        wanted = [chosen, remembered(SECTION).get("model"), *able]
        found = next((name for name in wanted if name in self._models), None)
        if found is not None:
            self.model.value = found
        self._show_state()

    def _start(self) -> None:
        image, entry = self.image.value, self._models.get(self.model.value)
        device = remembered(SEGMENT).get("device", "auto")
        try:
            if image is None:
                raise InputError("There is no image layer; open an image first.")
            if entry is None:
                raise ModelError("There is no model; import one with `napari-unet models import`.")
            if entry.card is None:
                raise ModelError(entry.problem)
            if not entry.card.click:
                raise ModelError(
                    f"The model {entry.name!r} has no click head; choose a model that has one, or "
                    "give it one with scripts/train_clicks.py."
                )
            self.mode.start(image, self.labels.value, entry.card, device)
        except UnetError as error:
            report_error(error, "click mode does not begin", self.mode.show_message)
            return
        self._followed = None if self.mode.target is None else self.mode.target.layer
        self._layers_changed()
        self._save()

    def _edit_pressed(self, edit: str) -> None:
        if self.mode.edits.edit == edit:
            self.mode.drop()
        else:
            self.mode.begin_edit(edit)

    def _negative_toggled(self, wanted: bool) -> None:
        self.mode.negative = wanted

    def _settings_changed(self, *_: Any) -> None:
        self.mode.apply_settings(ClickSettings(**self.settings.values()))
        self._save()

    def _save(self) -> None:
        values: dict[str, Any] = {"settings": self.settings.values()}
        remember(
            SECTION, {**values, "model": self.model.value, "open": self.settings_section.is_open}
        )

    def _images(self, *_: Any) -> list[tuple[str, Image]]:
        return as_choices(image_layers(self.viewer))

    def _label_choices(self, *_: Any) -> list[tuple[str, Labels | None]]:
        return [(_NEW, None), *as_choices(object_layers(self.viewer))]

    def _inserted(self, *_: Any) -> None:
        if not self.mode.on:
            self.mode.show_message("")  # what was missing may be there now

    def _layers_changed(self, *_: Any) -> None:
        """Update the choices of layers."""
        target = self.mode.target
        refresh_choices(self.image, self.labels)
        if target is None:
            self._guess_labels()
        else:
            for box, layer in ((self.image, target.image), (self.labels, target.layer)):
                if layer in box.choices:
                    box.value = layer
        self._show_state()

    def _guess_labels(self, *_: Any) -> None:
        """Choose the topmost labels of the image, unless some of its labels are chosen."""
        image, chosen = self.image.value, self.labels.value
        if self.mode.on or image is None:
            return
        if chosen is not None and self.tracker.get_image(chosen) is image:
            return
        found = [layer for _, layer in self._label_choices() if layer is not None]
        own = [x for x in found if self.tracker.get_image(x) is image and fits(image, x)]
        self.labels.value = own[-1] if own else None

    def _follow(self, *_: Any) -> None:
        """Choose the image or labels that the user makes active."""
        active = self.viewer.layers.selection.active
        self._key.follow(active)
        if self.mode.on:
            return
        image = image_in_view(self.viewer)
        if image is not None and image in self.image.choices:
            self.image.value = image
        if isinstance(active, Labels) and active in self.labels.choices:
            self.labels.value = active
            if active is not self._followed:  # as it is when click mode ends and activates them
                self._choose_model(ResultInfo.from_layer(active).model)
            self._followed = active

    def _choose_model(self, name: str | None) -> None:
        """Choose a model, if it has a click head."""
        entry = self._models.get(name or "")
        if not self.mode.on and entry is not None and entry.card and entry.card.click:
            self.model.value = name

    def _choose_next(self, name: str) -> None:
        """Choose a model that another panel asks for, as soon as click mode is off."""
        self._next_model = name
        if self.mode.on:
            self.mode.show_message(f"{name} will answer when Click is turned off and on again.")
        self._show_state()

    def _show_state(self, *_: Any) -> None:
        """Update the buttons and the status line."""
        mode = self.mode
        if self._next_model and not mode.on:
            name, self._next_model = self._next_model, ""
            self._choose_model(name)
        on, ready = mode.on, mode.on and mode.worker.session is not None
        self.toggle_button.setChecked(on and mode.active)
        for box in (self.image, self.model, self.labels):
            box.enabled = not on
        for button in (self.add, self.take_away, *self.edits.values(), self.undo, self.redo):
            button.setEnabled(ready)
        for edit, button in self.edits.items():
            button.setChecked(mode.edits.edit == edit)
        self.keep.setEnabled(mode.shown is not None)
        self.drop.setEnabled(mode.shown is not None or mode.edits.edit is not None)
        text = mode.describe()
        if not on and not text:
            text = _OFF if self.image.value is not None else "Open an image to begin."
        if self.status.text() != text:
            self.status.setText(text)

    @property
    def at_work(self) -> bool:
        """Whether click mode is on."""
        return self.mode.on

    def _dock_closed(self) -> None:
        """End click mode, as its button does, and give its key back."""
        self._key.let_go()
        self.mode.stop(force=True)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Refresh the models: there may be others now."""
        super().showEvent(event)
        self._key.take()
        self.refresh_models()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Save the settings; whether the dock was closed, and not only covered, shows later.

        napari sends a docked widget no close event, only hide events, also when a tab covers it.
        """
        super().hideEvent(event)
        self._save()
        self._hidden.start()

    def _close_if_hidden(self) -> None:
        """End click mode if the dock is still hidden: one that is undocked is so for a moment."""
        if self.dock is not None and self.dock.isHidden():
            self._dock_closed()


def _button(
    text: str, tip: str, pressed: Callable[[], object] | None = None, *, checkable: bool = False
) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setCheckable(checkable)
    button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the keys stay the canvas's
    if pressed is not None:
        button.clicked.connect(lambda: pressed())
    return button
