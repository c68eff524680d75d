"""Pictures: what is drawn where, and in which colour."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.evaluation.comparison import MatchStatus
from napari_unet.core.evaluation.overlay import (
    FALSE,
    HIT,
    MISSED,
    draw_comparison,
    draw_outlines,
    to_rgb,
    write_picture,
)
from napari_unet.core.io.stack import open_stack


def square(top: int, left: int, edge: int = 5, value: int = 1) -> np.ndarray:
    labels = np.zeros((12, 20), np.uint16)
    labels[top : top + edge, left : left + edge] = value
    return labels


def test_a_grey_image_fills_the_range() -> None:
    image = np.linspace(100, 1100, 200).reshape(10, 20)
    drawn = to_rgb(image, (0, 100))
    assert drawn.dtype == np.uint8
    assert drawn.shape == (10, 20, 3)
    assert (drawn.min(), drawn.max()) == (0, 255)
    assert np.ptp(drawn, axis=2).max() == 0


def test_eight_bit_colours_are_kept() -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 5, 4), np.uint8)
    np.testing.assert_array_equal(to_rgb(image), image[..., :3])


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_image_without_contrast_is_black(value: float) -> None:
    assert not to_rgb(np.full((4, 5), value)).any()
    assert to_rgb(np.zeros((0, 5))).shape == (0, 5, 3)


def test_outlines_lie_within_their_objects() -> None:
    labels = square(2, 3) + square(2, 8, value=2)  # two objects that touch
    drawn = draw_outlines(np.zeros((12, 20)), labels, zoom=1)
    edge = drawn.any(axis=2)
    inner = np.zeros_like(edge)
    inner[3:6, 4:7] = inner[3:6, 9:12] = True
    np.testing.assert_array_equal(edge, (labels > 0) & ~inner)
    assert (drawn[3, 7] != drawn[3, 8]).any(), "neighbours differ in colour"


def test_small_images_are_enlarged() -> None:
    assert draw_outlines(np.zeros((12, 20)), square(2, 3)).shape == (48, 80, 3)
    assert draw_outlines(np.zeros((900, 1200)), np.zeros((900, 1200), int)).shape == (900, 1200, 3)


def test_hits_false_and_missed_objects_have_their_colours() -> None:
    truth = square(2, 2, value=4) + square(6, 14, value=9)
    labels = square(2, 3, value=1) + square(6, 8, value=2)
    drawn = draw_comparison(labels, truth, np.zeros((12, 20)), zoom=1)
    assert tuple(drawn[2, 5]) == HIT
    assert tuple(drawn[6, 9]) == FALSE
    assert tuple(drawn[6, 15]) == MISSED
    assert not drawn[4, 2].any(), "a hit's truth is not drawn"
    filled = draw_comparison(labels, truth, zoom=1)
    assert filled[8, 10].any(), "without an image the objects are filled"
    strict = draw_comparison(labels, truth, np.zeros((12, 20)), threshold=0.9, zoom=1)
    assert tuple(strict[2, 5]) == FALSE


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(InputError, match=r"not of \(2, 3, 4, 5\)"):
        to_rgb(np.zeros((2, 3, 4, 5)))
    with pytest.raises(InputError, match=r"labels have shape \(3, 3\), the image \(4, 4\)"):
        draw_outlines(np.zeros((4, 4)), np.zeros((3, 3), int))


def test_a_picture_is_written_whole(tmp_path) -> None:
    drawn = draw_outlines(np.zeros((12, 20)), square(2, 3))
    for _ in range(2):
        write_picture(tmp_path / "a.png", drawn)
    np.testing.assert_array_equal(open_stack(tmp_path / "a.png").data, drawn)
    with pytest.raises(OutputError, match="cannot be written"):
        write_picture(tmp_path / "no" / "a.png", drawn)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_plane_is_coloured_by_what_was_judged_elsewhere() -> None:
    truth = square(2, 2, value=4)
    status = MatchStatus(hits=np.array([1]), found=np.array([4]))
    drawn = draw_comparison(square(2, 14), truth, np.zeros((12, 20)), zoom=1, status=status)
    assert tuple(drawn[2, 14]) == HIT
    assert not drawn[2, 2].any(), "its truth is found, though not here"
