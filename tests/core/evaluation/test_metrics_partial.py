"""Labels of which a part is known: scores, targets and sizes count that part alone."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.metrics import evaluate_known, mostly_known
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.training.samples import Samples, isolated_planes, known_targets
from napari_unet.nn.training.augment import draw_crop


def two_squares():
    labels = np.zeros((40, 80), np.uint32)
    labels[10:30, 10:30], labels[10:30, 50:70] = 4_000_000_000, 9
    return labels


def test_objects_outside_the_known_part_do_not_count():
    truth, known = two_squares(), np.zeros((40, 80), bool)
    known[:, :40] = True
    found = truth.copy()
    found[10:30, 50:70] = 0  # missed, but nobody looked there
    found[32:38, 60:70] = 5  # false, but nobody looked there
    assert evaluate_known(found, truth, known, (0.5,)).ap[0] == 1
    assert evaluate_known(found, truth, np.ones_like(known), (0.5,)).ap[0] == pytest.approx(1 / 3)


def test_an_object_counts_whole_if_half_of_it_is_known():
    labels, known = two_squares(), np.zeros((40, 80), bool)
    known[:, :20] = True
    assert np.array_equal(np.unique(mostly_known(labels, known)), [0, 4_000_000_000])
    known[:, 19] = False
    assert not mostly_known(labels, known).any()


def slices():
    z, y, x = np.mgrid[:20, :30, :30]
    ball = np.uint16((z - 10) ** 2 + (y - 15) ** 2 + (x - 15) ** 2 < 64)
    known = np.zeros(ball.shape, bool)
    known[6] = True
    return ball, known


def test_an_object_known_in_one_plane_is_measured_in_that_plane():
    ball, known = slices()
    assert np.flatnonzero(isolated_planes(known)).tolist() == [6]
    targets = known_targets(ball, known, InstanceHead())
    assert np.array_equal(targets[:, 6], InstanceHead().targets(ball[6]))
    assert targets[1, 6].max() == 1
    assert 0 < np.median(targets[1, 6][ball[6] > 0]) < 1
    known[:] = True
    whole = known_targets(ball, known, InstanceHead())
    assert whole[1, 6].max() < 0.8  # the middle of the ball is elsewhere


def test_the_size_is_that_of_what_is_known():
    ball, known = slices()
    item = Samples.from_labels([(ball * 1.0, ball)], [known], channels=1).items[0]
    assert item.diameter == pytest.approx(2 * np.sqrt(np.sum(ball[6]) / np.pi))
    labels = two_squares()
    half = np.zeros(labels.shape, bool)
    half[:, :40] = True
    item = Samples.from_labels([(labels * 1.0, labels)], [half], channels=1).items[0]
    assert item.diameter == pytest.approx(2 * np.sqrt(400 / np.pi))
    assert len(np.unique(item.known_labels)) == 2


def test_crops_of_volumes_hold_the_known_plane():
    ball, known = slices()
    samples = Samples.from_labels([(ball * 1.0, ball)], [known], channels=1)
    rng = np.random.default_rng(0)
    for diameter in (None, 30.0):
        plans = [draw_crop(samples, np.ones(1), rng, diameter=diameter) for _ in range(50)]
        offsets = np.array([(plan.centre[0] - 6) * plan.zoom_z for plan in plans])
        assert np.allclose(offsets, np.round(offsets))
        assert np.mean(np.abs(offsets) < 8) > 0.9
        assert {plan.flip_z for plan in plans} == {True, False}


def test_a_mask_of_another_shape_is_said():
    labels = two_squares()
    with pytest.raises(InputError, match="give a mask of the labels' shape"):
        Samples.from_labels([(labels * 1.0, labels)], [np.ones((3, 3), bool)])
