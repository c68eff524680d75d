"""The whole panel "Correct and fine-tune": from a stroke on a result to a model that learned it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import tune_parts as parts

from napari_unet.core.models.store import list_models
from napari_unet.gui.layers.overlay_layer import SHOWS
from napari_unet.gui.layers.result_info import RESULT_KEY


@pytest.fixture
def panel(viewer, home):
    parts.tiny_model()
    _, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Correct and fine-tune")
    panel.tune.form.device.value = "cpu"
    panel.tune.form.first.settings["minutes"].set(0.02)
    panel.tune.form.advanced.settings["batch"].set(1)
    return panel


def result(viewer):
    """Add an image, and labels as a run of the tiny model leaves them: one disc was missed."""
    data, labels = parts.discs()
    image = viewer.add_image(data, name="im")
    missed = labels == 1
    card = next(entry.card for entry in list_models() if entry.name == "tiny")
    provenance = {"model": "tiny", "model_hash": card.hash, "object_axes": "YX"}
    mark = {"base": "im tiny", "runs": [provenance], "passport": provenance}
    mark["image"] = str(image.unique_id)
    layer = viewer.add_labels(
        np.where(missed, 0, labels).astype(np.uint16), name="im tiny", metadata={RESULT_KEY: mark}
    )
    return layer, missed


def test_a_missed_object_is_painted_and_learned(viewer, panel, qtbot):
    layer, missed = result(viewer)
    with layer.block_history():
        layer.data_setitem(np.nonzero(missed), 1)
    panel.correct.mask_section.check_slice()
    qtbot.waitUntil(
        lambda: panel.correct.recording is not None and not panel.correct.recording.pending
    )
    assert panel.tune.form.base.value == panel.correct.model.value == "tiny"
    panel.tune.start.native.click()
    qtbot.waitUntil(
        lambda: panel.tune.active is None and panel.tune.review.comparison is None, timeout=60_000
    )
    assert panel.tune.status.text().startswith("Learned from ")
    panel.tune.review.keep.native.click()
    qtbot.waitUntil(lambda: panel.tune.review.work is None, timeout=30_000)
    assert "tiny-tuned" in panel.correct.model.choices

    models = panel.correct.model, panel.tune.form.base
    assert [box.value for box in models] == ["tiny-tuned"] * 2, "the whole panel goes on with it"
    assert not [other for other in viewer.layers if SHOWS in other.metadata.get(RESULT_KEY, {})]
    other = viewer.add_labels(layer.data.copy(), metadata=layer.metadata)
    viewer.layers.selection.active = other
    assert [box.value for box in models] == ["tiny-tuned"] * 2, "it learns from its parent's labels"
    panel.tune.versions.rows["tiny"].click()
    assert [box.value for box in models] == ["tiny"] * 2


def test_the_corrections_shown_are_those_of_the_model_that_is_tuned(panel):
    parts.tiny_model("other", width=2)
    panel.inputs.refresh_models()
    panel.tune.form.base.value = "other"
    assert panel.correct.model.value == panel.correct.corrections.model == "other"


def test_the_choices_of_the_corrections_hold_for_the_training(panel):
    assert panel.tune.touched
    panel.correct.touched.setChecked(False)
    assert not panel.tune.touched


def test_a_closed_dock_ends_the_training(viewer, panel, qtbot):
    layer, missed = result(viewer)
    with layer.block_history():
        layer.data_setitem(np.nonzero(missed), 1)
    panel.correct.mask_section.check_slice()
    qtbot.waitUntil(lambda: not panel.correct.recording.pending)
    panel.tune.form.first.settings["minutes"].set(5.0)
    panel.tune.start.native.click()
    qtbot.waitUntil(lambda: panel.tune.active is not None)
    job = panel.tune.active.job
    viewer.window.remove_dock_widget(panel.dock)
    qtbot.waitUntil(lambda: not job.active, timeout=60_000)
    assert job.cancelled


def test_a_closed_panel_gives_its_keys_back(viewer, home, qtbot):
    parts.tiny_model()
    before = set(viewer.keymap)
    dock, panel = viewer.window.add_plugin_dock_widget("napari-unet", "Correct and fine-tune")
    assert {str(key) for key in set(viewer.keymap) - before} == {"A", "K", "N", "Y"}
    viewer.window.remove_dock_widget(dock)
    del dock, panel  # napari, too, lets go of the panel
    qtbot.waitUntil(lambda: gc.collect() >= 0 and set(viewer.keymap) == before, timeout=60_000)
