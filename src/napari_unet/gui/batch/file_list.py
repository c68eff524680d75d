"""The list of files of a batch: one row a file, with its state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QTreeWidget,
    QTreeWidgetItem,
)

from napari_unet.batch.run import DONE, FAILED, RUNNING, WAITING, FileProgress
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qtpy.QtCore import QModelIndex
    from qtpy.QtGui import QDragEnterEvent, QDragMoveEvent, QDropEvent
    from qtpy.QtWidgets import QStyleOptionViewItem

_COLOURS = {DONE: (80, 190, 110), FAILED: (235, 90, 80), RUNNING: (230, 140, 40)}
_FILE, _STATE = range(2)


@dataclass
class FileRow:
    """A file of the list.

    Attributes
    ----------
    source
        The image.
    target
        Its labels; None before the first run.
    state
        "waiting", "running", "done" or "failed".
    text
        The state, as the row shows it.
    """

    source: Path
    target: Path | None = None
    state: str = WAITING
    text: str = WAITING


class FileList(QTreeWidget):
    """Shows files and their states; files and folders can be dropped on it.

    Emits `dropped` with the paths, and `opened` with the row that was double-clicked.

    Attributes
    ----------
    rows
        The files, in the order of the list.
    """

    dropped = Signal(list)
    opened = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[FileRow] = []
        self.setColumnCount(2)
        self.setHeaderLabels(["file", "state"])
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setAcceptDrops(True)
        self.setMinimumHeight(120)
        self.setItemDelegateForColumn(_FILE, _MiddleElided(self))
        header: Any = self.header()
        header.resizeSection(_FILE, 84)
        header.setSectionResizeMode(_STATE, QHeaderView.ResizeMode.Stretch)  # a tooltip has it all
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(80)
        self.itemDoubleClicked.connect(self._double_clicked)

    def add(self, images: Iterable[Path]) -> None:
        """Append files; those that are in the list already keep their rows."""
        known = {row.source for row in self.rows}
        for image in images:
            if image not in known:
                self.rows.append(FileRow(image))
                item = QTreeWidgetItem([image.name, WAITING])
                item.setToolTip(_FILE, str(image))
                self.addTopLevelItem(item)

    def remove(self, rows: Iterable[FileRow]) -> None:
        """Take files out of the list."""
        for row in rows:
            at = self.rows.index(row)
            self.rows.pop(at)
            self.takeTopLevelItem(at)

    def selected(self) -> list[FileRow]:
        """Return the selected files."""
        return [self.rows[self.indexOfTopLevelItem(item)] for item in self.selectedItems()]

    def show_step(self, step: FileProgress) -> None:
        """Show how far a file is, or its result."""
        remarks = "\n".join(step.remarks)
        if step.state == DONE:
            text = f"done: {pluralise(step.objects, 'object')}"
        elif step.state == FAILED:
            source = self.rows[step.number].source
            text = f"failed: {step.reason.replace(str(source), source.name)}"
        elif step.total:
            text = f"running: {step.done} of {step.total} {step.what}"
        else:
            text = f"running: {step.what} …"
        self._show(step.number, step.state, text, remarks)

    def show_waiting(self, number: int) -> None:
        """Show that a file's turn has not come, or that it will start again."""
        self._show(number, WAITING, WAITING)

    def _show(self, number: int, state: str, text: str, remarks: str = "") -> None:
        """Show a file's state; the tooltip has its whole text, and the remarks."""
        row, item = self.rows[number], self.topLevelItem(number)
        row.state, row.text = state, text
        if item is None:
            return
        item.setText(_STATE, text)
        if remarks or state != RUNNING:
            item.setToolTip(
                _STATE, "\n".join(filter(None, (text, remarks or _get_remarks(item, state))))
            )
        colour = _COLOURS.get(state)
        item.setForeground(_STATE, QBrush() if colour is None else QBrush(QColor(*colour)))
        if state == RUNNING:
            self.scrollToItem(item)

    def _double_clicked(self, item: QTreeWidgetItem, *_: Any) -> None:
        self.opened.emit(self.rows[self.indexOfTopLevelItem(item)])

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Accept files from other programs."""
        if event is not None and _paths(event):
            event.acceptProposedAction()

    def dragMoveEvent(self, event: QDragMoveEvent | None) -> None:
        """Accept them anywhere in the list."""
        if event is not None and _paths(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Emit the paths that were dropped."""
        if event is not None and (paths := _paths(event)):
            event.setDropAction(Qt.DropAction.CopyAction)
            event.accept()
            self.dropped.emit(paths)


class _MiddleElided(QStyledItemDelegate):
    """Leaves the middle of long names out: those of a series differ at their ends."""

    def initStyleOption(self, option: QStyleOptionViewItem | None, index: QModelIndex) -> None:
        """Take the text's middle."""
        super().initStyleOption(option, index)
        if option is not None:
            option.textElideMode = Qt.TextElideMode.ElideMiddle


def _get_remarks(item: QTreeWidgetItem, state: str) -> str:
    """Return the remarks that a row's tooltip already has, below the text."""
    return "" if state == WAITING else "\n".join(item.toolTip(_STATE).split("\n")[1:])


def _paths(event: Any) -> list[Path]:
    data = event.mimeData()
    urls = data.urls() if data is not None and data.hasUrls() else []
    return [Path(url.toLocalFile()) for url in urls if url.isLocalFile()]
