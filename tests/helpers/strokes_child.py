"""Paints in a viewer for ever, and reports each correction when the panel says that it is saved."""

from __future__ import annotations

import sys

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_unet.gui.correct.edit_tracker import get_edit_tracker
from napari_unet.gui.layers.result_info import RESULT_KEY


def main() -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, 120, 140), np.uint8)
    viewer = napari.Viewer(show=False)
    tracker = get_edit_tracker(viewer)
    viewer.add_image(image, name="im")
    mark = {"base": "im cells", "passport": {"model": "cells", "object_axes": "YX"}}
    layer = viewer.add_labels(np.zeros(image.shape, np.uint16), metadata={RESULT_KEY: mark})
    random = np.random.default_rng(1)
    number = 0
    while True:
        number += 1
        z, y, x = (int(random.integers(0, n)) for n in image.shape)
        viewer.dims.set_point(0, z)
        with layer.block_history():
            for step in range(5):
                layer.paint((z, y, min(x + 2 * step, 139)), number)
        recording = tracker.recordings[layer]
        while recording.pending:
            QApplication.processEvents()
        print(recording.journal.undoable, flush=True)


if __name__ == "__main__":
    sys.exit(main())
