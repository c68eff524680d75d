"""The small plot: what is drawn, and in which colours."""

from __future__ import annotations

import math

import numpy as np
import pytest
from qtpy.QtGui import QColor

from napari_unet.gui.widgets.plots import BINS, BLUE, ORANGE, Line, Plot, binned


@pytest.fixture
def plot(qtbot):
    plot = Plot("steps")
    qtbot.addWidget(plot)
    plot.resize(200, 120)
    return plot


def count(plot, colour):
    """Count the pixels of about one colour."""
    image = plot.grab().toImage()
    pixels = [image.pixelColor(x, y) for x in range(image.width()) for y in range(image.height())]
    values = np.array([(p.red(), p.green(), p.blue()) for p in pixels])
    return int((np.abs(values - colour).max(1) < 30).sum())


def test_lines_are_drawn_in_their_colours(plot):
    assert count(plot, ORANGE) == count(plot, BLUE) == 0
    loss = tuple((float(x), 1 / (x + 1)) for x in range(60))
    plot.show_lines([Line("loss", loss, ORANGE)])
    assert count(plot, ORANGE) > 60 and count(plot, BLUE) == 0
    plot.show_lines([Line("loss", loss, ORANGE), Line("AP50", ((0, 0.5), (59, 0.9)), BLUE, True)])
    assert count(plot, BLUE) > 60
    plot.show_lines([])
    assert count(plot, ORANGE) == 0


def test_axes_have_the_colour_of_the_theme(plot):
    plot.setStyleSheet("color: rgb(250, 30, 240); background: black")
    plot.show_lines([Line("loss", ((0, 1), (9, 2)), ORANGE)])
    assert count(plot, QColor(250, 30, 240).getRgb()[:3]) > 5


def test_a_line_of_one_value_or_none(plot):
    for points in ((), ((0, 0),), ((3, 0.7), (4, 0.7)), ((1, math.nan),)):
        plot.show_lines([Line("AP50", points, BLUE)])
        assert not plot.grab().isNull()


def test_long_lines_are_averaged_and_end_where_they_end():
    points = [(float(x), float(x % 2)) for x in range(10 * BINS)]
    line = binned(points)
    assert len(line) == BINS and line[-1][0] == points[-1][0]
    assert {y for _, y in line} == {0.5}
    assert binned([(0, 1), (1, math.inf), (2, 3)]) == ((0, 1), (2, 3))


def test_equal_lines_are_not_drawn_again(plot, qtbot):
    line = Line("loss", ((0, 1), (9, 2)), ORANGE)
    plot.show_lines([line])
    before = plot.lines
    plot.show_lines([Line("loss", ((0.0, 1.0), (9.0, 2.0)), ORANGE)])
    assert plot.lines is before
