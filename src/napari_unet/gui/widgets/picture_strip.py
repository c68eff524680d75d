"""A strip of small pictures with captions, side by side."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import QListView, QListWidget, QListWidgetItem

LINES = 2
"""Of a caption."""


class PictureStrip(QListWidget):
    """Shows pictures in a row that is scrolled; `itemClicked` says that one was clicked.

    Parameters
    ----------
    edge
        Of a picture, in pixels.
    tip
        Tooltip of the strip.
    """

    def __init__(self, edge: int, tip: str) -> None:
        super().__init__()
        self.setToolTip(tip)
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setFlow(QListView.Flow.LeftToRight)
        self.setWrapping(False)
        self.setMovement(QListView.Movement.Static)
        self.setIconSize(QSize(edge, edge))
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollMode(QListView.ScrollMode.ScrollPerPixel)
        self._cell = QSize(edge + 4, edge + LINES * self.fontMetrics().lineSpacing() + 10)
        self.setFixedHeight(self._cell.height() + 24)

    def add(self, at: int, icon: QIcon, caption: str, tip: str) -> None:
        """Put a picture in at a place, which counts from 0."""
        item = QListWidgetItem(icon, caption)
        item.setSizeHint(self._cell)
        item.setToolTip(tip)
        self.insertItem(at, item)


def icon_of(picture: np.ndarray) -> QIcon:
    """Return a picture, uint8 (Y, X, 3), as an icon; in the window's thread."""
    height, width = picture.shape[:2]
    data = np.ascontiguousarray(picture).tobytes()
    image = QImage(data, width, height, 3 * width, QImage.Format.Format_RGB888)
    return QIcon(QPixmap.fromImage(image.copy()))
