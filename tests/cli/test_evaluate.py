"""`napari-unet evaluate` with pictures and stacks, on files as a user has them."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode

from napari_unet.cli import main
from napari_unet.core.evaluation.overlay import FALSE, HIT, MISSED
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (300, 500)  # drawn twice as large


def dots(*places: int) -> np.ndarray:
    """Label squares of 20 pixels in places 0 to 11, side by side."""
    labels = np.zeros(SHAPE, np.uint16)
    for label, place in enumerate(places, 1):
        labels[40:60, 40 * place + 20 : 40 * place + 40] = label
    return labels


def rim(path: Path, place: int) -> tuple[int, ...]:
    """Return the colour of the rim of the object in a place."""
    data = np.asarray(open_stack(path).data[80:81, 80 * place + 40 : 80 * place + 41])
    return tuple(data[0, 0].tolist())


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Two images, of which one has a hit, a false and a missed object."""
    files = {
        "predicted": {"a.tif": dots(0, 1), "b.ome.tif": dots(4)},
        "truth": {"a.tif": dots(0, 2), "b.tif": dots(4)},
        "images": {"a.tif": np.full(SHAPE, 7, np.uint16), "b.tif": np.full(SHAPE, 7, np.uint16)},
    }
    for folder, images in files.items():
        (tmp_path / folder).mkdir()
        for name, values in images.items():
            tifffile.imwrite(tmp_path / folder / name, values)
    return [str(tmp_path / "predicted"), str(tmp_path / "truth")]


def evaluate(*arguments: object) -> int:
    return main(["evaluate", *map(str, arguments)])


def test_a_picture_for_each_image(tmp_path: Path, folders, capsys) -> None:
    out, table = tmp_path / "out", tmp_path / "scores.csv"
    assert evaluate(*folders, "--overlay", out) == 0  # an older one is replaced
    capsys.readouterr()
    images = ("--images", tmp_path / "images")
    assert evaluate(*folders, "--overlay", out, *images, "--csv", table) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    assert [rim(out / "a.png", place) for place in (0, 1, 2)] == [HIT, FALSE, MISSED]
    assert rim(out / "b.png", 4) == HIT
    assert capsys.readouterr().out.splitlines()[:2] == [str(out / "a.png"), str(out / "b.png")]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a", "b", "pooled (2 images)"]
    assert [float(row["precision"]) for row in rows] == pytest.approx([1 / 2, 1, 2 / 3])
    every = ["image", "objects", "true_objects", "count_error"]
    every += [f"AP{level}" for level in range(50, 100, 5)]
    every += ["precision", "recall", "f1", "pq", "dice", "iou", "rand_error"]
    assert list(rows[0]) == every


def test_a_file_that_is_no_older_picture_is_kept(tmp_path: Path, folders, capsys) -> None:
    """The folder of the raw images, say."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "b.png").write_bytes(png_encode(np.zeros((300, 500), np.uint8)))
    before = (raw / "b.png").read_bytes()
    assert evaluate(*folders, "--overlay", raw) == 2
    assert "b.png exists already and does not say that it was drawn here" in capsys.readouterr().err
    assert (raw / "b.png").read_bytes() == before
    assert [path.name for path in raw.iterdir()] == ["b.png"]


def test_one_picture(tmp_path: Path, folders, capsys) -> None:
    predicted, truth = (f"{folder}/a.tif" for folder in folders)
    assert evaluate(predicted, truth, "--overlay", tmp_path / "hits.png") == 0
    assert rim(tmp_path / "hits.png", 1) == FALSE
    assert evaluate(predicted, truth, "--overlay", tmp_path / "new") == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_missing_image_costs_no_scores(tmp_path: Path, folders, capsys) -> None:
    (tmp_path / "images" / "a.tif").unlink()
    out = tmp_path / "out"
    assert evaluate(*folders, "--overlay", out, "--images", tmp_path / "images") == 2
    text = capsys.readouterr()
    assert "pooled (2 images)" in text.out
    (line,) = text.err.splitlines()
    assert line.startswith(f"napari-unet: skipped: {out / 'a.png'} is not drawn: ")
    assert line.endswith("has no image of the name a; add it, or leave --images out.")
    assert [path.name for path in out.iterdir()] == ["b.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "images"], "is for pictures to be drawn on; say where: --overlay."),
        (["--overlay", "truth/a.png", "--images", "images/a.tif"], "is one image for 2 labellings"),
        (["--overlay", "out.png"], "is one picture for 2 labellings; give a folder."),
        (["--overlay", "out", "--images", "nowhere"], "nowhere does not exist"),
        (["--frames", "cubes"], "invalid choice: 'cubes'"),
        (["--csv", "truth/a.tif"], "a.tif has the name of an image; end the name with .csv"),
        (["--csv", "truth"], "truth is a folder; give the name of a file to write."),
        (["--csv", "nowhere/a.csv"], "nowhere is no folder; make it first."),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path: Path, folders, capsys, options, message) -> None:
    given = [text if text.startswith("--") or text == "cubes" else tmp_path / text
             for text in options]  # fmt: skip
    assert evaluate(*folders, *given) == 2
    text = capsys.readouterr()
    assert text.out == ""
    (line,) = text.err.splitlines()
    assert message in line


def test_an_image_of_another_shape(tmp_path: Path, folders, capsys) -> None:
    tifffile.imwrite(tmp_path / "small.tif", np.zeros((30, 50), np.uint8))
    options = ("--overlay", tmp_path / "out", "--images", tmp_path / "small.tif")
    assert evaluate(*(f"{folder}/a.tif" for folder in folders), *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "small.tif has shape (30, 50), its labels (300, 500); give the image" in line


def test_three_planes_are_no_colours(tmp_path: Path, capsys) -> None:
    """Tifffile calls the planes of a plain 3 x Y x X file colours; labels have none."""
    for name in ("found.tif", "truth.tif"):
        planes = np.stack([dots(0), dots(0, 5), dots(0, 5)])
        tifffile.imwrite(tmp_path / name, planes, photometric="rgb", planarconfig="separate")
    assert evaluate(tmp_path / "found.tif", tmp_path / "truth.tif", "--frames", "planes") == 0
    assert capsys.readouterr().out.split()[-9:-6] == ["5", "5", "1.000"]


def test_a_file_that_holds_no_labels(tmp_path: Path, folders, capsys) -> None:
    tifffile.imwrite(tmp_path / "truth" / "a.tif", dots(0).astype(np.float32) + 0.5)
    assert evaluate(*folders) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "truth/a.tif holds numbers between the labels, such as 0.5" in line


def test_nothing_that_can_be_scored(tmp_path: Path, folders, capsys) -> None:
    for path in (tmp_path / "truth").iterdir():
        path.write_text("no image")
    assert evaluate(*folders) == 2
    text = capsys.readouterr()
    assert text.out == "" and len(text.err.splitlines()) == 2


def write_stack(path: Path, values: np.ndarray, axes: str, provenance: dict) -> None:
    with create_output(path, values.shape, axes, np.uint16, provenance=provenance) as output:
        output.array[...] = values


@pytest.mark.parametrize(
    ("object_axes", "frames", "counts"),
    [
        ("YX", "auto", ["5", "5", "1.000"]),
        (None, "auto", ["2", "2", "0.333"]),
        (None, "planes", ["5", "5", "1.000"]),
        ("YX", "volumes", ["2", "2", "0.333"]),
    ],
)
def test_a_stack(tmp_path: Path, capsys, object_axes, frames, counts) -> None:
    """A 2D model has numbered the planes anew; the provenance says so."""
    truth = np.stack([dots(0), dots(0, 5), dots(0, 5)])
    labels = truth.copy()
    labels[1] = np.array([0, 2, 1])[labels[1]]
    provenance = {"object_axes": object_axes} if object_axes else {}
    write_stack(tmp_path / "labels.tif", labels, "ZYX", provenance)
    write_stack(tmp_path / "truth.tif", truth, "ZYX", {})
    files = (tmp_path / "labels.tif", tmp_path / "truth.tif")
    assert evaluate(*files, "--frames", frames, "--overlay", tmp_path / "out") == 0
    first, *_, row = capsys.readouterr().out.splitlines()
    picture = tmp_path / "out" / "labels.png"
    assert first == f"{picture}: z 2 of 0 to 2, the plane with the most objects (4)"
    assert row.split()[1:4] == counts
    if counts[2] == "1.000":
        assert rim(picture, 0) == rim(picture, 5) == HIT


def test_time_points_are_apart(tmp_path: Path, capsys) -> None:
    labels = np.stack([dots(0, 5), dots(5, 0)])
    truth = np.stack([dots(0, 5), dots(0, 5)])
    write_stack(tmp_path / "labels.tif", labels, "TYX", {})
    tifffile.imwrite(tmp_path / "truth.tif", truth, photometric="minisblack")  # unnamed pages
    assert evaluate(tmp_path / "labels.tif", tmp_path / "truth.tif") == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[1:4] == ["4", "4", "1.000"]
