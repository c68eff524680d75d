"""The Evaluate section, and in a real window, opened through the manifest, what needs one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager

from napari_unet.core.evaluation import comparison
from napari_unet.core.evaluation.comparison import inside_code, outline_code
from napari_unet.core.evaluation.metrics import evaluate
from napari_unet.core.evaluation.overlay import COLOURS
from napari_unet.gui.evaluate import EvaluateSection
from napari_unet.gui.layers.overlay_layer import COMPARES, get_overlay
from napari_unet.gui.layers.result_info import RESULT_KEY

SHAPE = (40, 60)
HIT, FALSE, MISSED = (outline_code(kind) for kind in ("hit", "false", "missed"))


def dots(*places: int) -> np.ndarray:
    """Label squares of 6 pixels in places 0 to 5, side by side."""
    labels = np.zeros(SHAPE, np.uint16)
    for label, place in enumerate(places, 1):
        labels[10:16, 10 * place + 2 : 10 * place + 8] = label
    return labels


def rims(data: np.ndarray, *places: int) -> list[int]:
    return [int(data[10, 10 * place + 2]) for place in places]


@pytest.fixture
def viewer():
    """The model of a window, which opens in no time."""
    return ViewerModel()


@pytest.fixture
def section(viewer, qtbot):
    section = EvaluateSection(viewer)
    qtbot.addWidget(section)
    section.collapsible.open()
    return section


@pytest.fixture
def pair(viewer, section):
    """A hit, a false object and a missed one; the scale and place of a real image."""
    place = {"scale": (2, 3), "translate": (5, -4), "units": ("um", "um")}
    return [
        viewer.add_labels(dots(0, 1), name="found", **place),
        viewer.add_labels(dots(0, 2), name="true", **place),
    ]


@pytest.fixture
def score(section, qtbot):
    def wait():
        section.start.native.click()
        qtbot.waitUntil(lambda: section.active is None, timeout=10_000)

    return wait


@pytest.fixture
def held(monkeypatch):
    """Hold every evaluation before its second plane until the event is set."""
    go, read = threading.Event(), comparison.Comparison.read
    reads = []

    def slow(self, place):
        reads.append(place)
        assert len(reads) < 2 or go.wait(10)
        return read(self, place)

    monkeypatch.setattr(comparison.Comparison, "read", slow)
    yield go
    go.set()


def test_the_table_and_the_layer(viewer, section, pair, score):
    score()
    text = section.result.text()
    assert "found against true" in text and "2 objects found, 2 are there" in text
    row = evaluate(dots(0, 1), dots(0, 2)).row()
    for name in ("AP50", "AP75", "AP90", "precision", "recall", "f1", "pq", "dice", "iou"):
        label = {"f1": "F1", "pq": "PQ", "dice": "Dice", "iou": "IoU"}.get(name, name)
        assert f"{label}&nbsp;</td><td><b>{row[name]:.3f}</b>" in text
    assert "1 hit" in text and "1 false" in text and "1 missed" in text
    layer = viewer.layers["found vs true"]
    assert rims(layer.data, 0, 1, 2, 3) == [HIT, FALSE, MISSED, 0]
    assert layer.data.dtype == np.uint8 and not layer.editable
    assert layer.scale.tolist() == [2, 3] and layer.translate.tolist() == [5, -4]
    assert layer.units == pair[0].units


def test_the_colours_are_those_of_the_pictures(viewer, section, pair, score):
    score()
    layer = viewer.layers["found vs true"]
    for kind, rgb in COLOURS.items():
        rim, inside = layer.get_color(outline_code(kind)), layer.get_color(inside_code(kind))
        assert np.allclose(rim[:3], np.array(rgb) / 255, atol=0.01) and rim[3] == 1
        assert np.allclose(inside[:3], rim[:3]) and 0 < inside[3] < 0.5
        assert f"rgb{rgb}" in section.result.text()
    point = layer.data_to_world((10, 12))
    assert layer.get_status(point, world=True)["value"].endswith("object: false")


def test_running_again_replaces_the_layer(viewer, section, pair, score):
    score()
    found = pair[0]
    layer = viewer.layers["found vs true"]
    layer.visible, layer.name = False, "my hits"
    found.data_setitem((np.arange(10, 16), np.full(6, 24)), 3)
    found.scale = (1, 1)
    score()
    assert [layer.name for layer in viewer.layers] == ["found", "true", "my hits"]
    assert int(layer.data[10, 24]) == FALSE and not layer.visible
    assert layer.scale.tolist() == [1, 1]
    assert "3 objects found, 2 are there" in section.result.text()


def test_the_other_way_round_is_another_pair(viewer, section, pair, score):
    score()
    section.labels.value, section.truth.value = pair[1], pair[0]
    score()
    assert [layer.name for layer in viewer.layers][2:] == ["found vs true", "true vs found"]
    assert rims(viewer.layers["true vs found"].data, 0, 1, 2) == [HIT, MISSED, FALSE]


def test_a_layer_of_another_shape_gives_way(viewer, section, pair, score):
    score()
    for layer in pair:
        layer.data = layer.data[:30]
    score()
    assert len(viewer.layers) == 3
    assert viewer.layers["found vs true"].data.shape == (30, 60)


def test_the_active_layer_stays_active(viewer, section, pair, score):
    viewer.layers.selection.active = pair[1]
    score()
    assert viewer.layers.selection.active == pair[1]


def test_layers_of_different_shapes(viewer, section, pair, score):
    viewer.add_labels(np.zeros((3, *SHAPE), np.uint8), name="stack")
    section.truth.value = viewer.layers["stack"]
    with notification_manager:
        notification_manager.records.clear()
        score()
        messages = [str(note.message) for note in notification_manager.records]
    message = (
        "'found' has shape (40, 60), 'stack' (3, 40, 60); choose two layers with labels of the "
        "same image."
    )
    assert section.result.text() == message and messages == [message]
    assert len(viewer.layers) == 3 and section.start.enabled


def test_a_layer_against_itself(viewer, section, pair, score):
    section.truth.value = pair[0]
    score()
    assert section.result.text().startswith("'found' would be compared with itself")


def stacks(viewer, provenance=None, **options):
    """Add three planes in which a 2D model has numbered the objects anew."""
    truth = np.stack([dots(0, 5)] * 3)
    labels = truth.copy()
    labels[1] = np.array([0, 2, 1])[labels[1]]
    labels[2, :, :10] = 0
    metadata = {RESULT_KEY: {"passport": provenance}} if provenance else {}
    found = viewer.add_labels(labels, name="found", metadata=metadata, **options)
    return found, viewer.add_labels(truth, name="true", **options)


def test_planes_are_pooled(viewer, section, score):
    """The provenance of a 2D model's result says that its objects end with their plane."""
    stacks(viewer, {"object_axes": "YX"}, scale=(5, 1, 1))
    score()
    assert "5 objects found, 6 are there, in 3 planes" in section.result.text()
    assert "5 hit" in section.result.text() and "1 missed" in section.result.text()
    layer = viewer.layers["found vs true"]
    assert layer.data.shape == (3, *SHAPE) and layer.scale.tolist() == [5, 1, 1]
    assert [rims(plane, 0, 5) for plane in layer.data] == [[HIT, HIT], [HIT, HIT], [MISSED, HIT]]


def test_volumes_and_the_choice_of_planes(viewer, section, score):
    stacks(viewer)
    score()
    assert "2 objects found, 2 are there<table>" in section.result.text()
    section.frames.value = "planes"
    score()
    assert "5 objects found, 6 are there, in 3 planes" in section.result.text()


def test_a_time_series(viewer, section, score):
    stacks(viewer, axis_labels=("t", "y", "x"))
    score()
    assert "5 objects found, 6 are there, in 3 planes" in section.result.text()


def test_lazy_and_multiscale_labels(viewer, section, score):
    array = pytest.importorskip("dask.array")
    data = np.stack([dots(0, 1)] * 3)
    viewer.add_labels(array.from_array(data, chunks=(1, 20, 20)), name="lazy")
    viewer.add_labels([data, data[:, ::2, ::2]], name="pyramid", multiscale=True)
    score()
    assert "6 hit" in section.result.text() or "2 hit" in section.result.text()
    assert viewer.layers["lazy vs pyramid"].data.shape == data.shape


def test_the_choices_follow_the_layers(viewer, section, pair, score):
    score()
    assert list(section.labels.choices) == pair, "the layer of hits is none to choose"
    assert get_overlay(viewer.layers["found vs true"], COMPARES) is not None
    third = viewer.add_labels(dots(3), name="third")
    section.truth.value = third
    third.name = "renamed"
    assert section.truth.value == third and section.truth.native.findText("renamed") == 2
    viewer.layers.remove(third)
    assert section.truth.value in pair and section.labels.value in pair
    viewer.layers.remove(pair[0])
    assert not section.start.enabled


def test_the_window_answers_meanwhile(viewer, section, held, qtbot):
    """The work is done in another thread: the button turns into Cancel and can be pressed."""
    stacks(viewer, {"object_axes": "YX"})
    section.start.native.click()
    assert section.start.text == "Cancel" and section.active is not None
    section.start.native.click()
    assert not section.start.enabled
    held.set()
    qtbot.waitUntil(lambda: section.active is None)
    assert section.result.text() == "Cancelled." and section.start.text == "Evaluate"
    assert len(viewer.layers) == 2


def test_labels_removed_meanwhile(viewer, section, held, qtbot):
    found, _ = stacks(viewer, {"object_axes": "YX"})
    section.start.native.click()
    viewer.layers.remove(found)
    held.set()
    qtbot.waitUntil(lambda: section.active is None)
    assert "5 objects found" in section.result.text()
    assert [layer.name for layer in viewer.layers] == ["true"]


def test_an_unexpected_error_is_one_sentence(viewer, section, pair, score, monkeypatch):
    def broken(self, place):
        raise OSError("the disk is gone")

    monkeypatch.setattr(comparison.Comparison, "read", broken)
    score()
    assert section.result.text() == "The run failed: OSError: the disk is gone"
    assert section.start.text == "Evaluate" and len(viewer.layers) == 2


def test_it_stays_open_in_the_next_session(viewer, section):
    again = type(section)(viewer)
    assert again.collapsible.is_open
    again.collapsible.open(False)
    assert not type(section)(viewer).collapsible.is_open


class TestInAWindow:
    @pytest.fixture
    def viewer(self, make_napari_viewer):
        return make_napari_viewer()

    @pytest.fixture
    def section(self, panel):
        panel.evaluation.collapsible.open()
        return panel.evaluation

    def test_the_table_does_not_make_the_panel_wider(self, section, pair, score):
        score()
        assert "IoU" in section.result.text()
        assert section.result.minimumSizeHint().width() < 240

    def test_a_result_is_compared_with_the_labels_beside_it(self, viewer, section, panel, finish):
        """Whoever opens image and truth and presses Run need not choose anything."""
        viewer.add_image(np.zeros(SHAPE), name="im")
        viewer.add_labels(dots(0), name="true")
        assert not section.start.enabled
        panel.run()
        finish(panel)
        assert section.start.enabled
        assert section.labels.value.name == "im cells" and section.truth.value.name == "true"

    def test_the_viewer_closed_meanwhile(self, viewer, section, held, qtbot):
        stacks(viewer, {"object_axes": "YX"})
        section.start.native.click()
        job = section.active.job
        viewer.close()
        qtbot.waitUntil(lambda: job.cancelled, timeout=5000)
        held.set()
        qtbot.waitUntil(lambda: not job.active, timeout=5000)

    def test_the_dock_closed_meanwhile(self, viewer, section, panel, held, qtbot):
        stacks(viewer, {"object_axes": "YX"})
        section.start.native.click()
        job = section.active.job
        viewer.window.remove_dock_widget(panel.dock)
        qtbot.waitUntil(lambda: job.cancelled)
        held.set()
        qtbot.waitUntil(lambda: not job.active)
        assert len(viewer.layers) == 2

    def test_it_runs_beside_a_segmentation(
        self, viewer, section, panel, pair, score, engine, qtbot, finish
    ):
        panel.form.device.value = "cpu"
        viewer.add_image(np.zeros(SHAPE), name="im")
        engine.hold = 1
        panel.run()
        qtbot.waitUntil(lambda: panel.active.progress.done == 1)
        section.labels.value, section.truth.value = pair
        score()
        assert panel.active is not None and "1 hit" in section.result.text()
        engine.wait.set()
        finish(panel)
