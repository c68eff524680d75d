"""Scores against hand-made cases, a slow reference, scikit-image and StarDist."""

from __future__ import annotations

import csv
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import adapted_rand_error

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.evaluation.metrics import (
    THRESHOLDS,
    Scores,
    evaluate,
    evaluate_known,
    mostly_known,
)
from napari_unet.core.instances import matching
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.instances.matching import Overlap, match
from napari_unet.core.training.known_pixels import isolated_planes, known_targets
from napari_unet.core.training.samples import Samples
from napari_unet.nn.training.augment import draw_crop

LEVELS = (0.05, 0.2, 0.5, 0.6, 0.75, 0.9, 1.0)

label_pairs = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=st.integers(0, 4))] * 2)
)


def brute_force(labels: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[int, float]:
    """Try every assignment: the most pairs, then the largest sum of IoU."""
    found = [labels == i for i in np.unique(labels) if i]
    wanted = [truth == i for i in np.unique(truth) if i]
    if len(found) < len(wanted):
        found, wanted = wanted, found
    iou = [[(a & b).sum() / (a | b).sum() for b in wanted] for a in found]
    best = (0, 0.0)
    for order in itertools.permutations(range(len(found)), len(wanted)):
        good = [iou[row][column] for column, row in enumerate(order) if iou[row][column] > 0]
        good = [value for value in good if value >= threshold]
        best = max(best, (len(good), round(sum(good), 9)))
    return best


def random_labels(seed: int, size: int = 64, objects: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Discs, and the same discs moved, resized, left out, merged and made up."""
    rng = np.random.RandomState(seed)  # its numbers are the same in every version of numpy
    rows, columns = np.mgrid[:size, :size]
    labels, truth = np.zeros((2, size, size), np.uint16)
    for number in range(1, objects + 1):
        centre, radius = rng.randint(0, size, 2), rng.randint(3, 9)
        truth[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2] = number
        moved, grown = centre + rng.randint(-1, 2, 2), radius + rng.randint(-1, 2)
        name = rng.randint(1, objects + 1) if rng.randint(10) == 0 else number
        if rng.randint(10):
            labels[(rows - moved[0]) ** 2 + (columns - moved[1]) ** 2 < grown**2] = name
    return labels, truth


def test_thresholds() -> None:
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_a_case_by_hand() -> None:
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3, 3]])
    labels = np.array([[7, 7, 7, 0, 0, 9, 9, 9, 0, 0]])
    scores = evaluate(labels, truth, (0.5, 0.7, 0.8))
    # 7 meets 1 with IoU 3/4, 9 meets 2 with IoU 2/3, 3 is missed.
    assert scores.tp.tolist() == [2, 1, 0]
    assert scores.fp.tolist() == [0, 1, 2]
    assert scores.fn.tolist() == [1, 2, 3]
    np.testing.assert_allclose(scores.ap, [2 / 3, 1 / 4, 0])
    np.testing.assert_allclose(scores.precision, [1, 1 / 2, 0])
    np.testing.assert_allclose(scores.recall, [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(scores.f1, [4 / 5, 2 / 5, 0])
    np.testing.assert_allclose(scores.pq, [(3 / 4 + 2 / 3) / 2.5, (3 / 4) / 2.5, 0])
    assert scores.dice == pytest.approx(2 * 5 / (6 + 8))
    assert scores.iou == pytest.approx(5 / 9)
    assert scores.count_error == -1
    assert scores.at(0.7) == 1
    assert scores.row()["AP70"] == pytest.approx(1 / 4)


def test_an_object_exactly_halved_is_one_hit() -> None:
    truth, labels = np.array([1, 1, 1, 1]), np.array([1, 1, 2, 2])
    scores = evaluate(labels, truth)
    assert scores.tp.tolist() == [1] + [0] * 9
    assert scores.fp.tolist() == [1] + [2] * 9


def test_more_pairs_come_before_better_ones() -> None:
    # 1 fits A best, yet if it took A, 2 would have nothing: it takes B.
    truth = np.array([1] * 10 + [2] * 4)
    labels = np.array([2] * 3 + [1] * 11)
    found = match(Overlap.from_labels(labels, truth), 0.2)
    assert sorted(zip(found.predicted.tolist(), found.true.tolist(), strict=True)) == [
        (0, 1),
        (1, 0),
    ]


@pytest.mark.parametrize("shape", [(4, 5), (0, 3), (2, 3, 4)])
def test_nothing_to_find_and_nothing_found(shape) -> None:
    scores = evaluate(np.zeros(shape, np.uint16), np.zeros(shape, np.uint16))
    assert (scores.ap == 1).all()
    assert (scores.pq == 1).all()
    assert scores.dice == scores.iou == 1
    assert scores.rand_error == scores.count_error == 0


def test_everything_missed_and_everything_false() -> None:
    some, none = np.array([[1, 1, 2]]), np.zeros((1, 3), int)
    missed, false = evaluate(none, some), evaluate(some, none)
    assert missed.ap[0] == false.ap[0] == missed.dice == false.dice == 0
    assert (missed.fn[0], false.fp[0]) == (2, 2)
    assert (missed.count_error, false.count_error) == (-2, 2)


@settings(max_examples=80, deadline=None)
@given(label_pairs)
def test_matching_is_the_best_there_is(pair) -> None:
    labels, truth = pair
    scores = evaluate(labels, truth, LEVELS)
    for place, threshold in enumerate(LEVELS):
        hits, overlap = brute_force(labels, truth, threshold)
        assert scores.tp[place] == hits
        assert scores.iou_sum[place] == pytest.approx(overlap, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(label_pairs, st.permutations(range(1, 5)))
def test_names_and_sides_do_not_matter(pair, names) -> None:
    labels, truth = pair
    scores = evaluate(labels, truth, LEVELS)
    renamed = evaluate(np.array([0, *names])[labels] * 1_000_000_007, truth, LEVELS)
    assert renamed.row() == pytest.approx(scores.row())
    turned = evaluate(truth, labels, LEVELS)
    np.testing.assert_array_equal(turned.ap, scores.ap)
    np.testing.assert_array_equal(turned.fp, scores.fn)
    assert turned.dice == scores.dice
    assert evaluate(truth, truth, LEVELS).ap.tolist() == [1] * len(LEVELS)


@settings(max_examples=60, deadline=None)
@given(label_pairs)
def test_rand_error_is_that_of_scikit_image(pair) -> None:
    labels, truth = pair
    with np.errstate(invalid="ignore"):
        expected = adapted_rand_error(truth, labels)[0]
    if np.isnan(expected):
        expected = 0  # no pair of voxels to be right or wrong about
    assert evaluate(labels, truth).rand_error == pytest.approx(expected)


def test_equal_to_the_stored_answers_of_stardist_and_cellpose() -> None:
    """StarDist 0.9.2 and Cellpose 4.2.1 found the same hits in all of these 200 pairs."""
    with (Path(__file__).parent / "matching_answers.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    assert len(answers) == 200
    for answer in answers:
        scores = evaluate(*random_labels(int(answer["seed"])))
        assert scores.objects == int(answer["objects"])
        assert scores.true_objects == int(answer["true_objects"])
        assert scores.tp.tolist() == [int(answer[f"tp{round(100 * t)}"]) for t in THRESHOLDS]


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_stardist(seed: int) -> None:
    stardist = pytest.importorskip("stardist.matching")
    labels, truth = random_labels(seed)
    scores = evaluate(labels, truth)
    for place, threshold in enumerate(THRESHOLDS):
        theirs = stardist.matching(truth, labels, thresh=threshold)
        assert (theirs.tp, theirs.fp, theirs.fn) == tuple(
            getattr(scores, name)[place] for name in ("tp", "fp", "fn")
        )
        assert theirs.accuracy == pytest.approx(scores.ap[place])
        assert theirs.f1 == pytest.approx(scores.f1[place])
        assert theirs.panoptic_quality == pytest.approx(scores.pq[place])


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_cellpose(seed: int) -> None:
    cellpose = pytest.importorskip("cellpose.metrics")
    labels, truth = random_labels(seed)
    theirs = cellpose.average_precision([truth], [labels], list(THRESHOLDS))[0][0]
    np.testing.assert_allclose(theirs, evaluate(labels, truth).ap, rtol=1e-6)


def test_pooled_objects_count_alike() -> None:
    pairs = [random_labels(seed, size=64, objects=n) for seed, n in enumerate((3, 20, 0, 9))]
    pooled = Scores.pooled(evaluate(*pair) for pair in pairs)
    aside = []
    for number, (labels, truth) in enumerate(pairs):
        # The same images side by side, with names of their own, are one image.
        aside.append([np.where(a, a + 1000 * number, 0) for a in (labels, truth)])
    whole = evaluate(*[np.hstack(side) for side in zip(*aside, strict=True)])
    np.testing.assert_array_equal(pooled.tp, whole.tp)
    np.testing.assert_array_equal(pooled.ap, whole.ap)
    np.testing.assert_allclose(pooled.pq, whole.pq)
    assert pooled.dice == whole.dice
    assert pooled.images == 4
    with pytest.raises(InputError, match="same thresholds"):
        Scores.pooled([evaluate([1], [1]), evaluate([1], [1], (0.5,))])
    with pytest.raises(InputError, match="from one image on"):
        Scores.pooled([])


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint32, np.int64, np.uint64, np.float32])
def test_any_type_that_holds_whole_numbers(dtype) -> None:
    labels = np.array([[0, 1, 1], [0, 0, 1]]).astype(dtype)
    assert evaluate(labels, labels.astype(np.uint16)).ap[0] == 1


def test_negative_values_are_background() -> None:
    assert evaluate(np.array([-1, -1, 4]), np.array([0, 0, 1])).ap.tolist() == [1] * 10


@pytest.mark.parametrize(
    ("labels", "truth", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"shape \(2, 3\), the truth \(3, 2\)"),
        (np.full(3, 0.5), np.zeros(3, int), "labels are no whole numbers"),
        (np.zeros(3, int), np.full(3, np.nan), "truth are no whole numbers"),
        (np.array(["a"]), np.zeros(1, int), "no whole numbers"),
        (np.array([2**63], np.uint64), np.zeros(1, int), "no whole numbers"),
    ],
)
def test_what_is_no_pair_of_labellings_is_refused(labels, truth, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(labels, truth)


@pytest.mark.parametrize("thresholds", [(), (0,), (1.1,), (0.5, float("nan"))])
def test_thresholds_are_checked(thresholds) -> None:
    with pytest.raises(SettingsError, match="above 0 and at most 1"):
        evaluate([1], [1], thresholds)
    with pytest.raises(SettingsError, match=r"no score at IoU 0\.99"):
        evaluate([1], [1]).at(0.99)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, truth = random_labels(3)
    whole = evaluate(labels, truth).row()
    monkeypatch.setattr(matching, "_CHUNK", 100)
    assert evaluate(labels, truth).row() == whole


def test_twenty_thousand_objects_take_seconds() -> None:
    side, edge = 142, 8
    cells = np.arange(1, side * side + 1, dtype=np.int32).reshape(side, side)
    truth = np.kron(cells, np.ones((edge, edge), np.int32))
    labels = np.roll(truth, 2, axis=(0, 1))  # every object touches four others
    start = time.process_time()
    scores = evaluate(labels, truth, (0.1, 0.5, 0.75))
    assert time.process_time() - start < 20
    assert scores.true_objects == side * side
    assert scores.tp[0] >= (side - 1) ** 2


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
