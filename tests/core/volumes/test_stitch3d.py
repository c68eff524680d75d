"""Objects of planes are joined through z: what belongs together, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.core.evaluation.metrics import evaluate
from napari_unet.core.instances.matching import Overlap
from napari_unet.core.progress import run_to_end
from napari_unet.core.volumes.stitch3d import ZStitcher, best_partners, stitch_steps

SHAPE = (24, 60, 60)


def ball(centre, radius, shape=SHAPE):
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < radius**2


def by_planes(truth, seed=0):
    """Label each plane on its own: parts of objects of `truth`, numbered at random."""
    rng, planes = np.random.default_rng(seed), np.zeros(truth.shape, np.uint32)
    for plane, wanted in zip(planes, truth, strict=True):
        ids = np.unique(wanted[wanted > 0])
        for number, label in zip(rng.permutation(len(ids)) + 1, ids, strict=True):
            plane[wanted == label] = number
    return planes


def joined(planes, **arguments):
    out = planes.copy()
    steps = stitch_steps(out, [(z,) for z in range(len(out))], **arguments)
    return out, run_to_end(steps)


def same(labels, truth):
    return bool(evaluate(labels, truth).iou == 1.0) and len(np.unique(labels)) == len(
        np.unique(truth)
    )


def test_balls_become_whole():
    truth = np.zeros(SHAPE, np.uint32)
    for number, (centre, radius) in enumerate(
        [((8, 15, 15), 7), ((12, 40, 42), 9), ((5, 44, 14), 4)], 1
    ):
        truth[ball(centre, radius)] = number
    labels, count = joined(by_planes(truth))
    assert count == 3 and same(labels, truth)
    assert np.array_equal(np.unique(labels), [0, 1, 2, 3])


@pytest.mark.parametrize("radius", [5, 8.6, 9, 9.5, 11])
def test_a_ball_keeps_its_caps(radius):
    """The area of a ball's planes may rise from 1 to 57 in one step."""
    truth = ball((12, 30, 30), radius).astype(np.uint16)
    out, count = joined(by_planes(truth))
    assert count == 1
    np.testing.assert_array_equal(out > 0, truth > 0)


def test_touching_balls_side_by_side_stay_two():
    truth = np.zeros(SHAPE, np.uint32)
    truth[ball((12, 30, 20), 9)] = 1
    truth[ball((12, 30, 38), 9.5) & (truth == 0)] = 2
    labels, count = joined(by_planes(truth))
    assert count == 2 and same(labels, truth)


def test_balls_one_upon_the_other_are_divided_at_the_waist():
    truth = np.zeros(SHAPE, np.uint32)
    truth[ball((6, 30, 30), 6)] = 1
    truth[ball((17, 30, 30), 6)] = 2
    assert (truth.any((1, 2))[1:23]).all()  # no plane between them is empty
    labels, count = joined(by_planes(truth))
    assert count == 2
    assert evaluate(labels, truth).ap[0] == 1.0


@pytest.mark.parametrize(("missing", "count"), [(1, 1), (2, 2)])
def test_a_gap_of_one_plane_is_bridged_and_no_more(missing, count):
    truth = ball((12, 30, 30), 9).astype(np.uint32)
    planes = by_planes(truth)
    planes[12 : 12 + missing] = 0
    labels, found = joined(planes)
    assert found == count
    assert (labels[12] > 0).any() == (missing == 1)
    if missing == 1:
        assert set(np.unique(labels)) == {0, 1}
        both = (planes[11] > 0) & (planes[13] > 0)
        assert np.array_equal(labels[12] > 0, both)


def test_an_object_of_one_plane_alone_is_one():
    planes = np.zeros(SHAPE, np.uint32)
    planes[7, 10:20, 10:20] = 5
    labels, count = joined(planes)
    assert count == 1 and np.array_equal(labels > 0, planes > 0)


def test_of_a_branch_one_arm_goes_on_and_the_other_begins_anew():
    planes = np.zeros((6, 60, 60), np.uint32)
    planes[:3, 20:40, 10:50] = 1
    planes[3:, 20:40, 10:33] = 1
    planes[3:, 20:40, 35:50] = 2
    labels, count = joined(planes)
    assert count == 2
    assert labels[0].max() == labels[5, 30, 20] == 1 and labels[5, 30, 40] == 2


def test_small_objects_are_dropped_by_all_their_voxels():
    planes = np.zeros((6, 30, 30), np.uint32)
    planes[1:5, 3:6, 3:6] = 1  # 36 voxels in parts of 9
    planes[2, 20:24, 20:25] = 2  # 20 voxels in one plane
    labels, count = joined(planes, min_voxels=30)
    assert count == 1 and np.array_equal(labels > 0, planes == 1)


def test_planes_that_are_missing_divide_and_numbers_go_on():
    planes = np.zeros((7, 20, 20), np.uint32)
    planes[:, 5:15, 5:15] = 1
    out = planes.copy()
    for _ in stitch_steps(out, [(z,) for z in (0, 1, 4, 5, 6)]):
        pass
    assert [int(p.max()) for p in out] == [1, 1, 1, 1, 2, 2, 2]  # planes 2 and 3 are untouched


def test_no_planes_and_empty_planes():
    assert joined(np.zeros((0, 4, 4), np.uint32))[1] == 0
    labels, count = joined(np.zeros((5, 4, 4), np.uint32))
    assert count == 0 and not labels.any()


def test_a_part_of_the_planes_leaves_the_rest_alone():
    planes = np.zeros((4, 20, 20), np.uint32)
    planes[:, 2:8, 2:8], planes[:, 12:18, 12:18] = 9, 3
    labels, count = joined(planes, window=(slice(0, 10), slice(0, 10)))
    assert (
        count == 1
        and (labels[:, 2:8, 2:8] == 1).all()
        and (labels[:, 12:, 12:] == planes[:, 12:, 12:]).all()
    )


def test_no_more_than_three_planes_are_held():
    chain = ZStitcher()
    for _ in range(30):
        chain.add(np.ones((16, 16), np.uint32))
    assert sum(plane.labels.size for plane in chain._planes) <= 3 * 256
    assert chain.finish().objects == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 0.3))
def test_two_objects_of_one_plane_never_become_one(seed, gaps):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(12, 40, 40)), (1, 3, 3))
    planes = np.zeros(smooth.shape, np.uint32)
    for z, plane in enumerate(smooth > smooth.std() * 0.5):
        if rng.random() >= gaps:
            planes[z] = ndimage.label(plane)[0]
    labels, count = joined(planes)
    assert np.array_equal(np.unique(labels[labels > 0]), np.arange(1, count + 1))
    assert ((labels > 0) >= (planes > 0)).all()  # nothing is lost; only gaps are filled
    for plane, before in zip(labels, planes, strict=True):
        pairs = np.unique(np.stack([plane[before > 0], before[before > 0]]), axis=1)
        assert pairs.shape[1] == len(np.unique(before[before > 0])) == len(np.unique(pairs[0]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31))
def test_the_numbers_in_the_planes_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    truth = np.zeros((14, 48, 48), np.uint32)
    for number in range(1, 7):
        mask = ball(rng.uniform(3, 45, 3) % (14, 48, 48), rng.uniform(3, 8), truth.shape)
        truth[mask & (truth == 0)] = number
    one, other = (joined(by_planes(truth, k))[0] for k in (0, 1))
    assert np.array_equal(one > 0, other > 0)
    assert evaluate(one, other).ap[-1] == 1.0 or not one.any()


def test_partners_are_mutual():
    below, above = np.zeros((10, 30), np.uint32), np.zeros((10, 30), np.uint32)
    below[:, :20], above[:, :12], above[:, 13:22] = 4, 7, 8
    one, other = best_partners(Overlap.from_labels(below, above), 0.25)
    assert one.tolist() == [0] and other.tolist() == [0]
