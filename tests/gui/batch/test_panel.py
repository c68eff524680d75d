"""The Batch step, with a real tiny network; in a real window what needs one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_unet.batch import run as batchrun
from napari_unet.gui.batch.panel import BatchPanel
from napari_unet.gui.layers.result_info import IMAGE, RESULT_KEY
from napari_unet.gui.remembered import remember
from napari_unet.gui.shared_inputs import InputForm

SIZES = {"a": 2, "b": 0, "c": 1}


def spots(count: int) -> np.ndarray:
    image = np.zeros((60, 80), np.uint8)
    for number in range(count):
        image[10:20, 10 + 30 * number : 20 + 30 * number] = 250
    return image


@pytest.fixture
def folder(tmp_path):
    """Three images: two spots, a damaged file, one spot."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, count in SIZES.items():
        tifffile.imwrite(folder / f"{name}.tif", spots(count))
    (folder / "b.tif").write_bytes(b"II*\0nonsense")
    return folder


@pytest.fixture
def spots_model(threshold_model):
    threshold_model("spots", 2)
    quick = {"tile": 32, "certify": False, "survey": False}
    remember("segment", {"model": "spots", "device": "cpu", "settings": quick})


@pytest.fixture
def viewer():
    """The model of a window, which opens in no time."""
    return ViewerModel()


@pytest.fixture
def panel(viewer, spots_model, qtbot):
    inputs = InputForm(viewer)
    panel = BatchPanel(viewer, inputs)
    qtbot.addWidget(inputs)
    qtbot.addWidget(panel)
    return panel


@pytest.fixture
def work(panel, qtbot):
    def run():
        panel.start.click()
        qtbot.waitUntil(lambda: panel.job is None, timeout=20_000)
        return [row.text for row in panel.files.rows]

    return run


@pytest.fixture
def held(monkeypatch):
    """Hold the work before each file until the semaphore lets it go on."""
    go, plain = threading.Semaphore(0), batchrun._segment

    def slow(*arguments):
        assert go.acquire(timeout=10)
        return plain(*arguments)

    monkeypatch.setattr(batchrun, "_segment", slow)
    yield go
    go.release(100)


def urls(*paths):
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    return data


def test_it_begins_with_the_settings_of_the_segment_panel(panel):
    assert panel.form.model.value == "spots" and panel.form.device.value == "cpu"
    settings = panel.form.settings()
    assert (settings.tile, settings.certify) == (32, False)
    assert not panel.start.isEnabled() and panel.status.text().startswith("Add images")


def test_the_bar_counts_the_files_of_the_list(panel, folder):
    assert panel.bar.text() == "no files"
    panel.add([folder / "a.tif"])
    assert panel.bar.text() == "0 of 1 file"
    panel.add([folder])
    assert panel.bar.text() == "0 of 3 files"
    panel.remove_button.click()
    assert panel.bar.text() == "no files"


def test_a_folder(panel, folder, work, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    panel.add_folder_button.click()
    assert [row.text for row in panel.files.rows] == ["waiting"] * 3
    assert panel.form.output == folder / "segmented"
    first, second, third = work()
    assert first == "done: 2 objects" and third == "done: 1 object"
    assert second.startswith("failed: b.tif ")
    assert panel.status.text().startswith("2 of 3 files done, 1 failed, in 0:0")
    item = panel.files.topLevelItem(1)
    assert item.text(1) == second and item.toolTip(1) == second
    assert item.toolTip(0) == str(folder / "b.tif")
    assert tifffile.imread(folder / "segmented" / "a.tif").max() == 2
    assert panel.bar.value() == 3 and panel.start.text() == "Run on all files"


def test_running_again_goes_on_where_it_was_left(panel, folder, work):
    panel.add([folder])
    work()
    tifffile.imwrite(folder / "b.tif", spots(2))
    times = [(folder / "segmented" / f"{name}.tif").stat().st_mtime_ns for name in "ac"]
    assert work() == ["done: 2 objects", "done: 2 objects", "done: 1 object"]
    assert times == [(folder / "segmented" / f"{n}.tif").stat().st_mtime_ns for n in "ac"]
    panel.form.advanced.settings["min_size"].set(500)
    assert all("exists already" in text for text in work())
    panel.form.overwrite.value = True
    assert work() == ["done: 0 objects"] * 3


def test_files_from_the_dialog_and_by_drag_and_drop(panel, folder, tmp_path, monkeypatch):
    chosen = [str(folder / "c.tif")]
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: (chosen, ""))
    panel.add_files_button.click()
    where, left = QPointF(5, 5), Qt.MouseButton.LeftButton
    none, copy = Qt.KeyboardModifier.NoModifier, Qt.DropAction.CopyAction
    data = urls(folder, folder / "c.tif")
    enter = QDragEnterEvent(QPoint(5, 5), copy, data, left, none)
    panel.files.dragEnterEvent(enter)
    assert enter.isAccepted()
    panel.files.dropEvent(QDropEvent(where, copy, data, left, none))
    assert [row.source.name for row in panel.files.rows] == ["c.tif", "a.tif", "b.tif"]
    panel.add([tmp_path / "nowhere"])
    assert "does not exist" in panel.status.text() and len(panel.files.rows) == 3
    panel.files.topLevelItem(1).setSelected(True)
    assert panel.remove_button.text() == "Remove"
    panel.remove_button.click()
    assert [row.source.name for row in panel.files.rows] == ["c.tif", "b.tif"]
    assert panel.remove_button.text() == "Remove all"
    panel.remove_button.click()
    assert panel.files.rows == [] and not panel.start.isEnabled()


def test_cancel_keeps_the_finished_files(panel, folder, held, qtbot):
    panel.add([folder])
    panel.start.click()
    assert panel.start.text() == "Cancel" and not panel.form.isEnabled()
    held.release(2)
    qtbot.waitUntil(lambda: panel.files.rows[2].text.startswith("running"), timeout=10_000)
    assert panel.bar.value() == 2
    panel.start.click()
    assert not panel.start.isEnabled()
    held.release()
    qtbot.waitUntil(lambda: panel.job is None)
    assert [row.state for row in panel.files.rows] == ["done", "failed", "waiting"]
    assert panel.status.text().startswith("Cancelled. 1 of 3 files done, 1 failed")
    assert [path.name for path in (folder / "segmented").iterdir()] == ["a.tif"]
    held.release(10)
    panel.start.click()
    qtbot.waitUntil(lambda: panel.job is None)
    assert [row.state for row in panel.files.rows] == ["done", "failed", "done"]


def test_the_window_answers_while_it_works(panel, folder, held, qtbot):
    panel.add([folder])
    panel.start.click()
    qtbot.waitUntil(lambda: panel.files.rows[0].text == "running: loading the model …")
    panel.add([folder / "a.tif"])
    assert panel.status.text().startswith("The batch is running; add files")
    for _ in range(3):
        held.release()
        qtbot.wait(20)
    qtbot.waitUntil(lambda: panel.job is None)


def double_click(panel, row):
    place = panel.files.visualItemRect(panel.files.topLevelItem(row)).center()
    viewport, left = panel.files.viewport(), Qt.MouseButton.LeftButton
    QTest.mouseClick(viewport, left, Qt.KeyboardModifier.NoModifier, place)
    QTest.mouseDClick(viewport, left, Qt.KeyboardModifier.NoModifier, place)


def test_a_double_click_opens_image_and_labels(viewer, panel, folder, work, qtbot):
    image = np.stack([spots(2), spots(1)])
    path = folder / "d.tif"
    tifffile.imwrite(
        path, image, imagej=True, metadata={"axes": "ZYX", "spacing": 2, "unit": "um"},
        resolution=(4, 4),
    )  # fmt: skip
    panel.add([path])
    work()
    status = panel.status.text()
    double_click(panel, 0)
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    shown, labels = viewer.layers
    assert (shown.name, labels.name) == ("d", "d spots")
    assert np.array_equal(shown.data, image) and shown.scale.tolist() == [2, 0.25, 0.25]
    assert [plane.max() for plane in labels.data] == [2, 1]
    assert labels.scale.tolist() == shown.scale.tolist() and labels.units == shown.units
    mark = labels.metadata[RESULT_KEY]
    assert mark[IMAGE] == str(shown.unique_id) and mark["passport"]["model"] == "spots"
    assert labels.editable and panel.status.text() == status


def test_a_double_click_before_the_run_opens_the_image(viewer, panel, folder, qtbot):
    colours = np.stack([spots(1)] * 3, -1)
    tifffile.imwrite(folder / "rgb.tif", colours, photometric="rgb")
    panel.add([folder / "rgb.tif", folder / "b.tif"])
    panel.open(panel.files.rows[0])
    panel.open(panel.files.rows[0])
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    assert panel.status.text() == "", "nothing is being opened any more"
    viewer.layers.pop()
    assert viewer.layers["rgb"].rgb and viewer.layers["rgb"].data.shape == colours.shape
    double_click(panel, 1)
    qtbot.waitUntil(lambda: "b.tif" in panel.status.text() and "Opening" not in panel.status.text())
    assert len(viewer.layers) == 1


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("in", "is an image of the list; choose another folder."),
        ("in/a.tif", "is a file; choose a folder for the labels."),
        ("in/a.tif/out", "cannot be made"),
    ],
)
def test_an_output_folder_that_cannot_be(panel, folder, tmp_path, work, place, message):
    panel.add([folder])
    panel.form.folder.value = tmp_path / place
    assert work() == ["waiting"] * 3
    assert message in panel.status.text()
    assert message in notification_manager.records[-1].message


def test_without_an_output_folder(panel, folder):
    panel.add([folder])
    panel.form.folder.line_edit.value = ""
    assert not panel.start.isEnabled()
    panel.form.folder.line_edit.value = str(folder / "out")
    assert panel.start.isEnabled()


@pytest.mark.parametrize("how", ["viewer", "dock"])
def test_closed_meanwhile(make_napari_viewer, spots_model, folder, held, qtbot, how):
    viewer = make_napari_viewer()
    panel = viewer.window.add_plugin_dock_widget("napari-unet", "Batch")[1].batch
    panel.add([folder])
    panel.start.click()
    job = panel.job
    if how == "viewer":
        viewer.close()
    else:
        viewer.window.remove_dock_widget(panel.dock)
    qtbot.waitUntil(lambda: job.cancelled, timeout=5000)
    held.release(3)
    qtbot.waitUntil(lambda: not job.active, timeout=5000)
