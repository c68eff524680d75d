"""Frames in groups: each in one group, no group across the end of an axis."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.blockwise.blocks import (
    TOGETHER,
    BlockPlan,
    PlaneBatches,
    choose_planes_per_batch,
)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
@pytest.mark.parametrize("leading", [(), (5,), (2, 7), (3, 1), (2, 2, 3), (0,), (4, 0)])
def test_every_frame_is_in_one_group(leading, size):
    groups, seen = PlaneBatches(leading, size), np.zeros(leading, int)
    for group in range(groups.count):
        frames, place = groups.frames(group), groups.place(group)
        seen[place] += 1
        assert 1 <= len(frames) <= size
        assert all(groups.of(frame) == group for frame in frames)
        numbers = np.arange(max(1, seen.size)).reshape(leading or ())[place]
        assert np.array_equal(np.ravel(numbers), frames)
    assert (seen == 1).all()


def test_frames_are_together_while_they_are_small():
    small, large = BlockPlan((100, 100), (100, 100)), BlockPlan((100, 100), (50, 100))
    assert choose_planes_per_batch((1000,), small) == TOGETHER // 10_000
    assert choose_planes_per_batch((3, 40), small) == 40
    assert choose_planes_per_batch((1000,), large) == 1  # frames of several blocks stay alone
    assert choose_planes_per_batch((), small) == 1
    assert choose_planes_per_batch((9,), BlockPlan((2000, 2000), (4096, 4096))) == 1
