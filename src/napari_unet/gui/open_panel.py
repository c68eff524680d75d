"""How napari opens the panel: by the names that the manifest gives its steps.

Each opens the same panel: the dock that it was in gives way to the new one, so that there are never
two.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_unet.gui.layers.convert import unwrap
from napari_unet.gui.panel import BATCH, CLICK, CORRECT, MEASURE, MODELS, SEGMENT, UNetPanel

if TYPE_CHECKING:
    import napari

_panels: weakref.WeakKeyDictionary[Any, weakref.ref[UNetPanel]] = weakref.WeakKeyDictionary()
"""The panel of each window; napari keeps it as long as its dock is there."""


def open_panel(viewer: Any, step: str = "") -> UNetPanel:
    """Return the panel of a window, at a step; its dock, if it has one, is removed.

    For napari, which puts what it gets into a new dock.
    """
    own = unwrap(viewer)
    known = _panels.get(own)
    panel = None if known is None else known()
    dock = None
    with contextlib.suppress(RuntimeError):  # Qt has deleted the panel, with its window
        dock = None if panel is None else panel.dock
    if panel is None or dock is None:
        panel = UNetPanel(viewer)
        _panels[own] = weakref.ref(panel)
    else:
        window = dock.parentWidget()
        floating, place = dock.isFloating(), dock.geometry()
        area = window.dockWidgetArea(dock) if isinstance(window, QMainWindow) else None
        width = dock.width()
        viewer.window.remove_dock_widget(dock)
        put_back = functools.partial(_put_back, panel, area, width, place if floating else None)
        QTimer.singleShot(0, put_back)  # napari docks it meanwhile
    if step:
        panel.open_step(step)
    return panel


def _put_back(panel: UNetPanel, area: Any, width: int, place: Any) -> None:
    """Give the panel's new dock the place of the one before."""
    dock = panel.dock
    window = None if dock is None else dock.parentWidget()
    if dock is None or not isinstance(window, QMainWindow):
        return
    if place is not None:
        dock.setFloating(True)
        dock.setGeometry(place)
    elif area is not None:
        if window.dockWidgetArea(dock) != area:
            window.addDockWidget(area, dock)
        window.resizeDocks([dock], [width], Qt.Orientation.Horizontal)


def explain_layer(viewer: napari.Viewer, layer: napari.layers.Labels) -> None:
    """Say how a layer was made, in the panel, which is opened if it is not."""
    known = _panels.get(unwrap(viewer))
    panel = None if known is None else known()
    dock = None if panel is None else panel.dock
    if panel is None or dock is None:
        panel = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1]
    else:
        dock.show()
        dock.raise_()
    panel.open_step(SEGMENT)
    panel.segment.how_made.show_layer(unwrap(layer))


class _OpenPanel(QWidget):
    """What the manifest names, a class for each step: all open the one panel."""

    step = ""

    def __new__(cls, napari_viewer: napari.Viewer) -> Any:
        """Return the panel instead of a widget of this class."""
        return open_panel(napari_viewer, cls.step)

    def __init__(self, napari_viewer: napari.Viewer) -> None:  # read by npe2, never called
        super().__init__()


class OpenUNet(_OpenPanel):
    """Opens the panel."""


class OpenSegment(_OpenPanel):
    """Opens the panel at Segment."""

    step = SEGMENT


class OpenClick(_OpenPanel):
    """Opens the panel at Click."""

    step = CLICK


class OpenCorrect(_OpenPanel):
    """Opens the panel at Correct."""

    step = CORRECT


class OpenMeasure(_OpenPanel):
    """Opens the panel at Measure."""

    step = MEASURE


class OpenBatch(_OpenPanel):
    """Opens the panel at Batch."""

    step = BATCH


class OpenModels(_OpenPanel):
    """Opens the panel at Models."""

    step = MODELS
