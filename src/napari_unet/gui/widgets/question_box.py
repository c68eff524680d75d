"""A question in the panel, with its two answers; a dialog would hide what it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton, QWidget

from napari_unet.gui.widgets.panel import WrappedLabel, hbox, vbox

if TYPE_CHECKING:
    from collections.abc import Callable


class QuestionBox(QWidget):
    """Asks one question at a time; hidden while there is none.

    Emits `answered` when one of the answers was given, after what it leads to.

    Attributes
    ----------
    text, yes, no
        The question and its answers.
    """

    answered = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._accepted: Callable[[], object] | None = None
        self._declined: Callable[[], object] | None = None
        self.text = WrappedLabel()
        self.yes, self.no = QPushButton(), QPushButton()
        self.yes.clicked.connect(lambda: self._answer(True))
        self.no.clicked.connect(lambda: self._answer(False))
        vbox(self.text, hbox(self.yes, self.no, stretch=1), owner=self)
        self.hide()

    @property
    def asking(self) -> bool:
        """Whether an answer is awaited."""
        return self._accepted is not None

    def ask(
        self,
        text: str,
        yes: str,
        accepted: Callable[[], object],
        no: str = "No",
        declined: Callable[[], object] | None = None,
    ) -> None:
        """Show a question; call `accepted` if its answer is `yes`, else `declined`, if given."""
        self._accepted, self._declined = accepted, declined
        self.text.setText(text)
        self.yes.setText(yes)
        self.no.setText(no)
        self.show()

    def dismiss(self) -> None:
        """Take the question back."""
        self._accepted = self._declined = None
        self.hide()

    def _answer(self, agreed: bool) -> None:
        follow = self._accepted if agreed else self._declined
        self.dismiss()
        if follow is not None:
            follow()
        self.answered.emit()
