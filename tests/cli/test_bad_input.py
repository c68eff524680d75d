"""What cannot be used gets one clear line and exit status 2, and leaves no file behind."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_unet.cli import main
from napari_unet.core.errors import OutputError
from napari_unet.core.io.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: a good image, many bad ones, and a folder for results."""
    monkeypatch.chdir(tmp_path)
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(48, 56)), 2)
    image = np.uint16(2000 + 9000 * noise)
    tifffile.imwrite("good.tif", image)
    tifffile.imwrite("rgb.tif", np.zeros((30, 40, 3), np.uint8), photometric="rgb")
    tifffile.imwrite("zlib.tif", image, compression="zlib")
    good, packed = Path("good.tif").read_bytes(), Path("zlib.tif").read_bytes()
    Path("truncated.tif").write_bytes(good[: len(good) // 2])
    Path("headless.tif").write_bytes(good[:6])
    Path("corrupt.tif").write_bytes(good[:4] + b"\xff" * 40 + good[44:])
    middle = packed.index(b"\x78", 200)
    Path("garbled.tif").write_bytes(packed[:middle] + bytes(60) + packed[middle + 60 :])
    Path("text.tif").write_text("These are not the pixels you are looking for.\n" * 9)
    Path("empty.tif").touch()
    Path("text.png").write_text("no picture")
    Path("cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    Path("letter.docx").write_bytes(b"PK\3\4")
    Path("nothing").mkdir()
    Path("texts").mkdir()
    Path("texts", "readme.txt").write_text("no image")
    Path("broken.zarr").mkdir()
    Path("broken.zarr", "zarr.json").write_text("{")
    Path("taken.tif").write_bytes(b"mine")
    Path("file").touch()
    Path("out").mkdir()
    return tmp_path


def stay(path: Path) -> dict[str, bytes]:
    """Return every file below a folder and what is in it."""
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in sorted(path.rglob("*"))}


def line_of(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr()
    assert text.out == ""
    (line,) = text.err.splitlines()
    prefix = "napari-unet: error: "
    assert line.startswith(prefix)
    assert line[-1] == ".", "a sentence"
    return line.removeprefix(prefix)


BAD_INPUTS = {
    "missing.tif": "missing.tif does not exist",
    "no/where.tif": "no/where.tif does not exist",
    "nothing": "nothing holds no image; give a folder with",
    "texts": "texts holds no image; give a folder with",
    "truncated.tif": "truncated.tif",
    "headless.tif": "headless.tif cannot be read as TIF",
    "corrupt.tif": "corrupt.tif",
    "garbled.tif": "garbled.tif cannot be read as TIF",
    "text.tif": "text.tif cannot be read as TIF",
    "empty.tif": "empty.tif is an empty file",
    "text.png": "text.png cannot be read as PNG",
    "cut.png": "cut.png cannot be read as PNG",
    "letter.docx": "letter.docx is of no known kind; give one of: .tif",
    "broken.zarr": "broken.zarr cannot be read as Z",
}


@pytest.mark.parametrize(("given", "said"), BAD_INPUTS.items(), ids=BAD_INPUTS)
def test_input(place: Path, tiny_model: str, capsys, given: str, said: str) -> None:
    before = stay(place)
    assert main(["segment", given, "out/labels.tif", "--model", tiny_model]) == 2
    assert said in line_of(capsys)
    assert stay(place) == before


BAD_ARGUMENTS = [
    ("good.tif out/l.tif --axes ZYX", "good.tif", "ZYX"),
    ("good.tif out/l.tif --axes YQ", "axes 'YQ' do not fit: Q is unknown", "T, C, Z, Y, X"),
    (
        "good.tif out/l.tif --axes YY",
        "axes 'YY' do not fit: an axis is named twice",
        "T, C, Z, Y, X",
    ),
    ("rgb.tif out/l.tif --axes YX", "rgb.tif", "YX"),
    ("good.tif out/l.tif --channel 1", "channel 1 is not in good", "choose only 0"),
    ("rgb.tif out/l.tif --channel 3", "channel 3 is not in rgb", "choose 0 to 2"),
    ("good.tif out/l.tif --channel -1", "channel is -1", "at least 0"),
    ("good.tif out/l.tif --model cells", "no model 'cells'", "known models: "),
    ("good.tif out/l.tif --model nothing", "no model 'nothing'", "known models: "),
    ("good.tif out/l.tif --device tpu", "'tpu'", "auto, cpu, cuda, mps"),
    ("good.tif out/l.tif --device cuda:x", "'cuda:x'", "auto, cpu, cuda, mps"),
    ("good.tif out/l.tif --device cpu:1", "'cpu:1'", "auto, cpu, cuda, mps"),
    ("good.tif out/l.tif --device cpu:", "'cpu:'", "auto, cpu, cuda, mps"),
    ("good.tif out/l.tif --tile 8", "tile is 8 px", "between 16 and 16384 px"),
    ("good.tif out/l.tif --tile big", "--tile", "'big'"),
    ("good.tif out/l.tif --threshold 2", "threshold is 2.0", "between 0.01 and 0.99"),
    ("good.tif out/l.tif --threshold nan", "threshold is nan", "between 0.01 and 0.99"),
    ("good.tif out/l.tif --diameter 0", "diameter is 0.0", "between 1.0 and 10000.0"),
    ("good.tif out/l.tif --min-size -1", "min_size is -1", "at least 0"),
    ("good.tif out/l.tif --precision int8", "--precision", "float32"),
    ("good.tif out/l.tif --colour red", "--colour", "--help"),
    ("good.tif", "output", "--help"),
    ("good.tif taken.tif", "taken.tif exists already", "--overwrite"),
    ("good.tif good.tif --overwrite", "good.tif is the input", "choose another place"),
    ("good.tif out/l.doc", "out/l.doc is of no known kind", ".tif, .tiff, .png, .zarr"),
    ("good.tif nowhere/l.tif", "nowhere/l.tif", "no folder nowhere"),
    ("good.tif file/l.tif", "file/l.tif", "file is no folder"),
    ("texts file", "texts holds no image", ".tif"),
    (". file", "file is a file", "give a folder"),
    (". file/deep", "file/deep cannot be made", "choose another place"),
    (". .", ". is the input, too", "choose another place"),
]


@pytest.mark.parametrize(
    ("arguments", "given", "allowed"), BAD_ARGUMENTS, ids=[row[0] for row in BAD_ARGUMENTS]
)
def test_arguments(place: Path, tiny_model: str, capsys, arguments, given, allowed) -> None:
    command = ["segment", *arguments.split()]
    if "--model" not in arguments and len(command) > 2:
        command += ["--model", tiny_model]
    before = stay(place)
    assert main(command) == 2
    line = line_of(capsys)
    assert given in line
    assert allowed in line
    assert stay(place) == before


def test_labels_of_one_image_go_into_a_folder_that_is_there(place: Path, tiny_model: str, capsys):
    assert main(["segment", "good.tif", "out", "--model", tiny_model]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["good.tif"]
    assert capsys.readouterr().out.startswith(f"{Path('out', 'good.tif')}: ")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(place: Path, tiny_model: str, capsys, monkeypatch, device):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    command = ["segment", "good.tif", "out/l.tif", "--model", tiny_model, "--device", device]
    assert main(command) == 2
    line = line_of(capsys)
    assert repr(device) in line
    assert "use one of: auto, cpu" in line
    assert not list(Path("out").iterdir())


def test_a_damaged_model(place: Path, tiny_model: str, home: Path, capsys) -> None:
    weights = home / "models" / tiny_model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert main(["segment", "good.tif", "out/l.tif", "--model", tiny_model]) == 2
    assert "damaged" in line_of(capsys)
    assert not list(Path("out").iterdir())


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small file system in memory."""
    if sys.platform != "linux" or not shutil.which("mount"):
        pytest.skip("mounts a file system in memory, as Linux can")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount file systems here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be written, by its permissions, or for root by its file system."""
    if os.name == "nt":
        pytest.skip("folders have other permissions on Windows")
    if os.geteuid() == 0:
        with mounted(tmp_path / "closed", "ro") as folder:
            yield folder
        return
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    yield folder


@pytest.mark.parametrize("suffix", [".tif", ".png", ".zarr"])
def test_a_folder_that_may_not_be_written(
    place: Path, closed_folder: Path, tiny_model: str, capsys, suffix: str
) -> None:
    out = closed_folder / f"l{suffix}"
    assert main(["segment", "good.tif", str(out), "--model", tiny_model]) == 2
    line = line_of(capsys)
    assert f"{out} cannot be written: " in line
    assert line.endswith("; choose another place.")
    assert not list(closed_folder.iterdir())


@pytest.mark.parametrize("suffix", [".tif", ".png", ".zarr"])
def test_a_full_disk_by_injection(
    place: Path, tiny_model: str, capsys, monkeypatch, suffix: str
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert main(["segment", "good.tif", f"out/l{suffix}", "--model", tiny_model]) == 2
    assert f"out/l{suffix} cannot be written: No space left on device" in line_of(capsys)
    assert not list(Path("out").iterdir())


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own without a byte left."""
    with mounted(tmp_path / "disk", "size=64k") as folder:
        with contextlib.suppress(OSError), open(folder / "other", "wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        yield folder


@pytest.mark.parametrize("suffix", [".tif", ".png", ".zarr"])
def test_a_full_disk(place: Path, full_disk: Path, tiny_model: str, capsys, suffix: str) -> None:
    out = full_disk / f"l{suffix}"
    assert main(["segment", "good.tif", str(out), "--model", tiny_model]) == 2
    line = line_of(capsys)
    assert f"{out} cannot be written: No space left on device" in line
    assert [path.name for path in full_disk.iterdir()] == ["other"]


def test_a_full_disk_in_a_batch_fails_each_image(
    place: Path, full_disk: Path, tiny_model: str, capsys
) -> None:
    Path("two").mkdir()
    for name in ("a.tif", "b.tif"):
        shutil.copy("good.tif", Path("two", name))
    assert main(["segment", "two", str(full_disk), "--model", tiny_model]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("No space left on device" in line for line in lines)
    assert [path.name for path in full_disk.iterdir()] == ["other"]


BAD_COMMANDS = [
    (["sing"], "invalid choice: 'sing'"),
    ([], "COMMAND"),
    (["models"], "ACTION"),
    (["models", "show", "cells"], "no model 'cells'"),
    (["models", "remove", "cells"], "no model 'cells'"),
    (["models", "import", "none.zip"], "none.zip"),
    (["models", "import", "good.tif"], "good.tif"),
    (["models", "export", "tiny", "out/tiny.tar"], "let it end in .zip"),
    (["models", "export", "tiny", "nowhere/tiny.zip"], "nowhere/tiny.zip cannot be written"),
    (["demo", "--headless", "--out", "file"], "file cannot be made"),
    (["models", "trust", "tiny"], "'tiny' holds no program; it runs without trust"),
    (
        ["segment", "good.tif", "out/l.zarr", "--scheduler", "tcp://a:1", "--device", "cpu"],
        "--device is 'cpu', and the workers",
    ),
    (["convert", ".", "out/c", "--to", "ctc"], "is of one time series"),
    (["evaluate", ".", ".", "--predicted", "q*"], ". holds no labels like 'q*'"),
    (["serve", "--port", "99999"], "--port is 99999; give one from 1 to 65535"),
    (["evaluate", "missing.tif", "good.tif"], "missing.tif does not exist"),
    (["evaluate", "text.tif", "good.tif"], "text.tif cannot be read"),
    (["evaluate", "nothing", "texts"], "nothing holds no image"),
]


@pytest.mark.parametrize(
    ("command", "said"), BAD_COMMANDS, ids=[" ".join(c) for c, _ in BAD_COMMANDS]
)
def test_commands(place: Path, tiny_model: str, capsys, command: list[str], said: str) -> None:
    before = stay(place)
    if command[:1] == ["demo"]:
        command = [*command, "--model", tiny_model]
    assert main(command) == 2
    assert said in line_of(capsys)
    assert stay(place) == before


def test_scores_that_cannot_be_written(place: Path, capsys) -> None:
    assert main(["evaluate", "good.tif", "good.tif", "--csv", "nowhere/scores.csv"]) == 2
    text = capsys.readouterr()
    assert "nowhere/scores.csv cannot be written: nowhere is no folder; make it first." in text.err
    assert text.out == "", "said before the work, not after it"
    with pytest.raises(OutputError, match="has the name of an image"):
        write_text(place / "good.tif", "a table")
    assert main(["bench", "--json", "nowhere/figures.json"]) == 2
    assert "nowhere/figures.json cannot be written" in capsys.readouterr().err


def test_no_traceback_in_a_real_process(place: Path) -> None:
    command = [sys.executable, "-m", "napari_unet", "segment", "text.tif", "out/labels.tif"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("napari-unet: error: text.tif cannot be read as TIF")
    assert len(run.stderr.splitlines()) == 1
