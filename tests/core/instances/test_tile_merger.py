"""Fields become the same objects, however they are tiled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.instances.persistence import merge_basins
from napari_unet.core.instances.tile_merger import (
    TileMerger,
    decode_instances,
    tile_basins,
    whole_tile,
)
from napari_unet.core.settings.tasks import DecodeSettings
from napari_unet.core.tiles import plan_tiles


def random_maps(shape, seed, blob, grain):
    """Return blobs of foreground under an unrelated bumpy height: the hardest case to join."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), blob)
    height = ndimage.gaussian_filter(rng.normal(size=shape), grain)
    foreground = noise > 0.2 * noise.std()
    return np.stack([foreground, height / (3 * height.std() or 1)]).astype(np.float32)


def separate_tiled(maps, tile, decode, order=None):
    shape = maps.shape[1:]
    joiner, ids = TileMerger(decode), np.zeros(shape, np.uint32)
    tiles = plan_tiles(shape, (tile,) * len(shape), (0,) * len(shape), (1,) * len(shape), margin=1)
    for t in order.permutation(np.array(tiles, object)) if order else tiles:
        part = maps[(slice(None), *t.outer)]
        ids[t.write] = joiner.add(tile_basins(part, t, shape, decode))
    return joiner.finish()[ids]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(61, 47), (33, 80), (9, 21, 17)]),
    seed=st.integers(0, 10**6),
    blob=st.sampled_from([1.0, 3.0, 8.0]),
    grain=st.sampled_from([0.7, 2.0, 5.0]),
    tile=st.integers(3, 40),
    merge=st.sampled_from([0.0, 0.1, 0.4]),
    min_size=st.sampled_from([0, 8]),
)
def test_labels_do_not_depend_on_the_tiles(shape, seed, blob, grain, tile, merge, min_size):
    maps = random_maps(shape, seed, blob, grain)
    decode = DecodeSettings(merge=merge, min_size=min_size)
    tiled = separate_tiled(maps, tile, decode, np.random.default_rng(seed))
    assert np.array_equal(tiled, decode_instances(maps, decode))


def test_labels_do_not_depend_on_the_tiles_where_the_height_is_flat():
    maps = random_maps((50, 70), 3, 4.0, 1.0)
    maps[1] = 0.5
    assert np.array_equal(separate_tiled(maps, 16, DecodeSettings()), decode_instances(maps))


def test_an_object_larger_than_many_tiles_is_one_object():
    labels = np.zeros((200, 300), np.uint16)
    labels[5:190, 7:290] = 1
    maps = InstanceHead().targets(labels)
    assert separate_tiled(maps, 16, DecodeSettings()).max() == 1


def test_discs_that_touch_come_out_as_they_went_in():
    y, x = np.mgrid[:60, :100]
    labels = np.zeros((60, 100), np.uint16)
    for number, centre in enumerate([25, 45, 65, 85], 1):
        near = (y - 30) ** 2 + (x - centre) ** 2 < 12**2
        labels[near & (labels == 0)] = number
    found = decode_instances(InstanceHead().targets(labels))
    assert found.max() == 4
    pairs = np.unique(np.stack([labels.ravel(), found.ravel()]), axis=1)
    sizes = [np.sum((labels == a) & (found == b)) for a, b in pairs.T if a and b]
    assert sum(sorted(sizes)[-4:]) >= 0.98 * (labels > 0).sum()


def test_objects_need_not_be_convex():
    y, x = np.mgrid[:80, :80]
    radius = np.hypot(y - 40, x - 40)
    ring = ((radius > 20) & (radius < 30) & (x < 60)).astype(np.uint16)
    assert decode_instances(InstanceHead().targets(ring), DecodeSettings(merge=0.4)).max() == 1


def test_noise_on_a_pass_joins_nothing():
    # Two peaks of height 1; between them, a bump of 0.32 on a pass of 0.3.
    peaks = np.array([1.0, 1.0, 0.32], np.float32)
    pairs = np.array([[0, 2], [1, 2]])
    roots = merge_basins(peaks, pairs, np.array([0.3, 0.3], np.float32), depth=0.2)
    assert roots[0] != roots[1]
    assert roots[2] in roots[:2]


def test_small_objects_are_dropped_and_labels_stay_consecutive():
    maps = np.zeros((2, 20, 20), np.float32)
    maps[:, 2:4, 2:4] = 0.9
    maps[:, 8:16, 8:16] = 0.9
    assert np.unique(decode_instances(maps, DecodeSettings(min_size=5))).tolist() == [0, 1]
    assert decode_instances(maps, DecodeSettings(min_size=0)).max() == 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (0, 5), (1, 1, 1)])
def test_tiny_frames(shape):
    maps = np.ones((2, *shape), np.float32)
    labels = decode_instances(maps, DecodeSettings(min_size=0))
    assert labels.shape == shape
    assert labels.max(initial=0) == (1 if labels.size else 0)


def test_background_only():
    assert decode_instances(np.zeros((2, 30, 30), np.float32)).max() == 0


def test_tiles_that_were_never_computed_leave_the_others_whole():
    maps = random_maps((60, 60), 1, 6.0, 3.0)
    tiles = plan_tiles((60, 60), (30, 30), (0, 0), (1, 1), margin=1)
    joiner = TileMerger(DecodeSettings(min_size=0))
    part = maps[(slice(None), *tiles[0].outer)]
    ids = joiner.add(tile_basins(part, tiles[0], (60, 60), joiner.settings))
    labels = joiner.finish()[ids]
    assert np.array_equal(labels > 0, maps[0][tiles[0].write] > 0)


def test_whole_tile_is_the_frame():
    tile = whole_tile((3, 4))
    assert tile.write == tile.outer == (slice(0, 3), slice(0, 4))


def test_tiles_that_round_differently_still_agree_on_the_objects():
    """On a border each of two tiles may take the other's pixel for the peak: a ring of names."""
    y, x = np.mgrid[:128, :128]
    away = np.hypot((x + 16) % 32 - 15.5, (y + 16) % 32 - 15.5)
    height = np.round(np.clip(1 - away / 16, 0, 1), 2)
    maps = np.stack([away < 16, height]).astype(np.float32)
    rng, decode, frame = np.random.default_rng(0), DecodeSettings(min_size=0), (128, 128)
    joiner, ids = TileMerger(decode), np.zeros(frame, np.uint32)
    for tile in plan_tiles(frame, (32, 32), (0, 0), (1, 1), margin=1):
        part = maps[(slice(None), *tile.outer)]
        part = part + rng.normal(0, 1e-3, part.shape).astype(np.float32)
        ids[tile.write] = joiner.add(tile_basins(part, tile, frame, decode))
    labels = joiner.finish()[ids]
    whole = decode_instances(maps, decode)
    pairs = np.unique(np.stack([labels[maps[0] > 0], whole[maps[0] > 0]]), axis=1)
    assert pairs.shape[1] == whole.max() == labels.max()
