"""The table of measured objects: any number of rows, sorted by any column.

napari's own features table does not serve here: it lies in a private module and finds a row by the
label alone, which is not enough where objects of several planes or times have the same label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

if TYPE_CHECKING:
    from qtpy.QtCore import QItemSelection

    from napari_unet.core.regionprops.table import Table

_ROW_SPACE = 6  # pixels between two lines of text
_LOW = 130  # height of the table in a low window, in pixels
_WIDTH_ROWS = 150  # rows whose texts decide how wide a column is: all would take seconds


class ObjectModel(QAbstractTableModel):
    """The table as Qt reads it, cell by cell: only the rows in view are turned into text.

    Attributes
    ----------
    table
        The columns.
    order
        The number of the object in each row.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table: Table = {}
        self.order = np.zeros(0, np.int64)
        self._names: list[str] = []

    def show(self, table: Table) -> None:
        """Show a table, in its own order."""
        self.beginResetModel()
        self.table, self._names = table, list(table)
        self.order = np.arange(len(next(iter(table.values()), ())))
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many objects there are."""
        return 0 if parent is not None and parent.isValid() else len(self.order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many columns there are."""
        return 0 if parent is not None and parent.isValid() else len(self._names)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell's text, or its alignment."""
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role != Qt.ItemDataRole.DisplayRole or not index.isValid():
            return None
        return cell_text(self.table[self._names[index.column()]][self.order[index.row()]])

    def headerData(
        self, section: int, side: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return a column's name, as its heading and, in full, as its tooltip."""
        if side != Qt.Orientation.Horizontal or not 0 <= section < len(self._names):
            return None
        name = self._names[section]
        if role == Qt.ItemDataRole.ToolTipRole:
            return name
        return name.replace("_", " ") if role == Qt.ItemDataRole.DisplayRole else None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; equal values stay in the order of the table, nan comes last."""
        if not 0 <= column < len(self._names):
            return
        values = np.asarray(self.table[self._names[column]], float)
        if order == Qt.SortOrder.DescendingOrder:
            values = -values
        self.beginResetModel()
        self.order = np.argsort(values, kind="stable")
        self.endResetModel()


class ObjectView(QTableView):
    """Shows measured objects, numbered as in the table.

    Emits `chosen` with the number of the object whose row the user selects.
    """

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.objects = ObjectModel()
        self.setModel(self.objects)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSortingEnabled(True)
        side: Any = self.verticalHeader()
        side.hide()
        side.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        side.setDefaultSectionSize(self.fontMetrics().height() + _ROW_SPACE)
        self._header().setResizeContentsPrecision(_WIDTH_ROWS)
        self._header().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.current: int | None = None
        self._quiet = False
        self.objects.modelReset.connect(self._select_again)

    def sizeHint(self) -> QSize:
        """Return the size that leaves room for the histogram in a low window; it may grow."""
        return QSize(160, _LOW)

    def show_table(self, table: Table) -> None:
        """Show a table instead of the one before, sorted as the user has it."""
        self.current = None
        column, order = self._header().sortIndicatorSection(), self._header().sortIndicatorOrder()
        self.objects.show(table)
        self.objects.sort(column, order)
        self.resizeColumnsToContents()

    def select(self, number: int) -> None:
        """Select the row of an object and scroll to it; `chosen` is not emitted."""
        (rows,) = np.nonzero(self.objects.order == number)
        if not len(rows):
            return
        self.current, self._quiet = number, True
        try:
            self.selectRow(int(rows[0]))
            self.scrollTo(self.objects.index(int(rows[0]), 0))
        finally:
            self._quiet = False

    def selectionChanged(self, selected: QItemSelection, deselected: QItemSelection) -> None:
        """Emit which object was chosen."""
        super().selectionChanged(selected, deselected)
        rows = self.selectedIndexes()
        if rows and not self._quiet:
            self.current = int(self.objects.order[rows[0].row()])
            self.chosen.emit(self.current)

    def _header(self) -> Any:
        return self.horizontalHeader()

    def _select_again(self) -> None:
        """Keep the selection when the order changes."""
        if self.current is not None:
            self.select(self.current)


def cell_text(value: Any) -> str:
    """Return a value as the table shows it."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value}"
    return "" if value != value else f"{value:.5g}"
