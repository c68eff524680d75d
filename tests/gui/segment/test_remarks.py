"""An unusual image is remarked on in the panel, and its remedy is one click away."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.image.domain_shift import ShiftRemark, ShiftReport, size_remark


@pytest.fixture
def surveying(viewer, panel):
    """A panel whose engine remarks on the size until the diameter is right."""
    viewer.add_image(np.random.default_rng(0).random((40, 60)), name="im")
    engine = panel.engine

    def steps(stack, request, **arguments):
        found = [size_remark(64, request.settings.diameter or 20)]
        remarks = tuple(remark for remark in found if remark)
        if remarks:
            yield ShiftReport(0, 0, "looking at the image", remarks)
        return (yield from engine(stack, request, **arguments))

    panel.engine = steps
    return panel


def test_the_remedy_is_one_click(surveying, qtbot, finish):
    panel = surveying
    assert panel.remarks.isHidden()
    panel.run()
    finish(panel)
    assert not panel.remarks.isHidden()
    assert "Objects look 3.2 x larger" in panel.remarks.text.text()
    assert panel.remarks.remedy.text() == "Set Diameter to 64 and run again"
    panel.remarks.remedy.click()
    assert panel.form.request().settings.diameter == 64
    finish(panel)
    assert panel.remarks.isHidden()
    assert panel.status.text().startswith("4 objects")


def test_a_remark_without_a_remedy_has_no_button(panel):
    panel.remarks.show_remarks([ShiftRemark("It is noisier.")])
    assert panel.remarks.text.text() == "⚠ It is noisier."
    assert panel.remarks.remedy.isHidden()


def test_pixels_replace_micrometres(surveying):
    form = surveying.form
    form.advanced.settings["diameter_um"].set(12.5)
    form.set_diameter(30)
    assert (form.request().settings.diameter, form.request().settings.diameter_um) == (30, None)
