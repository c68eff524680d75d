"""Small plots that cost the window next to nothing: a few lines, and a histogram.

matplotlib would take half a second to load when the panel opens, and tens of milliseconds to draw.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QPaintEvent


Points = tuple[tuple[float, float], ...]
BINS = 120
"""A line of more points is drawn as the means of so many parts: a panel has few more pixels."""
ORANGE, BLUE = (230, 140, 40), (70, 150, 255)
_HEIGHT, _MARGIN, _DOT = 120, 4, 2.5


@dataclass(frozen=True)
class Line:
    """One line of a plot, with an axis of its own.

    Attributes
    ----------
    label
        Stands above the plot, in the line's colour, with the last value.
    points
        (x, y), x ascending; what is not finite is left out.
    right
        The axis is at the right.
    """

    label: str
    points: Points
    colour: tuple[int, int, int]
    right: bool = False


class _SmallPlot(QWidget):
    """A plot of fixed height, in the colours of the theme."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        """Return the usual size; the width may be anything."""
        return QSize(160, _HEIGHT)

    def _start_painting(self, lines_above: int, smooth: bool) -> tuple[QPainter, QRectF, QColor]:
        """Draw the frame, with room for text; return painter, frame and the colour of text."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, smooth)
        font = painter.font()
        font.setPointSizeF(max(6.0, font.pointSizeF() * 0.8))
        painter.setFont(font)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        height = painter.fontMetrics().height()
        frame = QRectF(self.rect()).adjusted(
            _MARGIN, lines_above * height + _MARGIN, -_MARGIN, -height - _MARGIN
        )
        faint = QColor(ink)
        faint.setAlphaF(0.25)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(frame)
        return painter, frame, ink

    @staticmethod
    def _label_axis(painter: QPainter, frame: QRectF, low: str, middle: str, high: str) -> None:
        """Write the ends of the horizontal axis, and what it counts, below the frame."""
        height = painter.fontMetrics().height()
        below = QRectF(frame.left(), frame.bottom() + 1, frame.width(), height)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, low)
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, middle)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, high)


class Plot(_SmallPlot):
    """Draws lines over one horizontal axis; empty without any.

    Parameters
    ----------
    what
        What the horizontal axis counts.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.lines: tuple[Line, ...] = ()

    def show_lines(self, lines: Sequence[Line]) -> None:
        """Draw these lines instead of the ones before."""
        fresh = tuple(Line(x.label, binned(x.points), x.colour, x.right) for x in lines)
        if fresh != self.lines:
            self.lines = fresh
            self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw axes and lines; the label of each line stands above the frame."""
        painter, frame, ink = self._start_painting(lines_above=1, smooth=True)
        drawn = [line for line in self.lines if line.points]
        if not drawn:
            return
        left, right = _limits([x for line in drawn for x, _ in line.points], 0.0)
        painter.setPen(ink)
        self._label_axis(painter, frame, f"{left:,.0f}", self.what, f"{right:,.0f}")
        line_height = painter.fontMetrics().height()
        for line in drawn:
            low, high = _limits([y for _, y in line.points], 0.02)
            area = frame.adjusted(6, line_height, -6, -6)
            places = [
                QPointF(
                    area.left() + (x - left) / (right - left) * area.width(),
                    area.bottom() - (y - low) / (high - low) * area.height(),
                )
                for x, y in line.points
            ]
            self._draw(painter, line, places, frame, (low, high))

    def _draw(
        self,
        painter: QPainter,
        line: Line,
        places: list[QPointF],
        frame: QRectF,
        limits: tuple[float, float],
    ) -> None:
        """Draw one line, its label above, and the ends of its axis."""
        painter.setPen(QPen(QColor(*line.colour), 1.6))
        painter.drawPolyline(QPolygonF(places))
        if len(places) < BINS / 4:
            painter.setBrush(QColor(*line.colour))
            for place in places:
                painter.drawEllipse(place, _DOT, _DOT)
            painter.setBrush(Qt.BrushStyle.NoBrush)
        height = painter.fontMetrics().height()
        side = Qt.AlignmentFlag.AlignRight if line.right else Qt.AlignmentFlag.AlignLeft
        above = QRectF(frame.left(), frame.top() - height - 1, frame.width(), height)
        painter.drawText(above, side, f"{line.label} {line.points[-1][1]:.3f}")
        inside = frame.adjusted(2, 0, -2, 0)
        low, high = limits
        painter.drawText(inside, side | Qt.AlignmentFlag.AlignTop, f"{high:.2f}")
        painter.drawText(inside, side | Qt.AlignmentFlag.AlignBottom, f"{low:.2f}")


def binned(points: Sequence[tuple[float, float]]) -> Points:
    """Leave out what is not finite; average long lines over equal numbers of points."""
    known = [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(known) <= BINS:
        return tuple(known)
    ends = [len(known) * part // BINS for part in range(BINS + 1)]
    parts = [known[a:b] for a, b in itertools.pairwise(ends)]
    return tuple((part[-1][0], sum(y for _, y in part) / len(part)) for part in parts)


def _limits(values: Sequence[float], minimum: float) -> tuple[float, float]:
    """Return the ends of an axis, which are at least `minimum` apart."""
    low, high = min(values), max(values)
    if high - low <= minimum:
        middle, half = (low + high) / 2, max(minimum, abs(high) * 0.05, 1e-6) / 2
        if middle - half < 0 <= low:
            return 0.0, 2 * half
        if high <= 1 < middle + half:
            return 1 - 2 * half, 1.0
        return middle - half, middle + half
    return low, high


MAX_BINS = 60


class Histogram(_SmallPlot):
    """Draws how values are distributed, and marks one of them; empty without any.

    Attributes
    ----------
    counts, edges
        The bars: (N,) counts and (N + 1,) ends, ascending.
    mark
        The value that is marked; None without one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.edges = histogram(np.zeros(0))
        self.mark: float | None = None

    def show_values(self, values: np.ndarray) -> None:
        """Draw these values instead of the ones before."""
        self.counts, self.edges = histogram(values)
        self.mark = None
        self.update()

    def point_out(self, value: float | None) -> None:
        """Draw a line where a value lies."""
        self.mark = value
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw bars and the ends of the axis."""
        painter, frame, ink = self._start_painting(lines_above=0, smooth=False)
        if not self.counts.size:
            return
        low, high = float(self.edges[0]), float(self.edges[-1])
        area = frame.adjusted(2, 4, -2, 0)
        step, top = area.width() / len(self.counts), float(self.counts.max())
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(*BLUE))
        for number, count in enumerate(self.counts.tolist()):
            height = count / top * area.height()
            left = area.left() + number * step
            painter.drawRect(QRectF(left, area.bottom() - height, max(1.0, step - 1), height))
        if self.mark is not None and low <= self.mark <= high:
            at = area.left() + (self.mark - low) / (high - low) * area.width()
            painter.fillRect(QRectF(at - 1, area.top(), 2, area.height()), QColor(*ORANGE))
        painter.setPen(ink)
        highest = f"most in a bar: {int(top):,}"
        self._label_axis(painter, frame, f"{low:.4g}", highest, f"{high:.4g}")


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts and edges of bars that suit the values; what is not finite is left out."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not known.size:
        return np.zeros(0, int), np.zeros(1)
    whole = bool((known == np.round(known)).all())
    span = float(known.max() - known.min())
    if whole and span < MAX_BINS:  # a bar for each whole number
        edges = np.arange(known.min() - 0.5, known.max() + 1)
    else:
        count = int(np.clip(2 * np.cbrt(known.size), 5, MAX_BINS))  # the Rice rule
        edges = np.linspace(known.min(), known.max(), count + 1)
        if not (np.diff(edges) > 0).all():  # all values are equal but for rounding
            edges = known.mean() + np.array([-0.5, 0.5]) * max(1.0, abs(float(known.mean())))
    counts, edges = np.histogram(known, edges)
    return counts, edges
