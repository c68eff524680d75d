"""A folder with damaged and hostile files: all good ones are done, each bad one gets a line."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from zarr.codecs import BloscCodec

from napari_unet.batch.file_job import plan_files
from napari_unet.batch.run import DONE, FAILED, batch_steps
from napari_unet.cli import main
from napari_unet.core.io.stack import Stack
from napari_unet.core.settings.tasks import PredictSettings

if TYPE_CHECKING:
    from pathlib import Path

GOOD = ("a.tif", "b.png", "c.zarr", "d.npy", "e.ome.tif")


def write_good(folder: Path, name: str, seed: int = 0) -> Path:
    """Write a small image of the kind that the name says."""
    values = np.random.default_rng(seed).integers(0, 60000, (40, 36), "u2")
    path = folder / name
    if path.suffix == ".tif":
        compression = "zlib" if seed % 2 else None
        tifffile.imwrite(path, values, compression=compression)
    elif path.suffix == ".png":
        Image.fromarray(values).save(path)
    elif path.suffix == ".jpg":
        Image.fromarray((values >> 8).astype("u1")).save(path)
    elif path.suffix == ".npy":
        np.save(path, values)
    else:
        codec = BloscCodec(cname="zstd")
        zarr.create_array(str(path), data=values, chunks=(20, 18), compressors=codec)
    return path


def write_bad(folder: Path) -> list[str]:
    """Write files that end a run which is not on its guard; return their names."""
    page_loop = b"II*\0" + struct.pack("<I", 8)
    page_loop += b"".join(struct.pack("<HI", 0, 8 + 6 * (n + 1)) for n in range(170))
    (folder / "loop.tif").write_bytes(page_loop + struct.pack("<HI", 0, 8 + 6 * 150))
    strip = write_good(folder, "strip.tif", 1)
    tifffile.imwrite(strip, np.zeros((64, 64), "u1"), compression="lerc", rowsperstrip=64)
    content = bytearray(strip.read_bytes())
    with tifffile.TiffFile(strip) as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tag = file.pages[0].tags[name]
            size = "<H" if tag.dtype == 3 else "<I"
            struct.pack_into(size, content, tag.valueoffset, 60_000)
    strip.write_bytes(content)
    photo = write_good(folder, "photo.jpg")
    content = bytearray(photo.read_bytes())
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, 60_000, 60_000)
    photo.write_bytes(content)
    text = tifffile.tiffcomment
    named = folder / "planes.ome.tif"
    tifffile.imwrite(named, np.zeros((3, 40, 36), "u2"), metadata={"axes": "TYX"})
    text(named, (text(named) or "").replace('SizeT="3"', 'SizeT="1000000000"').encode())
    chunk = write_good(folder, "chunk.zarr") / "c" / "0" / "0"
    chunk.write_bytes(b"\x02\x01\x01\x02" + struct.pack("<III", 2**31 - 1, 720, 700) + bytes(40))
    (folder / "objects.npy").write_bytes(b"")
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    (folder / "scene.czi").write_bytes(b"ZISRAWFILE" + bytes(500))
    return ["loop", "strip", "photo", "planes", "chunk", "objects", "scene"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with good images and bad ones."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate(GOOD):
        write_good(tmp_path / "in", name, number)
    return tmp_path / "in"


def test_good_files_are_done_and_bad_ones_get_a_line(folder: Path, tiny_model: str, capsys) -> None:
    bad, out = write_bad(folder), folder.parent / "out"
    (folder / "notes.txt").write_text("mine")
    assert main(["segment", str(folder), str(out), "--model", tiny_model, "--no-survey"]) == 2
    said = capsys.readouterr()
    for name in bad:
        (line,) = [line for line in said.err.splitlines() if f"{name}." in line]
        assert line.startswith("napari-unet: ")
    assert "Traceback" not in said.err
    stems = {path.name.split(".")[0] for path in out.iterdir()}
    assert {name.split(".")[0] for name in GOOD} <= stems
    assert not [name for name in stems if name in set(bad) - {"chunk"}]
    assert said.out.splitlines()[-1] == "5 of 12 images segmented; 1 other file left out (.txt)"


def test_files_damaged_anywhere(folder: Path, tiny_model: str, capsys) -> None:
    chance, kinds = random.Random(0), (".tif", ".png", ".npy", ".jpg")
    for number in range(40):
        path = write_good(folder, f"m{number}{kinds[number % 4]}", number)
        content = bytearray(path.read_bytes())
        for _ in range(4):
            at = chance.randrange(min(len(content), 300))
            content[at] = chance.randrange(256)
        path.write_bytes(content[: chance.choice((len(content), len(content) // 2))])
    out = folder.parent / "out"
    assert main(["segment", str(folder), str(out), "--model", tiny_model, "--no-survey"]) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    skipped = [line for line in said.err.splitlines() if "skipped: " in line]
    done = [line for line in said.out.splitlines() if " objects, " in line or " object, " in line]
    assert len(skipped) + len(done) == 45
    assert {name.split(".")[0] for name in GOOD} <= {p.name.split(".")[0] for p in out.iterdir()}


@pytest.mark.parametrize("error", [MemoryError(), SystemError("a codec"), KeyError("a tag")])
def test_what_nobody_foresaw_is_the_file_s(
    folder: Path, tiny_model: str, capsys, monkeypatch, make_model, error
) -> None:
    original = Stack.read

    def broken(stack: Stack, *arguments):
        if stack.name == "b":
            raise error
        return original(stack, *arguments)

    monkeypatch.setattr(Stack, "read", broken)
    out = folder.parent / "out"
    assert main(["segment", str(folder), str(out), "--model", tiny_model, "--no-survey"]) == 2
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if "skipped: " in line]
    assert "b.png" in line
    assert "4 of 5 images segmented" in said.out
    jobs = plan_files(sorted(folder.glob("*.png")) + sorted(folder.glob("*.npy")), folder.parent)
    model = make_model(depth=1)
    steps = batch_steps(jobs, model.card, lambda: model, PredictSettings(survey=False))
    ends = {step.number: step.state for step in steps}
    assert ends == {0: FAILED, 1: DONE}


def test_a_folder_of_files_that_need_the_extra(tmp_path: Path, tiny_model: str, capsys) -> None:
    (tmp_path / "in").mkdir()
    write_good(tmp_path / "in", "a.tif")
    (tmp_path / "in" / "b.jp2").write_bytes(imagecodecs.jpeg2k_encode(np.zeros((40, 36), "u1")))
    (tmp_path / "in" / "c.nd2").write_bytes(b"\xda\xce\xbe\n" + bytes(100))
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--model", tiny_model]
    assert main(["segment", *arguments, "--no-survey"]) == 2
    said = capsys.readouterr()
    assert "2 of 3 images segmented" in said.out
    (line,) = [line for line in said.err.splitlines() if "c.nd2" in line]
    assert "napari-unet[formats]" in line or "cannot be read as ND2" in line
