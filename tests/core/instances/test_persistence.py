"""Merging in rounds gives what taking the passes one by one from the highest down gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.core.instances import persistence as merging
from napari_unet.core.instances.persistence import (
    Nodes,
    Passes,
    merge_basins,
    merge_complete,
    merge_one_by_one,
)


def one_by_one(peaks, pairs, heights, depth):
    """Persistence as it is written down: the highest pass first, of equals the smaller pair."""
    parent = list(range(len(peaks)))

    def root(node):
        while parent[node] != node:
            node = parent[node]
        return node

    steps = sorted((-h, min(a, b), max(a, b)) for (a, b), h in zip(pairs, heights, strict=True))
    for minus_height, a, b in steps:
        low, high = sorted((root(a), root(b)), key=lambda node: (peaks[node], node))
        if low != high and peaks[low] + minus_height < depth:
            parent[low] = high
    return [root(node) for node in range(len(peaks))]


def landscape(seed, levels):
    """Peaks and passes, many of them equally high, and no pass above its peaks."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 40))
    peaks = rng.integers(0, levels, count) / levels
    pairs = rng.integers(0, count, (int(rng.integers(0, 4 * count)), 2))
    heights = peaks[pairs].min(1) - rng.integers(0, levels, len(pairs)) / levels
    return peaks.astype(np.float32), pairs, heights.astype(np.float32)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**16),
    st.sampled_from([2, 4, 64, 1024]),
    st.sampled_from([0.125, 0.25, 0.5]),
    st.sampled_from([0, 1, 2, 30]),
)
def test_rounds_merge_as_one_pass_after_the_other(seed, levels, depth, rounds):
    peaks, pairs, heights = landscape(seed, levels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "MAX_ROUNDS", rounds)
        found = merge_basins(peaks, pairs, heights, depth)
    assert found.tolist() == one_by_one(peaks.tolist(), pairs.tolist(), heights.tolist(), depth)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**16), st.sampled_from([2, 4, 64, 1024]), st.sampled_from([0.125, 0.25, 0.5])
)
def test_merging_a_part_first_changes_nothing(seed, levels, depth):
    peaks, pairs, heights = landscape(seed, levels)
    rng = np.random.default_rng(seed + 1)
    peak_known = rng.random(len(peaks)) < 0.8
    complete = peak_known & (rng.random(len(peaks)) < 0.7)
    names = np.arange(len(peaks))
    # What is not known wholly now may turn out to be higher, with a smaller name, and more passes.
    known = np.array([complete[a] or complete[b] or rng.random() < 0.7 for a, b in pairs], bool)
    nodes = Nodes(np.where(peak_known, names, len(peaks) + names), peaks, peak_known, complete)
    first, left = merge_complete(nodes, Passes.from_ends(pairs[known], heights[known]), depth)
    peaks = np.where(peak_known, peaks, peaks + rng.integers(0, levels, len(peaks)) / levels)
    peaks = peaks.astype(np.float32)
    rest = Passes.from_ends(first[pairs[~known]], heights[~known])
    both = Passes(
        *map(np.concatenate, zip(_columns(left), _columns(rest), strict=True))
    ).canonical()
    all_ = np.ones(len(peaks), bool)
    nodes = Nodes(names, peaks, all_, all_)
    then, rest = merge_complete(nodes, both, depth)
    then = merge_one_by_one(nodes, rest, depth)[then]
    wanted = one_by_one(peaks.tolist(), pairs.tolist(), heights.tolist(), depth)
    assert then[first].tolist() == wanted
    assert np.array_equal(first[~complete], names[~complete])


def _columns(passes):
    return passes.ends, passes.heights, passes.ties


def test_a_long_chain_of_equal_peaks_takes_few_rounds():
    count, calls = 5000, []
    pairs = np.stack([np.arange(count - 1), np.arange(1, count)], 1)
    with pytest.MonkeyPatch.context() as patch:
        ascents = merging._find_ascents
        patch.setattr(merging, "_find_ascents", lambda *given: calls.append(1) or ascents(*given))
        found = merge_basins(np.ones(count), pairs, np.ones(count - 1), 0.1)
    assert (found == count - 1).all()
    assert len(calls) <= merging.MAX_ROUNDS


def test_peaks_and_passes_may_be_of_any_precision():
    sizes = np.log(np.array([7.0, 11.0, 5.0]))
    pairs = np.array([[0, 1], [1, 2]])
    assert merge_basins(sizes, pairs, sizes[pairs].min(1), 0.1).tolist() == [1, 1, 1]


def test_a_basin_known_wholly_is_gone_before_its_neighbour_is():
    nodes = Nodes(
        names=np.array([5, 9]),
        peaks=np.array([0.4, 0.6], np.float32),
        peak_known=np.array([True, False]),
        complete=np.array([True, False]),
    )
    passes = Passes.from_ends(np.array([[0, 1]]), np.array([0.35], np.float32))
    root, left = merge_complete(nodes, passes, 0.2)
    assert root.tolist() == [1, 1]
    assert not len(left)


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_merge(count):
    pairs = np.zeros((0, 2), np.int64)
    found = merge_basins(np.ones(count, np.float32), pairs, np.zeros(0, np.float32), 0.2)
    assert found.tolist() == list(range(count))
