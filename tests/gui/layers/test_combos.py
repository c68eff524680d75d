"""Which layers a panel offers."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet.gui.layers.combos import image_layers, object_layers
from napari_unet.gui.layers.overlay_layer import COMPARES, DOUBTS, KIND, SHOWS, overlay_metadata


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((8, 8)), name="im")
    viewer.add_labels(np.zeros((8, 8), np.uint16), name="objects")
    return viewer


@pytest.mark.parametrize("key", [KIND, COMPARES, SHOWS])
def test_overlays_are_not_offered_as_objects(viewer, key):
    codes = np.zeros((8, 8), np.uint8)
    viewer.add_labels(codes, name="overlay", metadata=overlay_metadata(key, ["a", "b"]))
    assert [layer.name for layer in object_layers(viewer)] == ["objects"]


def test_uncertainty_is_not_offered_as_an_image(viewer):
    viewer.add_image(np.zeros((8, 8)), name="doubt", metadata=overlay_metadata(DOUBTS, 1))
    assert [layer.name for layer in image_layers(viewer)] == ["im"]
