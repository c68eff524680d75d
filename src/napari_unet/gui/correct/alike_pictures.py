"""A strip of the other images that were searched: what is marked in them, the most first."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer, Signal

from napari_unet.core.alike.marked_picture import MarkedPicture
from napari_unet.core.evaluation.small_picture import PICTURE
from napari_unet.core.io.stack import open_stack
from napari_unet.gui.correct.alike_images import COLOURS, MARKED, count_marked
from napari_unet.gui.errors import describe_error
from napari_unet.gui.jobs.job import Job, WidgetJobs
from napari_unet.gui.widgets.picture_strip import PictureStrip, icon_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from qtpy.QtGui import QIcon
    from qtpy.QtWidgets import QListWidgetItem

    from napari_unet.core.alike.descriptors import Candidate
    from napari_unet.core.io.stack import Stack
    from napari_unet.gui.correct.alike_search import Alike, SearchedImage

QUIET_MS = 120
"""Pictures are drawn anew when the slider has not moved for so long."""
MOST = 100
"""So many images are shown at most, those with most marked objects."""
_RED, _GREEN, _BLUE = (round(255 * value) for value in COLOURS[MARKED][:3])
_TIP = (
    "The other images with marked objects, most of them first, each where most are: what is marked "
    "is outlined in pink,\nother objects in grey. A click opens the image there."
)


class AlikePictures(PictureStrip):
    """Shows the marked objects of all images but the one that was corrected; hidden without any.

    Emits `wanted` with the image that was clicked, and its `MarkedPlace`.
    """

    wanted = Signal(object, object)

    def __init__(self) -> None:
        super().__init__(PICTURE, _TIP)
        self._jobs = WidgetJobs(self)
        self._alike: Alike | None = None
        self._rows: list[tuple[int, np.ndarray]] = []
        self._pictures: dict[int, MarkedPicture] = {}
        self._icons: dict[int, QIcon] = {}
        self._empty = icon_of(np.zeros((PICTURE, PICTURE, 3), np.uint8))
        self.job: Job | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(QUIET_MS)
        self._timer.timeout.connect(self._draw)
        self.itemClicked.connect(self._clicked)
        self.hide()

    def show_marked(self, alike: Alike, marked: Sequence[int]) -> None:
        """Show how many are marked in which image at once, and where, as soon as it is drawn."""
        if alike is not self._alike:
            self.close_pictures()
            self._alike = alike
        rows = [
            (number, places - image.places.start)
            for number, (image, places) in enumerate(count_marked(alike, marked))
            if number and len(places)
        ]
        self._rows = sorted(rows, key=lambda row: -len(row[1]))[:MOST]
        self._list_rows()
        self._timer.start()

    def close_pictures(self) -> None:
        """Show nothing any more, and stop drawing."""
        self._timer.stop()
        if self.job is not None:
            self.job.cancel()
        self.job = self._alike = None
        self._rows, self._pictures, self._icons = [], {}, {}
        self.clear()
        self.hide()

    def _list_rows(self) -> None:
        """List the images anew, with the pictures that there are."""
        at = self.horizontalScrollBar()
        before = 0 if at is None else at.value()
        self.setUpdatesEnabled(False)
        self.clear()
        for number, places in self._rows:
            image = self._image(number)
            of = f"{len(places):,} of {len(image.places):,}"
            caption = f"{image.name}\n{'open' if image.opened else of}"
            source = image.name if image.file is None else str(image.file.source)
            self.add(self.count(), self._icons.get(number, self._empty), caption, source)
        self.setUpdatesEnabled(True)
        if at is not None:
            at.setValue(before)
        self.setVisible(bool(self._rows))

    def _draw(self) -> None:
        """Draw the pictures anew, in a job, the first ones first."""
        if self.job is not None:
            self.job.cancel()
        tasks = [(number, self._image(number), places) for number, places in self._rows]
        items = () if self._alike is None else self._alike.items
        steps = functools.partial(_draw_steps, items, tasks, self._pictures)
        self.job = self._jobs.run("pictures", Job(steps, on_item=self._take))

    def _take(self, drawn: tuple[int, np.ndarray | str]) -> None:
        """Show a picture, or why there is none."""
        number, picture = drawn
        at = next((at for at, row in enumerate(self._rows) if row[0] == number), None)
        item = None if at is None else self.item(at)
        if item is None:
            return
        if isinstance(picture, str):
            item.setToolTip(picture)
            return
        self._icons[number] = icon_of(picture)
        item.setIcon(self._icons[number])

    def _clicked(self, item: QListWidgetItem) -> None:
        number, _ = self._rows[self.row(item)]
        picture = self._pictures.get(number)
        if picture is not None and picture.place is not None:
            self.wanted.emit(self._image(number), picture.place)

    def _image(self, number: int) -> SearchedImage:
        assert self._alike is not None
        return self._alike.images[number]


def _draw_steps(
    items: Sequence[Candidate],
    tasks: Sequence[tuple[int, SearchedImage, np.ndarray]],
    pictures: dict[int, MarkedPicture],
) -> Generator[tuple[int, np.ndarray | str], None, None]:
    """Draw images one after the other; yield the number of each, and its picture or a problem."""
    for number, image, places in tasks:
        try:
            if number not in pictures:
                found = items[image.places.start : image.places.stop]
                pictures[number] = MarkedPicture(found)
            read = functools.partial(_open, image)
            channel = image.settings.channel or 0
            picture = pictures[number].draw(places, read, (_RED, _GREEN, _BLUE), channel)
        except Exception as error:  # whatever an image is now, the others are drawn
            yield number, f"{image.name}: {describe_error(error)}"
        else:
            yield number, picture


def _open(image: SearchedImage) -> Stack:
    """Open an image that was searched."""
    if image.file is not None:
        return open_stack(image.file.source)
    assert image.recording is not None and image.recording.geometry is not None
    return image.recording.geometry.stack
