"""Where to look next, in a real window with a real model and real journals."""

from __future__ import annotations

import numpy as np
import pytest
import tune_parts as parts

from napari_unet.core.annotations.edits import KNOWN
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.io.stack import open_stack
from napari_unet.gui.layers.navigation import image_in_view
from napari_unet.gui.layers.overlay_layer import is_uncertainty_layer
from napari_unet.gui.widgets.dock import find_dock

FAINT = [(1, 60, 130), (2, 30, 40)]
"""Where discs are so faint that the model is in doubt: z, y, x; the first one more than the other.
"""


@pytest.fixture
def image(viewer):
    """Three planes of bright discs on black, but for two of half the brightness."""
    y, x = np.mgrid[:96, :200]
    data = np.zeros((3, 96, 200), np.float32)
    for plane in data:
        plane[np.hypot(y - 30, x - 100) < 9] = 1
    for (z, cy, cx), value in zip(FAINT, (0.49, 0.46), strict=True):
        data[z][np.hypot(y - cy, x - cx) < 9] = value
    return viewer.add_image(data, name="im", scale=(4, 2, 2), translate=(10, -7, 3))


@pytest.fixture
def doubts(viewer, threshold_model, image):
    threshold_model("bright", 2)
    panel = parts.panel_of(viewer)
    panel.inputs.choose_model("bright")
    return panel.correct.uncertain


def key_of(viewer):
    """Return what the key N does in the viewer."""
    return next((what for key, what in viewer.keymap.items() if str(key) == "N"), None)


@pytest.fixture
def press(viewer, doubts, qtbot):
    """Press N and wait for the answer."""

    def once():
        before = doubts.status.text()
        key_of(viewer)(viewer)
        qtbot.waitUntil(
            lambda: doubts.job is None and doubts._picking is None and not doubts._go_when_found,
            timeout=60_000,
        )
        assert doubts.status.text() != before

    return once


def middle(viewer, image):
    """Return where the view is, in the image's pixels."""
    point = np.array(viewer.dims.point, float)
    point[1:] = viewer.scene.camera.center[1:]
    return np.round(image.world_to_data(point)).astype(int).tolist()


def test_n_leads_to_the_most_doubtful_place_of_all_slices(viewer, doubts, press, image):
    press()
    assert np.abs(np.subtract(middle(viewer, image), FAINT[0])).max() <= 1
    size = 18 * 2 * viewer.scene.camera.zoom / min(viewer.canvas.size)
    assert 1 / 25 < size < 1 / 2
    press()
    assert np.abs(np.subtract(middle(viewer, image), FAINT[1])).max() <= 1
    assert "more to look at" in doubts.status.text()


def test_what_was_looked_at_is_passed_over(viewer, doubts, press, image):
    with Journal.begin(
        open_stack(image.data, "ZYX"), np.zeros(image.data.shape, np.uint8), ndim=2
    ) as journal:
        journal.mark(KNOWN, (1,))
        press()
        assert np.abs(np.subtract(middle(viewer, image), FAINT[1])).max() <= 1
        places = len(doubts.search.places)
        assert all(place.index != (1,) for place in doubts.search.places)
        journal.mark(KNOWN, (0,))
        journal.mark(KNOWN, (2,))
    press()
    assert doubts.status.text() == "No doubtful place is left that was not looked at."
    assert places > 0


def test_the_layer_shows_the_doubt(viewer, doubts, press, image, qtbot):
    press()
    viewer.layers.selection.active = image
    doubts.layer.click()
    (layer,) = [layer for layer in viewer.layers if is_uncertainty_layer(layer)]
    assert layer.data.shape == image.data.shape and (layer.scale == image.scale).all()
    assert layer.data[FAINT[0]] > 200 > 10 > layer.data[0, 5, 5]
    assert layer.data[FAINT[0]] > layer.data[FAINT[1]]
    assert viewer.layers.selection.active == image and image_in_view(viewer) == image
    doubts.layer.click()
    assert [layer.name for layer in viewer.layers] == ["im"]


def test_another_image_is_searched_anew(viewer, doubts, press):
    press()
    first = doubts.search
    viewer.add_image(np.full((96, 200), 0.2, np.float32), name="other")
    press()
    assert doubts.search is not first


def test_without_an_image_or_with_a_model_of_volumes(viewer, doubts, threshold_model, press, image):
    viewer.layers.clear()
    doubts.next.click()
    assert doubts.status.text() == "Open an image and choose a model to look for doubt."
    viewer.add_image(image.data[0], name="plane")
    threshold_model("volumes", 3)
    doubts._inputs.choose_model("volumes")
    press()
    assert "volumes" in doubts.status.text() or "Z" in doubts.status.text()
    assert doubts.search is None


def test_the_section_gone_meanwhile(viewer, doubts, qtbot, image):
    doubts.next.click()
    job = doubts.job
    panel = find_dock(doubts).widget()
    panel.setParent(None)
    panel.deleteLater()
    qtbot.waitUntil(lambda: job.cancelled, timeout=5000)
    qtbot.waitUntil(lambda: not job.active, timeout=10_000)
    assert key_of(viewer) is None


def test_journals_are_left_as_they_are(viewer, doubts, press, image):
    path = parts.corrected(image.data, np.zeros(image.data.shape, np.uint8), "bright", [None])
    before = path.read_bytes()
    press()
    assert path.read_bytes() == before
