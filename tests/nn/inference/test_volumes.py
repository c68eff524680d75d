"""A 2D model takes volumes in three ways; none of them depends on the tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import FrameDone, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.volumes.stitch3d import stitch_steps
from napari_unet.core.volumes.volume_mode import (
    LoadedPart,
    ball_voxels,
    block_edges,
    plane_frame,
    resolve_volume_mode,
)
from napari_unet.nn.inference.orthogonal import open_orthogonal_runner
from napari_unet.nn.inference.segment import segment, segment_steps

VOXELS = (2.0, 0.5, 0.5)


def texture(*shape):
    return ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 2.0)


def volume(*shape, voxels=VOXELS):
    return open_stack(texture(*shape), "TZYX"[-len(shape) :], voxels)


@pytest.fixture
def model(make_model):
    return make_model(gain=6.0, card={"decode": {"min_size": 0}})


def run(stack, model, way, **settings):
    return segment(stack, model, PredictSettings(volumes=way, **settings))


def test_joined_planes_are_the_planes_joined(model):
    stack = volume(6, 40, 50)
    planes = np.array(run(stack, model, "planes", min_size=0), np.uint32)
    for _ in stitch_steps(planes, [(z,) for z in range(6)]):
        pass
    assert np.array_equal(run(stack, model, "joined", min_size=0), planes)
    assert planes.max() > 3


@pytest.mark.parametrize("way", ["joined", "orthogonal"])
@pytest.mark.parametrize("tile", [16, 40])
def test_labels_do_not_depend_on_the_tile(model, way, tile):
    stack = volume(7, 45, 39)
    whole = run(stack, model, way, tile=16384)
    assert whole.max() > 5
    assert np.array_equal(run(stack, model, way, tile=tile), whole)


def test_orthogonal_maps_are_the_mean_of_the_three_stacks_of_planes(model):
    """Held against the plain definition, whole planes at a time, cubic voxels."""
    data = texture(20, 24, 28)
    runner = open_orthogonal_runner(model, open_stack(data, "ZYX"), PredictSettings(), ())
    (tile,) = runner.plan()
    found = runner.run_tile(tile)
    # The volume's percentiles hold for every plane: the network sees these values.
    values = runner.frame.normaliser(data[None])[0]
    net, expected = model.runner("float32"), np.zeros_like(found)
    for axis in range(3):
        for position in range(data.shape[axis]):
            plane = np.take(values, position, axis)[None, None].astype(np.float32)
            place = [slice(None)] * 4
            place[axis + 1] = position
            expected[tuple(place)] += net(torch.from_numpy(plane))[0].numpy() / 3
    assert np.abs(found - expected).max() < 1e-4


def test_planes_across_y_have_square_pixels(model):
    stack = volume(7, 40, 36)
    runner = open_orthogonal_runner(model, stack, PredictSettings(), ())
    frame = plane_frame(runner.frame, 1, 3, 1.0)
    assert frame.size == (7, 36) and frame.shape == (28, 36)  # 2 um are four pixels of 0.5 um
    held = plane_frame(runner.frame, 0, 3, 1.0)
    assert held.size == held.shape == (40, 36)


def test_the_orthogonal_seam_is_certified(model):
    steps = segment_steps(volume(6, 50, 40), model, PredictSettings(volumes="orthogonal", tile=20))
    provenance = run_to_end(steps).provenance
    assert provenance["seam"] is not None and provenance["seam"] <= 1e-4
    assert provenance["volumes"] == "orthogonal" and provenance["object_axes"] == "ZYX"


@pytest.mark.parametrize("way", ["joined", "orthogonal"])
def test_time_is_never_joined(model, way):
    data = texture(2, 5, 30, 32)
    both = run(open_stack(data, "TZYX", VOXELS), model, way)
    for t in range(2):
        alone = run(open_stack(data[t], "ZYX", VOXELS), model, way)
        assert np.array_equal(both[t], alone)
    movie = open_stack(data[0], "TYX")
    assert np.array_equal(run(movie, model, way), run(movie, model, "planes"))


def test_which_way_is_taken():
    stack, movie = volume(4, 8, 8), open_stack(np.zeros((4, 8, 8)), "TYX")
    flat = open_stack(np.zeros((1, 8, 8)), "ZYX")
    assert resolve_volume_mode("auto", 3, "instance", stack) == "native"
    assert resolve_volume_mode("planes", 3, "instance", stack) == "native"
    assert resolve_volume_mode("auto", 2, "instance", stack) == "joined"
    assert resolve_volume_mode("auto", 2, "semantic", stack) == "planes"
    assert resolve_volume_mode("orthogonal", 2, "semantic", stack) == "orthogonal"
    for way in ("auto", "joined", "orthogonal"):
        assert resolve_volume_mode(way, 2, "instance", movie) == "planes"
        assert resolve_volume_mode(way, 2, "instance", flat) == "planes"


@pytest.mark.parametrize(
    ("depth", "voxel", "diameter", "way"),
    [
        (30, (1, 1, 1), 20, "orthogonal"),
        (29, (1, 1, 1), 20, "joined"),  # too flat
        (10, (3, 1, 1), 20, "orthogonal"),
        (100, (4.1, 1, 1), 20, "joined"),  # voxels too long
        (100, (1, 4.1, 4.1), 20, "joined"),
        (100, (1, 1, 1), None, "joined"),
        (100, None, 20, "joined"),
        (1, (30, 10, 10), 1, "planes"),
    ],
)
def test_true_volumes_are_seen_from_three_sides(depth, voxel, diameter, way):
    stack = open_stack(np.zeros((depth, 8, 8)), "ZYX", voxel)
    movie = open_stack(np.zeros((5, depth, 8, 8)), "TZYX", voxel)
    assert resolve_volume_mode("auto", 2, "instance", stack, diameter) == way
    assert resolve_volume_mode("auto", 2, "instance", movie, diameter) == way
    assert resolve_volume_mode("auto", 2, "semantic", stack, diameter) == "planes"
    if depth > 1:
        assert resolve_volume_mode("joined", 2, "instance", stack, diameter) == "joined"


def test_the_estimated_size_decides_but_not_for_parts(make_model):
    card = {"training": {"diameter_px": {"q50": 8.0}}, "decode": {"min_size": 0}}
    model = make_model(gain=6.0, card=card)
    stack = volume(16, 40, 40)
    for asked, way in ((10.0, "orthogonal"), (50.0, "joined")):
        settings = PredictSettings(diameter=asked)
        assert run_to_end(segment_steps(stack, model, settings)).provenance["volumes"] == way
    settings = PredictSettings(diameter=10.0)
    parts = segment_steps(stack, model, settings, what=[(3,), (4,)])
    assert run_to_end(parts).provenance["volumes"] == "joined"


def test_a_run_that_is_cancelled_in_the_middle_of_joining_keeps_labels(model):
    out = np.zeros((5, 30, 32), np.uint32)
    steps = segment_steps(volume(5, 30, 32), model, PredictSettings(volumes="joined"), out=out)
    frames = 0
    for step in steps:
        frames += isinstance(step, FrameDone)
        if frames == 7:
            break
    steps.close()
    assert all(plane.any() for plane in out)


def test_blocks_are_as_large_as_they_may_be():
    assert block_edges((10, 1000, 1000), 10 * 100 * 100) == (10, 100, 100)
    assert block_edges((500, 500, 500), 1000) == (10, 10, 10)
    assert block_edges((1, 3, 2), 100) == (1, 3, 2)


def test_a_held_part_is_the_same_part():
    whole = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    part = LoadedPart(whole[1:3, 2:5, :], (1, 2, 0), whole.shape)
    assert np.array_equal(part[2, slice(3, 5), slice(1, 4)], whole[2, 3:5, 1:4])


def test_the_ball_of_a_disc():
    assert ball_voxels(np.pi * 100, 1.0) == round(np.pi / 6 * 20**3)
    assert ball_voxels(np.pi * 100, 4.0) == round(np.pi / 6 * 20**3 / 4)
