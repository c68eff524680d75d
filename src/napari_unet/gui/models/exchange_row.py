"""The buttons that bring models in and out, how that goes, and what is asked on the way."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu, QToolButton, QWidget

from napari_unet.core.errors import OwnTestError, UntrustedError
from napari_unet.core.models.foreign_folder import CODE
from napari_unet.core.models.package_files import is_web_address
from napari_unet.gui.jobs.run_button import ResultRun, RunButton
from napari_unet.gui.models.exchange import (
    BIOIMAGEIO,
    OPENED,
    OWN,
    ImportRequest,
    export_work,
    import_work,
)
from napari_unet.gui.models.weight_dialog import ask_weight_options
from napari_unet.gui.remembered import remember, remembered
from napari_unet.gui.shared_inputs import DEFAULTS
from napari_unet.gui.widgets.panel import WrappedLabel, hbox
from napari_unet.gui.widgets.question_box import QuestionBox

_TIPS = {
    "import": "A model of a colleague: a .zip file, a package of bioimage.io, ONNX, TorchScript.\n"
    "Files, folders and links can be dropped here, too.",
    "export": "Write the model into one .zip file, for other people or other programs.",
}


class ExchangeRow(QWidget):
    """Buttons for import and export; one of both goes on at a time.

    Emits `changed` when something begins, ends or is asked, and `imported` with the entry of a
    model in the store.

    Attributes
    ----------
    take, give
        The `RunButton` of import and of export.
    name
        The model to export; "" for none.
    question
        What has to be decided before an import goes on.
    status
        How it goes, and what came of it.
    """

    changed = Signal()
    imported = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self._waiting: list[str] = []
        self._request = ImportRequest("")
        self.question, self.status = QuestionBox(), WrappedLabel()
        self.take = RunButton(
            self, "Import…", _TIPS["import"], doing="Importing …", failing="the import failed",
            line=self.status, start=self.choose_file, show=self._show_import, answer=self._ask,
        )  # fmt: skip
        self.give = RunButton(
            self, "Export…", _TIPS["export"], doing="Exporting …", failing="the export failed",
            line=self.status, start=self.choose_target, show=self._show_export,
        )  # fmt: skip
        self.more = QToolButton()
        self.more.setText("▾")
        self.more.setToolTip("Import from a folder, or from the web.")
        self.more.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.more)
        menu.addAction("A folder…", self.choose_folder)
        menu.addAction("An address on the web…", self.ask_for_address)
        self.more.setMenu(menu)
        layout = hbox(self.take.widget.native, self.more, self.give.widget.native, owner=self)
        layout.setStretch(0, 1)
        layout.setStretch(2, 1)
        for button in (self.take, self.give):
            button.changed.connect(self.show_state)
        self.question.answered.connect(self._answered)

    @property
    def at_work(self) -> bool:
        """Whether a model comes or goes."""
        return self.take.active is not None or self.give.active is not None

    def cancel(self) -> None:
        """Stop; nothing half imported or written stays."""
        self._waiting = []
        self.take.cancel()
        self.give.cancel()

    def show_state(self) -> None:
        """Show what can be pressed."""
        self.take.enable(self.give.active is None)
        self.give.enable(self.take.active is None and bool(self.name))
        self.more.setEnabled(not self.at_work)
        self.changed.emit()

    # Import

    def choose_file(self) -> None:
        """Let the user choose a file to import."""
        self.import_models([QFileDialog.getOpenFileName(self, "Import a model", "", OPENED)[0]])

    def choose_folder(self) -> None:
        """Let the user choose the folder of a model or package."""
        self.import_models([QFileDialog.getExistingDirectory(self, "Import a model's folder")])

    def ask_for_address(self) -> None:
        """Ask for the address of a package on the web."""
        text = "Address of a package, such as https://…/package.zip"
        address = QInputDialog.getText(self, "Import from the web", text)[0].strip()
        if address and not is_web_address(address):
            self.status.setText(f"{address} is no address; it begins with https:// or http://.")
            return
        self.import_models([address])

    def import_models(self, sources: list[str]) -> None:
        """Import files, folders or addresses, one after the other."""
        self._waiting += [source for source in sources if source]
        self._import_next()

    def _import_next(self) -> None:
        if self.at_work or self.question.asking or not self._waiting:
            return
        request = ImportRequest(self._waiting.pop(0))
        if request.needs_options:
            options = ask_weight_options(Path(request.source).name, self)
            if options is None:
                self._import_next()
                return
            request = replace(request, options=options)
        self._launch(request)

    def _launch(self, request: ImportRequest) -> None:
        self._request = request
        self.take.launch(ResultRun, functools.partial(import_work, request))

    def _show_import(self, run: ResultRun) -> None:
        self.imported.emit(run.result)
        self._import_next()

    def _ask(self, error: Exception) -> bool:
        """Ask whether an import may go on; return whether that is a question at all."""
        request = self._request
        if isinstance(error, UntrustedError):
            text, yes, request = CODE, "Trust it", replace(request, trusted=True)
        elif isinstance(error, OwnTestError):
            text = f"{error.problem} It can be kept anyway; its card will say so."
            yes, request = "Import anyway", replace(request, anyway=True)
        else:
            return False
        self.status.setText(f"{Path(request.source).name} is not imported yet.")
        self.question.ask(text, yes, functools.partial(self._launch, request))
        return True

    def _answered(self) -> None:
        if not self.at_work:
            self.status.clear()
        self._import_next()
        self.show_state()

    # Export

    def choose_target(self) -> None:
        """Let the user choose where the model goes, and in which form."""
        place = (f"{self.name}.zip", f"{OWN};;{BIOIMAGEIO}")
        target, kind = QFileDialog.getSaveFileName(self, "Export a model", *place)
        if not target:
            return
        authors: list[str] = []
        if kind == BIOIMAGEIO:
            known = str(remembered(DEFAULTS).get("authors", ""))
            text, agreed = QInputDialog.getText(
                self, "Export a package", "Its authors, with commas between them", text=known
            )
            if not agreed:
                return
            remember(DEFAULTS, remembered(DEFAULTS) | {"authors": text})
            authors = [author.strip() for author in text.split(",") if author.strip()]
        work = functools.partial(export_work, self.name, target, kind, authors)
        self.give.launch(ResultRun, work)

    def _show_export(self, run: ResultRun) -> None:
        self.status.setText(f"Written to {run.result}.")
        self._import_next()


def dropped_sources(event: Any) -> list[str]:
    """Return the files, folders and addresses that are dragged."""
    data = event.mimeData()
    urls = data.urls() if data is not None and data.hasUrls() else []
    found = [url.toLocalFile() if url.isLocalFile() else url.toString() for url in urls]
    return [name for name in found if name and (is_web_address(name) or Path(name).exists())]
