"""Blocks joined by their tables alone give the objects of one piece, whatever the blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.core.blockwise.blocks import BlockPlan
from napari_unet.core.blockwise.join import join, keep_faces, label_roots, link
from napari_unet.core.instances.tile_merger import (
    TileMerger,
    decode_instances,
    summarise,
    tile_basins,
)
from napari_unet.core.settings.tasks import DecodeSettings
from napari_unet.core.tiles import Tile, plan_tiles

DECODE = DecodeSettings(threshold=0.5, merge=0.2, min_size=3)


def tiles_of(window, shape, edge):
    """Tiles of a block with a margin of one pixel."""
    tiles = plan_tiles(shape, (edge,) * len(shape), (0,) * len(shape), (1,) * len(shape),
                       margin=1, region=window)  # fmt: skip
    return tiles


def summarise_block(maps, window, shape, edge, decode):
    merger, out = TileMerger(decode), np.zeros(shape, np.uint32)
    for tile in tiles_of(window, shape, edge):
        part = maps[(slice(None), *tile.outer)]
        out[tile.write] = merger.add(tile_basins(part, tile, shape, decode))
    table, summary = summarise(merger.all_basins(), window, shape)
    return table[out[window]], summary


def segment_in_blocks(maps, block, edge=7, decode=DECODE, lost=()):
    """Do what the engine does, in memory: summaries, links, joins upwards, labels downwards."""
    plan = BlockPlan(maps.shape[1:], block)
    done = [n for n in range(plan.count) if n not in lost]
    ids, summaries = {}, {}
    for n in done:
        ids[n], summaries[n] = summarise_block(maps, plan.window(n), plan.shape, edge, decode)
    graphs, results, first, count = {}, {}, {}, 0
    for n in done:
        near = [m for m in plan.neighbours(n) if m in summaries]
        borders = {m: (summaries[m].border, summaries[m].border_basins) for m in near}
        graphs[0, n], results[0, n] = join([link(n, summaries[n], borders)], decode)
    for level in range(1, plan.levels + 1):
        for n in range(np.prod(plan.nodes(level))):
            below = [m for m in plan.children(level, n) if (level - 1, m) in graphs]
            if below:
                below_graphs = [
                    keep_faces(graphs[level - 1, m], plan.outer_faces(level - 1, m)) for m in below
                ]
                graphs[level, n], results[level, n] = join(below_graphs, decode)
    for key in sorted(results):
        first[key] = count
        count += results[key].count
    labels, final = {}, np.zeros(plan.shape, np.uint32)
    for level, n in sorted(results, reverse=True):
        above = (np.zeros(0, np.int64), np.zeros(0, np.uint32))
        if level < plan.levels:
            parent = (level + 1, plan.parent(level, n))
            above = (results[parent].roots, labels[parent])
        labels[level, n] = label_roots(results[level, n], first[level, n], above)
    assert all(not len(graphs[plan.levels, n].roots) for lv, n in graphs if lv == plan.levels)
    for n in done:
        table = np.concatenate([[0], labels[0, n]])
        final[plan.window(n)] = table[ids[n]]
    return final, graphs


def assert_same_objects(found, wanted):
    """Both label the same pixels, one to one, with consecutive numbers."""
    pairs = np.unique(np.stack([found.ravel(), wanted.ravel()]), axis=1)
    count = int(wanted.max(initial=0))
    assert pairs.shape[1] == len(np.unique(wanted))
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert set(pairs[0]) - {0} == set(range(1, count + 1))


def random_maps(shape, seed, smooth, levels):
    """Rough or smooth height maps; few `levels` make plateaus and ties, where order matters."""
    rng = np.random.default_rng(seed)
    height = ndimage.gaussian_filter(rng.normal(size=shape), smooth)
    height = (height - height.min()) / max(np.ptp(height), 1e-9)
    if levels:
        height = np.round(height * levels) / levels
    share = ndimage.gaussian_filter(rng.normal(size=shape), smooth)
    foreground = (share > np.quantile(share, rng.uniform(0.05, 0.7))).astype(np.float32)
    return np.stack([foreground, height.astype(np.float32)])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 40)] * 2), st.tuples(*[st.integers(1, 14)] * 3)),
    block=st.lists(st.integers(2, 17), min_size=3, max_size=3),
    edge=st.integers(2, 9),
    seed=st.integers(0, 2**16),
    smooth=st.sampled_from([0.6, 1.5, 3]),
    levels=st.sampled_from([0, 3, 12]),
    merge=st.sampled_from([0.0, 0.1, 0.5]),
    rounds=st.sampled_from([0, 1, 30]),
)
def test_blocks_give_the_objects_of_one_piece(
    shape, block, edge, seed, smooth, levels, merge, rounds
):
    maps = random_maps(shape, seed, smooth, levels)
    decode = DecodeSettings(merge=merge, min_size=seed % 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_unet.core.instances.persistence.MAX_ROUNDS", rounds)
        found, _ = segment_in_blocks(maps, tuple(block[: len(shape)]), edge, decode)
    assert_same_objects(found, decode_instances(maps, decode))


def test_one_block_counts_as_one_piece_does():
    maps = random_maps((40, 50), 3, 1.5, 0)
    found, _ = segment_in_blocks(maps, (40, 50))
    assert np.array_equal(found, decode_instances(maps, DECODE))


@pytest.mark.parametrize("shape", [(64, 72), (16, 20, 24)])
def test_an_object_may_span_every_block(shape):
    slope = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    maps = np.stack([np.ones(shape, np.float32), slope])
    found, _ = segment_in_blocks(maps, (8,) * len(shape))
    assert (found == 1).all()


def test_blank_blocks_and_blank_frames():
    maps = random_maps((60, 60), 1, 1.5, 0)
    maps[0, 10:50, :] = 0
    found, _ = segment_in_blocks(maps, (10, 10))
    assert_same_objects(found, decode_instances(maps, DECODE))
    assert not segment_in_blocks(maps * 0, (10, 10))[0].any()


def test_the_number_of_an_object_depends_on_the_blocks_alone():
    maps = random_maps((60, 60), 1, 1.5, 0)
    one, _ = segment_in_blocks(maps, (16, 20), edge=5)
    other, _ = segment_in_blocks(maps, (16, 20), edge=11)
    assert np.array_equal(one, other)


def test_a_lost_block_leaves_a_hole_and_the_rest_as_it_is():
    maps = random_maps((60, 60), 1, 1.5, 0)
    plan = BlockPlan((60, 60), (20, 20))
    found, _ = segment_in_blocks(maps, (20, 20), lost={4})
    hole = plan.window(4)
    assert not found[hole].any()
    whole = decode_instances(maps, DECODE)
    far = ~np.isin(
        whole, whole[ndimage.binary_dilation(np.pad(np.ones((20, 20), bool), 20), iterations=2)]
    )
    assert far.sum() > 300
    assert ((found > 0) == (whole > 0))[far].all()
    for label in np.unique(whole[far & (whole > 0)]):
        assert len(np.unique(found[whole == label])) == 1


def test_what_is_undecided_grows_with_the_outside_of_a_box():
    sizes = []
    for edge in (64, 128, 256):
        y, x = np.abs(np.sin(np.arange(2 * edge) / 5)), np.abs(np.sin(np.arange(2 * edge) / 4))
        maps = np.stack([np.ones((2 * edge, 2 * edge)), y[:, None] * x]).astype(np.float32)
        found, graphs = segment_in_blocks(maps, (edge // 4, edge // 4), edge=64)
        assert_same_objects(found, decode_instances(maps, DECODE))
        sizes.append(len(graphs[2, 0].roots))
    assert sizes[0] > 10
    assert sizes[2] < 2.5 * sizes[1] < 6 * sizes[0]


def test_every_block_touches_those_around_it():
    plan = BlockPlan((30, 25), (10, 10))
    assert plan.grid == (3, 3)
    for a, b in itertools.combinations(range(plan.count), 2):
        near = all(
            abs(x - y) <= 1 for x, y in zip(plan.position(0, a), plan.position(0, b), strict=True)
        )
        assert (b in plan.neighbours(a)) == near == (a in plan.neighbours(b))
    assert isinstance(tiles_of(plan.window(8), plan.shape, 7)[0], Tile)
