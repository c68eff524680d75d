"""The panel in a real window, opened through the manifest."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_unet.core.errors import DeviceError
from napari_unet.core.image.domain_shift import ShiftRemark, ShiftReport, size_remark
from napari_unet.gui.layers import result_info
from napari_unet.gui.layers.navigation import SEEN, SLICE
from napari_unet.gui.layers.result_info import RESULT_KEY
from napari_unet.gui.segment import device_box
from napari_unet.gui.shared_inputs import InputForm

SHAPE = (40, 60)


@pytest.fixture
def image(viewer, panel):
    return viewer.add_image(
        np.random.default_rng(0).random(SHAPE), name="im", scale=(2, 2), units=("um", "um")
    )


def labels(viewer, name="im cells"):
    return viewer.layers[name]


def started(panel, qtbot, tiles=1):
    """Start a run that is held, and wait for its first tiles."""
    panel.engine.hold = tiles
    panel.run()
    qtbot.waitUntil(lambda: panel.active.progress.done == tiles)


def test_a_run_to_its_end(viewer, panel, image, engine, finish):
    assert panel.start.enabled and not panel.stop.enabled
    panel.start.native.click()
    assert panel.stop.enabled
    finish(panel)
    layer = labels(viewer)
    assert layer.data.dtype == np.uint16 and layer.data.shape == SHAPE
    assert np.unique(layer.data).tolist() == [1, 2, 3, 4]
    assert layer.scale.tolist() == [2, 2] and layer.units == image.units and layer.editable
    assert layer.metadata[RESULT_KEY]["passport"]["seam"] == 1.5e-6
    assert panel.status.text().startswith("4 objects in ") and panel.status.text().endswith(" s.")
    assert panel.status.toolTip().splitlines() == [
        "Computed on cpu, as float32.", "Largest difference at seams between tiles: 1.5e-06."
    ]  # fmt: skip
    assert panel.bar.value() == panel.bar.maximum() and not panel.stop.enabled
    assert engine.closed == 1 and engine.request.model == "cells"


def test_the_image_that_was_opened_last_or_turned_to_is_chosen(viewer, panel, image, finish):
    other = viewer.add_image(np.ones((16, 16)), name="other")
    assert panel.form.image.value is other
    viewer.layers.selection.active = image
    assert panel.form.image.value is image
    panel.run()
    finish(panel)
    viewer.layers.selection.active = labels(viewer)
    assert panel.form.image.value is image


def test_the_layer_fills_while_it_runs(viewer, panel, image, engine, qtbot, finish):
    drawn = []
    started(panel, qtbot, 1)
    layer = labels(viewer)
    layer.events.labels_update.connect(lambda event: drawn.append(event.offset))
    engine.hold = 2
    qtbot.waitUntil(lambda: panel.bar.value() == 2)
    qtbot.waitUntil(lambda: [0, 30] in drawn)
    assert panel.bar.maximum() == 4 and "2 of 4 tiles" in panel.status.text()
    assert np.unique(layer.data).tolist() == [0, 1, 2] and not layer.editable
    panel.engine.wait.set()
    finish(panel)
    assert layer.editable


def test_cancel_keeps_the_finished_tiles(viewer, panel, image, qtbot, finish):
    started(panel, qtbot, 2)
    panel.stop.native.click()
    assert panel.status.text() == "Stopping …" and not panel.stop.enabled
    panel.engine.wait.set()
    finish(panel)
    layer = labels(viewer)
    assert {1, 2} <= set(np.unique(layer.data)) and 4 not in layer.data and layer.editable
    assert panel.status.text() == "Cancelled; 2 finished tiles stay."
    assert "passport" not in layer.metadata[RESULT_KEY] and panel.engine.closed == 1


def test_cancel_before_the_first_tile_leaves_no_layer(viewer, panel, image, qtbot, finish):
    panel.engine.hold = 0
    panel.run()
    panel.cancel()
    panel.engine.wait.set()
    finish(panel)
    panel.engine.hold = None
    assert len(viewer.layers) in (1, 2)  # the tile that was under way may have come


def test_an_error_is_one_sentence_and_a_notification(viewer, panel, image, finish):
    panel.engine.fail_at = 0
    with notification_manager:
        notification_manager.records.clear()
        panel.run()
        finish(panel)
        messages = [str(note.message) for note in notification_manager.records]
    assert messages == ["The run failed: RuntimeError: the device is on fire"]
    assert panel.status.text() == messages[0]
    assert len(viewer.layers) == 1 and panel.start.enabled


def test_an_error_mid_way_keeps_the_tiles(viewer, panel, image, finish):
    panel.engine.fail_at, panel.engine.error = 2, DeviceError("There is no 'cuda'.")
    panel.run()
    finish(panel)
    assert panel.status.text() == "There is no 'cuda'."
    assert np.unique(labels(viewer).data).tolist() == [0, 1, 2]


def test_an_image_that_cannot_be_used(viewer, panel, finish):
    viewer.add_image(np.zeros((1, 1, 1, 1, 9, 9)), name="deep")
    panel.run()
    finish(panel)
    assert "'deep' has 6 axes" in panel.status.text() and len(viewer.layers) == 1


def test_without_an_image_or_a_model(viewer, panel):
    assert not panel.start.enabled and panel.status.text() == "Open an image to begin."
    panel.run()
    assert panel.status.text() == "There is no image layer; open an image first."
    panel.form.changed.emit()
    assert panel.status.text() == "Open an image to begin."
    viewer.add_image(np.zeros(SHAPE))
    assert panel.status.text() == ""


@pytest.mark.parametrize("layers", [["im cells"], ["im"], ["im", "im cells"]])
def test_layers_deleted_mid_way(viewer, panel, image, qtbot, finish, layers):
    started(panel, qtbot)
    for name in layers:
        viewer.layers.remove(name)
    panel.engine.wait.set()
    finish(panel)
    if "im cells" in layers:
        assert panel.status.text() == "Stopped, for the result's layer was removed."
    else:
        assert np.unique(labels(viewer).data).tolist() == [1, 2, 3, 4]


def test_a_stack_and_its_result_deleted_mid_way(viewer, panel, engine, qtbot, finish):
    viewer.add_image(np.zeros((5, *SHAPE)), name="im")
    started(panel, qtbot)
    viewer.layers.clear()
    viewer.add_image(np.zeros(SHAPE), name="another")
    viewer.scene.camera.center = (0, 5, 5)
    engine.wait.set()
    finish(panel)
    assert [layer.name for layer in viewer.layers] == ["another"]


def test_slices_switched_mid_way(viewer, panel, engine, qtbot, finish):
    viewer.add_image(np.zeros((5, *SHAPE)), name="im")
    viewer.dims.set_point(0, 2)
    engine.hold = 4
    panel.run()
    qtbot.waitUntil(lambda: len(engine.frames) > 0 and panel.active.progress.done == 4)
    viewer.dims.set_point(0, 4)
    viewer.dims.ndisplay = 3
    viewer.dims.ndisplay = 2
    engine.wait.set()
    finish(panel)
    assert engine.frames[0] == (2,) and sorted(engine.frames) == [(n,) for n in range(5)]
    assert (4,) in engine.frames[1:3]
    assert (labels(viewer).data > 0).all() and labels(viewer).editable


def test_the_viewer_closed_mid_way(viewer, panel, image, engine, qtbot):
    started(panel, qtbot)
    run = panel.active
    viewer.close()
    qtbot.waitUntil(lambda: run.job.cancelled, timeout=5000)
    engine.wait.set()
    qtbot.waitUntil(lambda: not run.job.active, timeout=5000)
    assert engine.closed == 1


def test_the_dock_closed_mid_way(viewer, panel, image, engine, qtbot, finish):
    started(panel, qtbot)
    viewer.window.remove_dock_widget(panel.dock)
    qtbot.waitUntil(lambda: panel.active.job.cancelled)
    engine.wait.set()
    finish(panel)
    assert 1 in labels(viewer).data and labels(viewer).editable


def test_the_panel_destroyed_mid_way(viewer, panel, image, engine, qtbot):
    from qtpy import sip

    started(panel, qtbot)
    run = panel.active
    whole = panel.dock.widget()
    viewer.window.remove_dock_widget(panel.dock)
    sip.delete(whole)  # as when nobody keeps the closed panel
    engine.wait.set()
    qtbot.waitUntil(lambda: not run.job.active)
    assert 1 in labels(viewer).data and labels(viewer).editable


def test_another_run_mid_way(viewer, panel, image, engine, qtbot, finish):
    started(panel, qtbot)
    engine.offset = 10
    panel.form.device.value = "cpu"  # another device: it must wait all the same
    panel.run()
    panel.run()
    engine.wait.set()
    qtbot.waitUntil(lambda: engine.closed == 2 and panel.active is None)
    assert [layer.name for layer in viewer.layers] == ["im", "im cells"]
    assert np.unique(labels(viewer).data).tolist() == [11, 12, 13, 14]


def test_running_again_replaces_or_keeps(viewer, panel, image, engine, finish, monkeypatch):
    threads, checksum = [], result_info.labels_checksum

    def noted(data):
        threads.append(threading.current_thread())
        return checksum(data)

    monkeypatch.setattr(result_info, "labels_checksum", noted)
    panel.run()
    finish(panel)
    engine.offset = 10
    panel.run()
    finish(panel)
    assert len(viewer.layers) == 2 and labels(viewer).data.min() == 11
    labels(viewer).paint((3, 3), 99)
    engine.offset = 20
    panel.run()
    finish(panel)
    assert [layer.name for layer in viewer.layers] == ["im", "im cells", "im cells [1]"]
    assert 99 in labels(viewer).data and labels(viewer, "im cells [1]").data.min() == 21
    assert threads and threading.main_thread() not in threads, "it takes a second for large stacks"


def test_a_cancelled_rerun_has_not_touched_other_slices(viewer, panel, engine, qtbot, finish):
    viewer.add_image(np.zeros((3, *SHAPE)), name="im")
    viewer.dims.set_point(0, 0)
    panel.run()
    finish(panel)
    before = labels(viewer).data.copy()
    engine.offset, engine.frames = 50, []
    started(panel, qtbot, 1)
    panel.cancel()
    engine.wait.set()
    finish(panel)
    data = labels(viewer).data
    assert np.array_equal(data[1:], before[1:])
    assert {0, 51} <= set(np.unique(data[0])) <= {0, 51, 52}


def test_objects_beyond_uint16(viewer, panel, image, engine, finish):
    engine.offset = 70_000
    panel.run()
    finish(panel)
    assert labels(viewer).data.dtype == np.uint32
    assert np.unique(labels(viewer).data).tolist() == [70_001, 70_002, 70_003, 70_004]
    engine.offset = 0
    panel.run()
    finish(panel)
    assert len(viewer.layers) == 2 and labels(viewer).data.max() == 4


def test_the_current_slice_of_a_time_series(viewer, panel, engine, finish):
    viewer.add_image(np.zeros((2, 3, *SHAPE)), name="im", scale=(1, 5, 1, 1))
    viewer.dims.set_point((0, 1), (1, 10))
    panel.form.region.value = SLICE
    panel.run()
    finish(panel)
    assert engine.frames == [(1, 2)]
    data = labels(viewer).data
    assert data[1, 2].min() == 1 and data.sum() == data[1, 2].sum()


def test_the_volume_of_a_3d_model(viewer, panel, engine, finish):
    viewer.add_image(np.zeros((2, 3, *SHAPE)), name="im")
    viewer.dims.set_point((0, 1), (1, 2))
    panel.form.model.value, panel.form.region.value = "volumes", SLICE
    panel.run()
    finish(panel)
    assert engine.frames == [(1,)] and engine.request.ndim == 3
    assert engine.focus[0] == pytest.approx((2, 19.5, 29.5))
    data = labels(viewer, "im volumes").data
    assert data[1].min() == 1 and data[0].max() == 0


def test_what_i_see_now(viewer, panel, image, engine, finish):
    panel.form.region.value = SEEN
    camera = viewer.scene.camera
    camera.center, camera.zoom = (0, 40, 60), 1000.0
    panel.run()
    finish(panel)
    assert (engine.window[0].stop - engine.window[0].start) < 10
    data = labels(viewer).data
    assert (data[engine.window] > 0).all() and (data > 0).sum() == (data[engine.window] > 0).sum()
    assert engine.focus[0] == pytest.approx((20, 30))


def test_out_of_view(viewer, panel, image, finish):
    panel.form.region.value = SEEN
    viewer.scene.camera.center = (0, 1e6, 1e6)
    panel.run()
    finish(panel)
    assert "Nothing of 'im' is in view" in panel.status.text() and len(viewer.layers) == 1


@pytest.mark.parametrize(
    ("shape", "options", "result"),
    [
        ((*SHAPE, 3), {"rgb": True}, SHAPE),
        ((2, *SHAPE, 3), {"rgb": True}, (2, *SHAPE)),
        ((3, 2, *SHAPE), {"axis_labels": ("t", "c", "y", "x")}, (3, 1, *SHAPE)),
        ((2, 3, *SHAPE), {"axis_labels": ("c", "z", "y", "x")}, (3, *SHAPE)),
    ],
)
def test_kinds_of_layers(viewer, panel, finish, shape, options, result):
    viewer.add_image(np.zeros(shape, np.uint8), name="im", **options)
    panel.run()
    finish(panel)
    assert labels(viewer).data.shape == result and labels(viewer).data.min() == 1


def test_multiscale_and_dask(viewer, panel, finish):
    array = pytest.importorskip("dask.array")
    viewer.add_image([np.zeros((80, 80)), np.zeros((40, 40))], multiscale=True, name="im")
    viewer.add_image(array.zeros((3, *SHAPE)), name="lazy", contrast_limits=(0, 1))
    for name, shape in (("im", (80, 80)), ("lazy", (3, *SHAPE))):
        panel.form.image.value = viewer.layers[name]
        panel.run()
        finish(panel)
        assert labels(viewer, f"{name} cells").data.shape == shape


def test_the_settings_are_remembered(viewer, panel, home):
    form = panel.form
    form.device.value, form.region.value, form.model.value = "cpu", SLICE, "volumes"
    form.first.restore({"diameter": 31.0})
    form.advanced.restore({"tile": 64, "certify": False})
    form.save()
    again = type(form)(viewer, InputForm(viewer))
    assert again.values() == form.values() and again.values()["settings"]["tile"] == 64
    assert again.first.settings["diameter"].get() is None, "it belongs to one image"


def test_onnx_is_a_device_where_it_is_installed(viewer, panel, image, monkeypatch):
    assert "onnx" in panel.form.device.choices
    panel.form.device.value = "onnx"
    assert panel.form.request().device == "onnx"
    monkeypatch.setattr(
        device_box, "find_spec", lambda name: None if name == "onnxruntime" else name
    )
    assert device_box.run_devices() == ("auto", "cpu", "cuda", "mps")


def test_changes_are_saved_soon(viewer, panel, home, qtbot):
    panel.form.region.value = SLICE
    qtbot.waitUntil(lambda: (home / "window.json").exists())
    assert json.loads((home / "window.json").read_text())["segment"]["region"] == SLICE


def test_unknown_memories_are_passed_over(viewer, models, home):
    values = {"model": "gone", "device": 3, "region": "all", "settings": {"tile": "x"}, "more": 1}
    (home / "window.json").write_text(json.dumps({"segment": values}))
    panel = viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1].segment
    assert panel.form.values()["device"] == "auto"
    assert panel.form.values()["settings"]["tile"] is None


def test_new_models_are_found(panel, models):
    from napari_unet.core.models.store import remove_model

    remove_model("volumes")
    panel.form.refresh_models()
    assert "volumes" not in panel.form.model.choices and panel.form.model.value == "cells"


def test_choices_follow_the_layers(viewer, panel):
    first = viewer.add_image(np.zeros(SHAPE), name="first")
    assert panel.start.enabled and panel.form.image.value == first
    second = viewer.add_image(np.zeros(SHAPE), name="second")
    assert panel.form.image.value == second
    viewer.layers.remove(second)
    assert panel.form.image.value == first
    viewer.layers.remove(first)
    assert not panel.start.enabled


@pytest.fixture
def surveying(viewer, panel):
    """A panel whose engine remarks on the size until the diameter is right."""
    viewer.add_image(np.random.default_rng(0).random((40, 60)), name="im")
    engine = panel.engine

    def steps(stack, request, **arguments):
        found = [size_remark(64, request.settings.diameter or 20)]
        remarks = tuple(remark for remark in found if remark)
        if remarks:
            yield ShiftReport(0, 0, "looking at the image", remarks)
        return (yield from engine(stack, request, **arguments))

    panel.engine = steps
    return panel


def test_the_remedy_is_one_click(surveying, qtbot, finish):
    panel = surveying
    assert panel.remarks.isHidden()
    panel.run()
    finish(panel)
    assert not panel.remarks.isHidden()
    assert "Objects look 3.2 x larger" in panel.remarks.text.text()
    assert panel.remarks.remedy.text() == "Run again at 64 px"
    panel.remarks.remedy.click()
    assert panel.form.request().settings.diameter == 64
    finish(panel)
    assert panel.remarks.isHidden()
    assert panel.status.text().startswith("4 objects")


def test_a_remark_without_a_remedy_has_no_button(panel):
    panel.remarks.show_remarks([ShiftRemark("It is noisier.")])
    assert panel.remarks.text.text() == "⚠ It is noisier."
    assert panel.remarks.remedy.isHidden()


def test_pixels_replace_micrometres(surveying):
    form = surveying.form
    form.advanced.settings["diameter_um"].set(12.5)
    form.set_diameter(30)
    assert (form.request().settings.diameter, form.request().settings.diameter_um) == (30, None)
