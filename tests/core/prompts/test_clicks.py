"""Clicks are checked, and their history goes both ways."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import InputError
from napari_unet.core.prompts.clicks import (
    Click,
    ClickSet,
    UndoStack,
)


@pytest.mark.parametrize("place", [(1,), (), (1, 2, 3, 4, 5), (np.nan, 1), (1, np.inf), 7, "ab"])
def test_a_click_that_is_nowhere(place):
    with pytest.raises(InputError, match=r"A click is at .*; give \(y, x\) or \(z, y, x\)"):
        Click(place)


def test_a_pixel_reaches_half_a_pixel_around_its_centre():
    assert Click((2.4, 2.5)).pixel == (2, 3)
    assert Click((-0.4, 0)).pixel == (0, 0)


def test_of_clicks_on_one_pixel_the_last_counts():
    clicks = ClickSet()
    for number in range(1000):
        clicks = clicks.added(Click((3.2, 4), positive=number % 2 == 0))
    clicks = clicks.added(Click((8, 9)))
    assert len(clicks) == 2
    assert clicks.places(positive=False, ndim=2).tolist() == [[pytest.approx(3.2), 4]]
    assert clicks.places(positive=True, ndim=2).tolist() == [[8, 9]]


def test_clicks_belong_to_a_plane():
    clicks = ClickSet((Click((5, 1, 2)), Click((6, 3, 4)), Click((5.4, 7, 8), positive=False)))
    here = clicks.within((5,))
    assert len(here) == 2
    assert here.places(positive=True, ndim=2).tolist() == [[1, 2]]
    assert clicks.within(()) == clicks


def test_history_goes_back_and_forth_and_forgets_what_was_overwritten():
    history = UndoStack("a")
    assert not history.undo()
    history.push("b")
    history.push("c")
    assert history.undo()
    assert history.now == "b"
    assert history.redo()
    assert not history.redo()
    history.undo()
    history.undo()
    history.push("d")
    assert not history.redo()
    assert history.undo()
    assert history.now == "a"
