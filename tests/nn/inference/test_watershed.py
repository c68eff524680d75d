"""Basins found in torch are those that numpy finds, to the bit."""

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
from napari_unet.core.tiles import plan_tiles
from napari_unet.nn.inference.watershed import find_basins


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
    got = find_basins(torch.from_numpy(foreground), torch.from_numpy(height), tile, shape)
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
