"""Files that people give as labels: read as the objects they mean, or refused with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from napari_unet.cli import main
from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.evaluation.comparison import LabelPair, read_pair
from napari_unet.core.labels.label_file import (
    LabelReading,
    fit_to_shape,
    open_labels,
    read_label_file,
)
from napari_unet.core.labels.lazy_labels import WholeNumbers
from napari_unet.core.labels.object_check import connected_components, doubt_objects
from napari_unet.core.regionprops.measure import MeasureInput, measure
from napari_unet.core.training.pairs import pair_paths, read_labelled

if TYPE_CHECKING:
    from pathlib import Path


def squares(count: int = 8) -> np.ndarray:
    """Label squares of 8 x 8 pixels in a row, 12 apart."""
    labels = np.zeros((20, 12 * count + 8), np.uint16)
    for number in range(count):
        labels[6:14, 12 * number + 6 : 12 * number + 14] = number + 1
    return labels


IMAGE = ndimage.gaussian_filter(squares() * 10.0 + np.arange(squares().shape[1]), 1)


def reading(labels_as: str | None = None, **more) -> LabelReading:
    return LabelReading(labels_as, **more)


# ---------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("value", [1, 255, 65535, True])
def test_a_mask_is_doubted_and_its_pieces_are_objects_when_asked(tmp_path, value) -> None:
    path = tmp_path / "mask.tif"
    mask = (squares() > 0) * np.array(value)
    tifffile.imwrite(path, mask.astype(bool if value is True else np.uint16))
    found = read_label_file(path)
    assert "one object" in found.doubt and "in 8 pieces" in found.doubt
    pieces = read_label_file(path, reading("components"))
    assert np.array_equal(pieces.values, squares()) and not pieces.doubt
    assert not read_label_file(path, reading("ids")).doubt
    assert not read_label_file(path, reading(classes=True)).doubt


@pytest.mark.parametrize("count", [1, 8])
def test_objects_are_not_doubted(tmp_path, count) -> None:
    tifffile.imwrite(tmp_path / "l.tif", squares(count))
    assert read_label_file(tmp_path / "l.tif").doubt == ""


def test_pieces_are_connected_at_corners_in_planes_or_volumes() -> None:
    values = np.zeros((2, 3, 5), np.uint8)
    values[0, 0, 0] = values[0, 1, 1] = values[1, 1, 4] = values[0, 2, 4] = 255
    assert connected_components(values, "ZYX", 3).max() == 2
    planes = connected_components(values, "ZYX", 2)
    assert [int(plane.max()) for plane in planes] == [2, 1]
    assert connected_components(values, "TYX", 3)[1, 1, 4] == 1
    touching = np.array([[1, 1, 2, 2]])
    assert connected_components(touching, "YX").tolist() == [[1, 1, 2, 2]]


def test_one_object_a_frame_is_no_mask() -> None:
    moving = np.zeros((3, 6, 20), np.uint8)
    for t in range(3):
        moving[t, 2:4, 5 * t : 5 * t + 3] = 1
    assert doubt_objects(moving, "TYX") == ""
    assert doubt_objects(moving, "ZYX", 2) == ""


def test_an_image_or_interpolated_labels_are_doubted() -> None:
    rng = np.random.default_rng(0)
    assert "look" in doubt_objects(rng.integers(0, 9, (40, 40)), "YX")
    crowded = np.kron(np.arange(1, 101).reshape(10, 10), np.ones((6, 6), int))
    assert doubt_objects(crowded, "YX") == ""
    grown = ndimage.zoom(np.random.default_rng(1).permutation(100)[crowded - 1], 1.7, order=1)
    assert "interpolated" in doubt_objects(grown, "YX")


def test_evaluate_says_that_the_truth_is_a_mask(tmp_path: Path, capsys) -> None:
    found, truth = tmp_path / "found.tif", tmp_path / "truth.png"
    tifffile.imwrite(found, squares())
    Image.fromarray(np.uint8(squares() > 0) * 255).save(truth)
    arguments = ["evaluate", str(found), str(truth)]
    assert main(arguments) == 0
    text = capsys.readouterr()
    assert "truth.png: there is one object (255) in 8 pieces" in text.err
    assert "--labels-as components" in text.err
    assert main([*arguments, "--truth-as", "components"]) == 0
    text = capsys.readouterr()
    assert text.err == "" and text.out.split()[-9:-7] == ["8", "8"]


def test_train_refuses_a_mask_until_it_is_told_what_it_is(tmp_path: Path, home, capsys) -> None:
    for folder, values in (("images", np.float32(IMAGE)), ("labels", np.uint8(squares() > 0))):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "a.tif", values)
    new = ["--scratch", "--depth", "1", "--width", "4", "--steps", "2", "--crop", "16"]
    folders = [str(tmp_path / "images"), str(tmp_path / "labels")]
    arguments = ["train", *folders, *new, "--device", "cpu", "--name"]
    assert main([*arguments, "a"]) == 2
    assert "in 8 pieces: this looks like a mask" in capsys.readouterr().err
    assert main([*arguments, "b", "--labels-as", "components"]) == 0
    assert "8 objects" in capsys.readouterr().out
    assert main([*arguments, "c", "--classes", "2"]) == 0


def test_measure_takes_the_pieces_of_a_mask(tmp_path: Path, capsys) -> None:
    path = tmp_path / "mask.tif"
    tifffile.imwrite(path, np.uint8(squares() > 0) * 255)
    assert main(["measure", str(path), "--labels-as", "components"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9
    assert main(["measure", str(path)]) == 0
    text = capsys.readouterr()
    assert len(text.out.splitlines()) == 2 and "in 8 pieces" in text.err


# ------------------------------------------------------------------------------------ compression


def test_jpeg_labels_are_refused_whatever_they_are_called(tmp_path: Path) -> None:
    values = np.uint8(squares())
    files = {
        "a.jpg": imagecodecs.jpeg_encode(values),
        "a.png": imagecodecs.jpeg_encode(values),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="jpeg")
    for name in (*files, "a.tif"):
        with pytest.raises(InputError, match=r"compressed as JPEG.*changes values.*TIFF or PNG"):
            read_label_file(tmp_path / name)
        with pytest.raises(InputError, match="compressed as JPEG"):
            open_labels(tmp_path / name)


def test_lossless_compression_is_taken(tmp_path: Path) -> None:
    for compression in ("zlib", "lzw", "webp", "jpeg2000"):
        path = tmp_path / f"{compression}.tif"
        values = np.uint8(squares())
        if compression == "webp":
            values = np.stack([values] * 3, -1)
        options = {"lossless": True} if compression == "webp" else {"reversible": True}
        args = options if compression in ("webp", "jpeg2000") else None
        tifffile.imwrite(path, values, compression=compression, compressionargs=args)
        how = reading("colours" if compression == "webp" else None)
        assert np.array_equal(read_label_file(path, how).values, squares()), compression


@pytest.mark.parametrize("kind", ["webp", "jpeg2000"])
def test_lossy_compression_inside_a_tiff_is_refused(tmp_path: Path, kind) -> None:
    values = np.stack([np.uint8(squares())] * 3, -1)
    args = {"level": 50, "lossless": False} if kind == "webp" else {"level": 40}
    tifffile.imwrite(tmp_path / "l.tif", values, compression=kind, compressionargs=args)
    with pytest.raises(InputError, match="changes values"):
        read_label_file(tmp_path / "l.tif", reading("colours"))


# ------------------------------------------------------------------------------ numbers and types


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int64])
def test_whole_numbers_and_minus_one_are_alike_everywhere(tmp_path: Path, dtype) -> None:
    path, image = tmp_path / "l.tif", tmp_path / "i.tif"
    labels = squares()
    tifffile.imwrite(path, np.where(labels == 0, -1, np.int64(labels)).astype(dtype))
    tifffile.imwrite(image, np.float32(IMAGE))
    found = read_label_file(path)
    assert np.array_equal(found.values, labels) and found.values.dtype.kind in "iu"
    assert "below 0 (down to -1) are taken for background" in found.remarks[0]
    assert np.array_equal(read_labelled("a", image, path).labels, labels)
    pair = read_pair(LabelPair("a", path, path))
    assert np.array_equal(pair.labels, labels)
    assert measure(path)["area_px"].tolist() == [64] * 8
    (remark,) = MeasureInput.open(path).remarks
    assert "l.tif: labels below 0 (down to -1) are taken for background" in remark
    assert (
        measure(np.where(labels == 0, -1, np.int64(labels)).astype(dtype))["area_px"].tolist()
        == [64] * 8
    )


def test_ids_beyond_63_bits_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.array([[0, 2**63 + 5], [3, 3]], np.uint64))
    for read in (read_label_file, measure, lambda path: read_pair(LabelPair("a", path, path))):
        with pytest.raises(InputError, match=r"holds 9223372036854775813; .* below 2\*\*63"):
            read(tmp_path / "l.npy")
    np.save(tmp_path / "l.npy", np.array([[0, 5], [3, 3]], np.uint64))
    assert measure(tmp_path / "l.npy")["label"].tolist() == [3, 5]


def test_what_is_ignored_is_unknown_and_not_background(tmp_path: Path) -> None:
    path = tmp_path / "l.tif"
    labels = squares()
    tifffile.imwrite(path, np.where(labels == 3, -1.0, labels).astype(np.float32))
    found = read_label_file(path, reading(ignore=-1))
    assert np.array_equal(found.known, labels != 3) and not found.remarks
    assert not found.values[labels == 3].any()
    with pytest.raises(InputError, match="classes below 0"):
        read_label_file(path, reading(classes=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (ndimage.zoom(np.float32(squares()), 1.5, order=1), "interpolated .* nearest neighbours"),
        (np.float32(squares() > 0) * 0.7, "from 0 to 0.7, such as 0.7: probabilities"),
        (np.where(squares() > 0, np.nan, 0), "NaN"),
        (np.full((8, 8), 1e30), r"below 2\*\*63"),
    ],
)
def test_numbers_that_are_no_labels_are_refused_with_the_reason(tmp_path, values, message) -> None:
    tifffile.imwrite(tmp_path / "l.tif", values)
    with pytest.raises(InputError, match=message):
        read_label_file(tmp_path / "l.tif")
    with pytest.raises(InputError, match=message):
        measure(tmp_path / "l.tif")


def test_floats_are_checked_where_they_are_read() -> None:
    values = np.arange(64.0).reshape(8, 8)
    values[7, 7] += 0.5
    lazy = WholeNumbers(values, "l")
    assert lazy[:4].dtype == np.int64 and lazy[1, 2] == 10
    with pytest.raises(InputError, match=r"l holds numbers between the labels, such as 63\.5"):
        lazy[4:]


# -------------------------------------------------------------------------------------- colours

PALETTE = [0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200, 200, 200, 0, 9, 9, 9, 99, 0, 99, 7, 0, 0, 1, 1]


def test_colours_become_ids_when_asked(tmp_path: Path) -> None:
    labels = squares()
    colours = np.array([*PALETTE, 5]).reshape(-1, 3).astype(np.uint8)
    Image.fromarray(colours[labels]).save(tmp_path / "rgb.png")
    indexed = Image.fromarray(np.uint8(labels), "P")
    indexed.putpalette([*PALETTE, 5])
    indexed.save(tmp_path / "indexed.png")
    transparent = np.dstack([colours[labels], np.uint8(labels > 0) * 255])
    Image.fromarray(transparent).save(tmp_path / "rgba.png")
    tifffile.imwrite(tmp_path / "rgb.tif", colours[labels], photometric="rgb")
    for name in ("rgb.png", "indexed.png", "rgba.png", "rgb.tif"):
        with pytest.raises(InputError, match=r"picture in colours.*--labels-as colours"):
            read_label_file(tmp_path / name)
        found = read_label_file(tmp_path / name, reading("colours"))
        # Each object has one id, whatever its number.
        pairs = np.unique(np.stack([found.values.ravel(), labels.ravel()]), axis=1)
        assert pairs.shape[1] == 9 and found.values[labels == 0].max() == 0, name
        assert "8 colours); black is background" in found.remarks[0]
        found = read_label_file(tmp_path / name, reading("components"))
        assert np.array_equal(found.values, labels)
    assert np.array_equal(read_label_file(tmp_path / "indexed.png", reading("ids")).values, labels)


def test_without_black_the_colour_of_most_pixels_is_background(tmp_path: Path) -> None:
    colours = np.array([[255, 255, 255], [200, 0, 0], [0, 200, 0]], np.uint8)
    Image.fromarray(colours[squares(2)]).save(tmp_path / "l.png")
    found = read_label_file(tmp_path / "l.png", reading("colours"))
    assert np.array_equal(found.values > 0, squares(2) > 0) and found.values.max() == 2
    assert "#ffffff, the colour of most pixels, is background" in found.remarks[0]


def test_indices_of_a_tiff_with_a_palette_are_labels(tmp_path: Path) -> None:
    """ImageJ writes labels with a table of colours so."""
    table = np.random.default_rng(0).integers(0, 2**16, (3, 256), np.uint16)
    labels = np.uint8(squares())
    tifffile.imwrite(tmp_path / "l.tif", labels, photometric="palette", colormap=table)
    found = read_label_file(tmp_path / "l.tif")
    assert np.array_equal(found.values, labels) and found.axes == "YX"
    assert measure(tmp_path / "l.tif")["area_px"].tolist() == [64] * 8
    stack = np.stack([labels] * 5)
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="palette", colormap=table)
    assert read_label_file(tmp_path / "s.tif").values.shape == stack.shape
    assert read_label_file(tmp_path / "s.tif", reading(axes="TYX")).axes == "TYX"


def test_what_labels_may_be_taken_for() -> None:
    with pytest.raises(SettingsError, match="choose one of: ids, components, colours"):
        reading("outlines")


# ---------------------------------------------------------------------------------- axes and pairs


def test_an_image_is_not_taken_for_its_own_labels(tmp_path: Path, capsys, home) -> None:
    path, copy = tmp_path / "a.tif", tmp_path / "copy.tif"
    for name in (path, copy):
        tifffile.imwrite(name, np.uint16(IMAGE))
    with pytest.raises(InputError, match="given as image and as its own labels"):
        pair_paths(path, path)
    with pytest.raises(InputError, match="holds the values of its image"):
        read_labelled("a", path, copy)
    assert main(["train", str(tmp_path), str(tmp_path), "--scratch", "--name", "a"]) == 2
    assert "as its own labels" in capsys.readouterr().err
    mask = np.uint8(squares(1))
    for name in (path, copy):  # a picture of one object is its own labels
        tifffile.imwrite(name, mask)
    assert np.array_equal(read_labelled("a", path, copy).labels, mask)


def test_single_axes_keep_no_labels_from_their_truth_or_image(tmp_path: Path) -> None:
    flat, deep = tmp_path / "flat.tif", tmp_path / "deep.ome.tif"
    labels = squares()
    tifffile.imwrite(flat, labels)
    tifffile.imwrite(deep, labels[None, None, None], metadata={"axes": "TCZYX"})
    for pair in (LabelPair("a", deep, flat), LabelPair("a", flat, deep)):
        found = read_pair(pair)
        assert np.array_equal(found.read(found.planes[0])[0], labels)
        assert np.array_equal(found.read(found.planes[0])[1], labels)
    tifffile.imwrite(tmp_path / "i.tif", np.float32(IMAGE))
    assert read_labelled("a", tmp_path / "i.tif", deep).labels.shape == labels.shape
    table = measure(deep, tmp_path / "i.tif")
    assert table["area_px"].tolist() == [64] * 8 and "intensity_mean" in table
    assert len(measure(flat, IMAGE[None, None])["label"]) == 8
    assert fit_to_shape(labels, "YX", (2, *labels.shape)) is None


def test_the_axes_of_labels_can_be_given(tmp_path: Path, capsys) -> None:
    """Planes without a name are taken for z; as time points, each has objects of its own."""
    first, second = squares(2), squares(2)[::-1]
    tifffile.imwrite(tmp_path / "a.tif", np.stack([first, second]), photometric="minisblack")
    found = read_pair(LabelPair("a", tmp_path / "a.tif", tmp_path / "a.tif"))
    assert found.axes == "ZYX" and len(found.frames) == 1
    found = read_pair(LabelPair("a", *[tmp_path / "a.tif"] * 2), how=reading(axes="TYX"))
    assert len(found.frames) == 2
    arguments = ["evaluate", *[str(tmp_path / "a.tif")] * 2, "--axes", "tyx"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.split()[-9:-7] == ["4", "4"]
    assert main([*arguments, "--truth-axes", "tzyx"]) == 2
    assert "do not fit" in capsys.readouterr().err


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_of_the_background_is_said(tmp_path, value) -> None:
    objects = np.zeros((40, 60), bool)
    objects[5:15, 5:15] = objects[5:15, 30:45] = objects[25:35, 10:20] = True
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.where(objects, 0, value).astype("u1"))
    (remark,) = read_label_file(path).remarks
    assert f"the only object ({value}) covers 85% of the image and surrounds 3 pieces" in remark
    one_hole = ~objects[:20, 20:]
    for usual in (objects, np.ones_like(objects), np.zeros_like(objects), one_hole):
        tifffile.imwrite(path, (usual * value).astype("u1"))
        assert read_label_file(path).remarks == ()
