"""Clicking into stacks, channels and frames, and into labels that cannot be used."""

from __future__ import annotations

import threading

import dask.array
import numpy as np
import pytest
from click_parts import ENTER, ESCAPE, Window, disc, iou, picture
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLineEdit

from napari_unet.gui.jobs.engine import get_features
from napari_unet.gui.layers.key_bindings import is_typing
from napari_unet.gui.layers.result_info import RESULT_KEY
from napari_unet.nn.inference.embeddings import FrameFeatures
from napari_unet.nn.inference.model import save_model
from napari_unet.nn.interactive.session import ClickSession


def stack(depth=7, first=2, stop=5):
    """A disc in some of the planes."""
    planes = np.zeros((depth, 120, 130), np.float32)
    planes[first:stop] = picture()
    planes[:, 0, 0] = 1  # so that all planes have the same percentiles
    return planes


def test_an_object_of_a_stack_is_grown_kept_and_deleted_as_one(window, qtbot):
    w = window(stack(), scale=(3, 1, 1)).start()
    w.viewer.dims.set_point(0, 9)
    w.click(30, 30)
    assert w.mode.shown.masks.keys() == {(3,)}
    w.key(Qt.Key.Key_G)
    assert set(w.mode.shown.masks) == {(2,), (3,), (4,)} and "3 slices" in w.status
    w.undo()
    assert w.mode.shown.masks.keys() == {(3,)}
    w.key(ENTER)
    data = w.labels.data
    assert [iou(plane == 1, disc(1)) > 0.9 for plane in data[2:5]] == [True] * 3
    assert not data[:2].any() and not data[5:].any()
    w.viewer.dims.set_point(0, 6)
    w.move(30, 30)
    w.key(Qt.Key.Key_D)
    assert not data.any()
    w.undo()
    assert (data[2:5] == 1).any(axis=(1, 2)).all()
    w.panel.settings.settings["grow"].widget.value = False
    w.click(80, 60)
    w.key(ENTER)
    assert np.flatnonzero((data == 2).any(axis=(1, 2))).tolist() == [2]


def test_an_object_clicked_in_two_slices_is_grown_between_them_and_beyond(window):
    w = window(stack()).start()
    for plane in (2, 4):
        w.viewer.dims.set_point(0, plane)
        w.click(30, 30)
    assert w.mode.shown.masks.keys() == {(2,), (4,)}
    w.key(ENTER)
    assert [iou(plane == 1, disc(1)) > 0.9 for plane in w.labels.data[2:5]] == [True] * 3
    w.undo()
    for plane in (1, 3):
        w.viewer.dims.set_point(0, plane)
        w.click(80, 60)
        if plane == 1:
            w.undo()
    w.key(Qt.Key.Key_G)
    grown = w.mode.shown
    w.key(ENTER)  # not followed once more
    assert np.count_nonzero(w.labels.data) == grown.area


def test_objects_of_planes_that_share_an_id_are_edited_apart(window):
    w = window(stack())
    data = np.zeros((7, 120, 130), np.uint16)
    data[:, 20:40, 20:40] = 1  # a 2D model numbers each plane anew
    mark = {"passport": {"model": "clicker", "object_axes": "YX"}}
    labels = w.viewer.add_labels(data, name="planes", metadata={RESULT_KEY: mark})
    w.start()
    w.viewer.dims.set_point(0, 3)
    w.move(30, 30)
    w.key(Qt.Key.Key_D)
    assert np.flatnonzero(~labels.data.any(axis=(1, 2))).tolist() == [3]


def test_keys_in_a_field_of_some_panel_are_not_those_of_click_mode(window):
    w = window(picture()).start()
    w.click(30, 30)
    spin, line = w.panel.settings.settings["cache"].widget.native, QLineEdit()
    w.panel.settings_section.open(True)
    w.viewer.window.add_dock_widget(line, name="field")
    for field in (spin, line):
        field.window().activateWindow()
        field.setFocus()
        w.qtbot.waitUntil(is_typing)
        for key in (ENTER, ESCAPE, Qt.Key.Key_C, Qt.Key.Key_D):
            QTest.keyClick(field, key)
        w.settle()
        assert w.mode.on and w.status.startswith("New object") and not w.labels.data.any()
    w.click(30, 34)  # the canvas has the keys again
    w.key(ENTER)
    assert iou(w.labels.data == 1, disc(1)) > 0.9


def test_a_model_of_volumes_answers_in_3d(make_napari_viewer, clicking_model, home, qtbot):
    save_model(clicking_model(name="clicker", ndim=3), "clicker")
    z, y, x = np.ogrid[:24, :48, :52]
    ball = (z - 12) ** 2 + (y - 24) ** 2 + (x - 20) ** 2 < 36
    w = Window(make_napari_viewer(show=True), qtbot, ball.astype(np.float32)).start()
    w.viewer.dims.set_point(0, 12)
    w.click(24, 20)
    w.key(ENTER)
    assert iou(w.labels.data == 1, ball) > 0.8
    w.undo()
    w.drag((16, 12), (24, 20), (32, 28), held=Qt.KeyboardModifier.ShiftModifier)
    assert iou(w.mode.worker.session.mask, ball) > 0.8


@pytest.mark.parametrize("axes", ["czyx", "tcyx", "tyx"])
def test_channels_and_frames_have_their_place_in_the_labels(window, axes):
    shape = [{"c": 2, "t": 3, "z": 4}[letter] for letter in axes[:-2]]
    image = np.broadcast_to(picture(), (*shape, 120, 130)).copy()
    w = window(image, axis_labels=tuple(axes), scale=(2,) * len(axes))
    w.panel.settings.settings["grow"].widget.value = False
    w.start()
    for axis in range(len(axes) - 2):
        w.viewer.dims.set_point(axis, 2)  # the plane 1 of each
    w.click(60, 60)
    w.key(ENTER)
    # A channel axis in front is dropped; one further in has the length 1.
    place = {"czyx": (1,), "tcyx": (1, 0), "tyx": (1,)}[axes]
    assert iou(w.labels.data[place] == 1, disc(1)) > 0.9
    assert np.count_nonzero(w.labels.data) == np.count_nonzero(w.labels.data[place])


def test_other_objects_are_protected_unless_overwriting_is_allowed(window):
    w = window(picture())
    data = np.zeros((120, 130), np.uint16)
    data[:, 30:40] = 5
    labels = w.viewer.add_labels(data.copy(), name="mine")
    w.start()
    w.click(30, 25)
    w.key(ENTER)
    assert (labels.data[:, 30:40] == 5).all() and labels.data[30, 25] == 6
    w.undo()
    w.panel.settings.settings["overwrite"].widget.value = True
    w.click(30, 25)
    w.key(ENTER)
    assert labels.data[30, 35] == 6


def test_features_of_segment_answer_the_click(window, qtbot, monkeypatch):
    w = window(picture())
    segment = w.viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1].segment
    segment.form.model.value = "clicker"
    segment.run()
    qtbot.waitUntil(lambda: segment.active is None, timeout=30_000)
    computed = []
    compute = FrameFeatures._compute
    monkeypatch.setattr(
        FrameFeatures, "_compute", lambda self, tile: computed.append(tile) or compute(self, tile)
    )
    w.viewer.layers.selection.active = w.image
    w.start()
    assert w.labels.name == "im clicker"
    w.click(30, 30)
    assert w.mode.shown is not None and computed == []
    w.panel.settings.settings["cache"].widget.value = 20
    kept = get_features(w.image)
    assert kept._cache.limit == 20e6 and kept._cache.bytes > 0
    w.image.data = picture() * 2
    assert "other data" in w.status and not w.mode.on
    assert kept._cache is None


def test_what_cannot_be_clicked_is_said_in_a_sentence(window, qtbot):
    image = picture()
    image[90:, 90:] = np.nan
    w = window(image).start()
    w.click(-20, 30)
    assert "outside the image" in w.status
    w.panel.take_away.click()
    w.click(30, 30)
    assert "first click must be on the object" in w.status
    w.panel.add.click()
    w.click(100, 110)  # on NaN
    w.click(30, 30)
    w.key(ESCAPE)
    for _ in range(3):  # contradictory
        w.click(30, 30)
        w.click(30, 30, held=Qt.KeyboardModifier.ControlModifier)
    w.key(ESCAPE)
    w.key(ENTER)
    assert "no object to keep" in w.status
    w.viewer.dims.ndisplay = 3
    w.click(30, 30)
    assert "2D view" in w.status
    w.viewer.dims.ndisplay = 2
    w.labels.metadata.setdefault(RESULT_KEY, {})["running"] = True
    w.home()
    w.click(30, 30)
    w.key(ENTER)
    assert "Segment is writing" in w.status and w.mode.shown is not None
    w.key(Qt.Key.Key_C)
    assert w.mode.on and w.status.endswith("cancel it. Esc drops the object.")
    del w.labels.metadata[RESULT_KEY]["running"]
    w.key(ENTER)
    assert w.labels.data[30, 30] == w.labels.data.max() > 0


def test_labels_and_models_that_do_not_fit_are_refused(window, make_model):
    w = window()
    w.panel.toggle_button.click()
    assert "no image layer" in w.status
    w.image = w.viewer.add_image(picture(), name="im")
    w.viewer.add_labels(dask.array.zeros((120, 130), dtype=np.uint16, chunks=60), name="lazy")
    w.viewer.add_labels(np.zeros((50, 60), np.uint16), name="small")
    w.viewer.add_labels(np.zeros((120, 130), np.uint16), name="off", scale=(2, 2))
    locked = np.zeros((120, 130), np.uint16)
    locked.flags.writeable = False
    w.viewer.add_labels(locked, name="locked")
    w.home()
    for name, problem in (
        ("lazy", "dask array"),
        ("small", "50 x 60"),
        ("off", "'off' do not lie on the image 'im'"),
        ("locked", "'locked': The labels can only be read"),
    ):
        w.panel.labels.value = w.viewer.layers[name]
        w.panel.toggle_button.click()
        assert problem in w.status and not w.mode.on
        assert "click" not in w.viewer.layers
    save_model(make_model(name="plain"), "plain")
    w.panel.inputs.refresh_models()
    w.panel.model.value = "plain"
    w.panel.toggle_button.click()
    assert "no click head" in w.status and not w.mode.on
    assert "no click head" in notification_manager.records[-1].message


@pytest.fixture
def held_add(monkeypatch):
    """Hold the answers to clicks until `gate` is set; `asked` is set when one is waited for."""
    gate, asked, add = threading.Event(), threading.Event(), ClickSession.add

    def held(self, click):
        asked.set()
        gate.wait(20)
        return add(self, click)

    monkeypatch.setattr(ClickSession, "add", held)
    yield gate, asked
    gate.set()


def test_layers_may_go_away_while_a_job_runs(window, qtbot, held_add):
    gate, asked = held_add
    w = window(picture())
    for which in ("click", "im clicks", "im"):
        gate.clear()
        asked.clear()
        w.start()
        labels = w.labels
        QTest.mouseClick(w.canvas, Qt.MouseButton.LeftButton, pos=w.pixel(30, 30))
        qtbot.waitUntil(asked.is_set)
        w.viewer.layers.remove(which)
        assert not w.mode.on and f"{which!r} was removed" in w.status
        gate.set()
        qtbot.wait(50)
        assert "click" not in w.viewer.layers and not labels.data.any()


def test_escape_drops_answers_that_come_late(window, qtbot, held_add):
    gate, asked = held_add
    w = window(picture()).start()
    QTest.mouseClick(w.canvas, Qt.MouseButton.LeftButton, pos=w.pixel(30, 30))
    qtbot.waitUntil(asked.is_set)
    QTest.keyClick(w.canvas, ESCAPE)
    gate.set()
    w.settle()
    assert w.mode.shown is None and not w.preview.any()


def test_two_windows_click_apart_and_c_goes_on_after_another_layer(window):
    one, other = window(picture()), window(picture()[::-1].copy())
    for w in (one, other):
        w.viewer.layers.selection.active = w.image
        w.key(Qt.Key.Key_C)  # on an image it is napari's own, which gives way
        w.qtbot.waitUntil(lambda w=w: w.mode.worker.session is not None)
    one.click(30, 30)
    other.click(120 - 1 - 30, 30)
    other.key(ENTER)
    assert one.mode.shown is not None and not one.labels.data.any()
    assert iou(other.labels.data == 1, disc(1)[::-1]) > 0.9
    one.viewer.layers.selection.active = one.labels
    assert "press C" in one.status
    one.key(Qt.Key.Key_C)
    assert one.mode.active and "New object" in one.status
    one.key(Qt.Key.Key_C)
    one.qtbot.waitUntil(lambda: not one.mode.on)
    assert iou(one.viewer.layers["im clicks"].data == 1, disc(1)) > 0.9
    assert one.viewer.mouse_double_click_callbacks


def test_a_click_in_the_3d_view_picks_what_is_brightest_and_then_the_object_in_front(window):
    y, x = np.ogrid[:120, :130]
    volume = np.zeros((7, 120, 130), np.float32)
    volume[2:5] = (y - 60) ** 2 + (x - 65) ** 2 < 200
    volume[:, 0, 0] = 1  # so that all planes have the same percentiles
    w = window(volume).start()
    w.viewer.dims.ndisplay = 3
    w.home()
    middle = w.canvas.rect().center()
    QTest.mouseClick(w.canvas, Qt.MouseButton.LeftButton, pos=middle)
    w.settle()
    assert w.mode.shown is not None and w.mode.shown.masks.keys() <= {(2,), (3,), (4,)}, w.status
    w.key(ENTER)
    assert iou(w.labels.data == 1, volume > 0) > 0.9
    w._move(middle, Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier)
    w.key(Qt.Key.Key_D)
    assert w.status == "Object deleted." and not w.labels.data.any()
