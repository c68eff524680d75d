"""Tiles cover every pixel once, read what they need, and lie on the pooling grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.tiles import (
    input_interval,
    nearest_first,
    plan_tiles,
    receptive_field,
    tile_halo,
)


@pytest.mark.parametrize(("depth", "field"), [(2, 23), (3, 51), (4, 107)])
def test_receptive_field_of_the_plain_network(depth, field):
    assert receptive_field(ModelSpec(depth=depth)) == (field, field)


def test_a_tile_on_the_grid_needs_less_than_the_receptive_field():
    assert tile_halo(ModelSpec(depth=4)) == (94, 94)
    assert tile_halo(ModelSpec(depth=4), margin=1) == (94, 94)


def test_an_axis_that_is_not_pooled_sees_only_the_kernels():
    spec = ModelSpec(ndim=3, depth=1, pooling=((1, 2, 2),))
    assert spec.stride == (1, 2, 2)
    assert receptive_field(spec)[0] == 6  # two convolutions on three levels


@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    stride=st.sampled_from([(1, 1), (2, 4), (8, 8)]),
    halo=st.integers(0, 30),
    margin=st.integers(0, 2),
)
def test_every_pixel_is_written_once_by_a_tile_that_read_around_it(
    shape, tile, stride, halo, margin
):
    halo = max(halo, margin)
    image = np.arange(np.prod(shape)).reshape(shape)
    padded = np.pad(image, [(0, -n % s) for n, s in zip(shape, stride, strict=True)], "symmetric")
    written = np.zeros(shape, int)
    for t in plan_tiles(shape, tile, (halo, halo), stride, margin=margin):
        written[t.write] += 1
        # Reading and cropping is the identity: what a tiling of any network is made of.
        assert np.array_equal(padded[t.read][t.crop], image[t.outer])
        assert np.array_equal(image[t.outer][t.inner], image[t.write])
        for read, write, outer, size, full, step in zip(
            t.read, t.write, t.outer, shape, padded.shape, stride, strict=True
        ):
            assert read.start % step == 0
            assert read.stop % step == 0
            assert read.start <= max(0, write.start - halo)
            assert read.stop >= min(full, write.stop + halo)
            assert outer.start == max(0, write.start - margin)
            assert outer.stop == min(size, write.stop + margin)
    assert (written == 1).all()


@given(start=st.integers(0, 60), length=st.integers(1, 40), tile=st.integers(4, 50))
def test_a_region_is_covered_exactly(start, length, tile):
    region = (slice(start, min(100, start + length)), slice(3, 50))
    written = np.zeros((100, 50), int)
    for t in plan_tiles((100, 50), (tile, tile), (6, 6), (4, 4), region=region):
        written[t.write] += 1
    expected = np.zeros_like(written)
    expected[region] = 1
    assert np.array_equal(written, expected)


def test_tiles_are_of_nearly_equal_size():
    sizes = [t.write[0].stop - t.write[0].start for t in plan_tiles((1040,), (512,), (8,), (16,))]
    assert sizes == [352, 352, 336]


def test_an_empty_frame_has_no_tiles():
    assert plan_tiles((0, 5), (4, 4), (1, 1), (2, 2)) == []


def test_the_nearest_tile_comes_first():
    tiles = plan_tiles((100, 100), (50, 50), (0, 0), (1, 1))
    assert nearest_first(tiles, (80.0, 20.0)) == 2
    assert nearest_first(tiles, None) == 0


def test_a_tile_draws_itself():
    tile = plan_tiles((16,), (8,), (4,), (4,), margin=1)[1]
    assert str(tile) == "---oxxxxxxxx"


@given(
    depth=st.integers(1, 3),
    kernel=st.sampled_from([1, 3, 5]),
    convs=st.integers(1, 3),
    up=st.sampled_from(["transpose", "linear"]),
    start=st.integers(0, 16),
    length=st.integers(1, 20),
)
def test_an_interval_needs_what_its_pixels_need(depth, kernel, convs, up, start, length):
    spec = ModelSpec(depth=depth, kernel=kernel, convs=convs, up=up)
    low, high = input_interval(spec, 0, start, start + length)
    each = [input_interval(spec, 0, p, p + 1) for p in range(start, start + length)]
    assert (low, high) == (min(e[0] for e in each), max(e[1] for e in each))


@pytest.mark.parametrize("rows", [slice(5, 5), slice(8, 8), slice(50, 60), slice(100, 120)])
def test_an_empty_region_has_no_tiles(rows):
    region = (rows, slice(0, 50))
    assert plan_tiles((50, 50), (16, 16), (8, 8), (4, 4), region=region) == []
