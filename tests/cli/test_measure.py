"""`napari-unet measure`, on files as a user has them."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_unet.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Labels a, b and c; no image for c."""
    for folder, names in {"labels": "abc", "images": "ab"}.items():
        (tmp_path / folder).mkdir()
        for value, name in enumerate(names, 1):
            data = np.zeros((20, 30), np.uint16)
            data[3:7, 5 : 10 + value] = 1 if folder == "labels" else 10 * value
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", data)
    return tmp_path


def measure(*arguments: object) -> int:
    return main(["measure", *map(str, arguments)])


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_one_file_to_standard_output(folders: Path, capsys):
    files = folders / "labels" / "a.tif", folders / "images" / "a.tif"
    assert measure(*files, "--voxel-size-um", 1, 0.5, 0.5) == 0
    (row,) = rows(capsys.readouterr().out)
    assert row["label"] == "1" and row["area_px"] == "24" and row["area_um2"] == "6"
    assert row["intensity_mean"] == "10" and row["solidity"] == "1"


def test_folders_into_a_table(folders: Path, capsys):
    table = folders / "objects.csv"
    images = folders / "images"
    assert measure(folders / "labels", images, "--csv", table, "--no-solidity") == 2
    text = capsys.readouterr()
    (line,) = text.err.splitlines()
    assert line.endswith("no image of the name c; add it, or measure without images.")
    assert text.out == f"{table}: 2 objects\n"
    found = rows(table.read_text())
    assert [(row["image"], row["intensity_mean"]) for row in found] == [("a", "10"), ("b", "20")]
    assert "solidity" not in found[0]
    assert measure(folders / "labels") == 0
    assert [row["image"] for row in rows(capsys.readouterr().out)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["labels/a.tif", "images"], "are a file and a folder; give two of a kind."),
        (["labels/a.tif", "nowhere.tif"], "nowhere.tif does not exist"),
        (["labels/a.tif", "--frames", "cubes"], "invalid choice: 'cubes'"),
        (["labels/a.tif", "--csv", "nowhere/a.csv"], "nowhere is no folder; make it first."),
        (["labels/a.tif", "--csv", "labels/a.tif"], "a.tif has the name of an image"),
        (["labels/a.tif", "--csv", "images"], "images is a folder; give the name of a file"),
        (["labels/a.tif", "--voxel-size-um", "0"], "give (z, y, x) in um, each above 0."),
    ],
)
def test_one_line_says_what_is_wrong(folders: Path, capsys, arguments, message):
    given = [folders / a if "/" in a or "." in a or a == "images" else a for a in arguments]
    assert measure(*given) == 2
    text = capsys.readouterr()
    assert text.out == ""
    (line,) = text.err.splitlines()
    assert message in line
