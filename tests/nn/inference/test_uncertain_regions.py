"""What is doubtful is found, in its order, and what was looked at is not shown again."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.nn.inference.uncertainty import rank_uncertain_regions, uncertainty_map

HEAD = InstanceHead()


def scene():
    """A sure object (1), an unsure one (2), a flat one (3), and a faint place without any."""
    labels = np.zeros((64, 96), np.uint16)
    labels[8:20, 8:20], labels[8:20, 40:52], labels[40:52, 8:20] = 1, 2, 3
    maps = np.zeros((2, *labels.shape), np.float32)
    maps[0], maps[1] = (labels > 0) * 0.99, HEAD.targets(labels)[1]
    maps[0][labels == 2] = 0.6
    maps[1][labels == 3] *= 0.7
    maps[0][40:52, 60:80] = 0.3
    return maps, labels


def test_doubt_is_highest_where_the_probability_is_a_half():
    maps = np.array([[[0.0, 0.5, 1.0, 0.25]], [[0.0] * 4]], np.float32)
    assert uncertainty_map(maps, HEAD).tolist() == [[0, 1, 0, 0.5]]
    classes = np.array([[[0.5, 1.0]], [[0.5, 0.0]], [[0.0, 0.0]]], np.float32)
    assert uncertainty_map(classes, SemanticHead(3)).tolist() == [[1, 0]]


def test_the_most_doubtful_comes_first():
    places = rank_uncertain_regions(*scene(), HEAD, index=(4,))
    assert [place.label for place in places] == [2, 0, 3, 1]
    assert places[0].score == pytest.approx(0.8, abs=0.01)
    assert places[0].centre == pytest.approx((13.5, 45.5))
    assert places[0].index == (4,)
    assert places[1].centre == pytest.approx((45.5, 69.5), abs=1)
    assert places[-1].score < 0.05


def test_what_was_looked_at_is_left_out():
    maps, labels = scene()
    known = np.zeros(labels.shape, bool)
    known[:, 30:] = True
    assert [place.label for place in rank_uncertain_regions(maps, labels, HEAD, known=known)] == [
        3,
        1,
    ]


def test_disagreement_is_doubt():
    maps, labels = scene()
    other = np.where(labels == 1, 0.95, 0).astype(np.float32)
    assert rank_uncertain_regions(maps, labels, HEAD, disagreement=other)[0].label == 1


def test_an_empty_frame_has_no_places():
    maps = np.zeros((2, 20, 20), np.float32)
    assert rank_uncertain_regions(maps, np.zeros((20, 20), int), HEAD) == []


def test_classes_are_doubted_square_by_square():
    maps = np.zeros((2, 64, 128), np.float32)
    maps[0] = 1
    maps[:, :, 64:] = 0.5
    places = rank_uncertain_regions(maps, maps.argmax(0), SemanticHead(2), edge=64)
    assert [place.score for place in places] == [1, 0]
    assert places[0].centre == (31.5, 95.5)
    known = np.zeros((64, 128), bool)
    known[:, 64:] = True
    assert len(rank_uncertain_regions(maps, maps.argmax(0), SemanticHead(2), known=known)) == 1


def test_volumes_have_places_too():
    labels = np.zeros((8, 24, 24), np.uint16)
    labels[2:6, 4:12, 4:12] = 7
    maps = np.zeros((2, *labels.shape), np.float32)
    maps[0], maps[1] = (labels > 0) * 0.9, HEAD.targets(labels)[1]
    (place,) = rank_uncertain_regions(maps, labels, HEAD)
    assert place.label == 7
    assert place.centre == pytest.approx((3.5, 7.5, 7.5))
