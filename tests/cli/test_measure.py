"""`napari-unet measure`, on files as a user has them."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_unet.cli import main
from napari_unet.core.io.provenance import read_provenance

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


class TestReplay:
    """A table says beside it what it was measured from, and is measured again."""

    @pytest.fixture
    def table(self, folders: Path, capsys) -> Path:
        path = folders / "objects.csv"
        (folders / "labels" / "c.tif").unlink()
        size = ("--voxel-size-um", 0.5, "--no-solidity")
        assert measure(folders / "labels", folders / "images", "--csv", path, *size) == 0
        capsys.readouterr()
        return path

    def replay(self, *arguments: object) -> int:
        return main(["replay", *map(str, arguments)])

    def test_identical(self, table: Path, capsys):
        found = read_provenance(table)
        assert [entry["labels"] for entry in found["files"]] == ["labels/a.tif", "labels/b.tif"]
        assert str(table.parent) not in json.dumps(found), "no path of this computer"
        assert self.replay(table) == 0
        assert capsys.readouterr().out == f"{table}: identical: 2 objects, every value\n"
        assert self.replay(table, "--explain") == 0
        assert "Measured from labels/b.tif, image images/b.tif." in capsys.readouterr().out

    def test_other_images_and_a_changed_table(self, table: Path, capsys):
        image = table.parent / "images" / "b.tif"
        tifffile.imwrite(image, tifffile.imread(image) + 1)
        table.write_text(table.read_text().replace("a,1,", "a,7,"))
        again = table.with_name("again.csv")
        assert self.replay(table, "--out", again) == 1
        first, *reasons = capsys.readouterr().out.splitlines()
        assert f"{table}: different: 2 of 2 objects, in label, intensity_mean" in first
        assert reasons == [
            "- the table was changed since it was written",
            f"- {image} is not what was measured",
        ]
        assert [row["intensity_mean"] for row in rows(again.read_text())] == ["10", "21"]

    def test_equal_names_in_folders_beside_that_of_the_table(self, folders: Path, capsys):
        table = folders / "tables" / "objects.csv"
        table.parent.mkdir()
        assert measure(folders / "labels", folders / "images", "--csv", table) == 2  # c has none
        assert self.replay(table) == 0
        first = read_provenance(table)["files"][0]
        assert (first["labels"], first["image"]) == ("../labels/a.tif", "../images/a.tif")
        assert self.replay(table, folders / "labels") == 0, "the labels are not their own image"
        before = table.read_bytes()
        assert self.replay(table, "--out", table) == 2
        assert "objects.csv exists already; choose another name" in capsys.readouterr().err
        assert table.read_bytes() == before

    def test_files_that_are_elsewhere(self, table: Path, capsys, tmp_path_factory):
        moved = tmp_path_factory.mktemp("moved") / "objects.csv"
        table.rename(moved)
        assert self.replay(moved) == 2
        assert "has no provenance" in capsys.readouterr().err
        beside = "objects.csv.provenance.json"
        table.with_name(beside).rename(moved.with_name(beside))
        assert self.replay(moved) == 2
        assert "labels/a.tif is not beside it; give its folder" in capsys.readouterr().err
        assert self.replay(moved, table.parent) == 0
