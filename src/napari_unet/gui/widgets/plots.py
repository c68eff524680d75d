"""A small plot that costs the window next to nothing: a few lines, drawn when they change.

matplotlib would take half a second to load when the panel opens, and tens of milliseconds a
drawing.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QPaintEvent


Points = tuple[tuple[float, float], ...]
BINS = 120
"""Longer lines are drawn as the means of so many parts."""
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


class Plot(QWidget):
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
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_lines(self, lines: Sequence[Line]) -> None:
        """Draw these lines instead of the ones before."""
        fresh = tuple(Line(x.label, binned(x.points), x.colour, x.right) for x in lines)
        if fresh != self.lines:
            self.lines = fresh
            self.update()

    def sizeHint(self) -> QSize:
        """Return the usual size; the width may be anything."""
        return QSize(160, _HEIGHT)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw frame, axes and lines in the colours of the theme."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPointSizeF(max(6.0, font.pointSizeF() * 0.8))
        painter.setFont(font)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        line_height = painter.fontMetrics().height()
        frame = QRectF(self.rect()).adjusted(
            _MARGIN, line_height + _MARGIN, -_MARGIN, -line_height - _MARGIN
        )
        faint = QColor(ink)
        faint.setAlphaF(0.25)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(frame)
        drawn = [line for line in self.lines if line.points]
        if not drawn:
            return
        left, right = _limits([x for line in drawn for x, _ in line.points], 0.0)
        below = QRectF(frame.left(), frame.bottom() + 1, frame.width(), line_height)
        painter.setPen(ink)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, f"{left:,.0f}")
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, self.what)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"{right:,.0f}")
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


def _limits(values: Sequence[float], least: float) -> tuple[float, float]:
    """Return the ends of an axis, apart by more than `least`."""
    low, high = min(values), max(values)
    if high - low <= least:
        middle, half = (low + high) / 2, max(least, abs(high) * 0.05, 1e-6) / 2
        if middle - half < 0 <= low:
            return 0.0, 2 * half
        if high <= 1 < middle + half:
            return 1 - 2 * half, 1.0
        return middle - half, middle + half
    return low, high


MOST_BINS = 60


class Histogram(QWidget):
    """Draws how values are distributed, and where one of them lies; empty without any.

    Attributes
    ----------
    counts, edges
        The bars: (N,) counts and (N + 1,) ends, ascending.
    mark
        The value that is pointed out, None without one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.edges = histogram(np.zeros(0))
        self.mark: float | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_values(self, values: np.ndarray) -> None:
        """Draw these values instead of the ones before."""
        self.counts, self.edges = histogram(values)
        self.mark = None
        self.update()

    def point_out(self, value: float | None) -> None:
        """Draw a line where a value lies."""
        self.mark = value
        self.update()

    def sizeHint(self) -> QSize:
        """Return the usual size; the width may be anything."""
        return QSize(160, _HEIGHT)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw frame, bars and the ends of the axis in the colours of the theme."""
        painter = QPainter(self)
        font = painter.font()
        font.setPointSizeF(max(6.0, font.pointSizeF() * 0.8))
        painter.setFont(font)
        ink = self.palette().color(QPalette.ColorRole.WindowText)
        line = painter.fontMetrics().height()
        frame = QRectF(self.rect()).adjusted(_MARGIN, _MARGIN, -_MARGIN, -line - _MARGIN)
        faint = QColor(ink)
        faint.setAlphaF(0.25)
        painter.setPen(QPen(faint, 1))
        painter.drawRect(frame)
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
        below = QRectF(frame.left(), frame.bottom() + 1, frame.width(), line)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, f"{low:.4g}")
        most = f"most in a bar: {int(top):,}"
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, most)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"{high:.4g}")


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts and ends of bars that suit the values; what is not finite is left out."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not known.size:
        return np.zeros(0, int), np.zeros(1)
    whole = bool((known == np.round(known)).all())
    span = float(known.max() - known.min())
    if whole and span < MOST_BINS:  # a bar for each number
        edges = np.arange(known.min() - 0.5, known.max() + 1)
    else:
        count = int(np.clip(2 * np.cbrt(known.size), 5, MOST_BINS))
        edges = np.linspace(known.min(), known.max(), count + 1)
        if not (np.diff(edges) > 0).all():  # as good as one number
            edges = known.mean() + np.array([-0.5, 0.5]) * max(1.0, abs(float(known.mean())))
    counts, edges = np.histogram(known, edges)
    return counts, edges
