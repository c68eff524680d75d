"""The models of the store as a tree of versions: each below the one that it was tuned from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_unet.core.models.store import ModelEntry

_NAME, _STATE = range(2)
_PROBLEM = (235, 90, 80)


class ModelTree(QTreeWidget):
    """Shows models; one can be selected, and a name edited.

    Emits `selected` with the name of the model that was selected, and `renamed` with the old name
    and the one that was typed.
    """

    selected = Signal(str)
    renamed = Signal(str, str)

    def __init__(self) -> None:
        super().__init__()
        self._items: dict[str, QTreeWidgetItem] = {}
        self._filling = False
        self.setColumnCount(2)
        self.setHeaderLabels(["model", "state"])
        self.setHeaderHidden(True)
        self.setUniformRowHeights(True)
        self.setIndentation(14)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)
        self.setMinimumSize(80, 118)
        self.setMaximumHeight(160)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        header: Any = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(_STATE, QHeaderView.ResizeMode.ResizeToContents)
        self.currentItemChanged.connect(self._current_changed)
        self.itemChanged.connect(self._item_changed)

    @property
    def names(self) -> list[str]:
        """The models, in the order of the tree."""
        return list(self._items)

    @property
    def current(self) -> str:
        """The name of the selected model; "" without one."""
        item = self.currentItem()
        return "" if item is None else str(item.data(_NAME, Qt.ItemDataRole.UserRole))

    def fill(self, entries: Iterable[ModelEntry], states: Mapping[str, str]) -> None:
        """Show these models; the selected one stays selected if it is still there.

        Nothing is emitted.

        Parameters
        ----------
        states
            What stands beside a model, by its name.
        """
        current, entries = self.current, list(entries)
        parents = sort_versions(entries)
        self._filling = True
        try:
            self.clear()
            self._items = {}
            for entry in sorted(entries, key=lambda e: depth(e.name, parents)):
                self._add(entry, parents.get(entry.name), states.get(entry.name, ""))
            self.expandAll()
            self.select(current)
        finally:
            self._filling = False

    def select(self, name: str) -> None:
        """Select a model, if it is there; the first one if none is selected."""
        item = self._items.get(name) or self.currentItem() or self.topLevelItem(0)
        if item is not None and item is not self.currentItem():
            self.setCurrentItem(item)

    def edit_name(self) -> None:
        """Let the user type another name for the selected model."""
        item = self.currentItem()
        if item is not None:
            self.editItem(item, _NAME)

    def _add(self, entry: ModelEntry, parent: str | None, state: str) -> None:
        item = QTreeWidgetItem([entry.name, state])
        item.setData(_NAME, Qt.ItemDataRole.UserRole, entry.name)
        item.setToolTip(_NAME, f"{entry.name}\n{entry.path}")
        if entry.card is None:
            item.setForeground(_STATE, QBrush(QColor(*_PROBLEM)))
            item.setToolTip(_STATE, entry.problem)
        if not entry.bundled and not entry.shared:
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
        self._items[entry.name] = item
        above = self._items.get(parent or "")
        if above is None:
            self.addTopLevelItem(item)
        else:
            above.addChild(item)

    def _current_changed(self, *_: Any) -> None:
        if not self._filling:
            self.selected.emit(self.current)

    def _item_changed(self, item: QTreeWidgetItem, column: int) -> None:
        if self._filling or column != _NAME:
            return
        before, after = item.data(_NAME, Qt.ItemDataRole.UserRole), item.text(_NAME).strip()
        if after != before:
            self.renamed.emit(before, after)


def sort_versions(entries: list[ModelEntry]) -> dict[str, str]:
    """Return the name of each model's parent, where it is among these; none is its own ancestor."""
    by_hash: dict[str, str] = {}
    for entry in entries:
        if entry.card is not None:
            by_hash.setdefault(entry.card.hash, entry.name)
    parents: dict[str, str] = {}
    for entry in entries:
        parent = by_hash.get(entry.card.parent or "") if entry.card is not None else None
        above = parent
        while above is not None and above != entry.name:
            above = parents.get(above)
        if parent is not None and above is None:
            parents[entry.name] = parent
    return parents


def depth(name: str, parents: Mapping[str, str]) -> int:
    """Return how many ancestors a model has in the tree."""
    steps = 0
    while name in parents:
        name, steps = parents[name], steps + 1
    return steps
