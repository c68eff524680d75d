"""TIFF files that hold several images, images in several TIFF files, and claims of metadata."""

from __future__ import annotations

import io
import struct
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
import tifffile
from microscope_samples import ndpi
from PIL import Image

from napari_unet.batch.file_job import plan_jobs
from napari_unet.core.errors import InputError
from napari_unet.core.io import tiff_pages
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.stack import open_stack
from napari_unet.core.io.tiff import files_of_image

if TYPE_CHECKING:
    from pathlib import Path

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def tiff_data(file: str, uuid: str, ifd: int = 0, **first: int) -> str:
    """Return an element that says in which page of which file a plane lies."""
    places = "".join(f' First{letter}="{n}"' for letter, n in first.items())
    return (
        f'<TiffData IFD="{ifd}" PlaneCount="1"{places}>'
        f'<UUID FileName="{file}">urn:uuid:{uuid}</UUID></TiffData>'
    )


def ome_xml(images: list[str], uuid: str = "", shape: tuple[int, int] = (16, 24), **sizes: int):
    """Return OME-XML of images that differ in nothing but where their planes lie."""
    counts = {"SizeC": 1, "SizeZ": 1, "SizeT": 1} | sizes
    text = " ".join(f'{name}="{value}"' for name, value in counts.items())
    pixels = "".join(
        f'<Image ID="Image:{n}" Name="Pos{n}"><Pixels ID="Pixels:{n}" DimensionOrder="XYZCT" '
        f'Type="uint16" SizeX="{shape[1]}" SizeY="{shape[0]}" {text} PhysicalSizeX="0.5" '
        f'PhysicalSizeY="0.{n + 1}"><Channel ID="Channel:{n}:0" SamplesPerPixel="1"/>{data}'
        "</Pixels></Image>"
        for n, data in enumerate(images)
    )
    own = f' UUID="urn:uuid:{uuid}"' if uuid else ""
    return f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{NAMESPACE}"{own}>{pixels}</OME>'


def write(path: Path, planes: np.ndarray, description: str, **options) -> None:
    """Write planes as pages of a TIFF file, with a description in the first."""
    with tifffile.TiffWriter(path) as writer:
        for number, plane in enumerate(planes):
            text = description.encode() if number == 0 else None
            writer.write(plane, description=text, metadata=None, contiguous=False, **options)


def planes(count: int, seed: int = 0, shape: tuple[int, int] = (16, 24)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 60000, (count, *shape), "u2")


@pytest.fixture
def positions(tmp_path: Path) -> list[np.ndarray]:
    """Two positions of an acquisition, each in its file, with the OME-XML of both in each."""
    images = [tiff_data("a.ome.tif", "1"), tiff_data("b.ome.tif", "2")]
    values = [planes(1, seed)[0] for seed in (1, 2)]
    for name, uuid, value in zip("ab", "12", values, strict=True):
        write(tmp_path / f"{name}.ome.tif", value[None], ome_xml(images, uuid))
    return values


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_file_opens_the_image_that_lies_in_it(tmp_path: Path, compression: str | None) -> None:
    images = [tiff_data("a.ome.tif", "1"), tiff_data("b.ome.tif", "2")]
    values = [planes(1, seed)[0] for seed in (1, 2)]
    for name, uuid, value in zip("ab", "12", values, strict=True):
        text = ome_xml(images, uuid)
        write(tmp_path / f"{name}.ome.tif", value[None], text, compression=compression)
    for number, (name, value) in enumerate(zip("ab", values, strict=True)):
        stack = open_stack(tmp_path / f"{name}.ome.tif")
        np.testing.assert_array_equal(np.asarray(stack.data), value)
        assert stack.voxel_size_um == (1.0, (number + 1) / 10, 0.5), "of this image, too"
        assert stack.remarks == ()


def test_another_image_of_the_set_is_opened_when_asked_for(tmp_path: Path, positions) -> None:
    for number, value in enumerate(positions):
        stack = open_stack(tmp_path / "a.ome.tif", series=number)
        np.testing.assert_array_equal(np.asarray(stack.data), value)
        assert stack.series == number
    with pytest.raises(InputError, match="has no series 2; choose 0 to 1"):
        open_stack(tmp_path / "a.ome.tif", series=2)


def test_positions_are_two_images_in_a_folder_run(tmp_path: Path, positions) -> None:
    jobs = plan_jobs(tmp_path, tmp_path / "out")
    assert [job.source.name for job in jobs] == ["a.ome.tif", "b.ome.tif"]
    for job, value in zip(jobs, positions, strict=True):
        np.testing.assert_array_equal(np.asarray(job.open().data), value)


def volume_in_three_files(folder: Path) -> np.ndarray:
    data = "".join(tiff_data(f"z{n}.ome.tif", str(n), 0, Z=n) for n in range(3))
    volume = planes(3)
    for n in range(3):
        write(folder / f"z{n}.ome.tif", volume[n : n + 1], ome_xml([data], str(n), SizeZ=3))
    return volume


def test_each_file_of_a_volume_opens_all_of_it(tmp_path: Path) -> None:
    volume = volume_in_three_files(tmp_path)
    for n in range(3):
        path = tmp_path / f"z{n}.ome.tif"
        np.testing.assert_array_equal(np.asarray(open_stack(path).data), volume)
        assert [file.name for file in files_of_image(path)] == [f"z{n}.ome.tif" for n in range(3)]
    assert [job.source.name for job in plan_jobs(tmp_path, tmp_path / "out")] == ["z0.ome.tif"]


@pytest.mark.parametrize("own_uuid", ["1", ""])
def test_a_renamed_file_opens(tmp_path: Path, own_uuid: str) -> None:
    values = planes(3)
    data = "".join(tiff_data("first name.ome.tif", "1", n, Z=n) for n in range(3))
    write(tmp_path / "renamed.ome.tif", values, ome_xml([data], own_uuid, SizeZ=3))
    stack = open_stack(tmp_path / "renamed.ome.tif")
    assert stack.axes == "ZYX"
    np.testing.assert_array_equal(np.asarray(stack.data), values)


def test_a_missing_file_of_a_set_is_named(tmp_path: Path) -> None:
    volume_in_three_files(tmp_path)
    (tmp_path / "z1.ome.tif").unlink()
    with pytest.raises(InputError, match=r"several files of an image, of which z1\.ome\.tif is mi"):
        open_stack(tmp_path / "z2.ome.tif")


def test_another_image_may_be_missing(tmp_path: Path, positions) -> None:
    (tmp_path / "a.ome.tif").unlink()
    np.testing.assert_array_equal(np.asarray(open_stack(tmp_path / "b.ome.tif").data), positions[1])


@pytest.mark.parametrize("name", ["../secret.tif", "/{folder}/secret.tif", "..\\secret.tif"])
def test_names_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    secret, mine = planes(2)
    tifffile.imwrite(tmp_path / "secret.tif", secret)
    name = name.format(folder=tmp_path)
    data = tiff_data("mine.ome.tif", "1") + tiff_data(name, "2", 0, Z=1)
    unnamed = '<TiffData IFD="0" PlaneCount="1"/>' + tiff_data(name, "2", 0, Z=1)
    for text in (data, unnamed):
        write(tmp_path / "in" / "mine.ome.tif", mine[None], ome_xml([text], "1", SizeZ=2))
        with pytest.raises(InputError, match="is missing"):
            open_stack(tmp_path / "in" / "mine.ome.tif")


def test_several_images_in_a_file_are_remarked_on(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for number, size in enumerate((16, 40, 30)):
            writer.write(np.full((size, size), number, "u1"), metadata=None)
    stack = open_stack(path)
    assert stack.data[0, 0] == 1 and stack.series == 1
    (remark,) = stack.remarks
    assert "a.tif holds 3 images; number 1, the largest, is read" in remark
    assert "--series (0 to 2)" in remark
    assert open_stack(path, series=2).labels_shape == (30, 30)


def test_an_axis_of_positions_is_images(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 99, (2, 3, 16, 24), "u2")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, metadata={"axes": "RZYX"}, photometric="minisblack")
    stack = open_stack(path, series=1)
    assert stack.axes == "ZYX"
    np.testing.assert_array_equal(np.asarray(stack.data), values[1])
    np.testing.assert_array_equal(stack.data[1, ::2, 3], values[1, 1, ::2, 3])
    assert "holds 2 images; number 0, the first" in open_stack(path).remarks[0]


def test_more_positions_than_a_stage_visits_are_damage(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, planes(2), metadata={"axes": "RYX"}, photometric="minisblack")
    monkeypatch.setattr("napari_unet.core.io.tiff.MOST_POSITIONS", 1)
    with pytest.raises(InputError, match="claims 2 positions; it is damaged"):
        open_stack(path)


# --- metadata that claim more than there is -------------------------------------------------------


def test_time_points_that_are_not_there_are_not_read_as_zeros(tmp_path: Path) -> None:
    values = planes(3)
    path = tmp_path / "a.ome.tif"
    for data in ('<TiffData IFD="0" PlaneCount="10"/>', "<TiffData/>"):
        write(path, values, ome_xml([data], SizeT=10))
        stack = open_stack(path)
        np.testing.assert_array_equal(np.asarray(stack.data), values)
        assert stack.axes == "TYX"
        assert stack.remarks == (
            "a.ome.tif names 10 time points in its metadata and holds 3; those are read.",
        )


@pytest.mark.parametrize("master", ["set.companion.ome", "main.ome.tif"])
def test_metadata_in_a_file_of_their_own(tmp_path: Path, master: str) -> None:
    values = planes(3)
    data = [tiff_data(f"z{n}.ome.tif", str(n), Z=n) for n in range(3)]
    text = ome_xml(["".join(data)], "9", SizeZ=3)
    if master.endswith(".tif"):
        write(tmp_path / master, planes(1, 5), text)
    else:
        (tmp_path / master).write_text(text)
    for number, plane in enumerate(values):
        elsewhere = f'<BinaryOnly MetadataFile="{master}" UUID="urn:uuid:9"/>'
        own = f'<OME xmlns="{NAMESPACE}" UUID="urn:uuid:{number}">{elsewhere}</OME>'
        write(tmp_path / f"z{number}.ome.tif", plane[None], own)
    path = tmp_path / "z1.ome.tif"
    stack = open_stack(path)
    assert (stack.axes, stack.voxel_size_um, stack.remarks) == ("ZYX", (1.0, 0.1, 0.5), ())
    np.testing.assert_array_equal(np.asarray(stack.data), values)
    assert files_of_image(path) == tuple(tmp_path / f"z{n}.ome.tif" for n in range(3))
    for damaged in (b"<OME", None):
        (tmp_path / master).unlink()
        if damaged:
            (tmp_path / master).write_bytes(damaged)
        stack = open_stack(path)
        np.testing.assert_array_equal(np.asarray(stack.data), values[1])
        (remark,) = stack.remarks
        assert f"The metadata of z1.ome.tif lie in '{master}', which is not" in remark


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_planes_that_the_metadata_leave_out_are_said(tmp_path: Path, kind: str, compression):
    values, path = planes(6), tmp_path / "a.tif"
    options = {kind: True, "metadata": {"axes": "TYX"}, "compression": compression}
    tifffile.imwrite(path, values, **options)
    assert open_stack(path).remarks == ()
    with tifffile.TiffFile(path) as file:
        text = file.pages.first.description
    fewer = text
    for name in ('SizeT="{}"', 'PlaneCount="{}"', "images={}", "frames={}"):
        fewer = fewer.replace(name.format(6), name.format(4))
    content = path.read_bytes().replace(text.encode(), fewer.encode())
    path.write_bytes(content)
    stack = open_stack(path)
    np.testing.assert_array_equal(np.asarray(stack.data), values[:4])
    (remark,) = stack.remarks
    assert remark == ("a.tif holds 6 planes and names 4 in its metadata; the others are not read.")


def test_a_billion_planes_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    for data, count in (("<TiffData/>", 10**9), ('<TiffData PlaneCount="1000000000"/>', 3)):
        write(path, planes(3), ome_xml([data], SizeT=count))
        tracemalloc.start()
        try:
            stack = open_stack(path)
        except InputError as error:
            assert "claims 1,000,000,000 planes in its OME-XML, with 3 pages" in str(error)
        else:
            assert stack.labels_shape == (3, 16, 24)
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()


def pages(offsets: list[int], entries: bytes = b"") -> bytes:
    """Return a TIFF file of pages without tags, each leading to the next of `offsets`."""
    body = b"II*\0" + struct.pack("<I", offsets[0])
    for following in offsets[1:]:
        body += struct.pack("<H", 0) + struct.pack("<I", following)
    return body


def test_pages_in_a_loop_are_refused(tmp_path: Path) -> None:
    count = 180  # beyond the hundred that tifffile looks at
    offsets = [8 + 6 * n for n in range(count)]
    path = tmp_path / "loop.tif"
    path.write_bytes(pages([*offsets, offsets[150]]))
    assert path.stat().st_size < 1100
    with pytest.raises(InputError, match="pages that form a loop"):
        open_stack(path)


def test_pages_of_a_slide_in_a_loop_are_refused(tmp_path: Path) -> None:
    path = ndpi(tmp_path).path
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<Q", content, 4)
    (tags,) = struct.unpack_from("<H", content, first)
    start = len(content)
    struct.pack_into("<Q", content, first + 2 + 12 * tags, start)
    for page in range(1, 181):
        content += struct.pack("<HQ", 0, start + 10 * (page if page < 180 else 150))
    path.write_bytes(content)
    with pytest.raises(InputError, match="pages that form a loop"):
        open_stack(path)


@pytest.mark.parametrize("compression", ["lerc", "zstd", "zlib", "jpeg2000"])
def test_a_strip_that_claims_gigabytes_is_refused(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), "u1"), compression=compression)
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        places = [tags[name].valueoffset for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
        types = [tags[name].dtype for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
    content = bytearray(path.read_bytes())
    for place, kind in zip(places, types, strict=True):
        content[place : place + (2 if kind == 3 else 4)] = struct.pack(
            "<H" if kind == 3 else "<I", 50_000
        )
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"claims 2\.5 GB of pixels in"):
        open_stack(path)


@pytest.mark.parametrize(
    "compression", ["lerc", "jpeg2000", "jpeg", "png", "webp", "jpegxl", "jpegxr"]
)
def test_a_tile_that_is_larger_than_its_page_is_refused(
    tmp_path: Path, monkeypatch, compression: str
) -> None:
    """A LERC tile of 70 bytes may become any number of gigabytes."""
    channels = (3,) if compression == "webp" else ()
    largest = 64 * 64 * (channels or (1,))[0]
    monkeypatch.setattr(tiff_pages, "ALWAYS", largest)
    how = {"shape": (64, 64, *channels), "dtype": "u1", "tile": (64, 64)}
    how |= {"compression": compression, "photometric": "rgb" if channels else "minisblack"}
    encode = getattr(imagecodecs, f"{compression.replace('jpeg2000', 'jpeg2k')}_encode")
    for name, size in (("good", 64), ("large", 65)):
        piece = encode(np.full((size, 64, *channels), 7, "u1"))
        tifffile.imwrite(tmp_path / f"{name}.tif", iter([bytes(piece)]), **how)
    stack = open_stack(tmp_path / "good.tif")
    assert np.ptp(stack.read((), (slice(0, 64), slice(0, 64)), (0,))) == 0
    stack = open_stack(tmp_path / "large.tif")
    with pytest.raises(InputError, match=f"a piece of {largest:,} values at most claims"):
        stack.read((), (slice(0, 64), slice(0, 64)), (0,))


@pytest.mark.parametrize("inner", ["deflate", "zstd"])
def test_a_tile_that_is_packed_twice_is_held_against_its_page(
    tmp_path: Path, monkeypatch, inner: str
) -> None:
    monkeypatch.setattr(tiff_pages, "ALWAYS", 64 * 64)
    how = {"shape": (64, 64), "dtype": "u1", "tile": (64, 64), "compression": "lerc"}
    encode = partial(imagecodecs.lerc_encode, compression=inner)
    noisy = planes(1, shape=(64, 64))[0] % 256
    wrap = {"deflate": imagecodecs.zlib_encode, "zstd": imagecodecs.zstd_encode}[inner]
    pieces = {
        "good": encode(noisy.astype("u1")),
        "large": encode(np.zeros((65, 64), "u1")),
        "long": wrap(b"Lerc2 " + bytes(10**5)),
    }
    for name, piece in pieces.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", iter([bytes(piece)]), **how)
    values = open_stack(tmp_path / "good.tif").data[:, :]
    np.testing.assert_array_equal(values, noisy)
    for name in ("large", "long"):
        with pytest.raises(InputError, match=r"a piece of .* at most claims"):
            open_stack(tmp_path / f"{name}.tif").read((), (slice(0, 64), slice(0, 64)), (0,))


# --- colours, orientation, sizes ------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_palette_is_colours_and_of_labels_numbers(tmp_path: Path, compression) -> None:
    indices = np.arange(96, dtype="u1").reshape(8, 12) % 5
    table = np.random.default_rng(0).integers(0, 256, (3, 256)).astype("u2") * 257
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, indices, photometric="palette", colormap=table, compression=compression)
    stack = open_stack(path)
    assert (stack.axes, stack.rgb) == ("YXC", True)
    np.testing.assert_array_equal(np.asarray(stack.data), (table >> 8).astype("u1").T[indices])
    np.testing.assert_array_equal(read_labels(path), indices)
    ramp = np.stack([np.arange(256) * 257, np.zeros(256), np.zeros(256)]).astype("u2")
    tifffile.imwrite(path, indices, photometric="palette", colormap=ramp)
    np.testing.assert_array_equal(np.asarray(open_stack(path).data), indices)


def test_inks_are_colours(tmp_path: Path) -> None:
    inks = np.zeros((2, 2, 4), "u1")
    inks[0, 0, 0], inks[0, 1, 3], inks[1, 0, 1] = 255, 255, 51
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    stack = open_stack(tmp_path / "a.tif")
    assert (stack.axes, stack.rgb) == ("YXC", True)
    wanted = [[[0, 255, 255], [0, 0, 0]], [[255, 204, 255], [255, 255, 255]]]
    np.testing.assert_array_equal(np.asarray(stack.data), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_orientation_is_followed(tmp_path: Path, orientation: int, compression) -> None:
    from PIL import Image, ImageOps

    stored = planes(1, shape=(6, 9))[0]
    path = tmp_path / "a.tif"
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(
        path, stored, extratags=tag, compression=compression, resolution=(1e4, 2e4),
        resolutionunit=3,
    )  # fmt: skip
    picture = Image.fromarray((stored % 256).astype("u1"))
    picture.getexif()[274] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(picture))
    stack = open_stack(path)
    assert stack.labels_shape == wanted.shape
    window = (slice(0, wanted.shape[0]), slice(0, wanted.shape[1]))
    np.testing.assert_array_equal(stack.read((), window, (0,))[0] % 256, wanted)
    turned = orientation > 4
    assert stack.voxel_size_um == pytest.approx((1, 1, 0.5) if turned else (1, 0.5, 1))


def test_the_pixel_size_of_a_slide(tmp_path: Path) -> None:
    text = "Aperio Image Library v11\n16x16 (16x16) JPEG Q=30|AppMag = 20|MPP = 0.4990"
    path = tmp_path / "a.svs"
    tifffile.imwrite(path, np.zeros((32, 32, 3), "u1"), description=text, tile=(16, 16),
                     photometric="rgb", metadata=None)  # fmt: skip
    assert open_stack(path).voxel_size_um == pytest.approx((1, 0.499, 0.499))


def test_pieces_that_begin_like_a_picture_and_are_none(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(10, 2, (256, 256)).clip(0, 255).astype("u1")
    values = np.repeat(noise, 2, 1)  # packed, two pixels of 10 are FF 0A, as JPEG XL begins
    tifffile.imwrite(tmp_path / "a.tif", values, compression="packbits", rowsperstrip=8)
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data, values)


def test_a_piece_of_many_small_tiles(tmp_path: Path, monkeypatch) -> None:
    """What a decoder of JPEG 2000 allocates for its own tiles is bytes, not values."""
    monkeypatch.setattr(tiff_pages, "ALWAYS", 2**20)
    values, out = np.random.default_rng(0).integers(0, 255, (64, 64), "u1"), io.BytesIO()
    Image.fromarray(values).save(out, "JPEG2000", tile_size=(4, 4), no_jp2=True)
    options = {"shape": values.shape, "dtype": "u1", "tile": (64, 64), "compression": "jpeg2000"}
    tifffile.imwrite(tmp_path / "a.tif", iter([out.getvalue()]), **options)
    np.testing.assert_array_equal(open_stack(tmp_path / "a.tif").data, values)
