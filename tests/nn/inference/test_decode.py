"""Objects told apart where the network runs are those that the host finds.

There need not be a GPU: torch does on the processor what it does there.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.core.instances import watershed as core
from napari_unet.core.instances.tile_merger import whole_tile
from napari_unet.core.progress import TileDone, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.tiles import plan_tiles
from napari_unet.nn.inference import decode
from napari_unet.nn.inference.decode import decodes_on, find_basins_on_device
from napari_unet.nn.inference.segment import segment_steps

RNG = np.random.default_rng(0)
SIZED = {"decode": {"min_size": 3}, "training": {"diameter_px": {"q50": 20.0}}}


def run(model, image, settings, **options):
    """Return the labels, what was shown of each tile, and the provenance."""
    shown = []
    steps = segment_steps(image, model, settings, **options)
    result = run_to_end(
        steps, lambda s: shown.append(s.labels) if isinstance(s, TileDone) else None
    )
    return result.labels, shown, result.provenance


@pytest.fixture
def both(monkeypatch):
    """Run a segmentation on the host, then as on a GPU, and count what torch was asked for."""

    def twice(model, image, settings=None, **options):
        settings, asked = settings or PredictSettings(), []
        host = run(model, image, settings, **options)
        find = decode.find_basins_on_device
        with monkeypatch.context() as patch:
            patch.setattr(decode, "decodes_on", lambda device: True)
            patch.setattr(decode, "find_basins", None)  # nobody may fall back on it
            patch.setattr(decode, "find_basins_on_device", lambda *a: asked.append(a) or find(*a))
            device = run(model, image, settings, **options)
        assert len(asked) == len(host[1]) == len(device[1]) > 0
        return host, device

    return twice


@pytest.mark.parametrize(
    ("spec", "shape", "tile"),
    [({}, (150, 131), 40), ({}, (96, 96), None), ({"ndim": 3}, (20, 37, 31), 16)],
)
def test_labels_previews_and_certificate_are_equal(make_model, both, spec, shape, tile):
    model = make_model(gain=6.0, card={"decode": {"min_size": 0}}, **spec)
    image = ndimage.gaussian_filter(RNG.normal(size=shape), 2.5)
    host, device = both(model, image, PredictSettings(tile=tile), preview=True)
    assert host[0].max() > 5
    assert np.array_equal(host[0], device[0])
    for one, other in zip(host[1], device[1], strict=True):
        assert np.array_equal(one, other)
    assert host[2]["seam"] == device[2]["seam"]


@pytest.mark.parametrize("diameter", [11.0, 40.0])
@pytest.mark.parametrize(("spec", "shape"), [({}, (140, 121)), ({"ndim": 3}, (12, 45, 39))])
def test_rescaled_images_are_equal_too(make_model, both, diameter, spec, shape):
    model = make_model(gain=6.0, card=SIZED, **spec)
    image = ndimage.gaussian_filter(RNG.normal(size=shape), diameter / 8)
    settings = PredictSettings(diameter=diameter, tile=24, threshold=0.35, min_size=2)
    host, device = both(model, image, settings)
    assert host[0].max() > 2
    assert np.array_equal(host[0], device[0])


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.93])
def test_thresholds_are_the_same_on_both(make_model, both, threshold):
    model = make_model(gain=3.0, card={"decode": {"min_size": 0}})
    image = ndimage.gaussian_filter(RNG.normal(size=(90, 70)), 2.0)
    host, device = both(model, image, PredictSettings(threshold=threshold))
    assert np.array_equal(host[0], device[0])


def short_of_memory(*args):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def broken(*args):
    raise RuntimeError("a bug")


def test_the_host_takes_over_where_the_device_lacks_memory(make_model, monkeypatch):
    model = make_model(gain=6.0, card={"decode": {"min_size": 0}})
    image = ndimage.gaussian_filter(RNG.normal(size=(80, 90)), 2.5)
    expected, _, _ = run(model, image, PredictSettings(tile=48))
    monkeypatch.setattr(decode, "decodes_on", lambda device: True)
    monkeypatch.setattr(decode, "find_basins_on_device", short_of_memory)
    assert np.array_equal(run(model, image, PredictSettings(tile=48))[0], expected)
    monkeypatch.setattr(decode, "find_basins_on_device", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(model, image, PredictSettings(tile=48))


def test_classes_are_taken_on_the_host(make_model, monkeypatch):
    model = make_model(head="semantic", classes=3)
    image = RNG.random((40, 50))
    expected, _, _ = run(model, image, PredictSettings())
    monkeypatch.setattr(decode, "decodes_on", lambda device: True)
    assert np.array_equal(run(model, image, PredictSettings())[0], expected)


def test_only_cuda_decodes():
    assert decodes_on(torch.device("cuda:1"))
    assert not decodes_on(torch.device("cpu"))
    assert not decodes_on(torch.device("mps"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("diameter", [None, 11.0])
def test_a_gpu_gives_the_objects_of_the_host(make_model, monkeypatch, diameter):
    model = make_model(gain=6.0, card=SIZED).to("cuda")
    image = ndimage.gaussian_filter(RNG.normal(size=(600, 700)), 2.5)
    settings = PredictSettings(tile=128, diameter=diameter)
    device, _, provenance = run(model, image, settings)
    assert provenance["seam"] < 1e-3
    monkeypatch.setattr(decode, "decodes_on", lambda device: False)
    host, _, _ = run(model, image, settings)
    assert np.array_equal(host, device)


def random_fields(shape, seed, blob, grain, steps=None):
    """Return blobs of foreground and an unrelated bumpy height, of so many steps if given."""
    rng = np.random.default_rng(seed)
    foreground = ndimage.gaussian_filter(rng.normal(size=shape), blob) > 0
    height = ndimage.gaussian_filter(rng.normal(size=shape), grain)
    height = (height / (3 * height.std() or 1)).astype(np.float32)
    if steps:  # plateaus, on which neighbours tie; round(-0.1) is -0
        height = np.round(height * steps) / np.float32(steps)
    return foreground, height


def same_in_every_bit(foreground, height, tile, shape):
    """Compare all fields with numpy's, -0 unlike 0, types and shapes included."""
    expected = core.find_basins(foreground, height, tile, shape)
    got = find_basins_on_device(torch.from_numpy(foreground), torch.from_numpy(height), tile, shape)
    for field in fields(core.Basins):
        one, other = getattr(got, field.name), getattr(expected, field.name)
        assert isinstance(one, np.ndarray), field.name
        assert (one.dtype, one.shape) == (other.dtype, other.shape), field.name
        assert one.tobytes() == other.tobytes(), field.name
    return expected


def tiles_of(shape, edge):
    ndim = len(shape)
    return plan_tiles(shape, (edge,) * ndim, (0,) * ndim, (1,) * ndim, margin=1)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(61, 47), (33, 80), (1, 30), (9, 21, 17), (1, 12, 13)]),
    seed=st.integers(0, 10**6),
    blob=st.sampled_from([0.0, 1.0, 3.0, 8.0]),
    grain=st.sampled_from([0.0, 0.7, 2.0, 5.0]),
    steps=st.sampled_from([None, 1, 4, 50]),
    edge=st.integers(1, 40),
)
def test_every_field_is_equal(shape, seed, blob, grain, steps, edge):
    foreground, height = random_fields(shape, seed, blob, grain, steps)
    tiles = tiles_of(shape, edge)
    chosen = np.random.default_rng(seed).permutation(len(tiles))[:6]
    for tile in [whole_tile(shape), *(tiles[i] for i in chosen)]:
        same_in_every_bit(foreground[tile.outer], height[tile.outer], tile, shape)


SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, 0.5, -0.5], np.float32
)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(14, 19), (5, 8, 7)]),
    seed=st.integers(0, 10**6),
    density=st.sampled_from([0.3, 0.8, 1.0]),
)
def test_numbers_at_the_end_of_their_range(shape, seed, density):
    """NaN and infinities are background; zeros of either sign, and the tiniest numbers, climb."""
    rng = np.random.default_rng(seed)
    height, foreground = rng.choice(SPECIAL, shape), rng.random(shape) < density
    for tile in [whole_tile(shape), *tiles_of(shape, 6)[:4]]:
        same_in_every_bit(foreground[tile.outer], height[tile.outer], tile, shape)


def test_zeros_of_either_sign_are_a_plateau():
    height = np.array([[-0.0, 0.0, -0.0, -0.0]], np.float32)
    found = same_in_every_bit(np.ones((1, 4), bool), height, whole_tile((1, 4)), (1, 4))
    assert found.names.tolist() == [3]
    assert not np.signbit(found.peaks).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (0, 5), (1, 1, 1), (3, 0, 4)])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_tiny_frames(shape, value):
    height = np.full(shape, value, np.float32)
    found = same_in_every_bit(np.ones(shape, bool), height, whole_tile(shape), shape)
    assert len(found.names) == (1 if height.size else 0)


def test_background_only():
    shape = (20, 30)
    nothing = np.zeros(shape, bool)
    for tile in [whole_tile(shape), *tiles_of(shape, 10)]:
        height = np.ones(shape, np.float32)[tile.outer]
        assert not same_in_every_bit(nothing[tile.outer], height, tile, shape).ids.any()


def test_a_long_winding_climb_ends_in_one_peak():
    path = np.full((99, 203), -1, np.int64)
    path[::2] = np.arange(50 * 203).reshape(50, 203) + np.arange(50)[:, None]
    path[2::4] = path[2::4, ::-1]
    path[1::4, -1] = path[:-2:4, -1] + 1
    path[3::4, 0] = path[2:-2:4, 0] + 1
    assert np.array_equal(np.sort(path[path >= 0]), np.arange(50 * 203 + 49))
    height = path.astype(np.float32)
    found = same_in_every_bit(path >= 0, height, whole_tile(path.shape), path.shape)
    assert found.sizes.tolist() == [50 * 203 + 49]
