"""A line of text that a path in it does not make wider than the panel."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel

_BREAK = "\u200b"  # zero width: text may go on in the next line here


class WrappedLabel(QLabel):
    """Shows sentences in as many lines as the panel's width asks for; hidden without text.

    Parameters
    ----------
    text
        What it shows at first.
    """

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setMinimumWidth(180)  # not that of the longest word
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show a text."""
        text = text or ""
        for mark in "/\\_-":
            text = text.replace(mark, mark + _BREAK)
        super().setText(text)
        self.setVisible(bool(text))

    def clear(self) -> None:
        """Show nothing."""
        self.setText("")

    def text(self) -> str:
        """Return the text that was given."""
        return super().text().replace(_BREAK, "")
