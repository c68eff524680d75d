"""The card of one model: its picture, what is known of it, and the user's own note."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QLabel, QPlainTextEdit, QWidget

from napari_unet.core.errors import ModelError, UnetError
from napari_unet.core.models.own_record import OwnRecord, read_record, write_note
from napari_unet.gui.errors import report_error
from napari_unet.gui.models.card_text import describe_model, to_html
from napari_unet.gui.widgets.panel import WrappedLabel, vbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.core.models.store import ModelEntry

logger = logging.getLogger(__name__)

PICTURE = (240, 96)
"""Largest width and height of the picture, in pixels."""
SAVE_MS = 600
"""So long after the last letter a note is written."""


class CardView(QWidget):
    """Shows the card of a model, and takes the user's note on it.

    Attributes
    ----------
    entry
        The model; None without one.
    picture, text, note
        What is shown, and the note.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entry: ModelEntry | None = None
        self._showing = False
        self.picture = QLabel()
        self.picture.setAlignment(Qt.AlignmentFlag.AlignLeft)
        self.text = WrappedLabel()
        self.note = QPlainTextEdit()
        self.note.setPlaceholderText("Your note on this model")
        self.note.setToolTip("Your own words on this model; they are kept on this computer.")
        self.note.setFixedHeight(54)
        self.note.setTabChangesFocus(True)
        self._saver = QTimer(self)
        self._saver.setSingleShot(True)
        self._saver.setInterval(SAVE_MS)
        self._saver.timeout.connect(self.save)
        self.note.textChanged.connect(self._note_changed)
        parts = (self.picture, self.text, self.note)
        vbox(*parts, margins=(6, 2, 6, 2), owner=self).setSpacing(4)

    def show_model(self, entry: ModelEntry | None, known: Mapping[str, str]) -> None:
        """Show a model's card.

        Parameters
        ----------
        known
            Names of the models of the store, by the hashes of their weights.
        """
        self.save()
        self.entry = entry
        self.setVisible(entry is not None)
        if entry is None:
            return
        record, problem = OwnRecord(), ""
        try:
            record = read_record(entry.card.hash if entry.card else "")
        except ModelError as error:
            problem = str(error)
        rows = describe_model(entry, known, record)
        self.text.setText(to_html([*rows, *([("missing", problem)] if problem else [])]))
        self._show_picture(entry)
        if self.note.toPlainText().strip() != record.note:  # the cursor stays where it is
            self._showing = True
            try:
                self.note.setPlainText(record.note)
            finally:
                self._showing = False
        self.note.setVisible(entry.card is not None)
        self.note.setEnabled(not problem)

    def save(self, *_: Any) -> None:
        """Write the note, if it was changed."""
        if not self._saver.isActive() or self.entry is None or self.entry.card is None:
            return
        self._saver.stop()
        try:
            write_note(self.entry.card.hash, self.note.toPlainText())
        except UnetError as error:
            report_error(error, "a note could not be written", logger.info)

    def _show_picture(self, entry: ModelEntry) -> None:
        picture = QPixmap() if entry.thumbnail is None else QPixmap(str(entry.thumbnail))
        if picture.isNull():
            self.picture.clear()
            self.picture.hide()
            return
        how = (Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation)
        width, height = min(PICTURE[0], picture.width()), min(PICTURE[1], picture.height())
        self.picture.setPixmap(picture.scaled(width, height, *how))
        self.picture.show()

    def _note_changed(self) -> None:
        if not self._showing:
            self._saver.start()
