"""What a frame is, and scores that are pooled over frames."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.evaluation.comparison import (
    MATCH_KINDS,
    Comparison,
    MatchStatus,
    draw_match_status,
    edges,
    inside_code,
    outline_code,
    score_steps,
)
from napari_unet.core.evaluation.metrics import Scores, evaluate
from napari_unet.core.instances.matching import Overlap
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


def boxes(*corners: tuple[int, int, int, int], shape=(12, 20)) -> np.ndarray:
    """Label boxes, each given by top, left and size, with 7, 8, 9 and so on."""
    labels = np.zeros(shape, np.uint16)
    for label, (top, left, height, width) in enumerate(corners, 7):
        labels[top : top + height, left : left + width] = label
    return labels


def judged(labels, truth, threshold=0.5):
    status = MatchStatus.from_overlap(Overlap.from_labels(labels, truth), threshold)
    return status, status.split(labels, truth)


def test_each_object_is_a_hit_or_false_or_missed() -> None:
    truth = boxes((0, 0, 4, 4), (6, 0, 4, 4), (0, 10, 4, 4))
    labels = boxes((0, 1, 4, 4), (6, 12, 4, 4))
    status, objects = judged(labels, truth)
    assert status.hits.tolist() == [7] and status.found.tolist() == [7]
    present = {kind: np.unique(part[part > 0]).tolist() for kind, part in objects.items()}
    assert present == {"hit": [7], "false": [8], "missed": [8, 9]}
    np.testing.assert_array_equal(objects["hit"] + objects["false"], labels)


def test_the_threshold_decides() -> None:
    truth, labels = boxes((0, 0, 4, 4)), boxes((0, 1, 4, 4))  # IoU 12 / 20
    assert judged(labels, truth, 0.6)[0].hits.size == 1
    assert judged(labels, truth, 0.7)[0].hits.size == 0


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.uint64, np.float32])
def test_labels_of_any_type(dtype) -> None:
    labels = boxes((0, 0, 4, 4)).astype(dtype)
    _, objects = judged(labels, labels)
    assert (objects["hit"] > 0).sum() == 16
    assert not (objects["false"] > 0).any() and not (objects["missed"] > 0).any()


def test_below_zero_is_background() -> None:
    labels = np.full((3, 3), -1)
    _, objects = judged(labels, labels)
    assert not any((part > 0).any() for part in objects.values())
    assert not draw_match_status(objects).any()


def test_a_plane_is_drawn_as_its_volume_was_judged() -> None:
    """An object that looks like a miss in one plane is a hit if most of it was found."""
    truth, labels = np.zeros((2, 4, 4, 4), np.uint8)
    truth[:] = 1
    labels[1:] = 1
    status = MatchStatus.from_overlap(Overlap.from_labels(labels, truth))
    assert not any((part > 0).any() for part in status.split(labels[0], truth[0]).values())


def test_rims_lie_above_all_insides() -> None:
    """Two nuclei that were taken for one can be seen below it."""
    truth = boxes((2, 2, 6, 6), (2, 10, 6, 6))
    labels = boxes((1, 1, 8, 16))
    codes = draw_match_status(judged(labels, truth, 0.6)[1])
    assert codes[1, 1] == outline_code("false") and codes[4, 8] == inside_code("false")
    assert codes[2, 2] == codes[7, 15] == outline_code("missed")
    assert codes[4, 4] == inside_code("false")
    assert inside_code("missed") not in codes
    assert codes[10, 18] == 0 and codes.dtype == np.uint8


def test_the_codes_are_all_different() -> None:
    codes = [code(kind) for kind in MATCH_KINDS for code in (outline_code, inside_code)]
    assert sorted(codes) == [1, 2, 3, 4, 5, 6]


def test_rims_are_drawn_in_planes_only() -> None:
    labels = np.ones((3, 5, 5), np.uint8)
    labels[:, 0] = 0
    assert not edges(labels, (0,)).any()
    rim = edges(labels, (1, 2))
    assert rim[:, 1].all() and rim.sum() == 3 * 5
    assert not edges(labels[0, :1]).any()
