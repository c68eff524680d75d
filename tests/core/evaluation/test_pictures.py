"""Pictures of scored files: which plane, on which image, and where they go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.evaluation.comparison import Comparison, LabelPair, pair_files
from napari_unet.core.evaluation.overlay import (
    FALSE,
    HIT,
    MISSED,
    PicturePlan,
    busiest_plane,
    draw_picture,
    plan_pictures,
)
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from pathlib import Path

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
