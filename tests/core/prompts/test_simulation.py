"""The robot clicks where the error is, and stops when there is none."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.prompts.simulation import first_click, iou, next_click, simulate_clicks


def disc(centre=(20, 24), radius=9, shape=(40, 50)):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


def test_the_first_click_lies_in_the_object_not_always_in_its_middle():
    truth, rng = disc(), np.random.default_rng(0)
    assert first_click(truth).pixel == (20, 24)
    pixels = {first_click(truth, rng).pixel for _ in range(50)}
    assert all(truth[pixel] for pixel in pixels)
    assert len(pixels) > 20


def test_an_object_that_fills_the_image_is_clicked_in_its_middle():
    assert first_click(np.ones((21, 21), bool)).pixel == (10, 10)


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_the_next_click_corrects_the_largest_error(rng):
    truth = disc()
    missing = truth.copy()
    missing[:, :22] = False
    click = next_click(truth, missing, rng)
    assert click.positive
    assert truth[click.pixel] and not missing[click.pixel]
    too_much = truth | disc((20, 42), 6)
    click = next_click(truth, too_much, rng)
    assert not click.positive
    assert too_much[click.pixel] and not truth[click.pixel]
    assert next_click(truth, truth, rng) is None


def test_the_robot_stops_when_the_mask_is_right():
    truth = disc()

    def respond(clicks):
        return truth & disc(radius=3 * len(clicks))

    steps = list(simulate_clicks(truth, respond, 20, np.random.default_rng(0)))
    assert [len(clicks) for clicks, _ in steps] == [1, 2, 3]
    scores = [iou(mask, truth) for _, mask in steps]
    assert scores == sorted(scores)
    assert scores[-1] == 1


def test_iou():
    assert iou(disc(), disc()) == 1
    assert iou(disc(), ~disc()) == 0
    assert iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 1
