"""A few examples find the others of their kind; a counterexample takes its own kind away."""

from __future__ import annotations

import numpy as np

from napari_unet.core.alike.descriptors import NAMES
from napari_unet.core.alike.ranking import MARKED, AlikeRanking, first_cut

RNG = np.random.default_rng(0)
COUNT = 240
FIRST, SECOND = slice(0, 15), slice(15, 25)


def values(features=10):
    """Ordinary objects, 15 that are unusual in two looks, and 10 that are so in a third, too."""
    found = RNG.normal(0, 1, (COUNT, len(NAMES) + features))
    found[:25, 0] -= 8
    found[:25, 3] += 8
    found[SECOND, 6] += 10
    return found


def test_one_example_finds_most_of_its_kind():
    scores = AlikeRanking(values()).scores([2])
    assert (scores[:25] >= MARKED).mean() > 0.7
    assert (scores[25:] >= MARKED).mean() < 0.05


def test_a_counterexample_takes_its_kind_away():
    ranking = AlikeRanking(values())
    before = ranking.scores([2, 7])
    after = ranking.scores([2, 7], [17, 20, 22])
    assert after[SECOND].mean() < before[SECOND].mean() - 0.2
    assert (after[FIRST] >= MARKED).mean() > 0.7


def test_the_first_cut_is_a_half_or_the_largest_gap():
    assert first_cut(np.array([0.9, 0.2, 0.1])) == MARKED
    cut = first_cut(np.array([0.05, 0.32, 0.35, 0.04, 0.03, 0.02]))
    assert 0.05 < cut < 0.32


def test_few_and_equal_objects_can_be_ranked():
    assert AlikeRanking(np.zeros((1, 5))).scores([0]).shape == (1,)
    assert np.isfinite(AlikeRanking(np.ones((4, 40)), usual=1).scores([0], [2])).all()
