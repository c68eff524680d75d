"""Arrays of numpy and HDF5, zipped Zarrs, groups of images, and files of microscopes."""

from __future__ import annotations

import gc
import importlib.util
import os
import pickle
import shutil
import struct
import sys
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import tifffile
import zarr
from format_samples import FORMATS, Format

from napari_unet.cli import main
from napari_unet.core.blockwise.output_location import OutputLocation
from napari_unet.core.errors import InputError
from napari_unet.core.io import hdf5_files
from napari_unet.core.io.files import image_stem, images_by_name, list_images, other_files
from napari_unet.core.io.reader_process import ApartArray
from napari_unet.core.io.stack import open_stack
from napari_unet.core.io.zarr_groups import image_group, registered_labels


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60000, shape, "u2")


def ome_image(values: np.ndarray, axes: str, folder: Path | None = None, group=None):
    """Fill a group with an OME-Zarr image (0.5) of one level, in um."""
    group = zarr.create_group(str(folder)) if group is None else group
    group.create_array("0", data=values)
    kinds = {"t": "time", "c": "channel"}
    named = [{"name": a, "type": kinds.get(a, "space")} for a in axes.lower()]
    named = [{**a, "unit": "micrometer"} if a["type"] == "space" else a for a in named]
    scale = [{"z": 2.0, "y": 0.5, "x": 0.25}.get(a, 1.0) for a in axes.lower()]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": named, "datasets": datasets}]}
    return group


# --- numpy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path: Path, order: str) -> None:
    values = np.asarray(noise(3, 16, 20), order=order)
    np.save(tmp_path / "a.npy", values)
    stack = pickle.loads(pickle.dumps(open_stack(tmp_path / "a.npy")))
    assert (stack.axes, stack.name) == ("ZYX", "a")
    np.testing.assert_array_equal(np.asarray(stack.data), values)
    window = (slice(2, 9), slice(0, 20))
    np.testing.assert_array_equal(stack.read((1,), window, (0,))[0], values[1][window])


def test_npz_asks_which_array(tmp_path: Path) -> None:
    values = noise(16, 20)
    np.savez_compressed(tmp_path / "one.npz", image=values)
    np.testing.assert_array_equal(np.asarray(open_stack(tmp_path / "one.npz").data), values)
    np.savez(tmp_path / "a.npz", image=values, mask=values > 9)
    with pytest.raises(InputError, match=r"which array to read; it holds image, mask\. Give .*:im"):
        open_stack(tmp_path / "a.npz")
    stack = open_stack(f"{tmp_path / 'a.npz'}:mask")
    assert (stack.dtype, image_stem(stack.path)) == (bool, "a mask")
    with pytest.raises(InputError, match="has no array masks"):
        open_stack(f"{tmp_path / 'a.npz'}:masks")


def test_no_pickle_is_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array({"masks": 1}, object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", np.array({"masks": 1}, object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match="holds Python objects, which are never loaded"):
            open_stack(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_numpy_files_that_claim_too_much(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "a.npy", noise(16, 20))
    content = (tmp_path / "a.npy").read_bytes()
    for shape in (b"(9999,9)", b"(99999,9", b"(-1, -1)"):
        changed = content.replace(b"(16, 20)", shape)
        assert len(changed) == len(content) and changed != content
        (tmp_path / "a.npy").write_bytes(changed)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("a.npy", changed)
        with pytest.raises(InputError):
            open_stack(tmp_path / name)


# --- HDF5 -----------------------------------------------------------------------------------------


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    values, path = noise(2, 4, 16, 20), tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("t0/raw", data=values, chunks=(1, 1, 8, 8), compression="gzip")
        data.attrs["axistags"] = (
            '{"axes": [{"key": "c"}, {"key": "z"}, {"key": "y"}, {"key": "x"}]}'
        )
        data.attrs["element_size_um"] = (2, 0.5, 0.25)
        file.create_dataset("numbers", data=np.arange(3))
    stack = pickle.loads(pickle.dumps(open_stack(path)))
    assert (stack.axes, stack.voxel_size_um) == ("CZYX", (2.0, 0.5, 0.25))
    np.testing.assert_array_equal(np.asarray(stack.data), values)
    np.testing.assert_array_equal(stack.data[1, ::-1, 3, 2:9:2], values[1, ::-1, 3, 2:9:2])
    assert np.asarray(stack.data).flags.writeable, "labels of a file can be painted"
    with h5py.File(path, "r+") as file:
        file.create_dataset("labels", data=values[0])
        file["outside"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "raw")
    with pytest.raises(InputError, match=r"it holds labels, t0/raw\. Give .*a\.h5:labels"):
        open_stack(path)
    stack = open_stack(f"{path}:/labels")
    assert stack.axes == "ZYX"
    np.testing.assert_array_equal(np.asarray(stack.data), values[0])
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match="cannot be read as H5"):
        open_stack(path)


def test_hdf5_without_an_image(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["outside"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "raw")
    with pytest.raises(InputError, match="holds no image"):
        open_stack(tmp_path / "a.h5")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("name", ["a.zip", "a.ozx", "a.tif", "a.h5"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="is no file"):
        open_stack(tmp_path / name)


def test_hdf5_is_read_in_another_process(tmp_path: Path, monkeypatch) -> None:
    """Its library goes on for ever at some damaged files, which nothing in the process can stop."""
    h5py = pytest.importorskip("h5py")
    values = noise(4, 16, 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["whole"] = values
        file.create_dataset("chunked", data=values, chunks=(1, 8, 10))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^a\.h5 has to be told .* Give a\.h5:chunked\.$"):
        open_stack("a.h5")
    for name, chunks in (("whole", None), ("chunked", (1, 8, 10))):
        array = open_stack(f"{tmp_path / 'a.h5'}:/{name}").data
        assert isinstance(array, ApartArray)
        assert array.chunks == chunks
        np.testing.assert_array_equal(array[1:3, ::-1, 4], values[1:3, ::-1, 4])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[2], values[2])


@pytest.mark.parametrize("mark", ["lock", "flag in the file"])
def test_hdf5_that_another_program_writes(tmp_path: Path, mark: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file["raw"] = noise(16, 20)
        file.flush()
        if mark != "lock":
            file.swmr_mode = True
        with pytest.raises(InputError, match=r"a\.h5 is open for writing in another program"):
            open_stack(tmp_path / "a.h5")
    assert open_stack(tmp_path / "a.h5").axes == "YX"


def test_hdf5_on_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")

    def refuse(*_: object) -> None:
        raise OSError(
            "Unable to open file (unable to lock file, errno = 95, error message = '...')"
        )

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(InputError, match=r"cannot be locked where it lies .*HDF5_USE_FILE_LOCKING"):
        hdf5_files.read(tmp_path / "a.h5")


def test_hdf5_with_a_filter_that_is_not_installed(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("raw", data=np.zeros((16, 20), "u2"), chunks=(8, 10), compression="lzf")
    lzf, unknown = (number.to_bytes(2, "little") for number in (32000, 32999))
    content = path.read_bytes()
    assert content.count(lzf) == 1
    path.write_bytes(content.replace(lzf, unknown))
    with pytest.raises(InputError, match=r"a\.h5:/raw is packed by lzf \(number 32999\), which"):
        np.asarray(open_stack(path).data)


@pytest.mark.parametrize("name", ["Blosc", "Zstd"])
def test_hdf5_with_filters_of_hdf5plugin(tmp_path: Path, name: str) -> None:
    h5py = pytest.importorskip("h5py")
    hdf5plugin = pytest.importorskip("hdf5plugin", reason="needs hdf5plugin, of 190 MB")
    values = np.arange(64 * 64, dtype="u2").reshape(64, 64) // 99
    with h5py.File(tmp_path / "a.h5", "w") as file:
        packed = getattr(hdf5plugin, name)()
        file.create_dataset("raw", data=values, chunks=(16, 64), **packed)
    np.testing.assert_array_equal(open_stack(tmp_path / "a.h5").data, values)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch) -> None:
    packages = {"a.h5": "h5py", "a.czi": "bioio_czi", "a.lif": "bioio_lif", "a.nd2": "bioio_nd2"}
    for name, package in {**packages, "a.oib": "oiffile"}.items():
        monkeypatch.setitem(sys.modules, package, None)
        (tmp_path / name).write_bytes(b"anything")
        with pytest.raises(InputError, match=r"install it: pip install 'napari-unet\[formats\]'"):
            open_stack(tmp_path / name)


# --- Zarr in archives, and groups of images -------------------------------------------------------


@pytest.mark.parametrize("name", ["a.ozx", "a.ome.zarr.zip"])
@pytest.mark.parametrize("inside", ["", "a.ome.zarr"])
def test_a_zipped_ome_zarr(tmp_path: Path, name: str, inside: str) -> None:
    values = noise(3, 16, 20)
    ome_image(values, "ZYX", tmp_path / "folder")
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for file in (tmp_path / "folder").rglob("*"):
            if file.is_file():
                archive.write(file, f"{inside}/{file.relative_to(tmp_path / 'folder')}".strip("/"))
    shutil.rmtree(tmp_path / "folder")
    stack = open_stack(tmp_path / name)
    assert (stack.axes, stack.voxel_size_um) == ("ZYX", (2.0, 0.5, 0.25))
    np.testing.assert_array_equal(np.asarray(stack.data[...]), values)
    assert list_images(tmp_path) == [tmp_path / name]
    assert image_stem(tmp_path / name) == "a"


def test_a_zipped_ome_zarr_with_a_damaged_chunk(tmp_path: Path) -> None:
    ome_image(noise(16, 20), "YX", tmp_path / "folder")
    with zipfile.ZipFile(tmp_path / "a.ozx", "w") as archive:
        archive.write(tmp_path / "folder" / "zarr.json", "zarr.json")
        archive.write(tmp_path / "folder" / "0" / "zarr.json", "0/zarr.json")
        archive.write(tmp_path / "folder" / "0" / "c" / "0" / "0", "0/c/0/0")
        start = archive.getinfo("0/c/0/0").header_offset
    content = bytearray((tmp_path / "a.ozx").read_bytes())
    content[start] = 0
    (tmp_path / "a.ozx").write_bytes(content)
    stack = open_stack(tmp_path / "a.ozx")
    with pytest.raises(InputError, match=r"cannot be read as OZX .*Bad magic number"):
        stack.read((), (slice(0, 16), slice(0, 20)), (0,))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("values", [noise(16, 20), np.full((64, 64), 7, np.uint16)])
def test_a_blosc_chunk_that_is_cut_short(tmp_path: Path, zarr_format: int, values) -> None:
    """c-blosc would decode what lies behind the chunk in the memory, or crash."""
    codec = numcodecs.Blosc() if zarr_format == 2 else zarr.codecs.BloscCodec()
    zarr.create_array(
        str(tmp_path / "a.zarr"), data=values, compressors=codec, zarr_format=zarr_format
    )
    window = tuple(slice(0, size) for size in values.shape)
    stack = open_stack(tmp_path / "a.zarr")
    np.testing.assert_array_equal(stack.read((), window, (0,))[0], values)
    sizes = {f: f.stat().st_size for f in (tmp_path / "a.zarr").rglob("*") if f.is_file()}
    (chunk,) = [file for file in sizes if file.suffix != ".json" and not file.name.startswith(".")]
    for length in (sizes[chunk] - 1, 5):
        chunk.write_bytes(chunk.read_bytes()[:length])
        with pytest.raises(InputError, match=r"a Blosc chunk of .* is cut short"):
            stack.read((), window, (0,))


def test_of_many_damaged_members_of_a_group_one_is_said(tmp_path: Path, caplog) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    for number in range(3):
        group.create_array(str(number), data=noise(16, 20))
    path = tmp_path / "a.ozx"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted((tmp_path / "a.zarr").rglob("*.json")):
            archive.write(file, file.relative_to(tmp_path / "a.zarr"))
        starts = [archive.getinfo(f"{n}/zarr.json").header_offset for n in range(3)]
    content = bytearray(path.read_bytes())
    for start in starts:
        content[start] = 0
    path.write_bytes(content)
    with pytest.raises(InputError, match="Bad magic number"):
        open_stack(path)
    gc.collect()  # when asyncio speaks of the others
    assert [record.name for record in caplog.records] == []


def test_another_archive_is_no_image(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "rois.zip", "w") as archive:
        archive.writestr("1.roi", b"Iout")
    with pytest.raises(InputError, match="is an archive without a Zarr in it"):
        open_stack(tmp_path / "rois.zip")
    (tmp_path / "a.npy").touch()
    (tmp_path / "a_seg.npy").touch()
    assert list_images(tmp_path) == [tmp_path / "a.npy"]
    assert [path.name for path in other_files(tmp_path)] == ["a_seg.npy", "rois.zip"]


@pytest.fixture
def converted(tmp_path: Path) -> list[np.ndarray]:
    """An OME-Zarr as bioformats2raw writes it, with two images."""
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    values = [noise(16, 20, seed=1), noise(18, 24, seed=2)]
    for number, value in enumerate(values):
        ome_image(value, "YX", group=group.create_group(str(number)))
    return values


def test_images_of_bioformats2raw(tmp_path: Path, converted) -> None:
    path = tmp_path / "a.zarr"
    stack = open_stack(path)
    np.testing.assert_array_equal(np.asarray(stack.data[...]), converted[0])
    assert stack.remarks == (
        "a.zarr holds 2 images; number 0, the first, is read. Choose another with --series "
        "(0 to 1).",
    )
    again = open_stack(path, series=1)
    np.testing.assert_array_equal(np.asarray(again.data[...]), converted[1])
    assert (again.series, again.remarks) == (1, ())
    with pytest.raises(InputError, match=r"has no series 2; choose 0 to 1 \(0, 1\)"):
        open_stack(path, series=2)
    assert image_group(path, 1) == path / "1"
    assert OutputLocation.resolve(None, image_group(path), "x").path == path / "0" / "labels" / "x"
    assert registered_labels(path) == []


def test_images_of_a_plate_are_named(tmp_path: Path) -> None:
    plate = zarr.create_group(str(tmp_path / "a.zarr"))
    wells = [{"path": "A/1"}, {"path": "B/2"}]
    plate.attrs["ome"] = {"version": "0.5", "plate": {"wells": wells}}
    for number, well in enumerate(wells):
        group = plate.create_group(well["path"])
        group.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}, {"path": "1"}]}}
        for field in range(2):
            ome_image(
                noise(16, 20, seed=2 * number + field), "YX", group=group.create_group(str(field))
            )
    with pytest.raises(
        InputError, match=r"plate of many images \(A/1/0, A/1/1, B/2/0 and 1 more\)"
    ):
        open_stack(tmp_path / "a.zarr")
    with pytest.raises(
        InputError, match=r"well of many images \(0, 1\); give one of them, such as"
    ):
        open_stack(tmp_path / "a.zarr" / "A" / "1")
    stack = open_stack(tmp_path / "a.zarr", series=3)
    np.testing.assert_array_equal(np.asarray(stack.data[...]), noise(16, 20, seed=3))


def test_images_of_spatialdata(tmp_path: Path) -> None:
    root = zarr.create_group(str(tmp_path / "a.zarr"))
    root.attrs["spatialdata_attrs"] = {"version": "0.2"}
    images = root.create_group("images")
    ome_image(noise(3, 16, 20), "CYX", group=images.create_group("tissue"))
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.axes == "CYX"
    ome_image(noise(16, 20), "YX", group=images.create_group("zoom"))
    with pytest.raises(InputError, match=r"many images \(images/tissue, images/zoom\)"):
        open_stack(tmp_path / "a.zarr")
    assert open_stack(tmp_path / "a.zarr" / "images" / "zoom").axes == "YX"
    assert open_stack(tmp_path / "a.zarr", series=1).axes == "YX"


def test_a_chunk_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.ones((16, 16), "u1"))
    file = tmp_path / "a.zarr" / "zarr.json"
    text = file.read_text()
    file.write_text(text.replace("16,", "90000,").replace("16\n", "90000\n"))
    with pytest.raises(InputError, match=r"claims 8\.1 GB of pixels in"):
        open_stack(tmp_path / "a.zarr")


def test_names_of_the_same_letters_are_equal(tmp_path: Path) -> None:
    folders = [tmp_path / "images", tmp_path / "labels"]
    for folder, name in zip(folders, ("e\u0301mbryon", "\u00e9mbryon"), strict=True):
        folder.mkdir()
        tifffile.imwrite(folder / f"{name}.tif", noise(8, 8))
    first, second = map(images_by_name, folders)
    assert list(first) == list(second) == ["\u00e9mbryon"]


# --- one of each ----------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[3]


def formats_script():
    spec = importlib.util.spec_from_file_location(
        "formats_table", ROOT / "scripts/formats_table.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("kind", FORMATS, ids=[kind.name for kind in FORMATS])
def test_the_table_of_formats_is_what_is_read(tmp_path: Path, kind: Format) -> None:
    script = formats_script()
    if not script.is_readable(kind):
        pytest.skip(f"needs {kind.package}: pip install -e '.[formats]'")
    row = script.table_row(kind, tmp_path)
    assert row in (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").splitlines()


def test_every_row_of_the_table_is_a_format() -> None:
    lines = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert rows == ["Format", *(kind.name for kind in FORMATS)]


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind.package], ids=lambda k: k.name)
def test_a_microscope_s_file_is_segmented(tmp_path: Path, tiny_model: str, kind: Format) -> None:
    if not formats_script().is_readable(kind):
        pytest.skip(f"needs {kind.package}: pip install -e '.[formats]'")
    sample, out = kind.write(tmp_path), tmp_path / "labels.tif"
    assert main(["segment", str(sample.path), str(out), "--model", tiny_model, "--no-survey"]) == 0
    assert open_stack(out).voxel_size_um == pytest.approx(open_stack(sample.path).voxel_size_um)
    inside = sorted(tmp_path.glob("*.files/*"))  # OIF keeps its planes beside its settings
    damaged = inside[0] if inside else sample.path
    content = damaged.read_bytes()
    for share in (0.1, 0.5):
        damaged.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError):
            stack = open_stack(sample.path)
            for index in stack.indices(2):
                stack.read(index, (slice(None), slice(None)), tuple(range(stack.channels)))


@pytest.mark.parametrize(
    ("where", "value"),
    [(32, 2**31 - 1), (160 + 40, 2**31 - 1), (160 + 48, -5), (160 + 32 + 20 * 2 + 4, 2**30)],
    ids=["sub-blocks", "size of x", "stored size of x", "a channel far away"],
)
def test_a_czi_that_claims_too_much(tmp_path: Path, where: int, value: int) -> None:
    pytest.importorskip("bioio_czi")
    (kind,) = (kind for kind in FORMATS if kind.name == "Zeiss CZI")
    path = kind.write(tmp_path).path
    content = bytearray(path.read_bytes())
    struct.pack_into("<i", content, content.index(b"ZISRAWDIRECTORY") + where, value)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.czi is cut short or damaged"):
        open_stack(path)
