"""The size of the objects in the window: two that are seen, and one click that chooses."""

from __future__ import annotations

import pytest
from click_parts import picture

from napari_unet.gui.layers.image_settings import get_image_settings
from napari_unet.gui.segment.object_size import CIRCLE


@pytest.mark.gui
def test_of_two_sizes_both_are_drawn_and_one_click_on_an_object_chooses(window, engine, qtbot):
    w = window(picture())
    segment = w.viewer.window.add_plugin_dock_widget("napari-unet", "Segment")[1].segment
    segment.engine, row = engine, segment.form.size_row
    w.home()
    active = w.viewer.layers.selection.active
    row.keep_found(w.image, (77.0, 20.0))
    assert row.found.text().startswith("20 px or 77 px?")
    circles = w.viewer.layers[CIRCLE]
    assert [round(float(box[:, -1].max() - box[:, -1].min())) for box in circles.data] == [77, 20]
    assert w.viewer.layers.selection.active is active
    row.pick.click()
    assert row.found.text() == "Click on one object that you want found."
    w.click(30, 30)
    qtbot.waitUntil(lambda: row.pick.job is None, timeout=60_000)
    qtbot.waitUntil(lambda: segment.form.request().settings.diameter is not None, timeout=60_000)
    assert segment.form.request().settings.diameter == pytest.approx(20, rel=0.1)
    qtbot.waitUntil(lambda: segment.active is None and engine.closed == 1, timeout=60_000)
    assert not row.pick.isChecked()
    assert len(w.viewer.layers[CIRCLE].data) == 1, "that of the size which was chosen"
    row.pick.click()
    w.click(30, 30)
    row.pick.click()
    assert row.pick.job is None and segment.active is None
    segment.form.first.settings["diameter"].set(None)
    row.keep_found(w.image, ())
    assert get_image_settings(w.image).other_px is None
