"""Pictures: what is drawn where, and in which colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.evaluation.comparison import Comparison, LabelPair, MatchStatus, pair_files
from napari_unet.core.evaluation.overlay import (
    FALSE,
    HIT,
    MISSED,
    draw_comparison,
    draw_outlines,
    to_rgb,
    write_picture,
)
from napari_unet.core.evaluation.picture_files import (
    PicturePlan,
    busiest_plane,
    draw_picture,
    plan_pictures,
)
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from pathlib import Path


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


SHAPE = (300, 500)  # drawn twice as large


def dots(count: int) -> np.ndarray:
    """Label so many squares of 20 pixels, 40 apart."""
    labels = np.zeros(SHAPE, np.uint16)
    for label in range(count):
        labels[40:60, 40 * label + 20 : 40 * label + 40] = label + 1
    return labels


def pixel(path: Path, y: int, x: int) -> tuple[int, ...]:
    """Return the colour at a place of the original image."""
    data = open_stack(path).data
    return tuple(np.asarray(data[2 * y : 2 * y + 1, 2 * x : 2 * x + 1])[0, 0].tolist())


@pytest.fixture
def pair(tmp_path: Path) -> LabelPair:
    for name, labels in (("labels", dots(3)), ("truth", np.roll(dots(3), 40, axis=1))):
        tifffile.imwrite(tmp_path / f"{name}.tif", labels)
    return pair_files(tmp_path / "labels.tif", tmp_path / "truth.tif")[0]


@pytest.fixture
def comparison() -> Comparison:
    """Two hits, a false object on the left, a missed one on the right."""
    return Comparison(dots(3), np.roll(dots(3), 40, axis=1), "YX")


def test_a_picture_on_an_image(tmp_path: Path, pair, comparison) -> None:
    ramp = np.tile(np.linspace(0, 1, SHAPE[1], dtype=np.float32), (SHAPE[0], 1))
    tifffile.imwrite(tmp_path / "image.tif", ramp)
    plans = plan_pictures([pair], tmp_path / "out.png", tmp_path / "image.tif")
    assert draw_picture(plans[pair.name], comparison) == str(tmp_path / "out.png")
    out = tmp_path / "out.png"
    assert pixel(out, 40, 20) == FALSE
    assert pixel(out, 40, 60) == pixel(out, 40, 100) == HIT
    assert pixel(out, 40, 140) == MISSED
    assert pixel(out, 200, 499) == (255, 255, 255) and pixel(out, 200, 0) == (0, 0, 0)
    assert len(set(pixel(out, 50, 70))) == 1, "the image can be seen inside of objects"


def test_colours_of_the_image_are_kept(tmp_path: Path, pair, comparison) -> None:
    colours = np.full((*SHAPE, 3), (10, 120, 200), np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", colours, photometric="rgb")
    plans = plan_pictures([pair], tmp_path / "out.png", tmp_path / "image.tif")
    draw_picture(plans[pair.name], comparison)
    assert pixel(tmp_path / "out.png", 200, 200) == (10, 120, 200)


def test_without_an_image_the_objects_are_filled(tmp_path: Path, comparison) -> None:
    draw_picture(PicturePlan(tmp_path / "out.png"), comparison)
    assert pixel(tmp_path / "out.png", 50, 70) == tuple(v // 2 for v in HIT)
    assert pixel(tmp_path / "out.png", 200, 200) == (0, 0, 0)


def test_an_existing_picture_is_replaced(tmp_path: Path, comparison) -> None:
    target = tmp_path / "out.png"
    target.write_text("an older one")
    draw_picture(PicturePlan(target), comparison)
    assert pixel(target, 40, 20) == FALSE
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_the_plane_with_the_most_objects(tmp_path: Path) -> None:
    counts = (1, 5, 2, 5, 5, 0)
    labels = np.stack([dots(count) for count in counts])
    truth = np.stack([dots(1)] * 6)
    plane, count = busiest_plane(Comparison(labels, truth, "ZYX"))
    assert (plane[0], count) == (3, 6), "of several, the middle one"
    image = np.zeros((6, *SHAPE), np.uint8)
    image[3, 250] = 200
    tifffile.imwrite(tmp_path / "image.tif", image, metadata={"axes": "ZYX"})
    plan = PicturePlan(tmp_path / "out.png", tmp_path / "image.tif", tmp_path / "image.tif")
    line = draw_picture(plan, Comparison(labels, truth, "ZYX", 2))
    assert line.endswith("out.png: z 3 of 0 to 5, the plane with the most objects (6)")
    assert pixel(plan.target, 250, 10) == (255, 255, 255), "the image's plane is that one, too"


def test_the_plane_of_a_time_series(tmp_path: Path) -> None:
    labels = np.zeros((2, 3, *SHAPE), np.uint16)
    labels[1, 2] = dots(4)
    line = draw_picture(PicturePlan(tmp_path / "a.png"), Comparison(labels, labels, "TZYX"))
    assert "a.png: t 1 of 0 to 1, z 2 of 0 to 2" in line


def test_a_plane_shows_what_became_of_the_volume(tmp_path: Path) -> None:
    truth = np.stack([dots(2)] * 4)
    labels = truth.copy()
    labels[1:3] = 0  # half of each object: IoU 0.5
    labels[0, 150:170, 20:420:40] = 50  # so that this plane has the most objects
    draw_picture(PicturePlan(tmp_path / "a.png"), Comparison(labels, truth, "ZYX", 3))
    assert pixel(tmp_path / "a.png", 40, 20) == HIT
    labels[3, 40:60] = 0  # a quarter
    draw_picture(PicturePlan(tmp_path / "a.png"), Comparison(labels, truth, "ZYX", 3))
    assert pixel(tmp_path / "a.png", 40, 20) == FALSE


@pytest.fixture
def folders(tmp_path: Path) -> list[LabelPair]:
    for folder in ("predicted", "truth", "images"):
        (tmp_path / folder).mkdir()
        for name in ("a.tif", "b.1.tif"):
            tifffile.imwrite(tmp_path / folder / name, dots(2))
    (tmp_path / "images" / "b.1.tif").unlink()
    return pair_files(tmp_path / "predicted", tmp_path / "truth")


def test_a_folder_gets_a_picture_for_each_pair(tmp_path: Path, folders) -> None:
    plans = plan_pictures(folders, tmp_path / "new" / "out", tmp_path / "images")
    targets = {name: plan.target for name, plan in plans.items()}
    out = tmp_path / "new" / "out"
    assert targets == {"a": out / "a.png", "b.1": out / "b.1.png"} and out.is_dir()
    assert plans["a"].image == tmp_path / "images" / "a.tif"
    comparison = Comparison(dots(2), dots(2), "YX")
    draw_picture(plans["a"], comparison)
    with pytest.raises(InputError, match=r"images has no image of the name b\.1; add it, or leave"):
        draw_picture(plans["b.1"], comparison)
    assert [path.name for path in out.iterdir()] == ["a.png"]


def test_pairs_that_lack_one_are_passed_over(tmp_path: Path, folders) -> None:
    (tmp_path / "truth" / "a.tif").unlink()
    pairs = pair_files(tmp_path / "predicted", tmp_path / "truth")
    assert list(plan_pictures(pairs, tmp_path / "out")) == ["b.1"]


def test_an_image_of_another_shape(tmp_path: Path, pair, comparison) -> None:
    tifffile.imwrite(tmp_path / "image.tif", np.zeros((30, 50), np.uint8))
    plans = plan_pictures([pair], tmp_path / "out.png", tmp_path / "image.tif")
    message = r"image\.tif has shape \(30, 50\), its labels \(300, 500\); give the image that was"
    with pytest.raises(InputError, match=message):
        draw_picture(plans[pair.name], comparison)
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("overlay", "images", "error", "message"),
    [
        (None, "images", InputError, "say where: --overlay"),
        ("out", "nowhere", InputError, "nowhere does not exist"),
        ("out", "images/a.tif", InputError, "is one image for 2 labellings; give a folder"),
        ("out.png", None, OutputError, "is one picture for 2 labellings; give a folder"),
        ("out.tif", None, OutputError, r"cannot be drawn; end the name with \.png"),
        ("images/a.tif", None, OutputError, "is no PNG; give a folder"),
        ("images/a.tif/b", None, OutputError, "cannot be made"),
    ],
)
def test_what_is_refused(tmp_path: Path, folders, overlay, images, error, message) -> None:
    with pytest.raises(error, match=message):
        plan_pictures(
            folders, overlay and tmp_path / overlay, None if images is None else tmp_path / images
        )


@pytest.mark.parametrize("folder", ["predicted", "truth", "images"])
def test_no_picture_takes_the_place_of_an_input(tmp_path: Path, folder) -> None:
    for name in ("predicted", "truth", "images"):
        (tmp_path / name).mkdir()
        suffix = ".png" if name == folder else ".tif"
        (tmp_path / name / f"a{suffix}").write_text("not read yet")
    pairs = pair_files(tmp_path / "predicted", tmp_path / "truth")
    with pytest.raises(OutputError, match=r"a\.png is an input, too"):
        plan_pictures(pairs, tmp_path / folder, tmp_path / "images")
