"""A model says where it is unsure, in every frame of a stack."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.core.progress import run_to_end
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.uncertainty import FrameUncertainty, find_uncertain_regions


@pytest.fixture
def stack():
    noise = np.random.default_rng(0).normal(size=(3, 70, 80))
    return ndimage.gaussian_filter(noise, (0, 3, 3))


def drain(steps):
    seen = []
    return seen, run_to_end(steps, seen.append)


def test_all_frames_are_looked_at(make_model, stack):
    model = make_model(gain=6.0)
    seen, places = drain(find_uncertain_regions(stack, model))
    frames = [step for step in seen if isinstance(step, FrameUncertainty)]
    assert [step.index for step in frames] == [(0,), (1,), (2,)]
    assert len(seen) > len(frames)
    assert len(places) == sum(len(step.places) for step in frames) > 0
    scores = [place.score for place in places]
    assert scores == sorted(scores, reverse=True)
    maps = predict(stack, model)
    assert np.allclose(frames[1].uncertainty, 1 - np.abs(2 * maps[0, 1] - 1), atol=1e-5)


def test_frames_that_were_looked_at_are_passed_over(make_model, stack):
    def known(index):
        return np.ones((70, 80), bool) if index != (2,) else None

    _, places = drain(find_uncertain_regions(stack, make_model(gain=6.0), known=known))
    assert {place.index for place in places} == {(2,)}


def test_views_that_disagree_raise_the_doubt(make_model, stack):
    model = make_model(gain=6.0)
    alone, _ = drain(find_uncertain_regions(stack[0], model))
    both, _ = drain(find_uncertain_regions(stack[0], model, agreement=True))
    assert (both[-1].uncertainty >= alone[-1].uncertainty - 1e-6).all()
    assert both[-1].uncertainty.mean() > alone[-1].uncertainty.mean()


def test_classes_and_volumes_have_doubts(make_model, stack):
    _, places = drain(find_uncertain_regions(stack[0], make_model(head="semantic", classes=3)))
    assert places[0].index == ()
    _, places = drain(find_uncertain_regions(stack, make_model(gain=6.0, ndim=3, depth=1)))
    assert all(len(place.centre) == 3 for place in places)
