"""The Click panel: what is clicked on and into, the buttons, and what click mode says."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet.core.errors import InputError, ModelError, UnetError
from napari_unet.core.instances.label_edits import DELETE, MERGE, SPLIT
from napari_unet.core.settings import ClickSettings
from napari_unet.gui.click.mode import ClickMode
from napari_unet.gui.click.text import KEYS, TIPS, describe
from napari_unet.gui.click.toggle_key import ToggleKey
from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.errors import report_error
from napari_unet.gui.layers.combos import image_layers, named, object_layers
from napari_unet.gui.layers.label_geometry import fits
from napari_unet.gui.layers.navigation import image_in_view
from napari_unet.gui.layers.result_info import RESULT_KEY
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
    """Segments by clicks: each one is answered by the features of an automatic model.

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
        self.viewer: Any = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.recorder = get_edit_tracker(self.viewer)
        self.mode = ClickMode(self.viewer, self.recorder, self)
        self._models: dict[str, ModelEntry] = {}
        self._next, self._turned_to = "", None
        self._hidden = QTimer(self)
        self._hidden.setSingleShot(True)
        self._hidden.timeout.connect(self._look_whether_hidden)
        self._build()
        self.settings_fold.open(remembered(SECTION).get("open") is True)
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
        self.settings_fold = CollapsibleSection("Settings", rows_widget(self.settings.rows(), 140))
        keys = QLabel(KEYS)
        keys.setTextFormat(Qt.TextFormat.RichText)
        self.keys_fold = CollapsibleSection("Keys", keys)
        inside = QWidget()
        content = QVBoxLayout(inside)
        content.setContentsMargins(4, 4, 4, 4)
        content.addWidget(rows_widget(rows, LABEL_WIDTH))
        content.addLayout(self._buttons())
        content.addWidget(self.settings_fold)
        content.addWidget(self.keys_fold)
        # Not by the layout's alignment: that gives wrapped text no more height than its hint.
        content.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(ScrollPanel(inside))

    def _buttons(self) -> QVBoxLayout:
        mode = self.mode
        self.toggle_button = _button("Click (C)", TIPS["mode"], checkable=True)
        self.add = _button("Add", TIPS["add"], checkable=True)
        self.away = _button("Take away", TIPS["away"], checkable=True)
        kinds = QButtonGroup(self)
        for button in (self.add, self.away):
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
        for row in ((self.add, self.away), (self.keep, self.drop), (self.undo, self.redo),
                    tuple(self.edits.values())):  # fmt: skip
            line = QHBoxLayout()
            for button in row:
                line.addWidget(button, 1)
            whole.addLayout(line)
        whole.addWidget(self.status)
        return whole

    def _connect(self) -> None:
        self.toggle_button.clicked.connect(lambda: self.toggle())
        self.away.toggled.connect(self._away_toggled)
        self.mode.changed.connect(self._show_state)
        self.mode.changed.connect(self.leave)
        self.image.changed.connect(self._guess_labels)
        self.model.changed.connect(self._show_state)
        for setting in self.settings.settings.values():
            setting.widget.changed.connect(self._settings_changed)
        self.settings_fold.toggled.connect(self._settings_changed)
        get_model_events().changed.connect(self.refresh_models)
        get_model_events().chosen.connect(self._choose_next)
        layers = self.viewer.layers
        layers.events.inserted.connect(self._inserted)
        for event in (layers.events.inserted, layers.events.removed, layers.events.renamed):
            event.connect(self._layers_changed)
        layers.selection.events.active.connect(self._follow)
        self.docked.connect(self.recorder.close_with)
        self._key = ToggleKey(self.viewer, self)
        self._follow()

    def toggle(self) -> None:
        """Turn click mode on or off; if another layer is chosen meanwhile, go on."""
        if not self.mode.on:
            self._start()
        elif not self.mode.active:
            self.mode.resume()
        else:
            self.mode.stop()
        self._show_state()

    def refresh_models(self, *_: Any) -> None:
        """List the models of the store anew; one that answers clicks is chosen at first."""
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
            report_error(error, "click mode does not begin", self.mode.say)
            return
        self._turned_to = None if self.mode.target is None else self.mode.target.layer
        self._layers_changed()
        self._save()

    def _edit_pressed(self, edit: str) -> None:
        if self.mode.edits.what == edit:
            self.mode.drop()
        else:
            self.mode.begin_edit(edit)

    def _away_toggled(self, wanted: bool) -> None:
        self.mode.away = wanted

    def _settings_changed(self, *_: Any) -> None:
        self.mode.apply_settings(ClickSettings(**self.settings.values()))
        self._save()

    def _save(self) -> None:
        values: dict[str, Any] = {"settings": self.settings.values()}
        remember(SECTION, {**values, "model": self.model.value, "open": self.settings_fold.is_open})

    def _images(self, *_: Any) -> list[tuple[str, Image]]:
        return named(image_layers(self.viewer))

    def _label_choices(self, *_: Any) -> list[tuple[str, Labels | None]]:
        return [(_NEW, None), *named(object_layers(self.viewer))]

    def _inserted(self, *_: Any) -> None:
        if not self.mode.on:
            self.mode.say("")  # what was missing may be there now

    def _layers_changed(self, *_: Any) -> None:
        """Offer the layers that there are."""
        target = self.mode.target
        for box, layer in ((self.image, "image"), (self.labels, "layer")):
            chosen = box.value if target is None else getattr(target, layer)
            box.reset_choices()
            if chosen in box.choices:
                box.value = chosen
        if target is None:
            self._guess_labels()
        self._show_state()

    def _guess_labels(self, *_: Any) -> None:
        """Choose the topmost labels of the image, unless some of its labels are chosen."""
        image, chosen = self.image.value, self.labels.value
        if self.mode.on or image is None:
            return
        if chosen is not None and self.recorder.image_of(chosen) is image:
            return
        found = [layer for _, layer in self._label_choices() if layer is not None]
        own = [x for x in found if self.recorder.image_of(x) is image and fits(image, x)]
        self.labels.value = own[-1] if own else None

    def _follow(self, *_: Any) -> None:
        """Choose what the user turns to."""
        active = self.viewer.layers.selection.active
        self._key.follow(active)
        if self.mode.on:
            return
        image = image_in_view(self.viewer)
        if image is not None and image in self.image.choices:
            self.image.value = image
        if isinstance(active, Labels) and active in self.labels.choices:
            self.labels.value = active
            if active is not self._turned_to:  # not again when click mode ends
                made_by = active.metadata.get(RESULT_KEY, {}).get("passport", {}).get("model")
                self._choose_model(made_by)
            self._turned_to = active

    def _choose_model(self, name: str | None) -> None:
        """Choose a model, if it answers clicks."""
        entry = self._models.get(name or "")
        if not self.mode.on and entry is not None and entry.card and entry.card.click:
            self.model.value = name

    def _choose_next(self, name: str) -> None:
        """Choose the model that the user wants to go on with, as soon as click mode is off."""
        self._next = name
        if self.mode.on:
            self.mode.say(f"{name} will answer when Click is turned off and on again.")
        self._show_state()

    def _show_state(self, *_: Any) -> None:
        """Show what can be pressed, and what goes on."""
        mode = self.mode
        if self._next and not mode.on:
            name, self._next = self._next, ""
            self._choose_model(name)
        on, ready = mode.on, mode.on and mode.work.session is not None
        self.toggle_button.setChecked(on and mode.active)
        for box in (self.image, self.model, self.labels):
            box.enabled = not on
        for button in (self.add, self.away, *self.edits.values(), self.undo, self.redo):
            button.setEnabled(ready)
        for edit, button in self.edits.items():
            button.setChecked(mode.edits.what == edit)
        self.keep.setEnabled(mode.shown is not None)
        self.drop.setEnabled(mode.shown is not None or mode.edits.what is not None)
        text = describe(mode)
        if not on and not text:
            text = _OFF if self.image.value is not None else "Open an image to begin."
        if self.status.text() != text:
            self.status.setText(text)

    @property
    def at_work(self) -> bool:
        """Whether click mode is on."""
        return self.mode.on

    def _dock_closed(self) -> None:
        """End click mode with the panel, as its button does, and give its key back."""
        self._key.let_go()
        self.mode.stop(surely=True)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look which models there are now."""
        super().showEvent(event)
        self._key.take()
        self.refresh_models()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Remember the settings; a dock that stays hidden is closed, one behind another is not."""
        super().hideEvent(event)
        self._save()
        self._hidden.start()

    def _look_whether_hidden(self) -> None:
        """End click mode if the dock is still hidden: one that begins to float is for a moment."""
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
