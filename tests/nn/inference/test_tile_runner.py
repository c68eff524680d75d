"""Tiled prediction is exact, whatever the tiles, and survives what devices do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from napari_unet.core.errors import DeviceError, InputError, SettingsError
from napari_unet.core.image.frames import Frame
from napari_unet.core.io.stack import open_stack
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.tiles import input_interval, plan_tiles, tile_halo
from napari_unet.nn.inference import device_memory
from napari_unet.nn.inference.launched_tiles import to_stack
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model_input import open_frame
from napari_unet.nn.inference.runner import TURNS
from napari_unet.nn.inference.tile_runner import open_tile_runner

RNG = np.random.default_rng(0)


def raw_maps(model, image, tile, halo=None):
    """Return the logits of one frame, tiled; with another halo than the right one if given."""
    settings = PredictSettings(tile=tile)
    frame = open_frame(open_stack(image), model, settings, ())
    runner = open_tile_runner(model, frame, settings)
    tiles = runner.plan()
    if halo is not None:
        grid, ndim = model.spec.stride, model.spec.ndim
        tiles = plan_tiles(frame.size, (runner.edge,) * ndim, halo, grid)
    whole = np.full((2, *frame.size), np.nan, np.float32)
    for done, maps in runner.run(tiles):
        whole[(slice(None), *done.write)] = maps[(slice(None), *done.inner)]
    return whole


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({}, (201, 147)),
        ({"depth": 3, "skip": "add"}, (201, 333)),
        ({"up": "linear"}, (130, 97)),
        ({"pool": "stride", "kernel": 5}, (131, 97)),
        ({"residual": True, "attention": True, "activation": "silu"}, (131, 97)),
        ({"ndim": 3, "depth": 2}, (37, 41, 45)),
        ({"ndim": 3, "depth": 2, "pooling": ((1, 2, 2), (2, 2, 2))}, (9, 67, 61)),
        ({"ndim": 3, "depth": 1, "up": "linear"}, (19, 23, 31)),
    ],
)
def test_tiled_is_whole(make_model, spec, shape):
    model = make_model(gain=4.0, **spec)
    image = RNG.normal(size=shape).astype(np.float32)
    whole = raw_maps(model, image, 16384)
    for tile in (16, 48):
        assert np.abs(raw_maps(model, image, tile) - whole).max() <= 1e-4


@pytest.mark.parametrize(
    ("spec", "diameter"),
    [
        ({"depth": 1, "kernels": ((5, 1), (5, 1))}, None),
        ({"depth": 1, "kernels": ((5, 1), (5, 1))}, 16.0),
        ({"depth": 2, "pooling": ((2, 1), (2, 1))}, None),
    ],
)
def test_turned_tiles_are_whole_where_y_and_x_differ_in_the_network(make_model, spec, diameter):
    model = make_model(gain=4.0, card={"training": {"diameter_px": {"q50": 20.0}}}, **spec)
    image = RNG.random((75, 43))
    one, several = (
        PredictSettings(tile=tile, augment=TURNS, diameter=diameter) for tile in (16384, 32)
    )
    assert np.abs(predict(image, model, several) - predict(image, model, one)).max() <= 1e-5


def far_sighted(model):
    """Make a network that looks as far up and left as its kernels let it, and nowhere else."""
    with torch.no_grad():
        for parameter in model.net.parameters():
            if parameter.ndim == 1:
                parameter.zero_()
            elif parameter.shape[-1] == model.spec.kernel:
                parameter.zero_()[:, :, 0, 0] = 1 / parameter.shape[1]
            else:
                parameter.fill_(1 / parameter.shape[1])
    model._runners.clear()
    return model


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_halo_is_not_a_pixel_too_large_nor_too_small(make_model, depth):
    """The outermost pixel that a tile reads matters to it; the next one beyond does not."""
    model = far_sighted(make_model(norm="none", pool="stride", skip="add", depth=depth))
    start = 8 * model.spec.stride[0]
    reach = start - tile_halo(model.spec)[0]
    assert input_interval(model.spec, 0, start, start + 1)[0] == reach
    image = torch.ones(1, 1, 2 * start, 2 * start)

    def changes_the_tile(row):
        changed = image.clone()
        changed[:, :, row] = 2
        with torch.inference_mode():
            difference = model.net(changed) - model.net(image)
        return bool(difference[..., start:, start:].abs().max() > 1e-3)

    assert changes_the_tile(reach)
    assert not changes_the_tile(reach - 1)


def test_tiles_that_read_one_pixel_too_little_differ(make_model):
    """Along z, which is not pooled, a halo one pixel short is not rounded up to the grid."""
    spec = {"ndim": 3, "depth": 1, "pooling": ((1, 2, 2),)}
    model = far_sighted(make_model(norm="none", pool="stride", skip="add", **spec))
    image = RNG.random((40, 30, 30)).astype(np.float32)
    whole = raw_maps(model, image, 16384)
    z, y, x = tile_halo(model.spec)
    assert np.abs(raw_maps(model, image, 16, (z, y, x)) - whole).max() <= 1e-4
    assert np.abs(raw_maps(model, image, 16, (z - 1, y, x)) - whole).max() > 1e-2


def test_maps_have_the_shape_of_the_stack(make_model):
    model = make_model()
    image = RNG.integers(0, 255, (2, 3, 40, 50)).astype(np.uint8)  # T, Z, Y, X
    maps = predict(image, model)
    assert maps.shape == (2, 2, 3, 40, 50)
    assert maps.dtype == np.float32
    assert 0 <= maps[0].min() <= maps[0].max() <= 1
    assert np.array_equal(maps[:, 1, 2], predict(image[1, 2], model))


def test_class_probabilities_sum_to_one(make_model):
    maps = predict(RNG.random((30, 31)), make_model(head="semantic", classes=3))
    assert maps.shape == (3, 30, 31)
    assert np.allclose(maps.sum(0), 1, atol=1e-5)


def test_rgb_goes_in_as_it_is(make_model):
    model = make_model(in_channels=3)
    image = RNG.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    grey = predict(image[..., 1], model)
    assert not np.allclose(predict(image, model), grey)
    assert np.array_equal(predict(image, model, PredictSettings(channel=1)), grey)


@pytest.mark.parametrize("shape", [(1, 1), (1, 33), (0, 10)])
def test_tiny_images(make_model, shape):
    assert predict(np.ones(shape, np.uint8), make_model()).shape == (2, *shape)


def test_batches_change_nothing(make_model):
    model, image = make_model(gain=4.0), RNG.random((96, 130))
    alone = predict(image, model, PredictSettings(tile=16, batch=1))
    assert np.abs(predict(image, model, PredictSettings(tile=16, batch=5)) - alone).max() <= 1e-5


@pytest.mark.parametrize("diameter", [10.0, 45.0])
def test_a_diameter_rescales_without_seams(make_model, diameter):
    model = make_model(gain=4.0, card={"training": {"diameter_px": {"q50": 20.0}}})
    image = RNG.random((150, 131))
    whole = predict(image, model, PredictSettings(diameter=diameter, tile=16384))
    tiled = predict(image, model, PredictSettings(diameter=diameter, tile=32))
    assert np.abs(whole - tiled).max() <= 1e-5
    assert np.abs(whole - predict(image, model)).max() > 1e-3


def test_a_diameter_needs_a_model_that_knows_its_own(make_model):
    with pytest.raises(SettingsError, match="leave diameter empty"):
        predict(RNG.random((20, 20)), make_model(), PredictSettings(diameter=10))


def test_a_volume_model_refuses_a_plane(make_model):
    with pytest.raises(InputError, match="choose a 2D model"):
        predict(RNG.random((20, 20)), make_model(ndim=3))


class Starved:
    """A network on a device that holds no more than so many pixels at a time."""

    def __init__(self, runner, most, error):
        self.net, self.device, self.dtype = runner.net, runner.device, runner.dtype
        self.views = runner.views
        self._runner, self._most, self._error, self.refused = runner, most, error, 0

    def __call__(self, tiles, core):
        if tiles[0, 0].numel() > self._most:
            self.refused += 1
            raise self._error
        return self._runner(tiles, core)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_tile_and_goes_on(make_model, error):
    model, image = make_model(gain=4.0), RNG.random((256, 256))
    settings = PredictSettings(tile=256)
    frame = open_frame(open_stack(image), model, settings, ())
    runner = open_tile_runner(model, frame, settings)
    expected = runner.run_tile(runner.plan()[0])
    starved = replace(runner, runner=Starved(runner.runner, 140**2, error))
    got = np.full_like(expected, np.nan)
    for tile, raw in starved.run(runner.plan()):
        got[(slice(None), *tile.outer)] = raw
    assert starved.runner.refused >= 1
    assert np.abs(got - expected).max() <= 1e-4


def test_out_of_memory_for_the_smallest_tile_is_said(make_model):
    model = make_model()
    frame = open_frame(open_stack(RNG.random((64, 64))), model, PredictSettings(), ())
    runner = open_tile_runner(model, frame, PredictSettings())
    starved = replace(runner, runner=Starved(runner.runner, 0, MemoryError()))
    with pytest.raises(DeviceError, match="does not hold one tile"):
        list(starved.run(runner.plan()))


def test_other_errors_are_not_swallowed(make_model):
    model = make_model()
    frame = open_frame(open_stack(RNG.random((64, 64))), model, PredictSettings(), ())
    runner = open_tile_runner(model, frame, PredictSettings())
    broken = replace(runner, runner=Starved(runner.runner, 0, RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        list(broken.run(runner.plan()))


def test_the_nearest_tiles_run_first(make_model):
    model, image = make_model(), RNG.random((128, 128))
    settings = PredictSettings(tile=32)
    frame = open_frame(open_stack(image), model, settings, ())
    runner = open_tile_runner(model, frame, settings)
    order = [tile for tile, _ in runner.run(runner.plan(), lambda: (100.0, 20.0))]
    assert order[0].write == (slice(96, 128), slice(0, 32))
    assert order[-1].write[1].start == 96


@pytest.mark.parametrize("tile", [24, 40])
def test_batches_of_rescaled_tiles(make_model, tile):
    """Tiles of equal size in the stack may need parts of unequal size from the network."""
    model = make_model(gain=4.0, card={"training": {"diameter_px": {"q50": 20.0}}})
    image = RNG.random((150, 131))
    alone = predict(image, model, PredictSettings(diameter=30, tile=tile, batch=1))
    several = predict(image, model, PredictSettings(diameter=30, tile=tile, batch=4))
    assert np.abs(several - alone).max() <= 1e-5


@pytest.mark.parametrize("diameter", [45.0, 40.0, 13.0])
def test_out_of_memory_halves_the_tiles_of_a_rescaled_image_too(make_model, diameter):
    model = make_model(gain=4.0, card={"training": {"diameter_px": {"q50": 20.0}}})
    settings = PredictSettings(diameter=diameter, tile=256)
    frame = open_frame(open_stack(RNG.random((300, 280))), model, settings, ())
    runner = open_tile_runner(model, frame, settings)
    starved = replace(runner, runner=Starved(runner.runner, 120**2, MemoryError()))
    seen = np.zeros((300, 280), int)
    for tile, _ in starved.run(runner.plan()):
        seen[tile.write] += 1
    assert (seen == 1).all()
    assert 1 <= starved.runner.refused < 5


@pytest.mark.parametrize("batch", [1, 3])
def test_every_tile_comes_once_where_a_gpu_works_ahead(make_model, batch):
    """The order of things on a GPU, whose memory is short, played on the processor."""
    model, image = make_model(gain=4.0), RNG.random((200, 170))
    settings = PredictSettings(tile=64, batch=batch)
    frame = open_frame(open_stack(image), model, settings, ())
    runner = open_tile_runner(model, frame, settings)
    expected = np.concatenate([runner.run_tile(t)[0].ravel() for t in runner.plan(edge=16384)])
    starved = Starved(runner.runner, 100**2, RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    starved.device = torch.device("cuda")
    got = np.full((200, 170), np.nan, np.float32)
    for tile, raw in replace(runner, runner=starved).run(runner.plan()):
        assert np.isnan(got[tile.write]).all()
        got[tile.write] = raw[(0, *tile.inner)]
    assert starved.refused >= 1
    assert np.abs(got.ravel() - expected).max() <= 1e-4


def test_the_tile_follows_the_free_memory(make_model, monkeypatch):
    model = make_model(width=16, depth=4)
    runner = model.runner()

    def edge(free):
        free_memory = type("Memory", (), {"available": free})
        monkeypatch.setattr(psutil, "virtual_memory", lambda: free_memory)
        return device_memory.choose_edge(model.spec, runner, 1, live=False)

    assert edge(64 * 2**30) == device_memory.LARGEST_TILE[2]
    assert edge(10**6) == 16
    assert edge(2**29) < edge(2**31)


def test_what_torch_keeps_for_later_counts_as_free(make_model, monkeypatch):
    """A GPU's second frame must not get smaller tiles because the first one filled the cache."""
    spec, runner = make_model(width=16, depth=4).spec, make_model().runner()
    on_gpu = type("OnGpu", (), {"device": torch.device("cuda"), "dtype": runner.dtype})

    def edge(free, reserved, allocated):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**40))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
        return device_memory.choose_edge(spec, on_gpu, 1, live=False)

    assert edge(2**30, 0, 0) == edge(2**28, 2**30, 2**28) > edge(2**28, 0, 0)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), True),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_signs_of_too_little_memory(error, is_one):
    assert device_memory.is_out_of_memory(error) is is_one


def test_an_image_that_is_shrunk_is_read_in_bounded_parts(make_model, monkeypatch):
    memory_of_64_gib = type("Memory", (), {"available": 64 * 2**30})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory_of_64_gib)
    model = make_model(width=16, depth=4)

    def edge(scale):
        return device_memory.choose_edge(model.spec, model.runner(), 1, live=False, scale=scale)

    assert [edge(scale) for scale in (4.0, 1.0, 0.5, 0.01)] == [2048, 2048, 1024, 256]


@pytest.mark.parametrize("scale", [0.31, 0.5, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("shape", [(41, 67), (7, 23, 30)])
def test_maps_come_back_to_the_stacks_pixels_as_in_numpy_to_the_bit(scale, shape):
    rng = np.random.default_rng(0)
    ndim = len(shape)
    frame = Frame.from_stack(open_stack(rng.random(shape)), (), ndim, (0,), scale=scale)
    window = tuple(slice(n // 5, n - 1) for n in shape)
    needed = frame.in_network(window)
    maps = rng.normal(size=(2, *(w.stop - w.start for w in needed))).astype(np.float32)
    expected = frame.to_stack(maps, window)
    got = to_stack(frame, torch.from_numpy(maps), window)
    assert got.shape == (2, *(w.stop - w.start for w in window))
    assert got.numpy().tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize(
    ("size", "scale", "views"),
    [
        ((96, 128), 0.7, 4),  # few pixels: four views take no longer than the image as it is
        ((96, 128), 0.72, 1),
        ((96, 128), 2.0, 1),
        ((2100, 2100), 0.5, 1),  # few of its pixels, and yet many
        ((8, 40, 40), 0.5, 1),  # a volume
    ],
)
def test_large_objects_are_seen_mirrored_unasked(make_model, size, scale, views):
    model = make_model(ndim=len(size), card={"training": {"working_diameter_px": 10.0}})
    settings = PredictSettings(diameter=10.0 / scale)
    frame = open_frame(open_stack(np.zeros(size, np.uint8)), model, settings, ())
    assert len(open_tile_runner(model, frame, settings).runner.views) == views
    off = replace(settings, augment="off")
    assert len(open_tile_runner(model, frame, off).runner.views) == 1
