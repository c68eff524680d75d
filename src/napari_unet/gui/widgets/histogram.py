"""A histogram that costs the window next to nothing, like the plots of `curves`."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPalette, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_unet.gui.widgets.curves import BLUE, ORANGE

MOST_BINS = 60
_HEIGHT, _MARGIN = 120, 4


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
