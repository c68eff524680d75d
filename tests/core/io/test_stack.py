"""Every kind of image becomes a Stack that gives the same values, axes and voxel size."""

from __future__ import annotations

import itertools
import json
import pickle
import tracemalloc
from pathlib import Path

import dask.array
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_unet.core.errors import InputError
from napari_unet.core.io import lazy_arrays as chunks
from napari_unet.core.io.coordinate_transform import to_um
from napari_unet.core.io.files import list_images
from napari_unet.core.io.readers import read_file
from napari_unet.core.io.stack import Stack, open_stack

DTYPES = "bool u1 i1 u2 >u2 i2 u4 i4 u8 i8 f2 f4 >f4 f8".split()
SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
ORDERS = "YX XY ZYX YXC CYX ZCYX CZYX TZYX YXZ TZCYX CTZYX XYZCT".split()


def image(axes: str, dtype: str = "u2") -> np.ndarray:
    shape = [SIZES[letter] for letter in axes]
    values = np.arange(np.prod(shape)).reshape(shape)
    return (values % 2 if dtype == "bool" else values % 120).astype(dtype)


def everything(stack: Stack) -> np.ndarray:
    """The whole stack as T, Z, C, Y, X, read plane by plane."""
    window = (slice(None), slice(None))
    channels = tuple(range(stack.channels))
    planes = [stack.read(index, window, channels) for index in stack.indices(2)]
    counts = [n for n, a in zip(stack.labels_shape, stack.labels_axes, strict=True) if a in "TZ"]
    return np.array(planes).reshape(*counts, *planes[0].shape)


def expected(values: np.ndarray, axes: str) -> np.ndarray:
    moved = values.transpose([axes.index(a) for a in "TZCYX" if a in axes])
    return moved if "C" in axes else np.expand_dims(moved, -3)


@pytest.mark.parametrize("axes", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_type_and_any_order(axes: str, dtype: str) -> None:
    values = image(axes, dtype)
    stack = open_stack(values, axes)
    assert stack.labels_axes == "".join(a for a in "TZYX" if a in axes)
    assert stack.labels_shape == tuple(SIZES[a] for a in stack.labels_axes)
    assert stack.channels == (3 if "C" in axes else 1)
    assert not stack.rgb
    got = everything(stack)
    assert got.dtype == values.dtype.newbyteorder("=") == stack.dtype
    np.testing.assert_array_equal(got, expected(values, axes))


@pytest.mark.parametrize("axes", ORDERS)
def test_volumes_have_a_z_axis_always(axes: str) -> None:
    values = image(axes)
    stack = open_stack(values, axes)
    depth = SIZES["Z"] if "Z" in axes else 1
    assert stack.frame_shape(3) == (depth, 5, 6)
    assert stack.frame_shape(2) == (5, 6)
    assert stack.indices(3) == ([(0,), (1,)] if "T" in axes else [()])
    volume = stack.read(stack.indices(3)[-1], (slice(0, depth), slice(1, 4), slice(2, 6)), (0, 0))
    whole = everything(stack)
    whole = whole[-1] if "T" in axes else whole
    whole = whole if "Z" in axes else whole[None]
    assert volume.shape == (2, depth, 3, 4)
    np.testing.assert_array_equal(volume[0], whole[:, 0, 1:4, 2:6])
    np.testing.assert_array_equal(volume[1], volume[0])


@pytest.mark.parametrize("axes", ["YXC", "CYX", "ZCYX", "YX"])
def test_channels_come_in_the_order_asked_for(axes: str) -> None:
    stack = open_stack(image(axes), axes)
    whole = everything(stack).reshape(-1, stack.channels, 5, 6)[0]
    for count in (1, 2, 3):
        for channels in itertools.product(range(stack.channels), repeat=count):
            window = (slice(1, 5), slice(0, 2))
            got = stack.read(stack.indices(2)[0], window, channels)
            np.testing.assert_array_equal(got, whole[list(channels)][:, 1:5, 0:2])


def test_an_empty_window_or_image_is_an_empty_answer(tmp_path: Path) -> None:
    stack = open_stack(np.zeros((0, 7), np.float32))
    assert stack.labels_shape == (0, 7)
    assert stack.read((), (slice(0, 0), slice(0, 7)), (0,)).shape == (1, 0, 7)
    assert open_stack(image("YX")).read((), (slice(2, 2), slice(0, 3)), (0, 0)).shape == (2, 0, 3)
    assert open_stack(np.zeros((0, 5, 5), np.uint8)).indices(2) == []


DEFAULTS = [
    ((5, 6), "u1", "YX", False),
    ((5, 3), "u1", "YX", False),
    ((5, 6, 3), "u1", "YXC", True),
    ((5, 6, 4), "u1", "YXC", True),
    ((5, 6, 3), "u2", "ZYX", False),
    ((3, 5, 6), "u1", "ZYX", False),
    ((2, 5, 6, 3), "u1", "ZYXC", True),
    ((2, 4, 5, 6), "u1", "TZYX", False),
    ((2, 4, 5, 3), "f4", "TZYX", False),
    ((2, 4, 3, 5, 6), "u2", "TZCYX", False),
]


@pytest.mark.parametrize(("shape", "dtype", "axes", "rgb"), DEFAULTS)
def test_axes_of_bare_arrays(shape: tuple[int, ...], dtype: str, axes: str, rgb: bool) -> None:
    stack = open_stack(np.zeros(shape, dtype))
    assert (stack.axes, stack.rgb) == (axes, rgb)
    assert stack.voxel_size_um is None


def test_arrays_of_every_make(tmp_path: Path) -> None:
    values = image("TZCYX")
    stored = zarr.create_array(str(tmp_path / "a.zarr"), data=values, chunks=(1, 1, 1, 4, 4))
    for source in (values, dask.array.from_array(values, chunks=2), stored):
        stack = open_stack(source)
        np.testing.assert_array_equal(everything(stack), values)
        window = (slice(1, 3), slice(0, 5), slice(2, 6))
        got = stack.read((1,), window, (2, 0))
        np.testing.assert_array_equal(got, values[1, 1:3][:, [2, 0]].swapaxes(0, 1)[..., 2:6])
    assert open_stack(stack) is stack


def test_a_chunk_is_computed_once_for_all_its_windows(tmp_path: Path) -> None:
    values, computed = np.arange(2 * 99 * 80, dtype="u2").reshape(2, 99, 80), []

    def compute(block: np.ndarray) -> np.ndarray:
        computed.append(block.shape)
        return block

    lazy = dask.array.from_array(values, chunks=((1, 1), (60, 39), (80,)))
    stack = open_stack(lazy.map_blocks(compute, meta=np.zeros((0, 0, 0), "u2")))
    for left in range(0, 80, 20):
        window = (slice(50, 70), slice(left, left + 20))
        np.testing.assert_array_equal(stack.read((1,), window, (0,))[0], values[1][window])
    assert computed == [(1, 60, 80), (1, 39, 80)]
    np.testing.assert_array_equal(stack.data[:, ::7, 3], values[:, ::7, 3])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(open_stack(lazy))).data[1], values[1])
    whole = zarr.create_array(
        str(tmp_path / "a.zarr"), data=np.zeros((1500, 1500)), chunks=(1500,) * 2
    )
    assert type(open_stack(whole).data).__name__ == "ChunkCache"
    with pytest.raises(InputError, match="unknown shape"):
        open_stack(lazy[lazy > 3])


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CACHE_BYTES", 4000)
    values = np.arange(50 * 50, dtype="u2").reshape(50, 50)
    stack = open_stack(dask.array.from_array(values, chunks=(10, 50)))
    np.testing.assert_array_equal(everything(stack)[0], values)
    assert sorted(stack.data._kept) == [(1, 0), (2, 0), (3, 0), (4, 0)]


PICKS = [
    ("YXS", 3, None, (0, 1, 2)),
    ("YXS", 1, None, (0,)),
    ("YXS", 2, None, (0, 0)),
    ("YXS", 3, 1, (1, 1, 1)),
    ("CYX", 3, None, (0, 1, 2)),
    ("CYX", 2, None, (0, 0)),
    ("CYX", 1, 2, (2,)),
    ("YX", 3, None, (0, 0, 0)),
    ("YX", 1, 0, (0,)),
]


@pytest.mark.parametrize(("axes", "wanted", "channel", "picked"), PICKS)
def test_channels_for_a_model(
    axes: str, wanted: int, channel: int | None, picked: tuple[int, ...]
) -> None:
    values = image(axes.replace("S", "C"), "u1")
    assert open_stack(values, axes).pick_channels(wanted, channel) == picked


def test_alpha_is_left_out() -> None:
    stack = open_stack(np.zeros((5, 6, 4), np.uint8))
    assert stack.pick_channels(3) == (0, 1, 2)


@pytest.mark.parametrize("channel", [3, -1, 100])
def test_channel_out_of_range(channel: int) -> None:
    with pytest.raises(InputError, match="choose 0 to 2"):
        open_stack(image("CYX"), "CYX").pick_channels(1, channel)
    with pytest.raises(InputError, match="choose only 0"):
        open_stack(image("YX")).pick_channels(1, channel)


VOXELS = [(2.0, (2.0, 2.0, 2.0)), ((0.5, 0.25), (1.0, 0.5, 0.25)), ((3, 2, 1), (3.0, 2.0, 1.0))]


@pytest.mark.parametrize(("given", "voxel"), VOXELS)
def test_voxel_size_given(given: object, voxel: tuple[float, ...]) -> None:
    assert open_stack(image("ZYX"), voxel_size_um=given).voxel_size_um == voxel  # type: ignore[arg-type]


BAD_ARRAYS = [
    (np.zeros((4, 5), complex), {}, "complex128"),
    (np.zeros((4, 5), "U3"), {}, "<U3"),
    (np.zeros((4, 5), object), {}, "object"),
    (np.zeros((4, 5), "datetime64[s]"), {}, "datetime64"),
    (np.zeros(5), {}, "1 axes"),
    (np.zeros((2,) * 6), {}, "6 axes"),
    (np.float64(3), {}, "0 axes"),
    ([[1, 2], [3, 4]], {}, "A list is no image"),
    (None, {}, "NoneType"),
    (image("ZYX"), {"axes": "YX"}, "has 3 axes"),
    (image("ZYX"), {"axes": "TZYX"}, "has 3 axes"),
    (image("ZYX"), {"axes": "ZQX"}, "Q is unknown"),
    (image("ZYX"), {"axes": "YYX"}, "named twice"),
    (image("ZYX"), {"axes": "ZCT"}, "Y or X is missing"),
    (image("ZCYX"), {"axes": "CSYX"}, "named twice"),
    (image("YX"), {"axes": ""}, "missing"),
    (image("YX"), {"voxel_size_um": (1, 2, 3, 4)}, "voxel_size_um is"),
    (image("YX"), {"voxel_size_um": (1, 0, 1)}, "voxel_size_um is"),
    (image("YX"), {"voxel_size_um": (1, float("nan"), 1)}, "voxel_size_um is"),
    (image("YX"), {"voxel_size_um": "small"}, "voxel_size_um is"),
]


@pytest.mark.parametrize(("source", "options", "says"), BAD_ARRAYS)
def test_arrays_that_cannot_be_used(source: object, options: dict, says: str) -> None:
    with pytest.raises(InputError) as caught:
        open_stack(source, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# --- TIFF ---------------------------------------------------------------------------------------

OME_SIZES = {"PhysicalSizeZ": 2.0, "PhysicalSizeY": 300.0, "PhysicalSizeX": 250.0}
OME_UNITS = {
    "PhysicalSizeZUnit": "µm",
    "PhysicalSizeYUnit": "nm",
    "PhysicalSizeXUnit": "nm",
}
OME_VOXEL = (2.0, 0.3, 0.25)
GREY = {"photometric": "minisblack"}


@pytest.mark.parametrize("storage", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
@pytest.mark.parametrize("axes", ["YX", "ZYX", "CYX", "TZCYX", "ZCYX", "TCZYX"])
@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "f4", "i2"])
def test_ome_tiff(tmp_path: Path, axes: str, dtype: str, storage: dict) -> None:
    values = image(axes, dtype)
    order = ">" if dtype.startswith(">") else "<"
    metadata = {"axes": axes, **OME_SIZES, **OME_UNITS}
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, values, metadata=metadata, byteorder=order, **storage, **GREY)
    stack = open_stack(path)
    assert stack.axes == axes
    assert stack.voxel_size_um == pytest.approx(OME_VOXEL)
    assert (stack.name, stack.path) == ("cells", path)
    np.testing.assert_array_equal(everything(stack), expected(values, axes))
    np.testing.assert_array_equal(np.asarray(stack.data), values)


@pytest.mark.parametrize("unit", ["um", "micron", "µm", "\\u00B5m", "nm", "mm", "pixel", ""])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_imagej_tiff(tmp_path: Path, unit: str, compression: str | None) -> None:
    values = image("TZCYX")
    path = tmp_path / "cells.tif"
    metadata = {"axes": "TZCYX", "spacing": 2.0, "unit": unit.encode("ascii", "replace").decode()}
    if unit == "µm":  # ImageJ itself writes the escape; others write Latin-1
        metadata["unit"] = "\\u00B5m"
    tifffile.imwrite(
        path, values, imagej=True, metadata=metadata, resolution=(4, 5), compression=compression
    )
    stack = open_stack(path)
    factor = {"nm": 1e-3, "mm": 1e3, "pixel": None, "": None}.get(unit, 1.0)
    assert stack.axes == "TZCYX"
    if factor is None:
        assert stack.voxel_size_um is None
    else:
        assert stack.voxel_size_um == pytest.approx((2 * factor, 0.2 * factor, 0.25 * factor))
    np.testing.assert_array_equal(everything(stack), values)


PLAIN = [
    ((5, 6), {}, "YX", None),
    ((4, 5, 6), GREY, "ZYX", None),
    ((4, 5, 6), {**GREY, "metadata": None}, "ZYX", None),
    ((4, 5, 6), {**GREY, "compression": "lzw"}, "ZYX", None),
    ((2, 4, 5, 6), GREY, "TZYX", None),
    ((5, 6), {"resolution": (72, 72), "resolutionunit": 2}, "YX", None),
    ((5, 6), {"resolution": (118, 118), "resolutionunit": 3}, "YX", None),
    ((5, 6), {"resolution": (40000, 20000), "resolutionunit": 3}, "YX", (1.0, 0.5, 0.25)),
    ((5, 6), {"resolution": (254000, 254000), "resolutionunit": 2}, "YX", (1.0, 0.1, 0.1)),
    ((5, 6), {"resolution": (2, 2), "resolutionunit": 1}, "YX", None),
]


@pytest.mark.parametrize(("shape", "options", "axes", "voxel"), PLAIN)
def test_plain_tiff(
    tmp_path: Path, shape: tuple[int, ...], options: dict, axes: str, voxel: object
) -> None:
    values = np.arange(np.prod(shape), dtype="u2").reshape(shape)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, **options)
    stack = open_stack(path)
    assert stack.axes == axes
    assert stack.voxel_size_um == (None if voxel is None else pytest.approx(voxel))
    np.testing.assert_array_equal(everything(stack), expected(values, axes))


def test_axes_given_override_the_file(tmp_path: Path) -> None:
    values = image("ZYX")
    tifffile.imwrite(tmp_path / "a.tif", values, **GREY)
    stack = open_stack(tmp_path / "a.tif", axes="tyx", voxel_size_um=(1, 2, 3))
    assert (stack.axes, stack.voxel_size_um) == ("TYX", (1.0, 2.0, 3.0))
    with pytest.raises(InputError, match="do not fit"):
        open_stack(tmp_path / "a.tif", axes="TZYX")


@pytest.mark.parametrize(
    ("axes", "size"),
    [
        ("ZYX", (4, 0.5, 0.25)),
        ("ZXY", (4, 0.25, 0.5)),
        ("XYZ", (0.25, 0.5, 4)),
        (None, (4, 0.5, 0.25)),
    ],
)
def test_a_size_belongs_to_its_axis_whatever_that_is_called(tmp_path: Path, axes, size) -> None:
    metadata = {"axes": "ZYX", "unit": "um", "spacing": 4.0}
    values = np.zeros((2, 6, 5), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, resolution=(4, 2), metadata=metadata)
    assert open_stack(tmp_path / "a.tif", axes).voxel_size_um == pytest.approx(size)


def test_each_image_of_a_tiff_has_a_voxel_size_of_its_own(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for edge, size_um in ((40, 0.5), (30, 2.0)):
            how = {"resolution": (1e4 / size_um, 1e4 / size_um), "resolutionunit": "CENTIMETER"}
            file.write(np.zeros((edge, edge), np.uint8), metadata=None, **how)
    sizes = [open_stack(tmp_path / "a.tif", series=n).voxel_size_um for n in (0, 1)]
    assert sizes == [pytest.approx((1, 0.5, 0.5)), pytest.approx((1, 2, 2))]


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_rgb_tiff(tmp_path: Path, samples: int, planar: str, dtype: str) -> None:
    axes = "YXC" if planar == "contig" else "CYX"
    shape = [{"C": samples, "Y": 5, "X": 7}[a] for a in axes]
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    path = tmp_path / "a.tif"
    alpha = {"extrasamples": ["unassalpha"]} if samples == 4 else {}
    tifffile.imwrite(path, values, photometric="rgb", planarconfig=planar, **alpha)
    stack = open_stack(path)
    assert (stack.axes, stack.rgb, stack.channels) == (axes, True, samples)
    np.testing.assert_array_equal(everything(stack), expected(values, axes))
    assert open_stack(path, axes=axes).rgb, "C in the place of the file's samples is still RGB"


def test_pages_that_do_not_lie_in_a_row_are_mapped_one_by_one(tmp_path: Path) -> None:
    values = image("ZYX")
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in values:
            writer.write(plane, metadata=None, contiguous=False)
    stack = open_stack(path)
    assert type(stack.data).__name__ == "MappedPages"
    np.testing.assert_array_equal(everything(stack), values[:, None])
    np.testing.assert_array_equal(stack.data[::2, 1, -3:], values[::2, 1, -3:])
    np.testing.assert_array_equal(stack.data[3], values[3])
    np.testing.assert_array_equal(stack.data[::-1, 4:1:-1, ::-2], values[::-1, 4:1:-1, ::-2])


def test_a_bilevel_tiff_is_bool(tmp_path: Path) -> None:
    values = image("YX", "bool")
    Image.fromarray(values).save(tmp_path / "a.tif")
    stack = open_stack(tmp_path / "a.tif")
    assert stack.dtype == bool
    np.testing.assert_array_equal(everything(stack)[0], values)


def test_the_largest_series_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((4, 4), "u1"), metadata=None)
        writer.write(np.full((9, 8), 7, "u2"), metadata=None)
    stack = open_stack(path)
    assert (stack.labels_shape, stack.dtype) == ((9, 8), np.uint16)
    assert everything(stack).min() == 7


def test_pyramids_open_at_full_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    values = np.arange(64 * 48, dtype="u2").reshape(64, 48)
    with tifffile.TiffWriter(path) as writer:
        writer.write(values, subifds=1, tile=(16, 16), metadata={"axes": "YX"})
        writer.write(values[::2, ::2], subfiletype=1, tile=(16, 16))
    np.testing.assert_array_equal(everything(open_stack(path))[0], values)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}])
def test_a_stack_goes_to_another_process(tmp_path: Path, options: dict) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image("ZYX"), **options, **GREY)
    stack = open_stack(tmp_path / "a.tif")
    again = pickle.loads(pickle.dumps(stack))
    np.testing.assert_array_equal(everything(again), everything(stack))


def test_a_window_of_a_huge_file_costs_a_window_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, shape=(40_000, 40_000), dtype="u2")  # sparse: 3.2 GB, 0 on the disk
    tracemalloc.start()
    stack = open_stack(path)
    got = stack.read((), (slice(39_000, 40_000), slice(20_000, 21_000)), (0,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.shape == (1, 1000, 1000)
    assert peak < 8e6


def test_nothing_stays_mapped(tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("the list of mapped files is Linux's")
    tifffile.imwrite(tmp_path / "mapped.tif", image("ZYX"), **GREY)
    stack = open_stack(tmp_path / "mapped.tif")
    window = stack.read((1,), (slice(None), slice(None)), (0,))
    assert window.any()
    assert "mapped.tif" not in maps.read_text()


def test_strips_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(256 * 256, dtype="u2").reshape(256, 256)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="zlib", rowsperstrip=16)
    stack = open_stack(tmp_path / "a.tif")
    decoded = []
    original = tifffile.TiffPage.decode.func  # type: ignore[attr-defined]

    def counting(page: tifffile.TiffPage):
        decode = original(page)

        def count(*args, **options):
            decoded.append(args[1])
            return decode(*args, **options)

        return count

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(counting))
    for left in range(0, 256, 64):
        got = stack.read((), (slice(32, 96), slice(left, left + 64)), (0,))
        np.testing.assert_array_equal(got[0], values[32:96, left : left + 64])
    assert sorted(decoded) == [2, 3, 4, 5]


# --- PNG and JPEG -------------------------------------------------------------------------------


def test_png_and_jpeg(tmp_path: Path) -> None:
    grey, colour = image("YX", "u1"), np.arange(90, dtype="u1").reshape(5, 6, 3)
    table = [
        ("L", grey, grey, False),
        ("16", image("YX") * 500, image("YX") * 500, False),
        ("1", grey % 2 == 1, grey % 2 == 1, False),
        ("RGB", colour, colour, True),
        ("LA", np.stack([grey, 255 - grey], -1), grey, False),
        ("RGBA", np.concatenate([colour, colour[..., :1]], -1), None, True),
    ]
    for name, values, wanted, rgb in table:
        Image.fromarray(values).save(tmp_path / f"{name}.png")
        stack = open_stack(tmp_path / f"{name}.png")
        wanted = values if wanted is None else wanted
        assert (stack.axes, stack.rgb) == (("YXC", True) if rgb else ("YX", False)), name
        np.testing.assert_array_equal(stack.data, wanted, err_msg=name)
        assert stack.dtype == wanted.dtype
    palette = Image.fromarray(colour).quantize(256)
    palette.save(tmp_path / "P.png")
    stack = open_stack(tmp_path / "P.png")
    np.testing.assert_array_equal(stack.data, np.asarray(palette.convert("RGB")))
    Image.fromarray(colour).save(tmp_path / "a.JPG", format="JPEG")
    assert open_stack(str(tmp_path / "a.JPG")).rgb
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "c.jpeg")
    assert open_stack(tmp_path / "c.jpeg").channels == 3
    (tmp_path / "a.JPG").rename(tmp_path / "really-a-jpeg.png")
    assert open_stack(tmp_path / "really-a-jpeg.png").rgb


def test_a_png_may_be_larger_than_pillow_likes(tmp_path: Path, monkeypatch) -> None:
    Image.fromarray(np.zeros((50, 50), "u1")).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_stack(tmp_path / "a.png").labels_shape == (50, 50)


# --- Zarr ---------------------------------------------------------------------------------------


def multiscale(axes: str, version: str, units: bool = True) -> dict:
    kinds = {"T": "time", "C": "channel"}
    names = []
    for letter in axes:
        names.append({"name": letter.lower(), "type": kinds.get(letter, "space")})
        if units and letter in "ZYX":
            names[-1]["unit"] = "nanometer" if letter == "X" else "micrometer"
    scale = [{"Z": 2.0, "Y": 0.5, "X": 250.0}.get(letter, 1.0) for letter in axes]
    transforms = [{"type": "scale", "scale": scale}]
    image = {
        "axes": names,
        "datasets": [{"path": "s0", "coordinateTransformations": transforms}],
        "coordinateTransformations": [{"type": "scale", "scale": [2.0] * len(axes)}],
    }
    if version == "0.5":
        return {"ome": {"version": "0.5", "multiscales": [image]}}
    return {"multiscales": [{**image, "version": version}]}


@pytest.mark.parametrize("axes", ["YX", "ZYX", "CYX", "TCZYX", "TZYX"])
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, axes: str, version: str) -> None:
    path, values = tmp_path / "cells.ome.zarr", image(axes)
    group = zarr.create_group(str(path), zarr_format=3 if version == "0.5" else 2)
    group.create_array("s0", data=values)
    group.attrs.update(multiscale(axes, version))
    stack = open_stack(path)
    assert (stack.axes, stack.name) == (axes, "cells")
    assert stack.voxel_size_um == pytest.approx((4.0 if "Z" in axes else 1.0, 1.0, 0.5))
    np.testing.assert_array_equal(everything(stack), expected(values, axes))


def test_ome_zarr_oddities(tmp_path: Path) -> None:
    values = image("TCZYX")
    nameless = zarr.create_group(str(tmp_path / "old.zarr"), zarr_format=2)
    nameless.create_array("0", data=values)
    nameless.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
    stack = open_stack(tmp_path / "old.zarr")
    assert (stack.axes, stack.voxel_size_um) == ("TCZYX", None)
    converted = zarr.create_group(str(tmp_path / "bf.zarr"), zarr_format=2)
    converted.attrs["bioformats2raw.layout"] = 3
    inner = converted.create_group("0")
    inner.create_array("s0", data=values)
    inner.attrs.update(multiscale("TCZYX", "0.4", units=False))
    stack = open_stack(tmp_path / "bf.zarr")
    assert (stack.axes, stack.voxel_size_um) == ("TCZYX", None), "a scale without a unit"
    np.testing.assert_array_equal(everything(open_stack(tmp_path / "bf.zarr" / "0")).shape[2], 3)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_zarr(tmp_path: Path, zarr_format: int) -> None:
    values = image("ZYX")
    zarr.create_array(str(tmp_path / "a.zarr"), data=values, zarr_format=zarr_format)
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.axes == "ZYX"
    np.testing.assert_array_equal(everything(stack)[:, 0], values)
    group = zarr.create_group(str(tmp_path / "g.zarr"), zarr_format=zarr_format)
    group.create_array("data", data=values)
    np.testing.assert_array_equal(everything(open_stack(tmp_path / "g.zarr"))[:, 0], values)
    group.create_array("more", data=values)
    with pytest.raises(InputError, match="holds data, more; give the path of one array"):
        open_stack(tmp_path / "g.zarr")
    assert open_stack(tmp_path / "g.zarr" / "more").name == "more"


def test_names_of_dimensions_are_axes(tmp_path: Path) -> None:
    names = ["t", "channel", "y", "x"]
    zarr.create_array(str(tmp_path / "a.zarr"), data=np.zeros((2, 3, 4, 5)), dimension_names=names)
    assert open_stack(tmp_path / "a.zarr").axes == "TCYX"


# --- what cannot be read ------------------------------------------------------------------------


def damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    """Make one of everything that goes wrong: what it is -> file, and what the error says."""
    folder.joinpath("empty folder").mkdir()
    folder.joinpath("text.tif").write_text("this is no image, just some text\n" * 20)
    folder.joinpath("text.png").write_text("this is no image")
    folder.joinpath("nothing.tif").touch()
    folder.joinpath("table.csv").write_text("a,b\n")
    folder.joinpath("noise.tif").write_bytes(np.random.default_rng(0).bytes(5000))
    folder.joinpath("header.tif").write_bytes(b"II*\0\x08\0\0\0")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), "u1")).save(
        folder / "cut.png"
    )
    folder.joinpath("cut.png").write_bytes(folder.joinpath("cut.png").read_bytes()[:3000])
    tifffile.imwrite(folder / "complex.tif", np.zeros((4, 4), complex))
    tifffile.imwrite(folder / "both.tif", np.zeros((2, 5, 6, 3), "u1"), metadata={"axes": "CYXS"})
    group = zarr.create_group(str(folder / "plate.zarr"))
    group.attrs["ome"] = {"version": "0.5", "plate": {}}
    zarr.create_group(str(folder / "empty.zarr"))
    folder.joinpath("broken.zarr").mkdir()
    folder.joinpath("broken.zarr", "zarr.json").write_text('{"zarr_format": 3, "node_t')
    folder.joinpath("lost.zarr").mkdir()
    attributes = multiscale("YX", "0.5")
    text = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    folder.joinpath("lost.zarr", "zarr.json").write_text(json.dumps(text))
    return {
        "missing": (folder / "missing.tif", "does not exist"),
        "folder": (folder / "empty folder", "folder without a Zarr"),
        "text as TIFF": (folder / "text.tif", "cannot be read as TIF"),
        "text as PNG": (folder / "text.png", "cannot be read as PNG"),
        "no bytes": (folder / "nothing.tif", "is an empty file"),
        "unknown kind": (folder / "table.csv", "is of no known kind; give one of: .tif, .tiff"),
        "noise": (folder / "noise.tif", "cannot be read as TIF"),
        "header only": (folder / "header.tif", ""),
        "cut PNG": (folder / "cut.png", "cannot be read as PNG"),
        "complex": (folder / "complex.tif", "holds complex128"),
        "C and S": (folder / "both.tif", "axes CYXS"),
        "plate": (folder / "plate.zarr", "is a plate without an image"),
        "no array": (folder / "empty.zarr", "holds nothing"),
        "broken Zarr": (folder / "broken.zarr", "cannot be read as Zarr"),
        "Zarr without its level": (folder / "lost.zarr", "has no array 's0', which its OME"),
        "below a file": (folder / "table.csv" / "a.tif", "does not exist"),
    }


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, capfd) -> None:
    for name, (path, says) in damaged(tmp_path).items():
        with pytest.raises(InputError) as caught:
            open_stack(path)
        message = str(caught.value)
        assert says in message, name
        assert str(path) in message, name
        assert "\n" not in message, name
        assert len(message) < 300 + len(str(path)), name
        assert message.endswith("."), name
    assert capfd.readouterr() == ("", ""), "the libraries below keep quiet"


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image("YX"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tifffile.TiffFile, "__init__", refuse)
    with pytest.raises(InputError, match="may not be read by this user"):
        open_stack(tmp_path / "a.tif")


WRITERS = {
    "plain": {},
    "no metadata": {"metadata": None},
    "zlib": {"compression": "zlib"},
    "tiles": {"compression": "zlib", "tile": (32, 32)},
    "tiles without metadata": {"tile": (32, 32), "metadata": None},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "bigtiff": {"bigtiff": True},
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("pages", [1, 5])
def test_a_tiff_cut_anywhere_is_refused(tmp_path: Path, writer: str, pages: int, capfd) -> None:
    noise = np.random.default_rng(0).integers(0, 60000, (pages, 64, 80), "u2")
    options = dict(WRITERS[writer])
    path, cut = tmp_path / "a.tif", tmp_path / "cut.tif"
    tifffile.imwrite(path, noise, **options, **GREY)
    whole = path.read_bytes()
    np.testing.assert_array_equal(everything(open_stack(path)).reshape(noise.shape), noise)
    for share in (0.001, 0.02, 0.2, 0.5, 0.8, 0.95):
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError):
            open_stack(cut)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("page", [0, 1])
def test_damage_inside_is_found_by_reading(tmp_path: Path, page: int, capfd) -> None:
    values = np.random.default_rng(0).integers(0, 60000, (2, 64, 80), "u2")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, compression="zlib", **GREY)
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[page].dataoffsets[0], file.pages[page].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\x55" * length
    path.write_bytes(content)
    stack = open_stack(path)
    window = (slice(None), slice(None))
    np.testing.assert_array_equal(stack.read((1 - page,), window, (0,))[0], values[1 - page])
    with pytest.raises(InputError, match="cannot be read as TIF"):
        stack.read((page,), window, (0,))
    assert capfd.readouterr() == ("", "")


def test_a_file_that_goes_away_or_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), "u2"))
    stack = open_stack(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        stack.read((), (slice(0, 64), slice(0, 64)), (0,))
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        stack.read((), (slice(0, 64), slice(0, 64)), (0,))


def test_damaged_zarr_chunk(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=image("YX"))
    stack = open_stack(tmp_path / "a.zarr")
    next((tmp_path / "a.zarr" / "c").rglob("0")).joinpath("0").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read as Zarr"):
        stack.read((), (slice(0, 5), slice(0, 6)), (0,))


@pytest.mark.parametrize(("table", "name"), [("DECOMPRESSORS", "LZW"), ("UNPREDICTORS", "HORIZ")])
def test_what_a_file_is_compressed_with_is_named(tmp_path, monkeypatch, table, name) -> None:
    tifffile.imwrite(tmp_path / "a.tif", image("YX"), compression="lzw", predictor=True)
    monkeypatch.setattr(tifffile.TIFF, table, {1: None})
    with pytest.raises(InputError, match=f"compressed with {name}.*, which cannot be read here"):
        read_file(tmp_path / "a.tif")


# --- folders and units --------------------------------------------------------------------------


def test_list_images(tmp_path: Path) -> None:
    names = ["b10.tif", "b9.tif", "B2.TIFF", "a.png", "c.jpeg", "10.tif", "9.tif"]
    for name in [*names, ".hidden.tif", "notes.txt"]:
        tmp_path.joinpath(name).touch()
    tmp_path.joinpath("sub").mkdir()
    zarr.create_group(str(tmp_path / "z.zarr"))
    zarr.create_group(str(tmp_path / "unnamed"))
    found = [path.name for path in list_images(str(tmp_path))]
    wanted = ["9.tif", "10.tif", "a.png", "B2.TIFF", "b9.tif", "b10.tif", "c.jpeg"]
    assert found == [*wanted, "unnamed", "z.zarr"]


def test_a_folder_without_images(tmp_path: Path) -> None:
    tmp_path.joinpath("notes.txt").touch()
    with pytest.raises(InputError, match=r"holds no image; .*\.tif.*\.zarr"):
        list_images(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        list_images(tmp_path / "missing")


@pytest.mark.parametrize(
    ("unit", "um"),
    [("µm", 1), ("μm", 1), ("microns", 1), ("nm", 1e-3), ("Millimeters", 1e3), ("inch", 25400),
     ("pixel", None), ("", None), (None, None), (3, None), ("cm ", 1e4), ("\\u00B5m", 1)],
)  # fmt: skip
def test_units(unit: object, um: float | None) -> None:
    assert to_um(unit) == um


def test_shared_data(shared_data: Path) -> None:
    volume = open_stack(sorted((shared_data / "ovule_nuclei_3d" / "images").iterdir())[0])
    assert (volume.axes, volume.labels_shape) == ("ZYX", (100, 100, 100))
    assert volume.voxel_size_um == pytest.approx((0.28, 0.13, 0.13), rel=0.05)
    folder = shared_data / "bbbc038" / "images"
    for path in list_images(folder)[::60]:
        stack = open_stack(path)
        assert stack.labels_axes == "YX"
        assert stack.rgb == (stack.channels == 3)
