"""Frames in batches: each in one batch, no batch across the end of an axis."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_unet.core.blockwise.blocks import (
    BATCH_PIXELS,
    BlockPlan,
    PlaneBatches,
    choose_planes_per_batch,
)
from napari_unet.core.blockwise.run_plan import RunPlan


@pytest.mark.parametrize("size", [1, 2, 5, 7])
@pytest.mark.parametrize("leading", [(), (5,), (2, 7), (3, 1), (2, 2, 3), (0,), (4, 0)])
def test_every_frame_is_in_one_batch(leading, size):
    batches, seen = PlaneBatches(leading, size), np.zeros(leading, int)
    for batch in range(batches.count):
        frames, place = batches.frames(batch), batches.position(batch)
        seen[place] += 1
        assert 1 <= len(frames) <= size
        assert all(batches.batch_of(frame) == batch for frame in frames)
        numbers = np.arange(max(1, seen.size)).reshape(leading or ())[place]
        assert np.array_equal(np.ravel(numbers), frames)
    assert (seen == 1).all()


def test_frames_are_together_while_they_are_small():
    small, large = BlockPlan((100, 100), (100, 100)), BlockPlan((100, 100), (50, 100))
    assert choose_planes_per_batch((1000,), small) == BATCH_PIXELS // 10_000
    assert choose_planes_per_batch((3, 40), small) == 40
    assert choose_planes_per_batch((1000,), large) == 1  # frames of several blocks stay alone
    assert choose_planes_per_batch((), small) == 1
    assert choose_planes_per_batch((9,), BlockPlan((2000, 2000), (4096, 4096))) == 1


def test_the_keys_of_a_plan_in_its_file_stay():
    plan = RunPlan(
        run="a",
        axes="ZYX",
        shape=(3, 40, 30),
        ndim=2,
        block=(40, 30),
        settings={"volumes": "joined"},
        resolved={"volumes": "joined", "diameter": 20.0},
        decode=None,
        precision="float32",
        identity={"data": None},
        provenance={"model": "tiny"},
        min_voxels=30,
        planes_per_batch=3,
    )
    values = json.loads(plan.to_json())
    assert set(values) == {
        "run", "axes", "shape", "ndim", "block", "settings", "settled", "decode", "precision",
        "identity", "passport", "least_voxels", "together", "levels",
    }  # fmt: skip
    assert values["settled"] == plan.resolved and values["passport"] == plan.provenance
    assert RunPlan.from_json(plan.to_json()) == plan
    del values["levels"]  # as in plans of before
    assert RunPlan.from_json(json.dumps(values)) == plan
    assert plan.volumes == 1 and plan.batches.count == 1
