"""Buttons in a panel of any width: in as few rows as their texts need."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QPushButton, QSizePolicy, QWidget

from napari_unet.gui.widgets.panel import Margins, hbox, vbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QResizeEvent, QShowEvent

_SPACING = 2


class ButtonRows(QWidget):
    """Buttons in as few rows as their texts need; each row takes the whole width.

    Parameters
    ----------
    buttons
        In the order in which they are read.
    """

    def __init__(self, buttons: Sequence[QPushButton], margins: Margins = (0, 0, 0, 0)) -> None:
        super().__init__()
        self._buttons = list(buttons)
        self._counts: list[int] = []
        for button in self._buttons:
            button.setMinimumWidth(1)
            button.setStyleSheet("QPushButton { padding: 2px 4px; }")
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._rows = [hbox() for _ in self._buttons]
        for row in self._rows:
            row.setSpacing(_SPACING)
        vbox(*self._rows, margins=margins, owner=self).setSpacing(_SPACING)
        self._place([len(self._buttons)])

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Lay the buttons out anew."""
        super().resizeEvent(event)
        self._fit()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Lay the buttons out by the font that they have now."""
        super().showEvent(event)
        self._fit()

    def _fit(self) -> None:
        margins = self.contentsMargins()
        if (layout := self.layout()) is not None:
            margins = layout.contentsMargins()
        room = self.width() - margins.left() - margins.right()
        self._place(split_rows([b.sizeHint().width() + _SPACING for b in self._buttons], room))

    def _place(self, counts: list[int]) -> None:
        if counts == self._counts:
            return
        self._counts, left = counts, iter(self._buttons)
        for row, count in zip(self._rows, counts, strict=False):
            for button in itertools.islice(left, count):
                row.addWidget(button)  # and Qt takes it out of the row where it was


def split_rows(widths: Sequence[int], room: int) -> list[int]:
    """Return how many things of some widths go into each row: few rows, and as even as can be."""
    total = len(widths)
    for rows in range(1, total):
        counts = [total // rows + (row < total % rows) for row in range(rows)]
        ends = list(itertools.accumulate(counts))
        if all(sum(widths[end - n : end]) <= room for n, end in zip(counts, ends, strict=True)):
            return counts
    return [1] * total
