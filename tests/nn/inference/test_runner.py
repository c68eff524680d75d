"""Test-time augmentation: every view is undone exactly, and tiles stay as good as the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.core.errors import SettingsError
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.runner import FLIPS, OFF, TURNS, Flip, get_flips

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("augment", "ndim", "count"),
    [(OFF, 2, 1), (FLIPS, 2, 4), (TURNS, 2, 8), (OFF, 3, 1), (FLIPS, 3, 8), (TURNS, 3, 16)],
)
def test_views_differ_and_are_undone(augment, ndim, count):
    image = torch.from_numpy(RNG.random((1, 2, *(4, 6, 6)[3 - ndim :])))
    views = get_flips(augment, ndim)
    seen = {tuple(view.apply(image).ravel().tolist()) for view in views}
    assert len(views) == len(seen) == count
    window = (slice(1, 2), slice(0, 4), slice(2, 5))[3 - ndim :]
    for view in views:
        assert torch.equal(view.undo(view.apply(image)), image)
        place = view.place(window, image.shape[2:])
        assert torch.equal(view.undo(view.apply(image)[(..., *place)]), image[(..., *window)])


def test_the_answer_is_the_average_over_the_views(make_model):
    model = make_model(gain=4.0)
    image = torch.from_numpy(RNG.random((1, 1, 32, 48), np.float32))
    plain = model.runner()
    wanted = torch.stack([v.undo(plain(v.apply(image))) for v in get_flips(TURNS, 2)]).mean(0)
    assert torch.allclose(model.runner("float32", TURNS)(image), wanted, atol=1e-5)
    assert (plain(image) - wanted).abs().max() > 1e-3
    core = (slice(3, 12), slice(30, 48))
    found = model.runner("float32", TURNS)(image, core)
    assert torch.allclose(found, wanted[(..., *core)], atol=1e-5)
    assert model.runner().views == (Flip(),)


@pytest.mark.parametrize(("augment", "ndim"), [(FLIPS, 2), (TURNS, 2), (FLIPS, 3)])
def test_tiled_is_whole_in_every_view(make_model, augment, ndim):
    model = make_model(gain=4.0, ndim=ndim)
    image = RNG.normal(size=(131, 97) if ndim == 2 else (21, 37, 41)).astype(np.float32)
    whole, tiled = (
        predict(image, model, PredictSettings(tile=tile, augment=augment)) for tile in (16384, 32)
    )
    assert np.abs(whole - tiled).max() <= 1e-5


@pytest.mark.parametrize("axis", [0, 1])
def test_a_mirrored_image_gives_mirrored_maps(make_model, axis):
    model, settings = make_model(gain=4.0), PredictSettings(augment=FLIPS)
    image = RNG.normal(size=(64, 48)).astype(np.float32)  # sizes that the pooling divides
    maps = predict(image, model, settings)
    mirrored = predict(np.flip(image, axis), model, settings)
    assert np.abs(np.flip(mirrored, axis + 1) - maps).max() <= 1e-5


def test_unknown_views_are_refused():
    with pytest.raises(SettingsError, match="flips and turns"):
        PredictSettings(augment="mirrors")
