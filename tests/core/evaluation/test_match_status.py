"""What becomes of each object, and how it is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.evaluation.match_status import (
    KINDS,
    MatchStatus,
    draw_match_status,
    edges,
    inside_code,
    outline_code,
)
from napari_unet.core.instances.matching import Overlap


def boxes(*corners: tuple[int, int, int, int], shape=(12, 20)) -> np.ndarray:
    """Label boxes, each given by top, left and size, with 7, 8, 9 and so on."""
    labels = np.zeros(shape, np.uint16)
    for label, (top, left, height, width) in enumerate(corners, 7):
        labels[top : top + height, left : left + width] = label
    return labels


def judged(labels, truth, threshold=0.5):
    verdict = MatchStatus.of(Overlap.from_labels(labels, truth), threshold)
    return verdict, verdict.split(labels, truth)


def test_each_object_is_a_hit_or_false_or_missed() -> None:
    truth = boxes((0, 0, 4, 4), (6, 0, 4, 4), (0, 10, 4, 4))
    labels = boxes((0, 1, 4, 4), (6, 12, 4, 4))
    verdict, objects = judged(labels, truth)
    assert verdict.hits.tolist() == [7] and verdict.found.tolist() == [7]
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
    verdict = MatchStatus.of(Overlap.from_labels(labels, truth))
    assert not any((part > 0).any() for part in verdict.split(labels[0], truth[0]).values())


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
    codes = [code(kind) for kind in KINDS for code in (outline_code, inside_code)]
    assert sorted(codes) == [1, 2, 3, 4, 5, 6]


def test_rims_are_drawn_in_planes_only() -> None:
    labels = np.ones((3, 5, 5), np.uint8)
    labels[:, 0] = 0
    assert not edges(labels, (0,)).any()
    rim = edges(labels, (1, 2))
    assert rim[:, 1].all() and rim.sum() == 3 * 5
    assert not edges(labels[0, :1]).any()
