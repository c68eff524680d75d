"""What a frame is, and scores that are pooled over frames."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.evaluation.comparison import (
    Comparison,
    inside_code,
    outline_code,
    score_steps,
)
from napari_unet.core.evaluation.metrics import Scores, evaluate
from napari_unet.core.io.axes import object_ndim, shared_axes
from napari_unet.core.progress import Progress, run_to_end


def drain(steps) -> tuple[list[Progress], Scores]:
    reports = []
    return reports, run_to_end(steps, reports.append)


def columns(*shape: int) -> np.ndarray:
    """Label two columns through a stack of 8 x 12 pixels: 1 on the left, 2 on the right."""
    labels = np.zeros((*shape, 8, 12), np.uint16)
    labels[..., 1:6, 1:5] = 1
    labels[..., 1:6, 7:11] = 2
    return labels


def renumbered(labels: np.ndarray) -> np.ndarray:
    """Swap the two numbers in every other plane, as a 2D model may."""
    swapped = labels.copy()
    for plane in swapped.reshape(-1, *labels.shape[-2:])[1::2]:
        plane[:] = np.array([0, 2, 1])[plane]
    return swapped


def test_a_2d_model_numbers_each_plane_anew() -> None:
    truth = columns(4)
    labels = renumbered(truth)
    _, apart = drain(score_steps(Comparison(labels, truth, "ZYX", 2)))
    assert apart.ap.tolist() == [1] * 10 and apart.true_objects == 8 and apart.images == 4
    _, together = drain(score_steps(Comparison(labels, truth, "ZYX", 3)))
    assert together.ap[0] < 1 and together.true_objects == 2 and together.images == 1


def test_time_points_are_always_apart() -> None:
    truth = columns(3, 2)
    labels = truth.copy()
    labels[1] = np.array([0, 2, 1])[labels[1]]
    labels[2, :, :, 7:] = 0
    reports, scores = drain(score_steps(Comparison(labels, truth, "TZYX", 3)))
    assert scores.images == 3 and (scores.tp[0], scores.fn[0], scores.fp[0]) == (5, 1, 0)
    assert [(step.done, step.total, step.what) for step in reports] == [
        (n, 3, "volumes") for n in range(4)
    ]
    pooled = Scores.pooled(evaluate(labels[t], truth[t]) for t in range(3))
    assert scores.row() == pooled.row()


@pytest.mark.parametrize(
    ("axes", "shape", "ndim", "count", "what"),
    [
        ("YX", (), 3, 1, "planes"),
        ("TYX", (3,), 3, 3, "planes"),
        ("ZYX", (3,), 3, 1, "volumes"),
        ("ZYX", (3,), 2, 3, "planes"),
        ("TZYX", (2, 3), 2, 6, "planes"),
        ("TCYX", (2, 1), 3, 2, "planes"),
    ],
)
def test_frames(axes, shape, ndim, count, what) -> None:
    labels = columns(*shape)
    comparison = Comparison(labels, labels, axes, ndim)
    assert len(comparison.frames) == count and comparison.what == what
    assert all(comparison.get_frame(plane) in comparison.frames for plane in comparison.planes)
    out = np.zeros(labels.shape, np.uint8)
    _, scores = drain(score_steps(comparison, out))
    assert scores.ap[0] == 1 and scores.images == count
    assert (out[..., 1, 1] == outline_code("hit")).all()
    assert (out[..., 3, 3] == inside_code("hit")).all()
    np.testing.assert_array_equal(out > 0, labels > 0)


def test_axes_may_lie_in_any_order() -> None:
    """Rims are drawn in the planes of Y and X, wherever these axes are."""
    truth = columns(4)
    labels = truth.copy()
    labels[:, 1:6, 7:11] = 0
    straight, turned = np.zeros((4, 8, 12), np.uint8), np.zeros((12, 4, 8), np.uint8)
    _, scores = drain(score_steps(Comparison(labels, truth, "ZYX", 3), straight))
    around = [array.transpose(2, 0, 1) for array in (labels, truth)]
    _, again = drain(score_steps(Comparison(*around, "XZY", 3), turned))
    assert scores.row() == again.row() and scores.recall[0] == 0.5
    np.testing.assert_array_equal(turned, straight.transpose(2, 0, 1))
    assert set(np.unique(straight)) == {0, *map(outline_code, ("hit", "missed")),
                                        *map(inside_code, ("hit", "missed"))}  # fmt: skip


def test_an_object_is_judged_in_its_frame() -> None:
    """Found in 3 planes of 4, it is a hit as a volume; plane by plane, it is missed in the last."""
    truth = columns(4)
    labels = truth.copy()
    labels[3] = 0
    for ndim, missed in ((3, 0), (2, 40)):
        out = np.zeros(truth.shape, np.uint8)
        drain(score_steps(Comparison(labels, truth, "ZYX", ndim), out))
        codes = (outline_code("missed"), inside_code("missed"))
        assert np.isin(out, codes).sum() == missed


def test_lazy_arrays(tmp_path) -> None:
    array = pytest.importorskip("dask.array")
    truth = columns(3)
    lazy = array.from_array(truth, chunks=(1, 4, 4))
    _, scores = drain(score_steps(Comparison(lazy, truth, "ZYX", 2)))
    assert scores.ap[0] == 1


def test_frame_ndim() -> None:
    assert object_ndim("auto") == object_ndim("auto", {}) == 3
    assert object_ndim("auto", {"object_axes": "YX"}) == 2
    assert object_ndim("auto", {"object_axes": "ZYX"}) == 3
    assert object_ndim("volumes", {"object_axes": "YX"}) == 3
    assert object_ndim("planes") == 2
    with pytest.raises(SettingsError, match="frames is 'cubes'; choose one of: auto, planes"):
        object_ndim("cubes")


def test_the_one_that_knows_of_time_is_right() -> None:
    assert shared_axes("ZYX", "TYX") == shared_axes("TYX", "ZYX") == "TYX"
    assert shared_axes("ZYX", "ZYX") == "ZYX"
    assert shared_axes("ZYX", "TZYX") == "ZYX"


def test_shapes_must_be_equal() -> None:
    with pytest.raises(InputError, match=r"labels have shape \(2, 8, 12\), the truth \(3, 8, 12\)"):
        Comparison(columns(2), columns(3), "ZYX")
