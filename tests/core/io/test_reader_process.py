"""Files whose library hangs or crashes, which ends the process that reads them and no more."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

import numpy as np
import odd_readers
import psutil
import pytest
import tifffile

from napari_unet.cli import main
from napari_unet.core.errors import InputError
from napari_unet.core.io import reader_process, time_limit, vendor_files
from napari_unet.core.io.reader_process import ApartArray, read_apart
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def odd(monkeypatch, tmp_path: Path) -> None:
    """CZI files are read by `odd_readers`."""
    monkeypatch.setattr(
        vendor_files,
        "find_vendor_reader",
        lambda path, series: lambda: read_apart(path, "odd_readers", series),
    )


def write(folder: Path, name: str) -> Path:
    path = folder / f"{name}.czi"
    path.write_bytes(b"anything")
    return path


def running() -> int:
    """Return how many processes read files."""
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    return len([line for line in lines if reader_process.__name__ in line])


def test_an_image_is_read_by_parts(tmp_path: Path) -> None:
    values = odd_readers.VALUES
    stack = open_stack(write(tmp_path, "a"), series=4)
    assert (stack.axes, stack.voxel_size_um, stack.series) == ("ZYX", (2.0, 0.5, 0.5), 4)
    assert stack.remarks == ("series 4",)
    array = stack.data.data  # behind the cache of whole chunks
    assert isinstance(array, ApartArray) and array.chunks == ((1, 1, 1), (40,), (50,))
    for part in (np.s_[1], np.s_[:, ::-1, 3:20:7], np.s_[..., 4], np.s_[2:2], np.s_[-1, 5, 5]):
        np.testing.assert_array_equal(array[part], values[part])
        np.testing.assert_array_equal(stack.data[part], values[part])
    again = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(np.asarray(again), values)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hangs", r"hangs\.czi was read for 0 s without an end; it is damaged"),
        ("waits", r"waits\.czi was read for 0 s without an end; it is damaged"),
        ("crashes", r"crashes\.czi makes the library crash that reads it; it is damaged"),
        ("fails", r"fails\.czi cannot be read as CZI \('no such block'\)"),
        ("refused", r"refused\.czi is refused\."),
        ("not installed", r"not installed\.czi needs a package"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, monkeypatch, name: str, message: str) -> None:
    if name in ("hangs", "waits"):
        monkeypatch.setattr(time_limit, "SECONDS", 0.1)
        monkeypatch.setattr(reader_process, "PATIENCE", 5)
    before = running()
    with pytest.raises(InputError, match=message):
        open_stack(write(tmp_path, name))
    assert running() <= max(before, 1)  # the spare one


def test_what_is_read_at_once_adds_to_the_time_it_may_take(tmp_path: Path, monkeypatch) -> None:
    """A small file may hold a large volume: its size on the disk alone says too little."""
    array = open_stack(write(tmp_path, "takes work")).data.data
    monkeypatch.setattr(time_limit, "SECONDS", 0.1)
    monkeypatch.setattr(reader_process, "DECODED_PER_S", odd_readers.VALUES.nbytes / 60)
    np.testing.assert_array_equal(np.asarray(array), odd_readers.VALUES)
    monkeypatch.setattr(reader_process, "DECODED_PER_S", 10**7)
    with pytest.raises(InputError, match=r"takes work\.czi was read for 0 s without an end"):
        array[0]


def test_a_process_is_used_again_and_replaced_when_it_crashes(tmp_path: Path) -> None:
    for name in ("a", "b", "crashes after another"):
        stack = open_stack(write(tmp_path, name))
        assert stack.data[1, 2, 3] == odd_readers.VALUES[1, 2, 3]
        del stack
    assert running() == 1


def test_many_images_share_few_processes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reader_process, "OWNERS", 2)
    arrays = [open_stack(write(tmp_path, name)).data.data for name in "abcde"]
    for _ in range(2):
        for array in arrays:
            np.testing.assert_array_equal(array[1], odd_readers.VALUES[1])
    assert running() <= 3  # and the spare one


def test_after_a_read_that_was_interrupted(tmp_path: Path, monkeypatch) -> None:
    """Its answer must not be taken for that to the next question."""
    array = open_stack(write(tmp_path, "a")).data.data

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(array._process, "_exchange", interrupt)
        array[0]
    np.testing.assert_array_equal(array[1], odd_readers.VALUES[1])


@pytest.mark.filterwarnings("ignore:.*is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_process_reads_by_a_process_of_its_own(tmp_path: Path) -> None:
    array = open_stack(write(tmp_path, "a")).data.data
    child = os.fork()
    if not child:
        right = np.array_equal(array[1], odd_readers.VALUES[1])
        array._process.end()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(array[2], odd_readers.VALUES[2])


def test_a_folder_run_goes_on(tmp_path: Path, tiny_model: str, capsys) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "crashes", "crashes later", "z"):
        write(folder, name)
    tifffile.imwrite(folder / "good.tif", odd_readers.VALUES[0])
    assert main(["segment", str(folder), str(out), "--model", tiny_model, "--no-survey"]) == 2
    text = capsys.readouterr()
    lines = [line for line in text.err.splitlines() if "skipped" in line]
    names = [line.partition(".czi makes the library crash")[0].rpartition("/")[2] for line in lines]
    assert sorted(names) == ["crashes", "crashes later"]
    assert "3 of 5 images segmented" in text.out
    assert sorted(path.name for path in out.iterdir()) == ["a.tif", "good.tif", "z.tif"]
