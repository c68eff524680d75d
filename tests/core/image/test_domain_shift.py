"""What is unusual about an image is found, and said in words."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.image.domain_shift import (
    ShiftReport,
    ShiftWarning,
    intensity_statistics,
    shift_remark,
    size_remark,
    statistic_ranges,
)

RNG = np.random.default_rng(0)


def test_noise_is_measured_in_spite_of_edges():
    image = np.zeros((1, 200, 200), np.float32)
    image[:, 50:90, 60:120] = 1
    assert intensity_statistics(image)["noise"] == 0
    image += RNG.normal(0, 0.05, image.shape).astype(np.float32)
    found = intensity_statistics(image)
    assert found["noise"] == pytest.approx(0.05, rel=0.05)
    assert found["mean"] == pytest.approx(0.06, abs=0.01)


def test_ranges_hold_nearly_all_images_and_some_more():
    several = [{"noise": float(v)} for v in np.linspace(0, 1, 101)]
    assert statistic_ranges(several)["noise"] == pytest.approx([-0.186, 1.186])


def test_what_is_off_is_said_once():
    ranges = {"noise": [0, 0.1], "peak": [0.7, 1], "certainty": [0.8, 1]}
    assert shift_remark({"noise": 0.05, "peak": 0.9, "certainty": 0.9}, ranges) is None
    remark = shift_remark({"noise": 0.5, "peak": 0.9, "certainty": 0.5}, ranges)
    assert remark is not None
    assert "it is noisier, the model is unsure of its objects." in remark.text
    assert remark.diameter is None


@pytest.mark.parametrize(("found", "used"), [(20, 20), (30, 20), (13, 20), (0, 20), (20, 0)])
def test_sizes_that_agree_are_not_remarked_on(found, used):
    assert size_remark(found, used) is None


def test_a_size_that_was_told_is_not_called_wrong():
    remark = size_remark(77, 20, told=True)
    assert remark is not None and remark.diameter == 77
    assert remark.text.startswith("You set 20 px;") and "set Diameter" not in remark.text


def test_other_sizes_come_with_a_remedy():
    remark = size_remark(64.2, 20.7)
    assert remark is not None
    assert remark.text.startswith("Objects look 3.1 x larger than")
    assert remark.text.endswith("set Diameter to 64.")
    assert remark.diameter == 64
    smaller = size_remark(5, 20)
    assert smaller is not None
    assert "4.0 x smaller" in smaller.text
    with pytest.warns(ShiftWarning, match="set Diameter to 64"):
        ShiftReport(0, 0, "", (remark,)).warn()
