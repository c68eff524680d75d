"""The one panel in a real window: its steps, its inputs, its dock, its width."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QComboBox, QDockWidget

from napari_unet.core.annotations.header import find_journals
from napari_unet.core.image.domain_shift import size_remark
from napari_unet.gui.jobs.engine import get_features
from napari_unet.gui.layers.convert import layer_axes, layer_stack
from napari_unet.gui.layers.image_settings import get_image_settings, update_image_settings
from napari_unet.gui.layers.live_labels import set_labels
from napari_unet.gui.panel import LEAST_WIDTH, STEPS, UNetPanel
from napari_unet.gui.widgets.panel import CollapsibleSection

LONG = "a layer whose name has 78 letters, as those of microscopes do, " + "x" * 10 + " 488"


def docks(viewer):
    """Return the docks that hold the panel."""
    found = viewer.window._qt_window.findChildren(QDockWidget)
    return [dock for dock in found if isinstance(dock.widget(), UNetPanel)]


def opened(viewer, name="U-Net"):
    return viewer.window.add_plugin_dock_widget("napari-unet", name)[1]


@pytest.fixture
def panel(viewer, models):
    return opened(viewer)


def test_every_widget_of_the_manifest_opens_the_same_panel_at_its_step(
    viewer, models, monkeypatch, qtbot
):
    loads = []
    monkeypatch.setattr("napari_unet.gui.panel.REST_MS", 1)
    monkeypatch.setattr(
        "napari_unet.gui.panel.load_libraries", lambda steps: iter(loads.append(len(steps)) or ())
    )
    first = opened(viewer)
    first.showEvent(None)  # the window of the tests is not shown
    names = {
        "Segment": "Segment", "Click": "Click", "Correct and fine-tune": "Correct",
        "Measure": "Measure", "Batch": "Batch", "Models": "Models",
    }  # fmt: skip
    for name, step in names.items():
        dock, panel = viewer.window.add_plugin_dock_widget("napari-unet", name)
        assert panel is first and panel.step == step and panel.buttons[step].isChecked()
        assert panel.dock is dock
        qtbot.wait(20)
        assert docks(viewer) == [dock], "one dock, never two"
    assert loads == [len(STEPS)], "once for each panel"
    viewer.window.remove_dock_widget(dock)
    again = opened(viewer)
    assert again is not first and docks(viewer) == [again.dock]


def test_what_goes_on_is_shown_in_every_step_and_goes_on_when_the_dock_changes(
    viewer, panel, engine, qtbot
):
    viewer.add_image(np.zeros((40, 60)), name="im")
    segment = panel.segment
    segment.engine, engine.hold = engine, 1
    panel.inputs.model.value = "cells"
    segment.run()
    qtbot.waitUntil(lambda: segment.active.progress.done == 1)
    panel.open_step("Measure")
    for shown in (segment.status, segment.bar, segment.stop.native):
        assert shown.isVisibleTo(panel)
    assert opened(viewer, "Batch") is panel
    qtbot.wait(20)
    assert segment.active is not None and not segment.active.job.cancelled
    assert segment.footer.isVisibleTo(panel), "though Batch has no use for its button"
    engine.wait.set()
    qtbot.waitUntil(lambda: segment.active is None)
    assert not segment.footer.isVisibleTo(panel)
    panel.open_step("Correct")
    assert segment.start.native.isVisibleTo(panel)
    assert segment.status.isVisibleTo(panel), "what the run came to is still to be read"
    panel.open_step("Segment")
    panel.open_step("Correct")
    assert not segment.status.isVisibleTo(panel)
    assert panel.dock.titleBarWidget().title.text() == "U-Net"


def test_all_steps_work_on_the_image_and_the_model_chosen_at_the_top(viewer, panel):
    first = viewer.add_image(np.zeros((40, 60)), name="first")
    viewer.add_image(np.zeros((40, 60)), name="second")
    panel.inputs.image.value = first
    panel.inputs.model.value = "volumes"
    request = panel.segment.form.request()
    assert request.model == "volumes" and panel.tune.form.request().base == "volumes"
    assert panel.click.image.value is panel.correct.image.value is first
    assert panel.correct.corrections.model == panel.correct.tracker.model == "volumes"


def test_steps_are_made_when_they_are_opened(panel):
    assert list(panel._steps) == ["Segment"]
    for name in STEPS:
        QTest.mouseClick(panel.buttons[name], Qt.MouseButton.LeftButton)
        assert panel._stack.currentWidget().widget() is panel.get_step(name)


def test_no_step_is_cut_in_a_narrow_panel(viewer, panel):
    viewer.add_image(np.zeros((9, 9)), name=LONG)
    viewer.add_labels(np.ones((9, 9), np.uint16), name=LONG)
    for name in STEPS:
        panel.open_step(name)
        for section in panel.get_step(name).findChildren(CollapsibleSection):
            section.open()
        assert panel.get_step(name).minimumSizeHint().width() < LEAST_WIDTH, name


def test_objects_of_a_review_are_clicked_into_its_labels(viewer, panel, clicker, monkeypatch):
    image = viewer.add_image(np.zeros((40, 40), np.float32), name="im")
    reviewed, other = (viewer.add_labels(np.ones((40, 40), np.uint16), name=n) for n in "ab")
    update_image_settings(image, diameter=20.0)
    panel.open_step("Correct")
    panel.inputs.choose_model("clicker")
    panel.correct.labels.value = reviewed
    later = viewer.add_image(np.ones((40, 40), np.float32), name="later")
    assert panel.inputs.image.value is later
    review, queries = panel.correct.review, []
    for section, search in (
        (review, review.start),
        (panel.correct.alike, panel.correct.alike.search),
    ):
        monkeypatch.setattr(section, "_run", lambda steps, *_: queries.append(steps.args[0]))
        search()
    assert [query.settings.diameter for query in queries] == [20, 20], "those of the labels' image"
    assert {query.kept for query in queries} == {get_features(image)}
    click, mode = panel.click, panel.click.mode
    click.labels.value = reviewed
    click.toggle()
    assert not mode.on and "'a' are taken for those of 'im'" in click.status.text()
    panel.open_step("Correct")
    review.plan, panel.correct.labels.value = SimpleNamespace(query=queries[0]), other
    panel.inputs.image.value = later
    review.click_wanted.emit()
    assert (mode.target.layer, mode.target.image) == (reviewed, image) and panel.step == "Correct"
    mode.stop(force=True)
    click.labels.value = other
    click.toggle()
    assert mode.target.layer is other
    review.click_wanted.emit()
    assert mode.target.layer is reviewed
    mode.stop(force=True)
    review.plan = None


def test_a_closed_panel_is_let_go(viewer, models, qtbot):
    before = set(viewer.keymap)
    dock, panel = viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")
    for name in STEPS:
        panel.open_step(name)
    assert {str(key) for key in set(viewer.keymap) - before} == {"A", "C", "K", "N", "Y"}
    viewer.window.remove_dock_widget(dock)
    del dock, panel
    qtbot.waitUntil(lambda: gc.collect() >= 0 and set(viewer.keymap) == before, timeout=60_000)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_a_small_window_keeps_its_canvas_and_long_names_are_elided(
    make_napari_viewer, models, qtbot, theme
):
    viewer = make_napari_viewer(show=True)
    viewer.theme = theme
    window = viewer.window._qt_window
    window.resize(1366, 768)
    viewer.add_image(np.zeros((40, 60)), name=LONG)
    panel = opened(viewer)
    qtbot.wait(200)
    canvas = viewer.window._qt_viewer.canvas.native
    for name in STEPS:
        panel.open_step(name)
        qtbot.wait(20)
        assert window.width() == 1366 and window.height() <= 768
        assert canvas.width() >= 0.6 * window.width()
        page = panel._pages[name]
        assert page.widget().width() <= page.viewport().width(), f"{name} is cut off"
    box = panel.inputs.image.native
    assert isinstance(box, QComboBox) and box.currentText() == LONG and box.width() < 150
    panel.open_step("Fine-tune")
    review = panel.tune.review
    said = (panel.tune.status, review.summary, review.difference, review.advice)
    for label in said:
        label.setText("What came of it, in a sentence that takes a few lines in a narrow panel.")
    qtbot.wait(50)
    assert all(label.height() >= label.heightForWidth(label.width()) for label in said)


def saved(path, data, **options):
    tifffile.imwrite(path, data, **options)
    return path


def read(viewer, path):
    """Open a file by napari's own reader, as it is opened where no other plugin reads it."""
    (layer,) = viewer.open(path, plugin="napari")
    return layer


@pytest.mark.parametrize(
    ("axes", "shape", "channels"),
    [("CYX", (2, 40, 50), 2), ("TYX", (6, 40, 50), 0), ("ZCYX", (5, 2, 40, 50), 2)],
)
def test_what_an_imagej_file_says_of_its_axes_is_taken(
    viewer, panel, tmp_path, axes, shape, channels
):
    path = saved(
        tmp_path / "im.tif", np.zeros(shape, np.uint16), imagej=True, metadata={"axes": axes}
    )
    layer = read(viewer, path)
    assert layer.data.shape == shape
    assert panel.inputs.image.value is layer and panel.inputs.axes.value == axes
    assert not panel.inputs.question.text(), "there is nothing to ask"
    assert panel.inputs._rows["channel"].isVisibleTo(panel) == (channels > 1)


def test_channels_have_the_names_of_the_ome_file_and_the_chosen_one_is_run(
    viewer, panel, engine, tmp_path, qtbot
):
    names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "actin"]}}
    path = saved(tmp_path / "im.ome.tif", np.zeros((2, 40, 50), np.uint16), metadata=names)
    first = read(viewer, path)
    box = panel.inputs.channel.native
    assert [box.itemText(n) for n in range(box.count())] == ["0: DAPI", "1: actin"]
    panel.inputs.channel.value = 1
    panel.segment.engine = engine
    panel.segment.run()
    qtbot.waitUntil(lambda: panel.segment.active is None)
    assert engine.request.settings.channel == 1
    assert viewer.layers[-1].data.shape == (40, 50), "channels are no planes"
    other = viewer.add_image(np.zeros((40, 50)), name="other")
    assert panel.inputs.image.value is other and not panel.inputs._rows["channel"].isVisibleTo(
        panel
    )
    assert panel.segment.form.request().settings.channel is None, "it belongs to the first image"
    panel.inputs.image.value = first
    assert panel.segment.form.request().settings.channel == 1


def test_a_guess_is_a_question_until_the_axes_are_chosen(viewer, panel, engine, qtbot):
    image = viewer.add_image(np.zeros((3, 40, 50)), name="im")
    assert panel.inputs.axes.value == "ZYX"
    assert panel.inputs.question.text().startswith("⚠ Taken for 3 slices")
    assert panel.inputs.axes.choices == ("ZYX", "TYX", "CYX")
    panel.inputs.axes.value = "TYX"
    assert not panel.inputs.question.text()
    panel.segment.engine = engine
    panel.segment.run()
    qtbot.waitUntil(lambda: panel.segment.active is None)
    assert layer_axes(image) == "TYX"
    assert layer_axes(viewer.layers[-1]) == "TYX", "the labels know, too"


def test_run_asks_for_axes_that_it_would_have_to_guess(viewer, panel, engine, qtbot, monkeypatch):
    segment, asked = panel.segment, []
    monkeypatch.setattr(panel.inputs.axes.native, "showPopup", lambda: asked.append("menu"))
    segment.engine = engine
    viewer.add_image(np.zeros((40, 50)), name="plain")
    segment.start.native.click()
    assert not segment.question.asking, "there is one way to read it"
    qtbot.waitUntil(lambda: segment.active is None)
    image = viewer.add_image(np.zeros((3, 40, 50)), name="im")
    segment.start.native.click()
    assert segment.active is None and "3 slices" in segment.question.text.text()
    segment.question.no.click()
    assert asked == ["menu"] and not segment.question.asking
    segment.start.native.click()
    panel.inputs.axes.value = "TYX"
    assert not segment.question.asking, "it was answered at the top"
    segment.start.native.click()
    qtbot.waitUntil(lambda: segment.active is None)
    assert layer_axes(viewer.layers[-1]) == "TYX" == layer_axes(image)
    other = viewer.add_image(np.zeros((3, 40, 50)), name="other")
    segment.start.native.click()
    segment.question.yes.click()
    assert segment.active is not None and not panel.inputs.question.text()
    qtbot.waitUntil(lambda: segment.active is None)
    assert get_image_settings(other).axes == "ZYX", "it is not asked again"


def test_an_image_with_its_channels_last_is_no_stack_of_lines(viewer, panel, engine, qtbot):
    image = viewer.add_image(np.zeros((40, 50, 1)), name="im")
    assert panel.inputs.axes.value == "YXC"
    assert [viewer.dims.axis_labels[n] for n in viewer.dims.displayed] == [
        viewer.dims.axis_labels[n] for n in (0, 1)
    ]
    panel.segment.engine = engine
    panel.segment.run()
    qtbot.waitUntil(lambda: panel.segment.active is None)
    assert engine.frames == [()] and viewer.layers[-1].data.shape == (40, 50, 1)
    assert image in viewer.layers


def test_the_names_of_the_sliders_are_taken(viewer, panel):
    viewer.add_image(np.zeros((6, 40, 50)), name="im")
    viewer.dims.axis_labels = ("time", "y", "x")
    assert panel.inputs.axes.value == "TYX" and not panel.inputs.question.text()


def test_a_diameter_belongs_to_its_image(viewer, panel, home):
    first = viewer.add_image(np.zeros((40, 60)), name="first")
    form = panel.segment.form
    form.first.settings["diameter"].widget.value = 120.0
    assert form.request().settings.diameter == 120
    viewer.add_image(np.zeros((40, 60)), name="second")
    assert form.request().settings.diameter is None
    panel.inputs.image.value = first
    assert form.request().settings.diameter == 120
    form.save()
    assert "120" not in (home / "window.json").read_text()


def test_what_auto_found_is_said_and_drawn_as_a_circle_that_can_be_resized(
    viewer, panel, engine, qtbot
):
    viewer.add_image(np.zeros((40, 60)), name="im", scale=(0.5, 0.5), units=("um", "um"))
    segment, size = panel.segment, panel.segment.form.size_row

    def steps(stack, request, **arguments):
        result = yield from engine(stack, request, **arguments)
        provenance = {**result.provenance, "diameter_px": 21.4}
        return SimpleNamespace(labels=result.labels, objects=4, provenance=provenance)

    segment.engine = steps
    segment.run()
    qtbot.waitUntil(lambda: segment.active is None)
    assert size.found.text() == "auto found 21.4 px = 10.7 µm."
    size.circle.click()
    circle = viewer.layers["object size"]
    box = circle.data[0]
    assert np.ptp(box[:, 0]) == pytest.approx(21.4) and np.ptp(box[:, 1]) == pytest.approx(21.4)
    middle = box.mean(axis=0)
    circle.data = [middle + (box - middle) * 2]
    circle.events.data(value=circle.data, action="changed", data_indices=(0,), vertex_indices=((),))
    assert segment.form.request().settings.diameter == pytest.approx(42.8, abs=0.1)
    assert "auto found 21.4 px" in size.found.text()
    size.circle.click()
    assert "object size" not in viewer.layers
    size.line.click()
    viewer.layers["measure an object"].add_lines(np.array([[5, 5], [5, 22]]))
    qtbot.waitUntil(lambda: "measure an object" not in viewer.layers)
    assert segment.form.request().settings.diameter == 17
    assert viewer.layers.selection.active.name == "im"


def test_the_canvas_takes_the_mouse_where_the_panel_is_not(make_napari_viewer, models, qtbot):
    """A step's button is pressed with the mouse, at the place where it is drawn."""
    viewer = make_napari_viewer(show=True)
    panel = opened(viewer)
    qtbot.wait(50)
    button = panel.buttons["Measure"]
    QTest.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(button.width() // 2, 5))
    assert panel.step == "Measure"


def test_own_labels_are_recorded_at_once_when_they_fit_the_only_image(viewer, panel, qtbot):
    image = viewer.add_image(np.zeros((40, 60)), name="im")
    own = viewer.add_labels(np.zeros((40, 60), np.uint8), name="mine")
    panel.open_step("Correct")
    own.paint((10, 10), 3)
    qtbot.waitUntil(lambda: own in panel.correct.tracker.recordings)
    assert panel.correct.tracker.recordings[own].wait(10)
    assert len(find_journals(layer_stack(image))) == 1
    viewer.add_image(np.zeros((40, 60)), name="other")
    doubtful = viewer.add_labels(np.zeros((40, 60), np.uint8), name="whose")
    viewer.layers.selection.active = doubtful
    assert "'whose' is not recorded: choose it under labels" in panel.correct.status.text()


def test_labels_converted_to_another_type_keep_their_corrections_and_their_undo(
    viewer, panel, qtbot
):
    viewer.add_image(np.zeros((40, 60)), name="im")
    own = viewer.add_labels(np.zeros((40, 60), np.uint8), name="mine")
    panel.open_step("Correct")
    own.paint((10, 10), 3)
    own.paint((20, 20), 4)
    recording = panel.correct.tracker.recordings[own]
    qtbot.waitUntil(lambda: panel.correct.status.text().startswith("All 2 corrections saved."))
    own.data = own.data.astype(np.uint16)
    assert panel.correct.tracker.recordings[own] is recording
    own.paint((30, 30), 300)
    qtbot.waitUntil(lambda: panel.correct.status.text().startswith("All 3 corrections saved."))
    for left in ({0, 3, 4}, {0, 3}, {0}):
        panel.correct.undo.click()
        assert set(np.unique(own.data)) == left
    panel.correct.redo.click()
    assert 3 in own.data
    own.data = np.ones_like(own.data)
    assert own not in panel.correct.tracker.recordings, "those are other labels"


def test_labels_that_were_never_drawn_can_be_written_into(viewer, models):
    hidden = viewer.add_labels(np.zeros((3, 40, 60), np.uint8), name="hidden", visible=False)
    where = tuple(np.array(at) for at in ([0, 2], [39, 5], [59, 6]))
    set_labels(hidden, where, np.array([7, 9], np.uint8))
    assert hidden.data[0, 39, 59] == 7 and hidden.data[2, 5, 6] == 9 and not hidden.visible
    hidden.data = hidden.data.astype(np.uint16)
    set_labels(hidden, where, np.array([300, 301], np.uint16))
    assert hidden.data[0, 39, 59] == 300
    hidden.undo()
    assert hidden.data[0, 39, 59] == 7


def test_a_double_click_on_a_button_that_becomes_cancel_cancels_nothing(viewer, panel, tmp_path):
    panel.open_step("Batch")
    batch = panel.batch
    pressed = []
    batch.start.clicked.disconnect(batch._pressed)
    batch.start.clicked.connect(lambda: pressed.append(batch.start.text()))
    batch.start.setEnabled(True)
    kinds = QEvent.Type
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    place = QPointF(5, 5)
    for kind in (
        kinds.MouseButtonPress, kinds.MouseButtonRelease,
        kinds.MouseButtonDblClick, kinds.MouseButtonRelease,
    ):  # fmt: skip
        there = batch.start.mapToGlobal(place)
        QApplication.sendEvent(batch.start, QMouseEvent(kind, place, there, left, left, none))
    assert len(pressed) == 1


def test_the_size_the_user_has_set_is_not_given_up_for_what_the_model_sees(viewer, panel, qtbot):
    remarks = panel.segment.remarks
    remarks.show_remarks([size_remark(77, 20, told=True)])
    assert (
        "You set 20 px" in remarks.text.text() and "set Diameter to 77" not in remarks.text.text()
    )
    assert remarks.remedy.text() == "Run again at 77 px"
    remarks.show_remarks([size_remark(77, 20)])
    assert "set Diameter to 77" in remarks.text.text()
