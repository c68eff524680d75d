from __future__ import annotations

import gc
import sys
import weakref

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet.gui.layers.overlay_layer import remove_layer


class Ring:
    """Garbage that only a collection finds."""

    def __init__(self):
        self.itself = self


@pytest.mark.skipif(sys.platform == "win32", reason="napari has to collect there")
def test_removing_a_layer_collects_no_garbage_but_leaves_it_to_be_collected():
    viewer = ViewerModel()
    layer = viewer.add_labels(np.zeros((4, 5), np.uint8))
    viewer.layers.events.removed.connect(lambda _: gc.collect())  # as napari's canvas does
    garbage = weakref.ref(Ring())
    gc.disable()
    try:
        remove_layer(viewer, layer)
        assert layer not in viewer.layers and garbage() is not None
    finally:
        gc.enable()
    gc.collect()
    assert garbage() is None and gc.get_freeze_count() == 0
    remove_layer(viewer, layer)
    remove_layer(viewer, None)
