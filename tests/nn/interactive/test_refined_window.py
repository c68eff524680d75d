"""The window in which an outline is refined: where it lies, how fine it is, what comes of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_unet.core.image.frames import Frame
from napari_unet.core.io.stack import open_stack
from napari_unet.core.prompts.clicks import Click, ClickSet
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.interactive.click_window import ClickWindow
from napari_unet.nn.interactive.refined_window import COARSEST, FINEST, PIXELS, SURE, Outline
from napari_unet.nn.interactive.session import ClickSession
from napari_unet.nn.unet.refiner import Refiner


def disc(shape, centre, radius):
    y, x = np.indices(shape)
    return radius - np.hypot(y - centre[0], x - centre[1])


def outline(scale, factor=1, size=(120, 160), clicks=((60, 80),), radius=8):
    """An outline around a disc of `radius` head pixels in the middle of an image."""
    image = disc(size, (60, 80), radius * factor / scale) > 0
    stack = open_stack(image.astype(np.float32), axes="YX")
    frame = Frame.from_stack(stack, (), 2, (0,), scale=scale)
    window = tuple(slice(0, n) for n in frame.shape)
    ratio = tuple(m / n for m, n in zip(frame.shape, size, strict=True))
    click_window = ClickWindow(window, factor, ratio, size)
    shape = tuple(-(-n // factor) for n in frame.shape)
    middle = [(p + 0.5) * scale / factor - 0.5 for p in (60, 80)]
    logit = disc(shape, middle, radius).astype(np.float32)
    picked = ClickSet(tuple(Click(place) for place in clicks))
    return Outline.around(logit, click_window, frame, picked), image


@pytest.mark.parametrize(
    ("scale", "factor", "fineness"),
    [(1.0, 1, COARSEST), (0.4, 1, 3), (0.4, 2, FINEST), (0.25, 1, FINEST)],
)
def test_it_is_as_fine_as_the_image(scale, factor, fineness):
    found, _ = outline(scale, factor, radius=6)
    ratio = found.frame.shape[0] / (round(120 * scale) / factor)
    assert ratio == pytest.approx(fineness, rel=0.1)
    assert found.logit.size <= PIXELS
    assert found.logit.shape == found.image.shape
    # Logit and image show the same disc.
    assert np.mean((found.logit > 0) == (found.image > 0.5)) > 0.97


def test_a_large_object_is_seen_more_coarsely():
    found, _ = outline(0.3, size=(300, 400), radius=30)
    assert found.frame.shape[0] / (300 * 0.3) < FINEST
    assert found.logit.size <= 1.05 * PIXELS


def test_clicks_beyond_it_are_left_out():
    found, _ = outline(0.5, clicks=((60, 80), (60, 82)), radius=6)
    positive, negative = found.clicks
    assert positive.shape == (2, 2) and negative.shape == (0, 2)
    middle = np.array([w.stop - w.start for w in found.window.window]) / 2
    assert np.abs(positive[0] - middle).max() < 3


def test_an_object_that_fills_its_window_coarsely_is_left_as_it_is():
    assert outline(0.5, size=(600, 800), radius=110)[0] is None


def test_the_inside_of_an_object_stays():
    found, _ = outline(0.25, radius=12)
    refiner = Refiner().eval()
    torch.nn.init.constant_(refiner.net.head.bias, -30.0)  # sees nothing but background
    with torch.inference_mode():
        refined = found.refined(refiner) > 0
    inside = ndimage.distance_transform_edt(found.logit > 0)
    assert refined[inside > SURE].all()
    assert not refined[inside < SURE].any()


@pytest.mark.parametrize(("diameter", "finer"), [(40, True), (20, False)])
def test_a_session_refines_its_answers_where_the_image_is_finer(clicking_model, diameter, finer):
    y, x = np.ogrid[:90, :130]
    image = ((y - 40) ** 2 + (x - 70) ** 2 < 225).astype(np.float32)
    model = clicking_model(card={"training": {"working_diameter_px": 10}})
    masks = []
    for change in (None, 0.0, 30.0):
        refiner = None if change is None else Refiner().eval()
        if refiner is not None:
            torch.nn.init.constant_(refiner.net.head.bias, change)
        refined = dataclasses.replace(model, click=model.click.with_refiner(refiner))
        session = ClickSession(refined, image, settings=PredictSettings(diameter=diameter))
        masks.append(session.add(Click((40, 70))))
    plain, same, all_of_it = (np.count_nonzero(mask) for mask in masks)
    assert plain
    assert abs(plain - same) < 0.1 * plain
    assert (all_of_it > plain) == finer
