"""The Models step: choose, import, export, rename, delete, and what is known of each model."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QPushButton, QWidget

from napari_unet.core.errors import UnetError
from napari_unet.core.models.foreign_folder import (
    CODE,
    foreign_weights,
    is_foreign,
    is_trusted,
    trust,
)
from napari_unet.core.models.store import home, list_models
from napari_unet.core.models.upkeep import (
    DeletedModel,
    empty_trash,
    rename_model,
    restore_model,
    trash_model,
)
from napari_unet.core.settings.foreign_spec import TORCHSCRIPT
from napari_unet.gui.errors import report_error
from napari_unet.gui.model_events import get_model_events
from napari_unet.gui.models.card_view import CardView
from napari_unet.gui.models.exchange_row import ExchangeRow, dropped_sources
from napari_unet.gui.models.tree import ModelTree
from napari_unet.gui.remembered import remember, remembered
from napari_unet.gui.shared_inputs import DEFAULTS, default_model, use_model
from napari_unet.gui.widgets.button_rows import ButtonRows
from napari_unet.gui.widgets.dock import Step
from napari_unet.gui.widgets.panel import vbox

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QDragEnterEvent, QDropEvent, QHideEvent, QShowEvent

    from napari_unet.core.models.store import ModelEntry
    from napari_unet.gui.shared_inputs import InputForm

_TIPS = {
    "use": "Go on with this model: it is the one at the top, in all steps.",
    "rename": "Give one of your models another name (F2).",
    "delete": "Delete one of your models; it can be brought back until napari is closed.",
    "default": "New windows begin with this model.",
}
_deleted: list[DeletedModel] = []
"""What was deleted in this process, the last one last: it can be brought back."""


class ModelsPanel(Step):
    """Shows the models of the store, and lets them come and go.

    Parameters
    ----------
    viewer
        The window.
    inputs
        Its model is the one that is chosen at the top.

    Attributes
    ----------
    tree, card
        The models, and what is known of the selected one.
    exchange
        Import and export.
    question, status
        What is to be decided, and what came of what was done.
    """

    def __init__(self, viewer: napari.Viewer, inputs: InputForm) -> None:
        super().__init__()
        self.inputs = inputs
        self._entries: dict[str, ModelEntry] = {}
        self.setAcceptDrops(True)
        self._build()
        empty_trash()
        get_model_events().changed.connect(self.refresh)
        inputs.model_changed.connect(self._show_state)
        self.refresh()
        self.tree.select(inputs.model.value or "")

    def _build(self) -> None:
        self.tree, self.card, self.exchange = ModelTree(), CardView(), ExchangeRow()
        self.question, self.status = self.exchange.question, self.exchange.status
        self.rename = self._button("Rename", _TIPS["rename"], self.tree.edit_name)
        self.delete = self._button("Delete", _TIPS["delete"], self.delete_model)
        self.default = self._button("Default", _TIPS["default"], self.set_default)
        self.default.setCheckable(True)
        self.use = self._button("Use this model", _TIPS["use"], self.use_selected)
        self.undo = self._button("", "", self.undo_delete)
        own = ButtonRows([self.rename, self.delete, self.default])
        parts = (self.tree, self.exchange, own, self.card)
        vbox(*parts, margins=(4, 0, 4, 0), owner=self).addStretch(1)
        self._choice = QWidget()
        vbox(self.use, owner=self._choice)
        vbox(self.status, self.question, self.undo, self._choice, owner=self.footer)
        self.tree.selected.connect(self._selected)
        self.tree.renamed.connect(self._renamed)
        self.exchange.changed.connect(self._show_buttons)
        self.exchange.changed.connect(self.state_changed)
        self.exchange.imported.connect(self._imported)

    @staticmethod
    def _button(text: str, tip: str, press: Any) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda: press())
        return button

    @property
    def busy(self) -> bool:
        """Whether a model comes or goes, or a question waits for an answer."""
        return self.at_work or self.question.asking

    @property
    def at_work(self) -> bool:
        """Whether a model comes or goes."""
        return self.exchange.at_work

    def show_footer(self) -> None:
        """Show the footer while the step is open, or what goes on in it."""
        super().show_footer()
        self._choice.setVisible(self.is_open)

    def cancel_all(self) -> None:
        """Stop what goes on: the dock was closed."""
        self.exchange.cancel()
        self.card.save()

    # The list

    @property
    def selected(self) -> ModelEntry | None:
        """The selected model; None without one."""
        return self._entries.get(self.tree.current)

    def refresh(self, *_: Any) -> None:
        """List the models anew, and show the selected one's card."""
        self._entries = {entry.name: entry for entry in list_models()}
        self.tree.fill(self._entries.values(), self._states())
        self._show_card()

    def _states(self) -> dict[str, str]:
        default, found = default_model(), {}
        for name, entry in self._entries.items():
            state = "unusable" if entry.card is None else "shared" if entry.shared else ""
            found[name] = ", ".join(filter(None, (state, "default" if name == default else "")))
        return found

    def _selected(self, *_: Any) -> None:
        if not self.at_work:
            self.status.clear()
        self._show_card()

    def _show_card(self) -> None:
        known: dict[str, str] = {}
        for entry in self._entries.values():
            if entry.card is not None:
                known.setdefault(entry.card.hash, entry.name)
        self.card.show_model(self.selected, known)
        self._show_state()

    def _show_state(self, *_: Any) -> None:
        """Show what can be pressed, here and in the row of import and export."""
        entry = self.selected
        self.exchange.name = entry.name if entry is not None and entry.card is not None else ""
        self.exchange.show_state()

    def _show_buttons(self) -> None:
        entry = self.selected
        own = entry is not None and not entry.bundled and not entry.shared
        used = entry is not None and entry.name == self.inputs.model.value
        self.rename.setEnabled(own and entry is not None and entry.card is not None)
        self.delete.setEnabled(own and not self.at_work)
        self.default.setChecked(entry is not None and entry.name == default_model())
        self.default.setEnabled(entry is not None and entry.card is not None)
        self.use.setEnabled(entry is not None and entry.card is not None and not used)
        self.use.setText("In use" if used else "Use this model")
        gone = deleted_models()
        self.undo.setVisible(bool(gone))
        self.undo.setText(f"Undo: bring back {gone[-1].name!r}" if gone else "")

    # What is done with the selected model

    def use_selected(self) -> None:
        """Make the selected model the panel's; a program is asked about first."""
        entry = self.selected
        if entry is None or entry.card is None:
            return
        weights = foreign_weights(entry.path)
        if is_foreign(entry.path) and weights.suffix == f".{TORCHSCRIPT}":
            if not is_trusted(entry.card.hash):
                agreed = functools.partial(self._trust, entry.name, entry.card.hash)
                self.question.ask(CODE, "Trust it", agreed)
                return
        self.status.clear()
        use_model(entry.name)

    def _trust(self, name: str, model_hash: str) -> None:
        if self._try(trust, model_hash):
            use_model(name)
            self.refresh()

    def set_default(self) -> None:
        """Let new windows begin with the selected model, or with the one used last again."""
        name = self.tree.current
        self._remember_default("" if name == default_model() else name)
        self.refresh()

    @staticmethod
    def _remember_default(name: str) -> None:
        remember(DEFAULTS, remembered(DEFAULTS) | {"model": name})

    def delete_model(self) -> None:
        """Put the selected model into the trash."""
        name = self.tree.current

        def delete() -> None:
            _deleted.append(trash_model(name))

        self.card.save()
        if self._try(delete):
            get_model_events().changed.emit()
            self.status.setText(f"{name!r} is deleted.")

    def undo_delete(self) -> None:
        """Bring back the model that was deleted last."""
        gone = deleted_models()
        back: list[str] = []
        if gone and self._try(lambda: back.append(restore_model(gone[-1]))):
            _deleted.remove(gone[-1])
            self._show_new(back[0], f"{back[0]!r} is back.")

    def _renamed(self, before: str, after: str) -> None:
        used, default = before == self.inputs.model.value, before == default_model()
        if not self._try(rename_model, before, after):
            self.refresh()
            return
        if default:
            self._remember_default(after)
        self._show_new(after, "")
        if used:
            use_model(after)

    def _show_new(self, name: str, text: str) -> None:
        """Show a model that came, or has another name, in all windows; select it in this one."""
        get_model_events().changed.emit()
        self.tree.select(name)
        self.status.setText(text)

    def _imported(self, entry: ModelEntry) -> None:
        there = "is there already" if entry.name in self._entries else "is imported"
        self._show_new(entry.name, f"{entry.name!r} {there}.")

    def _try(self, action: Any, *values: Any) -> bool:
        """Do something with the store; return whether it succeeded, and say why not."""
        try:
            action(*values)
        except UnetError as error:
            report_error(error, "the models were not changed", self.status.setText)
            return False
        return True

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Accept files, folders and links from other programs."""
        if event is not None and dropped_sources(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Import what was dropped."""
        if event is not None and (sources := dropped_sources(event)):
            event.acceptProposedAction()
            self.exchange.import_models(sources)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look which models there are now."""
        super().showEvent(event)
        self.refresh()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Write the note."""
        super().hideEvent(event)
        self.card.save()


def deleted_models() -> list[DeletedModel]:
    """Return what was deleted from this store in this process, and can be brought back."""
    return [
        gone for gone in _deleted if gone.folder.is_relative_to(home()) and gone.folder.is_dir()
    ]
