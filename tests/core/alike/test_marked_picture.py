"""The small picture of what is marked: where it is taken, when the image is read, what is drawn."""

from __future__ import annotations

import numpy as np
from discs import disc

from napari_unet.core.alike.descriptors import Candidate, object_masks
from napari_unet.core.alike.marked_picture import MarkedPicture
from napari_unet.core.evaluation.small_picture import GREY, PICTURE
from napari_unet.core.io.stack import open_stack

PINK = (255, 89, 230)


def scene(shape, places):
    labels = np.zeros(shape, np.uint16)
    for number, place in enumerate(places, 1):
        labels[disc(shape, place, 5)] = number
    return labels


def candidates(frames):
    return [
        Candidate((index,) if len(frames) > 1 else (), (label,), mask)
        for index, labels in enumerate(frames)
        for label, mask in object_masks(labels).items()
    ]


def colours(picture):
    return {tuple(map(int, colour)) for colour in picture.reshape(-1, 3)}


def test_it_shows_the_place_of_most_and_stays_while_they_are_marked():
    labels = scene((300, 400), [(20, 20), (250, 350), (262, 365), (240, 370), (25, 200)])
    stack, reads = open_stack((labels > 0).astype(np.float32)), []

    def read():
        reads.append(1)
        return stack

    taken = MarkedPicture(candidates([labels]))
    picture = taken.draw(np.array([0, 1, 2]), read, PINK)
    assert picture.shape == (PICTURE, PICTURE, 3) and picture.dtype == np.uint8
    rows, columns = taken.place.window
    assert rows.start <= 250 < rows.stop <= 300 and columns.start <= 350 < columns.stop <= 400
    assert {PINK, GREY} <= colours(picture), "the fourth is not marked, and there, too"
    everything = taken.draw(np.arange(5), read, PINK)
    assert GREY not in colours(everything) and len(reads) == 1
    taken.draw(np.array([0, 4]), read, PINK)
    assert taken.place.window[0].start == 0 and len(reads) == 2


def test_it_is_taken_in_the_frame_and_plane_of_the_objects():
    frames = [np.zeros((6, 60, 70), np.uint16) for _ in range(2)]
    frames[1][3:5, 20:28, 30:38], frames[1][3:5, 20:28, 40:48] = 1, 2
    frames[0][0:2, 5:13, 5:13] = 3
    stack = open_stack(np.zeros((2, 6, 60, 70), np.float32), axes="TZYX")
    taken = MarkedPicture(candidates(frames))
    picture = taken.draw(np.array([0, 1, 2]), lambda: stack, PINK)
    assert taken.place.index == (1,) and taken.place.window[0] in (slice(3, 4), slice(4, 5))
    assert PINK in colours(picture)
    assert taken.place.centre[0] in (3, 4) and taken.place.extent == 48
