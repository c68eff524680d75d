"""Scores of the membrane challenge: what parts cells counts, not how thick it is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from lab.membranes import number_cells, rand_score, score_membranes, thinned_cells

from napari_unet.core.errors import InputError


def section(*, thick=5, gap=0, extra=False):
    """Four cells of 40 x 40 in a cross of membranes, (1, 85, 85); `gap` opens one membrane."""
    inside = np.ones((1, 85, 85), bool)
    line = slice(42 - thick // 2, 43 + thick // 2)
    inside[:, line] = False
    inside[:, :, line] = False
    if gap:
        inside[:, 20 : 20 + gap, line] = True
    if extra:
        inside[:, 60:65, :42] = False
    return inside


def test_perfect_maps_score_perfectly():
    scores = score_membranes(section() * 0.8, section())
    assert scores.v_rand == 1
    assert scores.pixel_error == 0


@pytest.mark.parametrize("thick", [1, 9, 15])
def test_the_width_of_membranes_hardly_counts(thick):
    scores = score_membranes(section(thick=thick) * 1.0, section())
    assert scores.v_rand > 0.99
    assert scores.pixel_error > 0.05


def test_a_merger_costs_what_its_pixels_weigh():
    """Two of four equal cells are one: 8 pairs within, of which 6 rather than 4 are predicted."""
    scores = score_membranes(section(gap=1) * 1.0, section())
    assert scores.v_rand == pytest.approx(2 * 4 / (4 + 6), abs=0.01)
    assert scores.pixel_error < 0.002


def test_a_split_costs_what_its_pixels_weigh():
    scores = score_membranes(section(extra=True) * 1.0, section())
    whole, upper = 40 * 40, 20 * 40  # the line is thinned to one pixel of the 40 rows
    both = 3 * whole**2 + 2 * upper**2
    assert scores.v_rand == pytest.approx(2 * both / (both + 4 * whole**2), abs=0.01)


def test_the_best_threshold_is_found():
    """The gap is closed below a probability of 0.65 only from 0.7 on; all else is sure."""
    maps = np.where(section(), 0.95, 0.05)
    maps[section(gap=1) & ~section()] = 0.65
    scores = score_membranes(maps, section())
    assert scores.v_rand == 1
    assert scores.v_rand_threshold == 0.7
    assert scores.pixel_error == 0
    assert scores.pixel_error_threshold == 0.7


def test_true_membranes_are_left_out():
    """What is predicted on pixels of true membranes counts for the pixel error alone."""
    truth = section(thick=9)
    spoiled = truth.copy()
    spoiled[:, 40:43, 2:30:2] = True  # isolated specks inside a membrane
    assert score_membranes(spoiled * 1.0, truth).v_rand == pytest.approx(1, abs=1e-3)


def test_pixels_in_no_cell_are_each_alone():
    truth = np.ones((1, 2, 2), int)
    cells = np.array([[[1, 1], [0, 0]]])
    # Pairs: 6 in truth, 1 in both and in the prediction.
    assert rand_score(cells, truth) == pytest.approx(2 * 1 / (1 + 6))


def test_sections_and_corners_part_cells():
    inside = np.zeros((2, 4, 4), bool)
    inside[:, :2, :2] = inside[:, 2:, 2:] = True
    assert number_cells(inside).max() == 4


def test_membranes_that_reach_the_border_stay_closed_there():
    """A thick line's thinned tip recedes; it must not let the cells beside it touch."""
    cells = thinned_cells(section(thick=21))
    assert cells.max() == 4
    assert (cells == 0).sum() < 400


def test_sections_without_cells():
    empty = np.zeros((1, 8, 8))
    assert score_membranes(empty, empty).v_rand == 1


def test_unequal_shapes_are_said():
    with pytest.raises(InputError, match="equal shape"):
        score_membranes(np.zeros((1, 8, 8)), np.zeros((1, 8, 9)))
    with pytest.raises(InputError, match="equal shape"):
        score_membranes(np.zeros((8, 8)), np.zeros((8, 8)))
