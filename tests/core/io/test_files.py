"""Paths as users write them, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import atomic_file, expand_path
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.stack import open_stack


def test_a_file_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "notes.txt"
    target.write_text("old")
    with atomic_file(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_ends_the_writing_leaves_the_old_file(tmp_path: Path, error) -> None:
    target = tmp_path / "notes.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_file(target) as partial:
        partial.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OutputError, match=r"notes\.txt cannot be written: No space left"),
        atomic_file(tmp_path / "notes.txt") as partial,
    ):
        partial.write_text("new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".", "/", "folder", "missing/notes.txt"])
def test_places_that_are_no_file(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(OutputError), atomic_file(Path(name)) as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_home_of_nobody_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert expand_path("~/a.tif") == Path.home() / "a.tif"
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("~draft$.tif", np.ones((4, 5), np.uint8))
    assert open_stack("~draft$.tif").labels_shape == (4, 5)
    with create_output("~labels$.tif", (4, 5), "YX", np.uint16):
        pass
    assert Path("~labels$.tif").is_file()
