"""Small planes go through the network together, with the labels that each has alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_unet.core.errors import InputError
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import FrameDone, run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference import plane_batches
from napari_unet.nn.inference.device_memory import choose_batch
from napari_unet.nn.inference.embeddings import FeatureCache, FrameFeatures
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model_input import open_frame
from napari_unet.nn.inference.plane_batches import batch_planes
from napari_unet.nn.inference.runner import Runner
from napari_unet.nn.inference.segment import segment, segment_steps
from napari_unet.nn.inference.tile_runner import open_tile_runner

PLANES = PredictSettings(volumes="planes", diameter=20.0, survey=False)
ALONE = replace(PLANES, batch=1)


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """However busy the machine is, planes are waited for."""
    monkeypatch.setattr(plane_batches, "PATIENCE_S", 1e9)


@pytest.fixture
def model(make_model):
    card = {"decode": {"min_size": 0}, "training": {"diameter_px": {"q50": 20.0}}}
    return make_model(gain=6.0, card=card)


@pytest.fixture
def stack():
    """Return 12 planes of (45, 61), one of which is blank."""
    planes = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(12, 45, 61)), (0, 2, 2))
    planes[5] = 3
    return planes


@pytest.fixture
def calls(monkeypatch):
    """Return how many tiles each call of a network is given; the list fills."""
    counts, run = [], Runner.__call__

    def call(runner, tiles, core=None):
        counts.append(len(tiles))
        return run(runner, tiles, core)

    monkeypatch.setattr(Runner, "__call__", call)
    return counts


@pytest.mark.parametrize("changes", [{}, {"diameter": 31.0}, {"augment": "flips"}])
def test_labels_and_maps_are_those_of_planes_alone(model, stack, calls, changes):
    alone, together = (replace(settings, **changes) for settings in (ALONE, PLANES))
    wanted = segment(stack, model, alone)
    assert wanted.max() > 5 and set(calls) == {1}
    calls.clear()
    assert np.array_equal(segment(stack, model, together), wanted)
    assert calls == [1, 2, 3, 5]  # groups of 1, 2, 4 and the rest; the blank one is not run
    difference = predict(stack, model, together) - predict(stack, model, alone)
    assert np.abs(difference).max() <= 1e-5


def test_however_many_are_asked_for_a_processor_is_not_given_all(model, stack, calls, monkeypatch):
    monkeypatch.setattr(plane_batches, "UNINTERRUPTED", 3 * 64 * 48)
    wanted = segment(stack, model, ALONE)
    calls.clear()
    assert np.array_equal(segment(stack, model, replace(PLANES, batch=9)), wanted)
    assert max(calls) in (2, 3)


def test_planes_of_several_tiles_go_one_after_the_other(model, stack, calls):
    segment(stack, model, replace(PLANES, tile=32))
    assert set(calls) == {1}


def test_the_planes_across_a_volume_go_together(model, stack, calls, monkeypatch):
    settings = replace(PLANES, volumes="orthogonal")
    together = segment(stack, model, settings)
    assert together.any() and max(calls) == 16
    monkeypatch.setattr(plane_batches, "PATIENCE_S", 0)
    calls.clear()
    assert np.array_equal(segment(stack, model, settings), together)
    assert set(calls) == {1}, "planes that are slow to read are not waited for"


def test_a_batch_that_fails_leaves_each_plane_to_itself(model, stack, calls, monkeypatch):
    wanted, run = segment(stack, model, ALONE), Runner.__call__

    def call(runner, tiles, core=None):
        if len(tiles) > 1:
            raise MemoryError
        return run(runner, tiles, core)

    monkeypatch.setattr(Runner, "__call__", call)
    assert np.array_equal(segment(stack, model, PLANES), wanted)


class Unreadable:
    """Planes, one of which cannot be read."""

    def __init__(self, planes, bad):
        self.shape, self.dtype, self.ndim = planes.shape, planes.dtype, planes.ndim
        self._planes, self._bad = planes, bad

    def __getitem__(self, key):
        if key[0] == self._bad:
            raise InputError("plane 9 is damaged.")
        return self._planes[key]


def test_a_plane_that_cannot_be_read_fails_after_those_before_it(model, stack):
    image, out, done = open_stack(Unreadable(stack, 9), axes="TYX"), np.zeros(stack.shape, "u4"), []
    steps = segment_steps(image, model, PLANES, out=out)
    with pytest.raises(InputError, match="plane 9 is damaged"):
        run_to_end(steps, lambda s: done.append(s.index) if isinstance(s, FrameDone) else None)
    assert done == [(t,) for t in range(9)]
    assert np.array_equal(out[:9], segment(stack, model, ALONE)[:9])


def test_a_cancelled_run_stops_within_a_batch(model, stack, calls):
    out = np.zeros(stack.shape, np.uint32)
    steps = segment_steps(stack, model, PLANES, out=out)
    for step in steps:
        if isinstance(step, FrameDone) and step.index == (2,):
            break
    assert sum(calls) == 3
    steps.close()
    assert out[:3].any(axis=(1, 2)).all() and not out[3:].any()


def test_features_for_clicks_are_those_of_each_plane(model, stack):
    cache, settings = FeatureCache(), PLANES
    run_to_end(segment_steps(stack, model, settings, features=cache))
    for t in (1, 4, 11):
        frame = open_frame(open_stack(stack), model, settings, (t,))
        kept, new = (
            FrameFeatures(model.runner("float32"), model.spec, frame, one)
            for one in (cache, FeatureCache())
        )
        window = tuple(slice(0, n) for n in frame.shape)
        assert kept.has(window)
        assert (kept.read(window) - new.read(window)).abs().max() <= 1e-2


def test_a_gpu_is_given_the_next_planes_before_the_last_are_taken(model, stack):
    """The order of things on a GPU, played on the processor."""
    log, settings = [], PLANES

    class OnGpu:
        device = torch.device("cuda")

        def __init__(self, runner):
            self.net, self.dtype, self.views = runner.net, runner.dtype, runner.views
            self._runner = runner

        def __call__(self, tiles, core):
            log.append(len(tiles))
            return self._runner(tiles, core)

    def sources():
        for index in open_stack(stack).indices(2):
            runner = open_tile_runner(
                model, open_frame(open_stack(stack), model, settings, index), settings
            )
            yield replace(runner, runner=OnGpu(runner.runner))

    order = []
    for source in batch_planes(sources()):
        order.append(source.frame.index)
        log.append("taken")
        alone = source.frame.blank or source.frame.index == (0,)
        assert len(source.started) == (0 if alone else 1)
    assert order == open_stack(stack).indices(2)
    # The first is launched by whoever takes it; of the third group one is blank.
    assert log[:5] == ["taken", 2, 3, "taken", "taken"]
    assert log.count("taken") == 12


@pytest.mark.parametrize(
    ("device", "edge", "room", "count"),
    [
        ("cpu", 64, 2048, 16),
        ("cpu", 128, 2048, 8),
        ("cpu", 192, 2048, 3),
        ("cpu", 512, 2048, 1),
        ("cpu", 128, 200, 2),
        ("cuda", 256, 4096, 16),
        ("cuda", 1024, 4096, 4),
        ("cuda", 2048, 4096, 1),
        ("cuda", 512, 1024, 4),
        ("mps", 64, 2048, 1),
    ],
)
def test_how_many_planes_go_together(device, edge, room, count):
    assert choose_batch(torch.device(device), edge**2, room**2) == count
