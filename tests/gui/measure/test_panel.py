"""The Measure step, and in a real window, opened through the manifest, what needs one."""

from __future__ import annotations

import csv
import gc
import threading

import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_unet.core.io.label_writer import create_output
from napari_unet.core.regionprops.measure import MeasureInput
from napari_unet.gui.layers.result_info import IMAGE, RESULT_KEY
from napari_unet.gui.measure.panel import MeasurePanel
from napari_unet.gui.measure.table import cell_text
from napari_unet.gui.widgets.plots import histogram

SHAPE = (60, 80)
SQUARES = {3: (5, 5, 6), 5: (30, 40, 12), 9: (45, 5, 8)}


def squares() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint16)
    for label, (y, x, edge) in SQUARES.items():
        labels[y : y + edge, x : x + edge] = label
    return labels


def opened(viewer):
    return viewer.window.add_plugin_dock_widget("napari-unet", "Measure")[1].measure


@pytest.fixture
def viewer():
    """The model of a window, which opens in no time."""
    return ViewerModel()


@pytest.fixture
def panel(viewer, qtbot):
    panel = MeasurePanel(viewer)
    qtbot.addWidget(panel)
    return panel


@pytest.fixture
def measured(viewer, panel, qtbot):
    """Measure three squares in an image that holds their labels times ten."""

    def run(labels=None, wait=True, **place):
        labels = squares() if labels is None else labels
        viewer.add_image(labels * 10.0, name="im", **place)
        layer = viewer.add_labels(labels, name="found", **place)
        panel.start.native.click()
        if wait:
            qtbot.waitUntil(lambda: panel.active is None, timeout=10_000)
        return layer

    return run


@pytest.fixture
def held(monkeypatch):
    """Hold every measurement before it reads until the event is set."""
    go, read = threading.Event(), MeasureInput.read

    def slow(self, *where):
        assert go.wait(10)
        return read(self, *where)

    monkeypatch.setattr(MeasureInput, "read", slow)
    yield go
    go.set()


def column(panel, name):
    model = panel.view.objects
    at = list(model.table).index(name)
    return [model.data(model.index(row, at)) for row in range(model.rowCount())]


def row_of(panel, label):
    return column(panel, "label").index(str(label))


def selected(panel):
    return sorted({index.row() for index in panel.view.selectedIndexes()})


def test_the_table_the_features_and_the_histogram(viewer, panel, measured):
    layer = measured(scale=(2, 2), units=("um", "um"))
    assert panel.status.text() == "3 objects in found."
    assert column(panel, "label") == ["3", "5", "9"]
    assert column(panel, "area_px") == ["36", "144", "64"]
    assert column(panel, "area_um2") == ["144", "576", "256"]
    assert column(panel, "intensity_mean") == ["30", "50", "90"]
    assert column(panel, "touches_border") == ["no"] * 3
    assert layer.features["index"].tolist() == [3, 5, 9]
    assert layer.features["area_px"].tolist() == [36, 144, 64]
    assert panel.column.value == "area_px" and panel.histogram.counts.sum() == 3
    assert panel.histogram.edges[[0, -1]].tolist() == [36, 144]
    panel.column.value = "intensity_mean"
    assert panel.histogram.edges[[0, -1]].tolist() == [30, 90]
    assert "area_px: 144" in layer.get_status(layer.data_to_world((31, 41)), world=True)["value"]


def test_a_row_leads_to_its_object(viewer, panel, measured):
    layer = measured(scale=(2, 3), translate=(7, -4))
    viewer.layers.selection.active = viewer.layers["im"]
    panel.view.selectRow(row_of(panel, 9))
    assert layer.selected_label == 9 and viewer.layers.selection.active == layer
    middle = layer.data_to_world((48.5, 8.5))
    assert viewer.scene.camera.center[-2:] == pytest.approx(middle)
    assert panel.histogram.mark == 64
    panel.column.value = "intensity_mean"
    assert panel.histogram.mark == 90


def test_a_row_leads_to_its_slice_and_its_time(viewer, panel, measured):
    labels = np.zeros((2, 9, *SHAPE), np.uint16)
    labels[0, 2:5, 5:11, 5:11] = 1
    labels[1, 5:8, 30:40, 40:50] = 1
    layer = measured(labels, scale=(1, 2, 1, 1))
    assert column(panel, "t") == ["0", "1"] and column(panel, "volume_voxels") == ["108", "300"]
    assert layer.features["index"].tolist() == [-1, -1], "label 1 stands for two objects"
    panel.view.selectRow(1)
    assert viewer.dims.point[:2] == (1, 12)
    assert viewer.scene.camera.center[-2:] == pytest.approx((34.5, 44.5))


def test_planes_of_a_2d_model(viewer, panel, measured, qtbot):
    labels = np.stack([squares(), squares()])
    layer = measured(labels)
    assert len(column(panel, "label")) == 3
    layer.metadata[RESULT_KEY] = {"passport": {"object_axes": "YX"}}
    panel.start.native.click()
    qtbot.waitUntil(lambda: panel.active is None)
    assert column(panel, "z") == ["0"] * 3 + ["1"] * 3
    panel.view.selectRow(4)
    assert viewer.dims.point[0] == 1 and layer.selected_label == 5


def click(viewer, y, x):
    canvas = viewer.window._qt_viewer.canvas.native
    camera, size = viewer.scene.camera, np.array(viewer.canvas.size)
    row, col = (np.array((y, x)) - camera.center[-2:]) * camera.zoom + size / 2
    at = QPoint(round(col), round(row))
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at)


def test_a_click_on_an_object_selects_its_row(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    panel = opened(viewer)
    layer = viewer.add_labels(squares(), name="found")
    panel.start.native.click()
    qtbot.waitUntil(lambda: panel.active is None)
    viewer.reset_view()
    qtbot.wait(50)
    centre = viewer.scene.camera.center
    click(viewer, 35, 45)
    assert selected(panel) == [row_of(panel, 5)] and layer.selected_label == 5
    assert viewer.scene.camera.center == centre, "the view stays where it is"
    click(viewer, 1, 1)
    assert selected(panel) == [row_of(panel, 5)], "background is no object"
    layer.mode = "erase"
    click(viewer, 48, 8)
    assert selected(panel) == [row_of(panel, 5)] and panel.stale


def test_rows_and_clicks_in_a_3d_view(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    panel = opened(viewer)
    labels = np.zeros((20, *SHAPE), np.uint16)
    labels[4:10, 5:15, 5:15], labels[12:18, 35:45, 50:60] = 2, 6
    layer = viewer.add_labels(labels, name="found", scale=(2, 1, 1))
    panel.start.native.click()
    qtbot.waitUntil(lambda: panel.active is None)
    viewer.dims.ndisplay = 3
    viewer.reset_view()
    panel.view.selectRow(row_of(panel, 6))
    assert viewer.scene.camera.center == pytest.approx((29, 39.5, 54.5))
    panel.view.clearSelection()
    layer.selected_label = 1
    qtbot.wait(50)
    click(viewer, 39.5, 54.5)
    assert selected(panel) == [row_of(panel, 6)] and layer.selected_label == 6


def test_sorting_keeps_the_object(panel, measured):
    measured()
    panel.view.selectRow(row_of(panel, 9))
    area = list(panel.view.objects.table).index("area_px")
    panel.view.sortByColumn(area, Qt.SortOrder.DescendingOrder)
    assert column(panel, "label") == ["5", "9", "3"]
    assert selected(panel) == [1] and panel.view.current == 2
    panel.view.sortByColumn(area, Qt.SortOrder.AscendingOrder)
    assert column(panel, "label") == ["3", "9", "5"]
    panel.view.selectRow(2)
    assert panel.shown.labels.selected_label == 5


@pytest.mark.parametrize("how", ["data_setitem", "undo", "data", "array"])
def test_an_edit_makes_the_table_stale(viewer, panel, measured, how, qtbot):
    stack = np.stack([squares(), squares()])
    viewer.add_labels(stack, name="earlier")
    layer = viewer.layers["earlier"]
    where = (np.array([1]), np.array([1]), np.array([1]))
    viewer.dims.set_point(0, 1)
    layer.data_setitem(where, 4)
    panel.start.native.click()
    qtbot.waitUntil(lambda: panel.active is None)
    viewer.dims.set_point(0, 0)
    viewer.dims.set_point(0, 1)
    layer.refresh()
    assert not panel.stale, "moving a slider changes nothing"
    if how == "undo":
        layer.undo()
    elif how == "data_setitem":
        layer.data_setitem(where, 7)
    elif how == "data":
        layer.data = stack * 2
    else:
        layer.data[1, 50:, 60:] = 8
        layer.refresh()
    assert panel.stale and panel.status.text() == "The labels were changed since; measure again."
    panel.start.native.click()
    qtbot.waitUntil(lambda: panel.active is None)
    assert not panel.stale and "objects in earlier" in panel.status.text()


def test_an_edit_while_it_is_measured(panel, measured, held, qtbot):
    layer = measured(wait=False)
    qtbot.waitUntil(lambda: panel.active is not None and bool(panel.active.checks))
    layer.data_setitem((np.array([1]), np.array([1])), 4)
    held.set()
    qtbot.waitUntil(lambda: panel.active is None)
    assert panel.stale


def test_the_table_as_a_file(panel, measured, tmp_path, monkeypatch):
    assert not panel.save_button.enabled
    measured()
    asked = []

    def answer(*question):
        asked.append(question[2])
        return str(tmp_path / "mine"), "CSV (*.csv)"

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    panel.save_button.native.click()
    assert asked == ["found objects.csv"]
    with (tmp_path / "mine.csv").open(newline="") as file:
        assert [row["area_px"] for row in csv.DictReader(file)] == ["36", "144", "64"]
    assert panel.status.text() == f"Saved to {tmp_path / 'mine.csv'}."
    panel.save(tmp_path / "nowhere" / "mine.csv")
    assert "nowhere is no folder; make it first." in panel.status.text()
    assert "cannot be written" in notification_manager.records[-1].message


def test_shapes_that_differ(viewer, panel, qtbot):
    viewer.add_image(np.zeros((9, 9)), name="small")
    viewer.add_labels(squares(), name="found")
    panel.start.native.click()
    qtbot.waitUntil(lambda: panel.active is None)
    assert panel.status.text().startswith("The labels 'found' have shape (60, 80) (YX), the image")
    assert panel.shown is None and panel.start.text == "Measure"
    panel.form.image.value = None
    panel.start.native.click()
    qtbot.waitUntil(lambda: panel.active is None)
    assert column(panel, "label") == ["3", "5", "9"] and "intensity_mean" not in panel.shown.table


def test_the_choices_follow_the_layers(viewer, panel):
    assert not panel.start.enabled and panel.status.text().startswith("Open labels")
    images = [viewer.add_image(np.zeros(SHAPE), name=name) for name in "ab"]
    assert panel.form.image.value is None
    mark = {RESULT_KEY: {IMAGE: str(images[1].unique_id)}}
    layer = viewer.add_labels(squares(), name="found", metadata=mark)
    assert panel.start.enabled and panel.status.text() == ""
    assert panel.form.objects.value == layer
    assert panel.form.image.value == images[1], "the labels were found in it"
    images[1].name = "renamed"
    assert panel.form.image.native.findText("renamed") >= 0
    viewer.layers.remove(layer)
    assert not panel.start.enabled


def test_no_object(panel, measured):
    measured(np.zeros(SHAPE, np.uint16))
    assert panel.status.text() == "0 objects in found."
    assert panel.view.objects.rowCount() == 0 and panel.histogram.counts.size == 0
    panel.histogram.grab()


def test_cancel_keeps_the_table(viewer, panel, measured, held, qtbot):
    held.set()
    measured()
    held.clear()
    panel.start.native.click()
    assert panel.start.text == "Cancel"
    panel.start.native.click()
    held.set()
    qtbot.waitUntil(lambda: panel.active is None)
    assert panel.status.text() == "Cancelled." and len(column(panel, "label")) == 3


def test_the_labels_removed_meanwhile(viewer, panel, measured, held, qtbot):
    layer = measured(wait=False)
    viewer.layers.remove(layer)
    held.set()
    qtbot.waitUntil(lambda: panel.active is None)
    assert len(column(panel, "label")) == 3
    panel.view.selectRow(0)
    assert panel.view.current == 0


class TestInAWindow:
    @pytest.fixture
    def viewer(self, make_napari_viewer):
        return make_napari_viewer()

    @pytest.fixture
    def panel(self, viewer):
        return opened(viewer)

    @pytest.mark.parametrize("how", ["viewer", "dock"])
    def test_closed_meanwhile(self, viewer, panel, measured, held, qtbot, how):
        measured(wait=False)
        job = panel.active.job
        if how == "viewer":
            viewer.close()
        else:
            viewer.window.remove_dock_widget(panel.dock)
        qtbot.waitUntil(lambda: job.cancelled, timeout=5000)
        held.set()
        qtbot.waitUntil(lambda: not job.active, timeout=5000)

    @pytest.mark.parametrize("kind", ["tif", "zarr"])
    def test_planes_of_a_2d_model_that_are_opened_from_a_file(
        self, viewer, panel, tmp_path, qtbot, kind
    ):
        labels, path = np.stack([squares(), squares()]), tmp_path / f"labels.{kind}"
        place = (path, labels.shape, "ZYX", np.uint16, None, {"object_axes": "YX"})
        with create_output(*place) as output:
            output.array[...] = labels
        if kind == "tif":
            viewer.open(str(path), layer_type="labels", plugin="napari")
        else:
            viewer.add_labels(zarr.open(str(path), mode="r")["0"])
        panel.start.native.click()
        qtbot.waitUntil(lambda: panel.active is None)
        assert column(panel, "z") == ["0"] * 3 + ["1"] * 3


def test_a_closed_panel_watches_no_clicks(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    before = list(viewer.mouse_drag_callbacks)
    dock, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Measure")
    assert len(viewer.mouse_drag_callbacks) > len(before)
    viewer.window.remove_dock_widget(dock)
    del dock, panel  # napari, too, lets go of the panel
    qtbot.waitUntil(
        lambda: gc.collect() >= 0 and viewer.mouse_drag_callbacks == before, timeout=20_000
    )


def test_how_to_measure_is_remembered(viewer, panel, measured):
    panel.form.solidity.value, panel.form.frames.value = False, "planes"
    measured()
    assert "solidity" not in panel.shown.table
    again = type(panel.form)(viewer)
    assert (again.solidity.value, again.frames.value) == (False, "planes")


def test_bars():
    counts, edges = histogram(np.array([1, 2, 2, 5, np.nan]))
    assert counts.tolist() == [1, 2, 0, 0, 1] and edges[0] == 0.5
    counts, edges = histogram(np.full(7, 1 / 3))
    assert counts.sum() == 7 and edges[0] < 1 / 3 < edges[-1]
    counts, _ = histogram(np.random.default_rng(0).normal(size=10_000))
    assert 20 < len(counts) <= 60 and counts.sum() == 10_000
    assert histogram(np.array([np.nan]))[0].size == 0


def test_cells():
    values = [np.True_, np.int64(70000), np.float64(2 / 3), np.float64("nan")]
    assert [cell_text(value) for value in values] == ["yes", "70000", "0.66667", ""]
