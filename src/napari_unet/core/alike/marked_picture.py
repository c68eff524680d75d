"""A small picture of the marked objects of an image, at the place where there are most of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from napari_unet.core.evaluation.small_picture import (
    DIAMETERS,
    GREY,
    LEAST,
    SmallPicture,
    square_around,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unet.core.alike.descriptors import Candidate
    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index, Window

LARGEST = 1024
"""No more pixels of the image are read along an edge, however large the objects are."""
KEEP = 0.5
"""The picture stays where it is as long as it shows this share of what the best place would."""


@dataclass(frozen=True, eq=False)
class MarkedPlace:
    """Where a picture was taken.

    Attributes
    ----------
    index, window
        The frame, and the part of one plane of it.
    """

    index: Index
    window: Window

    @property
    def centre(self) -> tuple[float, ...]:
        """The position in the frame, ([z,] y, x) in pixels."""
        return tuple((span.start + span.stop - 1) / 2 for span in self.window)

    @property
    def extent(self) -> float:
        """Pixels of the image along an edge of the picture."""
        return float(max(span.stop - span.start for span in self.window[-2:]))


class MarkedPicture:
    """Draws the marked objects of one image, and the others around them in grey.

    The image is read where the place changes; while other objects are marked, as a slider moves,
    mostly only the outlines are drawn anew.

    Parameters
    ----------
    items
        All objects of the image, or pairs of them.

    Attributes
    ----------
    place
        Of the last picture; None before it.
    """

    def __init__(self, items: Sequence[Candidate]) -> None:
        self._items = items
        spans = [[(w.start, w.stop) for w in item.mask.window] for item in items]
        self._boxes: np.ndarray = np.array(spans)  # (N, ndim, 2)
        frames = list(dict.fromkeys(item.index for item in items))
        numbers = {index: number for number, index in enumerate(frames)}
        self._frames, self._frame = frames, np.array([numbers[item.index] for item in items])
        sizes = self._boxes[..., 1] - self._boxes[..., 0]
        edge = round(DIAMETERS * float(np.median(sizes[:, -2:].max(1))))
        self._edge = int(np.clip(edge, LEAST, LARGEST))
        self._reach = np.median(sizes, axis=0) / 2
        self._reach[-2:] = self._edge / 2
        self.place: MarkedPlace | None = None
        self._picture: SmallPicture | None = None

    def draw(
        self,
        marked: np.ndarray,
        read: Callable[[], Stack],
        colour: tuple[int, int, int],
        channel: int = 0,
    ) -> np.ndarray:
        """Return the picture, uint8 (PICTURE, PICTURE, 3).

        Parameters
        ----------
        marked
            Which of the items are marked, by their place in them; one at least.
        read
            Opens the image; called where it has to be read.
        colour
            Of the outlines of what is marked.
        channel
            The one that is shown; colour images are shown in colour.

        Raises
        ------
        InputError
            The image cannot be read.
        """
        members = self._crowd(marked)
        picture, place = self._picture, self.place
        if picture is None or place is None or self._seen(marked, place) < KEEP * len(members):
            stack = read()
            place = self._place_of(members, stack.frame_shape(self._boxes.shape[1]))
            channels = (0, 1, 2) if stack.rgb else (channel,)
            values = stack.read(place.index, place.window, channels)
            picture = SmallPicture.from_values(values.reshape(len(values), *values.shape[-2:]))
            self._picture, self.place = picture, place
        drawn = np.zeros((2, *(span.stop - span.start for span in place.window)), np.int32)
        chosen = {*marked.tolist()}
        for number in self._near(np.arange(len(self._items)), place):
            inside = self._items[number].mask.within(place.window)
            drawn[int(number in chosen)][inside] = number + 1
        grey, shown = (labels.reshape(labels.shape[-2:]) for labels in drawn)
        return picture.outlined([(GREY, grey), (colour, shown)])

    def _crowd(self, marked: np.ndarray) -> np.ndarray:
        """Return those in the square around one of them that holds most, in one frame."""
        centres = self._boxes[marked].mean(2) / self._reach
        found = marked[:0]
        for frame in np.unique(self._frame[marked]):
            here = np.flatnonzero(self._frame[marked] == frame)
            tree = cKDTree(centres[here])
            counts = tree.query_ball_point(centres[here], 1.0, p=np.inf, return_length=True)
            best = int(counts.argmax())
            if counts[best] > len(found):
                near = tree.query_ball_point(centres[here[best]], 1.0, p=np.inf)
                found = marked[here[np.sort(near)]]
        return np.asarray(found)

    def _place_of(self, members: np.ndarray, shape: Sequence[int]) -> MarkedPlace:
        """Return the square around some objects, in the plane of the one in their middle."""
        centres = self._boxes[members].mean(2)
        middle = centres.mean(0)
        nearest = centres[np.linalg.norm(centres - middle, axis=1).argmin()]
        planes = [slice(int(z), int(z) + 1) for z in nearest[:-2]]
        square = square_around(middle[-2:], self._edge, shape[-2:])
        return MarkedPlace(self._frames[self._frame[members[0]]], (*planes, *square))

    def _near(self, among: np.ndarray, place: MarkedPlace) -> np.ndarray:
        """Return which of some objects reach into a place."""
        window = np.array([(span.start, span.stop) for span in place.window])
        boxes = self._boxes[among]
        meets = (boxes[..., 0] < window[:, 1]) & (boxes[..., 1] > window[:, 0])
        here = self._frame[among] == self._frames.index(place.index)
        return np.asarray(among[meets.all(1) & here])

    def _seen(self, marked: np.ndarray, place: MarkedPlace) -> int:
        return len(self._near(marked, place))
