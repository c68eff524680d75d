"""One scale for a frame, whatever file it comes from and however it is cut into tiles."""

from __future__ import annotations

import tracemalloc
import warnings
from typing import TYPE_CHECKING

import dask.array
import numpy as np
import pytest
import tifffile
import zarr

from napari_unet.core.image.normalise import (
    RANGE,
    SAMPLE,
    NonFiniteWarning,
    Normaliser,
    bands,
    sample_windows,
)
from napari_unet.core.io.stack import Stack, open_stack

if TYPE_CHECKING:
    from pathlib import Path


def measured(values: object, ndim: int = 2, axes: str | None = None) -> Normaliser:
    stack = open_stack(values, axes)
    return Normaliser.from_stack(stack, stack.indices(ndim)[0], ndim, tuple(range(stack.channels)))


@pytest.mark.parametrize("dtype", "bool u1 i1 u2 i2 u4 i4 u8 i8 f2 f4 f8".split())
def test_percentiles_become_0_and_1(dtype: str) -> None:
    values = (np.arange(200 * 100) % 101).reshape(200, 100)
    values = (values > 50 if dtype == "bool" else values).astype(dtype)
    normaliser = measured(values)
    low, high = np.percentile(values.astype(float), (1.0, 99.8))
    assert normaliser.low == pytest.approx([low])
    assert normaliser.high == pytest.approx([high])
    result = normaliser(values[None])
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[0], (values.astype(float) - low) / (high - low), atol=1e-5)


@pytest.mark.parametrize("offset", [1e9, -1e12])
def test_a_small_range_far_from_zero_keeps_its_steps(offset: float) -> None:
    values = offset + np.arange(10_000.0).reshape(100, 100)
    result = measured(values)(values[None])
    assert np.unique(result).size == 10_000
    whole = measured(values.astype("i8"))(values.astype("i8")[None])
    np.testing.assert_array_equal(whole, result)


EXTREMES = [
    np.array([[np.finfo("f8").max, -np.finfo("f8").max], [0, 1]]),
    np.array([[np.finfo("f4").max, -np.finfo("f4").max], [0, 1]], "f4"),
    np.array([[0, np.iinfo("u8").max], [0, 1]], "u8"),
    np.array([[np.iinfo("i8").min, np.iinfo("i8").max], [0, 1]], "i8"),
    np.array([[5e-324, 0], [0, 0]]),
    np.array([[1e-45, 0], [0, 0]], "f4"),
    np.array([[6e-8, 0], [0, 65504]], "f2"),
]


@pytest.mark.parametrize("values", EXTREMES, ids=str)
def test_extreme_values_stay_finite(values: np.ndarray) -> None:
    result = measured(values)(values[None])
    assert np.isfinite(result).all()
    assert RANGE[0] <= result.min() <= result.max() <= RANGE[1]


def test_outliers_are_cut_off() -> None:
    values = np.random.default_rng(0).normal(100, 5, (200, 200)).astype("f4")
    values[0, :3] = (1e6, -1e6, 100)
    result = measured(values)(values[None])
    assert (result.min(), result.max()) == RANGE


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 300)])
def test_constant_images_are_all_zero(value: int, shape: tuple[int, int]) -> None:
    values = np.full(shape, value, "u1")
    assert not measured(values)(values[None]).any()


def test_empty_images() -> None:
    normaliser = measured(np.zeros((0, 9), "u2"))
    assert normaliser(np.zeros((1, 0, 9), "u2")).shape == (1, 0, 9)


def test_channels_have_a_scale_each() -> None:
    values = np.stack([np.arange(100.0), np.arange(100.0) * 7 + 3, np.full(100, 5.0)], 0)
    values = values.reshape(3, 10, 10)
    normaliser = measured(values, axes="CYX")
    result = normaliser(values)
    np.testing.assert_allclose(result[0], result[1], atol=1e-6)
    assert not result[2].any()
    stack = open_stack(values, "CYX")
    repeated = Normaliser.from_stack(stack, (), 2, (1, 1, 0))
    assert repeated.low.tolist() == [normaliser.low[1], normaliser.low[1], normaliser.low[0]]


def test_a_few_bright_spots_on_a_flat_background_are_kept() -> None:
    values = np.zeros((2000, 2000), "u2")
    values[1300:1310, 70:80] = 500  # so few that both percentiles, and the sample, are 0
    result = measured(values)(values[None])
    assert result.max() == 1.0
    assert np.count_nonzero(result) == 100


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_not_a_number_is_background_with_one_warning(bad: float, dtype: str) -> None:
    values = np.linspace(0, 1, 10_000).reshape(100, 100).astype(dtype)
    clean = measured(values)(values[None])
    values[3, 4:8] = bad
    stack = open_stack(values)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        normaliser = Normaliser.from_stack(stack, (), 2, (0,))
        for _ in range(3):
            result = normaliser(values[None])
        Normaliser.from_stack(stack, (), 2, (0,))
    assert [item.category for item in caught] == [NonFiniteWarning]
    assert "\n" not in str(caught[0].message)
    assert not result[0, 3, 4:8].any()
    result[0, 3, 4:8] = clean[0, 3, 4:8]
    np.testing.assert_allclose(result, clean, atol=0.02 if dtype == "f2" else 1e-3)


def test_nothing_but_not_a_number() -> None:
    values = np.full((9, 9), np.nan)
    with pytest.warns(NonFiniteWarning):
        normaliser = measured(values)
        assert not normaliser(values[None]).any()


def test_not_a_number_outside_the_sample_warns_when_it_is_read() -> None:
    values = np.random.default_rng(0).random((1200, 1200)).astype("f4")
    covered = np.zeros((1200, 1200), bool)
    for window in sample_windows(values.shape):
        covered[window] = True
    y, x = np.argwhere(~covered)[0]
    values[y, x] = np.nan
    normaliser = measured(values)
    with pytest.warns(NonFiniteWarning):
        assert normaliser(values[None])[0, y, x] == 0


SHAPES = [
    (1, 1), (1024, 1024), (1025, 1024), (2048, 2048), (20_000, 20_000), (3, 5_000_000),
    (5_000_000, 3), (50, 2000, 2000), (1, 3000, 3000), (600, 30, 3000), (9000, 16, 16),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_are_spread_and_few(shape: tuple[int, ...]) -> None:
    windows = list(sample_windows(shape))
    sizes = [[s.stop - s.start for s in window] for window in windows]
    total = int(np.prod(sizes, axis=1).sum())
    assert total <= SAMPLE
    assert total >= min(SAMPLE // 4, np.prod(shape))
    for axis, size in enumerate(shape):
        assert min(window[axis].start for window in windows) < max(size / 4, 1)
        assert max(window[axis].stop for window in windows) > size * 3 / 4
        assert all(0 <= window[axis].start < window[axis].stop <= size for window in windows)


@pytest.mark.parametrize("shape", [(5, 7), (0, 4), (3000, 1000), (3, 20, 50), (2, 1500, 1000)])
def test_bands_cover_a_frame_once(shape: tuple[int, ...]) -> None:
    seen = np.zeros(shape, "u1")
    for window in bands(shape):
        seen[window] += 1
    assert (seen == 1).all()


def test_every_kind_of_file_gives_the_same_scale(tmp_path: Path) -> None:
    values = np.random.default_rng(0).gamma(2, 300, (1300, 1100)).astype("u2")
    tifffile.imwrite(tmp_path / "a.tif", values)
    tifffile.imwrite(tmp_path / "b.tif", values, compression="zlib")
    sources = [
        values,
        dask.array.from_array(values, chunks=500),
        zarr.create_array(str(tmp_path / "a.zarr"), data=values, chunks=(300, 300)),
        tmp_path / "a.tif",
        tmp_path / "b.tif",
    ]
    scales = {(n.low[0], n.high[0]) for n in map(measured, sources)}
    assert len(scales) == 1
    (low, high), exact = scales.pop(), np.percentile(values, (1.0, 99.8))
    assert (low, high) == pytest.approx(tuple(exact), rel=0.05)


def test_a_huge_frame_is_not_loaded() -> None:
    class Huge:
        """Counts what is asked for."""

        shape, dtype, ndim = (100_000, 100_000), np.dtype("u2"), 2
        read = 0

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            spans = [range(n)[k] for k, n in zip(key, self.shape, strict=True)]
            values = np.add.outer(spans[0], spans[1]) % 4096
            self.read += values.size
            return values.astype("u2")

    data = Huge()
    stack = Stack(data, "YX")
    tracemalloc.start()
    normaliser = Normaliser.from_stack(stack, (), 2, (0,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert data.read <= SAMPLE
    assert peak < 60e6
    assert normaliser.high[0] > 3000
