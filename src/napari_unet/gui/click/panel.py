"""The Click step: the choice of labels, the buttons, and the status line."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QButtonGroup, QLabel, QPushButton, QVBoxLayout

from napari_unet.core.errors import InputError, ModelError, UnetError
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT
from napari_unet.core.settings.tasks import ClickSettings
from napari_unet.gui.click.input import ToggleKey
from napari_unet.gui.click.mode import ClickMode
from napari_unet.gui.click.text import KEY_LIST, TIPS
from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.errors import report_error
from napari_unet.gui.layers.combos import as_choices, object_layers, refresh_choices
from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.layers.label_geometry import fits
from napari_unet.gui.layers.result_info import ResultInfo
from napari_unet.gui.remembered import remember, remembered
from napari_unet.gui.shared_inputs import SECTION as SEGMENT
from napari_unet.gui.widgets.dock import Step
from napari_unet.gui.widgets.panel import CollapsibleSection, WrappedLabel, hbox, vbox
from napari_unet.gui.widgets.settings_form import SettingsForm, rows_widget

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from qtpy.QtGui import QHideEvent

    from napari_unet.gui.shared_inputs import InputForm

SECTION = "click"
_NEW = "new labels"
_ROWS = {
    "hover": "show under the cursor",
    "grow": "grow through slices",
    "overwrite": "allow overwriting",
    "cache": "keep features",
}
_OFF = "Press the button, or C, and click on objects."


class ClickPanel(Step):
    """Segments by clicks, on the features of an automatic model.

    Parameters
    ----------
    viewer
        The window.
    inputs
        The image and the model, chosen at the top.

    Attributes
    ----------
    mode
        Click mode.
    image, model, labels
        The choices, of which the first two are those at the top; None are new labels.
    settings
        The form of the settings.
    """

    def __init__(self, viewer: napari.Viewer, inputs: InputForm) -> None:
        super().__init__()
        self.viewer: Any = unwrap(viewer)
        self.inputs = inputs
        self.tracker = get_edit_tracker(self.viewer)
        self.mode = ClickMode(self.viewer, self.tracker, self)
        self._followed: Labels | None = None
        self._was_on = self._waiting = False
        self._build()
        self.settings_section.open(remembered(SECTION).get("open") is True)
        self.settings.restore(remembered(SECTION).get("settings"))
        self._layers_changed()
        self._connect()
        self._settings_changed()
        self._show_state()

    def _build(self) -> None:
        self.image: Any = self.inputs.image
        self.model: Any = self.inputs.model
        self.labels: Any = ComboBox(
            name="labels", choices=self._label_choices, tooltip=TIPS["labels"]
        )
        self.settings = SettingsForm(ClickSettings, _ROWS)
        self.settings_section = CollapsibleSection("Settings", rows_widget(self.settings.rows()))
        keys = QLabel(KEY_LIST)
        keys.setTextFormat(Qt.TextFormat.RichText)
        keys.setWordWrap(True)
        self.keys_section = CollapsibleSection("Keys", keys)
        layout = vbox(rows_widget([("labels", self.labels)]), owner=self)
        layout.addLayout(self._buttons())
        layout.addWidget(self.settings_section)
        layout.addWidget(self.keys_section)
        layout.addStretch(1)

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
        split, merge, delete = self.edits.values()
        for row in ((self.add, self.take_away), (self.undo, self.redo), (split, merge), (delete,)):
            whole.addLayout(hbox(*row, stretch=1))
        below = hbox(self.keep, self.drop, stretch=1)
        vbox(self.toggle_button, below, self.status, owner=self.footer)
        return whole

    def _connect(self) -> None:
        self.toggle_button.clicked.connect(lambda: self.toggle())
        self.take_away.toggled.connect(self._negative_toggled)
        self.mode.changed.connect(self._show_state)
        self.mode.changed.connect(self.ended)
        self.inputs.image_changed.connect(self._image_changed)
        self.inputs.model_changed.connect(self._model_changed)
        for setting in self.settings.settings.values():
            setting.widget.changed.connect(self._settings_changed)
        self.settings_section.toggled.connect(self._settings_changed)
        layers = self.viewer.layers
        layers.events.inserted.connect(self._inserted)
        for event in (layers.events.inserted, layers.events.removed, layers.events.renamed):
            event.connect(self._layers_changed)
        layers.selection.events.active.connect(self._follow)
        self._key = ToggleKey(self.viewer, self, self.toggle)
        self._follow()

    def toggle(self) -> None:
        """Turn click mode on or off; if another layer is active, go on with click mode."""
        if not self.mode.on:
            self._start()
            self.requested.emit()
        elif not self.mode.active:
            self.mode.resume()
        else:
            self.mode.stop()
        self._show_state()

    def _start(self) -> None:
        image = self.image.value
        device = remembered(SEGMENT).get("device", "auto")
        try:
            if image is None:
                raise InputError("There is no image layer; open an image first.")
            card = self.inputs.card()
            if not card.click:
                raise ModelError(
                    f"The model {self.model.value!r} has no click head; choose a model that has "
                    "one, or give it one with scripts/train_clicks.py."
                )
            self.mode.start(image, self.labels.value, card, device)
        except UnetError as error:
            report_error(error, "click mode does not begin", self.mode.show_message)
            return
        self.inputs.lock(image)
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
        remember(SECTION, {**values, "open": self.settings_section.is_open})

    def _label_choices(self, *_: Any) -> list[tuple[str, Labels | None]]:
        return [(_NEW, None), *as_choices(object_layers(self.viewer))]

    def _inserted(self, *_: Any) -> None:
        if not self.mode.on:
            self.mode.show_message("")  # what was missing may be there now

    def _layers_changed(self, *_: Any) -> None:
        """Update the choices of layers."""
        target = self.mode.target
        refresh_choices(self.labels)
        if target is None:
            self._guess_labels()
        elif target.layer in self.labels.choices:
            self.labels.value = target.layer
        self._show_state()

    def _image_changed(self) -> None:
        refresh_choices(self.labels)  # this may come before the layer list's own event
        self._guess_labels()
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
        if isinstance(active, Labels) and active in self.labels.choices:
            self.labels.value = active
            if active is not self._followed:  # as it is when click mode ends and activates them
                self._choose_model(ResultInfo.from_layer(active).model)
            self._followed = active

    def _choose_model(self, name: str | None) -> None:
        """Choose the model that made the labels, if it has a click head."""
        entry = self.inputs.models.get(name or "")
        if self.is_open and entry is not None and entry.card and entry.card.click:
            self.inputs.choose_model(name)

    def _model_changed(self) -> None:
        """Say that another model answers the next time, while click mode is on."""
        name = self.model.value
        if self.mode.on and name and name != self.mode.model:
            self.mode.show_message(f"{name} will answer when Click is turned off and on again.")
        self._show_state()

    def _show_state(self, *_: Any) -> None:
        """Update the buttons and the status line."""
        mode = self.mode
        on, ready = mode.on, mode.on and mode.worker.session is not None
        self.toggle_button.setChecked(on and mode.active)
        self.labels.enabled = not on
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
        self._show_waiting(on and mode.worker.has_actions)
        if on != self._was_on:
            self._was_on = on
            if not on:
                self.inputs.lock(None)
            self.state_changed.emit()

    def _show_waiting(self, wanted: bool) -> None:
        """Show at the cursor that a click waits for its answer, or does not any more."""
        if wanted and not self._waiting:
            QApplication.setOverrideCursor(Qt.CursorShape.BusyCursor)
        elif self._waiting and not wanted:
            QApplication.restoreOverrideCursor()
        self._waiting = wanted

    @property
    def busy(self) -> bool:
        """Whether click mode is on."""
        return self.mode.on

    @property
    def at_work(self) -> bool:
        """Whether click mode is on."""
        return self.mode.on

    def cancel_all(self) -> None:
        """End click mode, as its button does, and give its key back: the dock was closed."""
        self._key.let_go()
        self._show_waiting(False)
        self.mode.stop(force=True)

    def dock_hidden(self) -> None:
        """End click mode: its button cannot be seen any more."""
        self.cancel_all()

    def dock_shown(self) -> None:
        """Take the key again."""
        self._key.take()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Save the settings."""
        super().hideEvent(event)
        self._save()


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
