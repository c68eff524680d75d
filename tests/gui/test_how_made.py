"""The section "How was this made?": words, a paragraph to copy, and the same labels once more."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_unet.core.models.own_record import read_record
from napari_unet.gui.how_made import UNKNOWN
from napari_unet.gui.layers.navigation import SLICE
from napari_unet.gui.layers.result_info import get_provenance
from napari_unet.gui.open_panel import explain_layer


@pytest.fixture
def made(viewer, real_panel, finish):
    """A result of bright squares, and how to make another."""
    image = np.zeros((40, 60), np.float32)
    image[10:20, 10:20] = image[10:20, 30:45] = 1

    def make(image=image, region=None):
        viewer.add_image(image, name="im")
        if region is not None:
            real_panel.form.region.value = region
        real_panel.run()
        finish(real_panel, 60_000)
        return viewer.layers["im real"]

    return make


@pytest.fixture
def section(real_panel):
    real_panel.how_made.collapsible.open()
    return real_panel.how_made


@pytest.fixture
def again(section, qtbot):
    def wait():
        section.start.native.click()
        qtbot.waitUntil(lambda: section.active is None, timeout=60_000)
        return section.result.text()

    return wait


def test_words_a_paragraph_and_the_same_once_more(viewer, section, made, again):
    layer = made()
    section.show_layer(layer)
    said = section.words.text()
    assert "Model real (SHA-256" in said and "axes YX" in said and "References: " in said
    section.copy.click()
    copied = QApplication.clipboard().text()
    assert copied.startswith("Images were segmented with napari-unet") and "Ronneberger" in copied
    assert again() == "Identical: 2 objects, every pixel."
    assert len(viewer.layers) == 2
    layer.data[10:20, 10:20] = 0
    layer.refresh()
    shown = again()
    assert shown.startswith("Different: ") and "changed since they were made" in shown
    assert viewer.layers["im real again"].data.max() == 2


def test_what_cannot_be_made_again_is_said(viewer, section, made, again):
    layer = made(np.zeros((3, 40, 60), np.float32), SLICE)
    assert "was made in parts" in again()
    get_provenance(layer).pop("region")
    viewer.layers.remove("im")
    assert "The image of 'im real', im, is not open" in again()
    own = viewer.add_labels(np.ones((4, 5), np.uint8), name="own")
    section.show_layer(own)
    assert section.words.text() == UNKNOWN and section.copy.isHidden()
    assert "does not record how it was made" in again()


def test_the_layers_menu_opens_the_section(viewer, real_panel, made):
    layer = made()
    explain_layer(viewer, layer)
    assert real_panel.how_made.collapsible.is_open
    assert real_panel.how_made.labels.value is layer


def test_an_evaluation_is_kept_with_the_model(viewer, real_panel, made, qtbot, real):
    layer = made()
    viewer.add_labels(layer.data.copy(), name="true")
    evaluation = real_panel.evaluation

    def score():
        evaluation.labels.value, evaluation.truth.value = layer, viewer.layers["true"]
        evaluation.run()
        qtbot.waitUntil(lambda: evaluation.active is None, timeout=60_000)
        return evaluation.result.text()

    assert "Kept with the model real." in score()
    model_hash = get_provenance(layer)["model_hash"]
    (kept,) = read_record(model_hash).evaluations
    assert (kept.image, kept.truth, kept.objects, kept.scores["AP50"]) == ("im", "true", 2, 1.0)
    layer.data[12:14, 12:14] = 0
    layer.refresh()
    assert "Kept with" not in score(), "the user has corrected the labels"
    assert len(read_record(model_hash).evaluations) == 1
