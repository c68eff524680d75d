"""Results appear whole or not at all, open again as they were, and carry their provenance."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from PIL import Image

from napari_unet.core.errors import InputError, OutputError, UnetError
from napari_unet.core.io import label_writer as results
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.provenance import read_provenance
from napari_unet.core.io.stack import open_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VOXEL = (2.0, 0.5, 0.25)
PROVENANCE = {"model": "nuclei", "settings": {"diameter": None, "tile": 512}, "who": "Jürgen µ"}
SHAPES = [
    ("YX", (30, 40)),
    ("YX", (1, 1)),
    ("YX", (5, 3)),
    ("YX", (3, 4)),
    ("ZYX", (3, 5, 4)),
    ("TYX", (2, 600, 530)),
    ("TZYX", (2, 3, 40, 3)),
    ("ZYX", (3, 5, 1)),
    ("TZYX", (2, 3, 4, 1)),
]
SUFFIXES = [".tif", ".tiff", ".ome.tif", ".OME.TIFF", ".zarr", ".ome.zarr"]
CASES = [(suffix, *case) for suffix in SUFFIXES for case in SHAPES]
CASES += [(".png", axes, shape) for axes, shape in SHAPES if axes == "YX"]


def labels(shape: tuple[int, ...], dtype: str = "u4") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 250, shape).astype(dtype)


def whole(path: Path) -> np.ndarray:
    stack = open_stack(path)
    return np.asarray(stack.data[(slice(None),) * stack.data.ndim])


@pytest.fixture(params=["in memory", "in a scratch file"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "in memory":
        monkeypatch.setattr(results, "IN_MEMORY", 0)
    return request.param


@pytest.mark.parametrize(("suffix", "axes", "shape"), CASES)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_a_result_opens_as_it_was_made(
    tmp_path: Path, storage: str, suffix: str, dtype: str, axes: str, shape: tuple[int, ...]
) -> None:
    path, values = tmp_path / f"cells{suffix}", labels(shape, dtype)
    if suffix == ".png" and storage != "in memory":
        return  # a PNG is never that big, see below
    with create_output(path, shape, axes, "u4", VOXEL, {}) as output:
        assert not np.asarray(output.array[...]).any()
        output.array[...] = values
        output.finish(dtype, PROVENANCE)
        assert not path.exists()
    assert os.listdir(tmp_path) == [path.name]
    stack = open_stack(path)
    assert (stack.axes, stack.name) == (axes, "cells")
    assert not stack.rgb
    depth = 2.0 if "Z" in axes else stack.voxel_size_um[0]  # type: ignore[index]
    assert stack.voxel_size_um == pytest.approx((depth, 0.5, 0.25))
    assert stack.dtype == ("u2" if suffix == ".png" and dtype != "u1" else dtype)
    np.testing.assert_array_equal(whole(path), values)
    assert read_provenance(path) == PROVENANCE


def test_windows_are_written_and_read(tmp_path: Path, storage: str) -> None:
    values = labels((2, 1300, 700))
    with create_output(tmp_path / "a.ome.tif", values.shape, "ZYX", "u4") as output:
        for top in range(0, 1300, 300):
            for left in range(0, 700, 250):
                window = (1, slice(top, top + 300), slice(left, left + 250))
                output.array[window] = values[window]
        np.testing.assert_array_equal(output.array[1, 100:900, 3:600], values[1, 100:900, 3:600])
        output.array[0] = values[0]
    np.testing.assert_array_equal(whole(tmp_path / "a.ome.tif"), values)
    assert open_stack(tmp_path / "a.ome.tif").voxel_size_um is None


def test_what_a_tif_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageJ where ImageJ can, OME-TIFF where it cannot or where the name says so."""
    table = [("a.tif", "u2", "imagej"), ("b.tif", "u4", "ome"), ("c.ome.tif", "u2", "ome")]
    for name, dtype, kind in table:
        with create_output(tmp_path / name, (3, 50, 60), "ZYX", dtype, VOXEL, PROVENANCE):
            pass
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.series[0].kind == kind
            assert not file.is_bigtiff
    monkeypatch.setattr(results, "IN_MEMORY", 0)
    with create_output(tmp_path / "big.tif", (3, 50, 60), "ZYX", "u2", VOXEL, PROVENANCE):
        pass
    with tifffile.TiffFile(tmp_path / "big.tif") as file:
        assert file.series[0].kind == "ome"
        assert file.pages.first.tile == (512, 512)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        meta = file.imagej_metadata
        assert meta is not None
        assert (meta["unit"], meta["spacing"], meta["slices"]) == ("um", 2.0, 3)
        assert json.loads(meta["Info"]) == PROVENANCE


@pytest.mark.parametrize(("axes", "shape"), [*SHAPES, ("YX", (0, 5)), ("YX", (2500, 1100))])
@pytest.mark.parametrize("voxel", [VOXEL, None])
def test_zarr_results_are_valid_ome_label_images(
    tmp_path: Path, storage: str, axes: str, shape: tuple[int, ...], voxel: object
) -> None:
    path, values = tmp_path / "nuclei.ome.zarr", labels(shape, "u2")
    with create_output(path, shape, axes, "u4", voxel, PROVENANCE) as output:  # type: ignore[arg-type]
        output.array[...] = values
        output.finish("u2")
    yaozarrs.validate_zarr_store(str(path))
    group = yaozarrs.open_group(str(path))
    ome = group.ome_metadata()
    assert isinstance(ome, yaozarrs.v05.LabelImage)
    image = ome.multiscales[0]
    assert [axis.name.upper() for axis in image.axes] == list(axes)
    units = {axis.unit for axis in image.axes if axis.type == "space"}
    assert units == ({"micrometer"} if voxel else {None})
    assert open_stack(path).voxel_size_um == (
        None if voxel is None else (2.0 if "Z" in axes else 1.0, 0.5, 0.25)
    )
    levels = [zarr.open_array(str(path / item.path), mode="r") for item in image.datasets]
    assert max(levels[-1].shape[-2:]) <= 1024
    assert len(levels) == (3 if shape == (2500, 1100) else 1)
    for number, level in enumerate(levels):
        step = 2**number
        np.testing.assert_array_equal(level[...], values[..., ::step, ::step])
        scale = image.datasets[number].coordinateTransformations[0].scale
        assert scale[-2:] == [0.5 * step, 0.25 * step] if voxel else [step, step]


def test_png_is_16_bit_and_no_more(tmp_path: Path) -> None:
    with create_output(tmp_path / "a.png", (4, 4), "YX", "u4") as output:
        output.array[0, 0] = 65535
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "I;16"
    with pytest.raises(OutputError, match=r"holds 65536.*write a \.tif or \.zarr"):
        with create_output(tmp_path / "b.png", (4, 4), "YX", "u4") as output:
            output.array[0, 0] = 65536
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_narrow_type_that_does_not_fit_is_refused(tmp_path: Path, storage: str) -> None:
    with pytest.raises(OutputError, match="holds 300, more than uint8"):
        with create_output(tmp_path / "a.tif", (40, 40), "YX", "u4") as output:
            output.array[3, 3] = 300
            output.finish("u1")
    assert os.listdir(tmp_path) == []


def test_passports_hold_what_numpy_and_pathlib_make(tmp_path: Path) -> None:
    provenance = {"n": np.int64(3), "x": np.float32(0.5), "a": np.arange(2), "path": tmp_path}
    for suffix in (".tif", ".ome.tif", ".png", ".zarr"):
        path = tmp_path / f"a{suffix}"
        with create_output(path, (4, 4), "YX", "u2", None, provenance):
            pass
        wanted = {"n": 3, "x": 0.5, "a": [0, 1], "path": str(tmp_path)}
        assert read_provenance(path) == wanted


def test_files_without_a_provenance(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), "u1"))
    tifffile.imwrite(tmp_path / "b.ome.tif", np.zeros((4, 4), "u1"))
    tifffile.imwrite(
        tmp_path / "c.tif", np.zeros((4, 4), "u1"), imagej=True, metadata={"Info": "my notes"}
    )
    Image.fromarray(np.zeros((4, 4), "u1")).save(tmp_path / "d.png")
    zarr.create_group(str(tmp_path / "e.zarr"))
    (tmp_path / "f.tif").write_text("text")
    (tmp_path / "g").mkdir()
    for name in ("a.tif", "b.ome.tif", "c.tif", "d.png", "e.zarr", "f.tif", "g", "missing.tif"):
        with pytest.raises(InputError) as caught:
            read_provenance(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)


# --- what cannot be written ---------------------------------------------------------------------


def refused(path: Path, shape: tuple[int, ...] = (4, 4), **options: bool) -> str:
    with pytest.raises(OutputError) as caught:
        with create_output(path, shape, "TZYX"[-len(shape) :], "u2", **options):
            pytest.fail("the block must not run")
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert message.endswith(".")
    return message


def test_targets_that_are_refused_before_the_work_starts(tmp_path: Path, monkeypatch) -> None:
    file, folder = tmp_path / "old.tif", tmp_path / "folder.zarr"
    file.write_text("old")
    folder.mkdir()
    folder.joinpath("thesis.doc").touch()
    assert "end it with one of: .tif, .tiff, .png, .zarr" in refused(tmp_path / "a.jpg")
    assert "end it with" in refused(tmp_path / "a")
    assert "exists already" in refused(file)
    assert "exists already" in refused(folder)
    assert "is a folder" in refused(folder, overwrite=True)
    assert "is no folder" in refused(file / "a.tif")
    assert "create it first" in refused(tmp_path / "missing" / "a.tif")
    assert "only one plane" in refused(tmp_path / "a.png", (2, 4, 4))
    assert "empty image" in refused(tmp_path / "a.tif", (0, 4))
    assert "cannot be written" in refused(tmp_path / ("long" * 100 + ".tif"))
    tmp_path.joinpath("folder.tif").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.tif", overwrite=True)
    monkeypatch.setattr(results, "IN_MEMORY", 0)
    assert "4 x 4 px" in refused(tmp_path / "a.png")
    assert file.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["folder.tif", "folder.zarr", "old.tif"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch, code: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert os.strerror(code) in refused(tmp_path / "a.tif")


@pytest.mark.skipif(
    sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root may write everywhere",
)
def test_a_folder_that_really_may_not_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    assert "Permission denied" in refused(folder / "a.tif")


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".png", ".zarr"])
def test_overwriting(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for value in (1, 2):
        with create_output(path, (6, 6), "YX", "u2", overwrite=value == 2) as output:
            output.array[...] = value
    assert (whole(path) == 2).all()
    with pytest.raises(RuntimeError, match="half way"):
        with create_output(path, (6, 6), "YX", "u2", overwrite=True) as output:
            output.array[...] = 3
            raise RuntimeError("half way")
    assert (whole(path) == 2).all(), "the old result survives a failure"
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    for suffix in (".tif", ".zarr"):
        path = tmp_path / f"a{suffix}"
        with pytest.raises(OutputError, match="appeared meanwhile"):
            with create_output(path, (6, 6), "YX", "u2"):
                path.write_text("mine")
        assert path.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "a.zarr"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit, SystemExit])
@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_a_crash_half_way_leaves_nothing(
    tmp_path: Path, storage: str, error: type[BaseException], suffix: str
) -> None:
    with pytest.raises(error), create_output(tmp_path / f"a{suffix}", (9, 9), "YX", "u4") as output:
        output.array[:4] = 1
        raise error
    assert os.listdir(tmp_path) == []


def test_closing_a_generator_leaves_nothing(tmp_path: Path, storage: str) -> None:
    def work() -> Iterator[int]:
        with create_output(tmp_path / "a.tif", (9, 9), "YX", "u4") as output:
            for row in range(9):
                output.array[row] = row
                yield row

    steps = work()
    next(steps)
    assert len(os.listdir(tmp_path)) == 1
    steps.close()
    assert os.listdir(tmp_path) == []


def test_ctrl_c_while_the_file_is_written_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    for suffix in (".tif", ".png", ".zarr"):
        with pytest.raises(KeyboardInterrupt):
            with create_output(tmp_path / f"a{suffix}", (9, 9), "YX", "u4"):
                pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".png", ".zarr"])
def test_disk_full_at_the_end(tmp_path: Path, monkeypatch, suffix: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        with create_output(tmp_path / f"a{suffix}", (9, 9), "YX", "u4"):
            pass
    assert os.listdir(tmp_path) == []


def test_disk_full_while_the_scratch_is_filled(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(OutputError, match="free some space"):
        with create_output(tmp_path / "a.tif", (9, 9), "YX", "u4"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(FileNotFoundError):
        with create_output(tmp_path / "a.tif", (9, 9), "YX", "u4"):
            raise FileNotFoundError(errno.ENOENT, "some other file")
    assert os.listdir(tmp_path) == []


def test_disk_full_while_chunks_are_still_being_written(tmp_path: Path, monkeypatch) -> None:
    """Zarr writes chunks in threads: those beside the one that failed go on for a while."""
    rmdir = os.rmdir
    work: list[Path] = []

    def a_chunk_comes_late(*where: object, **how: object) -> None:
        if work:
            work.pop().joinpath("chunk").touch()
        rmdir(*where, **how)

    monkeypatch.setattr(os, "rmdir", a_chunk_comes_late)
    with pytest.raises(OutputError, match="free some space"):
        with create_output(tmp_path / "a.tif", (9, 9), "YX", "u4"):
            work.extend(tmp_path.iterdir())
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not work and os.listdir(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a tiny file system takes root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".png", ".zarr"])
def test_a_disk_that_is_really_full(tiny_disk: Path, storage: str, suffix: str, capfd) -> None:
    if suffix == ".png" and storage != "in memory":
        return  # a PNG is never that big
    noise = np.random.default_rng(0).integers(0, 2**16, (1024, 1024)).astype("u4")
    tiny_disk.joinpath("old.txt").write_text("old")
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        with create_output(tiny_disk / f"a{suffix}", noise.shape, "YX", "u4") as output:
            output.array[...] = noise
    assert os.listdir(tiny_disk) == ["old.txt"]
    with create_output(tiny_disk / f"a{suffix}", (9, 9), "YX", "u4"):
        pass
    assert capfd.readouterr() == ("", "")


def test_big_results_are_never_whole_in_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(results, "IN_MEMORY", 2**20)
    shape = (2, 2600, 2600)  # 54 MB
    tile = np.arange(512 * 512, dtype="u4").reshape(512, 512)
    for suffix in (".tif", ".zarr"):
        tracemalloc.start()
        with create_output(tmp_path / f"a{suffix}", shape, "ZYX", "u4", VOXEL) as output:
            output.array[1, 1024:1536, 2048:2560] = tile
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40e6
        stack = open_stack(tmp_path / f"a{suffix}")
        got = stack.read((1,), (slice(1024, 1536), slice(2048, 2560)), (0,))
        np.testing.assert_array_equal(got[0], tile)


def test_every_error_is_the_users_to_solve() -> None:
    assert issubclass(OutputError, UnetError)
    with suppress(OutputError), create_output("nowhere/at/all.tif", (2, 2), "YX", "u1"):
        pytest.fail("the folder does not exist")
