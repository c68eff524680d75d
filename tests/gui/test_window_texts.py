"""What each step says when it is opened: new, over layers, and with what is remembered.

`fixtures/window_texts.json` holds the texts in the order in which they are laid out, hidden ones,
too. Nothing had to be left out: what hangs on the computer (devices, memory, free space) is said
when something runs, and no step does so when it is opened.
"""

from __future__ import annotations

import re
import shutil
from typing import Any

import numpy as np
import pytest
from contract_parts import FIXTURES, same_as
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QLabel,
    QLayout,
    QLineEdit,
    QScrollArea,
    QTableView,
    QTreeWidget,
    QWidget,
)

pytestmark = pytest.mark.gui

WHOLE = (QComboBox, QAbstractSpinBox, QLineEdit, QTableView, QTreeWidget)
"""Widgets of Qt whose parts say nothing of their own."""


@pytest.fixture
def opened(make_napari_viewer):
    """Open the panel at every step, and say what it says; it is closed again."""
    viewer = make_napari_viewer()

    def texts(**layers) -> dict[str, list[dict[str, Any]]]:
        for name, values in layers.items():
            add = viewer.add_labels if values.dtype.kind in "iu" else viewer.add_image
            add(values, name=name)
        dock, panel = viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")
        found = {"U-Net": [{"text": dock.windowTitle()}, *said(panel.inputs)]}
        for name, button in panel.buttons.items():
            panel.open_step(name)
            step = panel.get_step(name)
            title = {"text": button.text(), "tooltip": button.toolTip()}
            found[name] = [title, *said(step), *said(step.footer)]
        viewer.window.remove_dock_widget(dock)
        return found

    return texts


def said(panel: QWidget) -> list[dict[str, Any]]:
    """List what the widgets of a panel say; a tooltip like that of the one before is a ditto."""
    found, before = [], ""
    for widget in widgets_in(panel):
        entry = own_text(widget)
        if not any(entry.values()):
            continue
        if entry["tooltip"] and entry["tooltip"] == before:
            entry["tooltip"] = "ditto"
        else:
            before = entry["tooltip"]
        entry |= {} if widget.isVisibleTo(panel) else {"hidden": True}
        entry |= {} if widget.isEnabledTo(panel) else {"disabled": True}
        found.append({key: value for key, value in entry.items() if value not in ("", [])})
    return found


def widgets_in(widget: QWidget) -> list[QWidget]:
    """List a widget and all in it, in the order in which they are laid out."""
    inside = [] if widget.layout() is None else laid_out(widget.layout())
    if isinstance(widget, QScrollArea):
        inside = [part] if (part := widget.widget()) is not None else []
    elif not isinstance(widget, WHOLE):
        inside += [child for child in widget.children() if isinstance(child, QWidget)]
    found = [widget]
    for part in dict.fromkeys(inside):  # what is laid out is a child, too
        found += widgets_in(part)
    return found


def laid_out(layout: QLayout) -> list[QWidget]:
    found = []
    for item in map(layout.itemAt, range(layout.count())):
        found += [item.widget()] if item.widget() is not None else []
        found += laid_out(item.layout()) if item.layout() is not None else []
    return found


def own_text(widget: QWidget) -> dict[str, Any]:
    entry: dict[str, Any] = {"tooltip": widget.toolTip()}
    if isinstance(widget, QLabel | QAbstractButton | QAbstractSpinBox | QLineEdit):
        entry["text"] = re.sub(r"\b20\d\d-\d\d-\d\d\b", "<date>", widget.text())
    if isinstance(widget, QAbstractButton) and widget.isCheckable():
        entry["checked"] = widget.isChecked()
    elif isinstance(widget, QComboBox):
        entry["choices"] = [widget.itemText(number) for number in range(widget.count())]
        entry["text"] = widget.currentText()
    elif isinstance(widget, QLineEdit):
        entry["placeholder"] = widget.placeholderText()
    elif isinstance(widget, QAbstractSpinBox):
        special = widget.specialValueText()
        entry["special"] = special if special != entry["text"] else ""
    elif isinstance(widget, QTreeWidget):
        entry["columns"] = [widget.headerItem().text(n) for n in range(widget.columnCount())]
    elif isinstance(widget, QTableView) and widget.model() is not None:
        model, across = widget.model(), widget.horizontalHeader().orientation()
        entry["columns"] = [str(model.headerData(n, across)) for n in range(model.columnCount())]
    return entry


def changes(before: dict[str, list], after: dict[str, list]) -> dict[str, list]:
    """List, panel by panel, what was not said before; hidden or not."""

    def bare(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in entry.items() if k != "hidden"} for entry in entries]

    return {
        name: [entry for entry in bare(after[name]) if entry not in bare(before[name])]
        for name in after
    }


def test_panels_say_the_same(opened):
    fresh = opened()
    assert sum(map(len, fresh.values())) > 200
    image = np.zeros((4, 40, 50), np.float32)
    over_layers = opened(cells=image, found=np.uint16(image))
    found = {"fresh": fresh, "over an image and labels": changes(fresh, over_layers)}
    same_as("window_texts.json", found)


def test_what_was_remembered_is_shown_again(opened, home):
    fresh = opened()
    shutil.copytree(FIXTURES / "old_model", home / "models" / "old_model")
    shutil.copyfile(FIXTURES / "old_home" / "window.json", home / "window.json")
    same_as("window_texts_remembered.json", changes(fresh, opened()))
