"""Kept features are those that Segment computes, wherever the windows lie, and are bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.embeddings import FeatureCache, FrameFeatures
from napari_unet.nn.inference.model_input import open_frame
from napari_unet.nn.inference.segment import segment, segment_steps

RNG = np.random.default_rng(0)


def features_of(model, image, cache=None, **settings):
    frame = open_frame(open_stack(image), model, PredictSettings(**settings), ())
    return FrameFeatures(model.runner(), model.spec, frame, cache or FeatureCache())


def whole(features):
    """What the trunk says of the whole frame in one piece, with the image's mean below."""
    image = torch.from_numpy(features.frame.read(tuple(slice(0, n) for n in features.frame.shape)))
    with torch.inference_mode():
        return torch.cat((features.runner.net.trunk(image[None])[0], image.mean(0, keepdim=True)))


@pytest.mark.parametrize(
    ("spec", "shape", "window"),
    [
        ({"depth": 3}, (203, 341), (slice(50, 180), slice(100, 300))),
        ({"depth": 3}, (203, 341), (slice(190, 203), slice(330, 341))),
        ({}, (50, 30), (slice(0, 50), slice(0, 30))),
        ({"ndim": 3}, (37, 50, 41), (slice(10, 37), slice(5, 41), slice(30, 41))),
    ],
)
def test_a_window_is_what_one_piece_says(make_model, spec, shape, window):
    features = features_of(make_model(**spec), RNG.random(shape))
    assert not features.has(window)
    found = features.read(window)
    assert features.has(window)
    expected = whole(features)[(slice(None), *window)]
    assert found.dtype == torch.float16
    assert torch.allclose(found.float(), expected, atol=2e-3)
    again = features.read(window)
    assert torch.equal(found, again)


def test_rescaled_frames_are_read_in_the_networks_pixels(make_model):
    model = make_model(card={"training": {"working_diameter_px": 10}})
    features = features_of(model, RNG.random((150, 180)), diameter=20.0)
    assert features.frame.shape == (75, 90)
    window = (slice(3, 75), slice(60, 90))
    expected = whole(features)[(slice(None), *window)]
    assert torch.allclose(features.read(window).float(), expected, atol=2e-3)


def test_only_the_tile_at_hand_is_computed(make_model):
    class Watched(np.ndarray):
        """An array that remembers what was read of it."""

        read: list = []  # noqa: RUF012

        def __getitem__(self, key):
            Watched.read.append(key)
            return super().__getitem__(key)

    image = RNG.random((1500, 2000)).astype(np.float32).view(Watched)
    features = features_of(make_model(), image)
    Watched.read.clear()
    features.read((slice(700, 800), slice(900, 1000)))
    ((rows, columns),) = Watched.read
    assert 600 < rows.start < 700 and 800 < rows.stop < 900
    assert 800 < columns.start < 900 and 1000 < columns.stop < 1100


def test_the_cache_is_bounded_and_forgets_the_oldest(make_model):
    cell = 5 * 64 * 64 * 2
    cache = FeatureCache(megabytes=3 * cell / 1e6)
    features = features_of(make_model(), RNG.random((64, 640)), cache)
    windows = [(slice(0, 64), slice(x, x + 64)) for x in range(0, 640, 64)]
    for window in windows[:3]:
        features.read(window)
    features.read(windows[0])  # used again: the second is now the oldest
    features.read(windows[3])
    assert [features.has(w) for w in windows[:4]] == [True, False, True, True]
    assert cache.bytes == 3 * cell
    everything = (slice(0, 64), slice(0, 640))  # more than it holds
    assert torch.allclose(features.read(everything).float(), whole(features), atol=2e-3)
    assert cache.bytes <= cache.limit
    cache.clear()
    assert cache.bytes == 0
    assert not features.has(windows[3])


def test_another_frame_or_model_has_other_features(make_model):
    cache, image = FeatureCache(), RNG.random((2, 40, 40))
    stack, model = open_stack(image, axes="ZYX"), make_model()
    window = (slice(0, 40), slice(0, 40))
    frames = [open_frame(stack, model, PredictSettings(), (z,)) for z in range(2)]
    first = FrameFeatures(model.runner(), model.spec, frames[0], cache)
    first.read(window)
    assert not FrameFeatures(model.runner(), model.spec, frames[1], cache).has(window)
    other = make_model(gain=2.0)
    assert not FrameFeatures(other.runner(), other.spec, frames[0], cache).has(window)
    assert FrameFeatures(model.runner(), model.spec, frames[0], cache).has(window)


@pytest.mark.parametrize("diameter", [None, 20.0, 6.0])
def test_what_segment_computed_is_kept(make_model, diameter):
    """A window that lies in its tiles is not computed again, and is the same."""
    card = {"training": {"working_diameter_px": 10}} if diameter else {}
    model, cache = make_model(gain=4.0, card=card), FeatureCache()
    image = RNG.random((400, 500)).astype(np.float32)
    settings = PredictSettings(tile=256, certify=False, survey=False, diameter=diameter)
    kept = run_to_end(segment_steps(image, model, settings, features=cache)).labels
    assert np.array_equal(kept, segment(image, model, settings))
    frame = open_frame(open_stack(image), model, settings, ())
    features = FrameFeatures(model.runner(), model.spec, frame, cache)
    window = (slice(64, 128), slice(64, 128))
    assert features.has(window)
    fresh = FrameFeatures(model.runner(), model.spec, frame, FeatureCache())
    assert torch.allclose(features.read(window), fresh.read(window), atol=2e-3)


def test_a_run_that_averages_views_keeps_the_features_of_the_image_as_it_is(make_model):
    image, model, caches = RNG.random((128, 128)), make_model(), (FeatureCache(), FeatureCache())
    frame = open_frame(open_stack(image), model, PredictSettings(), ())
    kept = []
    for augment, cache in zip(("off", "flips"), caches, strict=True):
        settings = PredictSettings(augment=augment, certify=False)
        run_to_end(segment_steps(image, model, settings, features=cache))
        features = FrameFeatures(model.runner(), model.spec, frame, cache)
        window = (slice(32, 96), slice(32, 96))
        assert features.has(window)
        kept.append(features.read(window))
    assert torch.equal(*kept)
