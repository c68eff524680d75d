"""Axes without names get the same letters in arrays and in files of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr

from napari_unet.cli import main
from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.comparison import LabelPair, read_pair
from napari_unet.core.io.axes import idle_axes, resolve_axes
from napari_unet.core.io.label_reader import read_labels_and_axes
from napari_unet.core.io.stack import open_stack
from napari_unet.core.labels.label_file import LabelReading
from napari_unet.core.regionprops.measure import measure
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.core.training.pairs import read_labelled
from napari_unet.nn.inference.model_input import image_remarks

if TYPE_CHECKING:
    from pathlib import Path

NAMELESS = [
    ((16, 20), "YX"),
    ((3, 16, 20), "ZYX"),
    ((1, 16, 20), "ZYX"),
    ((2, 5, 16, 20), "TZYX"),
    ((5, 2, 16, 20), "TZYX"),
    ((1, 5, 16, 20), "TZYX"),
    ((2, 5, 3, 16, 20), "TZCYX"),
    ((2, 1, 5, 16, 20), "TCZYX"),
    ((1, 1, 5, 16, 20), "TCZYX"),
    ((2, 5, 1, 16, 20), "TZCYX"),
]


@pytest.mark.parametrize(("shape", "axes"), NAMELESS)
def test_arrays_and_files_have_one_rule(tmp_path: Path, shape: tuple[int, ...], axes: str) -> None:
    values = np.arange(np.prod(shape), dtype="u2").reshape(shape)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", values)
    zarr.create_array(str(tmp_path / "a.zarr"), data=values)
    for source in (values, *(tmp_path / f"a.{kind}" for kind in ("tif", "npy", "npz", "zarr"))):
        stack = open_stack(source)
        assert stack.axes == axes, source
        np.testing.assert_array_equal(np.asarray(stack.data[...]), values)


FOUND = [
    ("QQYX", (2, 16, 64, 64), "TZYX"),
    ("QQQYX", (2, 3, 4, 64, 64), "TZCYX"),
    ("QCYX", (4, 2, 64, 64), "ZCYX"),
    ("QZYX", (4, 2, 64, 64), "TZYX"),
    ("IYX", (4, 64, 64), "ZYX"),
    ("QQYXS", (4, 2, 64, 64, 3), "TZYXS"),
    ("AYX", (4, 64, 64), "TYX"),
    ("HZYX", (4, 2, 64, 64), "TZYX"),
]


@pytest.mark.parametrize(("found", "shape", "axes"), FOUND)
def test_axes_of_files(found: str, shape: tuple[int, ...], axes: str) -> None:
    assert idle_axes(found, shape) == []
    assert resolve_axes(found, shape, "a.tif") == axes


def test_axes_of_one_position_are_left_out_where_they_have_no_letter(tmp_path: Path) -> None:
    values = np.arange(4 * 16 * 20, dtype="u2").reshape(1, 1, 1, 4, 16, 20)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    for source in (tmp_path / "a.tif", values):
        stack = open_stack(source)
        assert stack.axes == "TCZYX"
        np.testing.assert_array_equal(np.asarray(stack.data[...]), values[0])
    with pytest.raises(InputError, match="has 6 axes"):
        open_stack(np.zeros((2, 2, 2, 2, 16, 20)))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_three_values_a_pixel_are_colours(dtype: str) -> None:
    colours = open_stack(np.zeros((2, 40, 30, 3), dtype))
    assert (colours.axes, colours.rgb) == ("ZYXC", True)
    assert open_stack(np.zeros((16, 20, 3), dtype)).axes == ("YXC" if dtype == "u1" else "ZYX")


def test_labels_of_a_series_are_not_transposed(tmp_path: Path, tiny_model: str, capsys) -> None:
    shape = (2, 5, 48, 40)
    values = np.random.default_rng(0).integers(0, 99, shape, "u1")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    arguments = [str(tmp_path / "a.tif"), str(tmp_path / "labels.tif"), "--model", tiny_model]
    assert main(["segment", *arguments, "--no-certify"]) == 0
    labels, axes = read_labels_and_axes(tmp_path / "labels.tif")
    assert (labels.shape, axes) == (shape, "TZYX")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_level_of_an_ome_zarr_has_its_axes_and_its_size(tmp_path: Path, version: str) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for level in range(2):
        group.create_array(f"s{level}", data=np.zeros((2, 3, 8 // 2**level, 8 // 2**level), "u1"))
        scale = [{"type": "scale", "scale": [1, 1, 0.5 * 2**level, 0.25 * 2**level]}]
        datasets.append({"path": f"s{level}", "coordinateTransformations": scale})
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    image = {"version": version, "axes": axes, "datasets": datasets}
    attributes = {"multiscales": [image]}
    group.attrs.update(
        {"ome": {"version": "0.5", **attributes}} if version == "0.5" else attributes
    )
    for level in range(2):
        stack = open_stack(tmp_path / "a.zarr" / f"s{level}")
        assert stack.axes == "TCYX"
        assert stack.voxel_size_um == (1.0, 0.5 * 2**level, 0.25 * 2**level)


def test_which_channel_is_used_is_said(tmp_path: Path, tiny_model: str, capsys, make_model) -> None:
    from napari_unet.core.io.provenance import read_provenance
    from napari_unet.nn.inference.model import save_model

    save_model(make_model(gain=6.0, in_channels=1, depth=1), "grey")
    values = np.random.default_rng(0).integers(0, 99, (16, 40, 32), "u2")
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, metadata={"axes": "CYX"})
    out = tmp_path / "labels.tif"
    command = ["segment", str(tmp_path / "a.tif"), str(out), "--model", "grey", "--overwrite"]
    assert main(command) == 0
    said = "a has 16 channels, of which channel 0 is used. Choose another (channel, 0 to 15), or"
    assert said in capsys.readouterr().err
    passport = read_provenance(out)
    assert passport["channels"] == [0] and said in passport["remarks"][0]
    assert main([*command, "--channel", "3"]) == 0
    assert "channels" not in capsys.readouterr().err, "it was asked for"
    assert read_provenance(out)["channels"] == [3]
    blocks = tmp_path / "labels.zarr"
    assert main([*command[:2], str(blocks), *command[3:]]) == 0
    assert said in capsys.readouterr().err
    assert read_provenance(blocks)["channels"] == [0]


def test_the_channel_that_is_used_is_named(tmp_path: Path, make_model) -> None:
    values = np.random.default_rng(0).integers(0, 99, (2, 16, 12), "u2")
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI\n405", "actin " * 20]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", values, photometric="minisblack", metadata=metadata)
    stack = open_stack(tmp_path / "a.ome.tif")
    assert stack.channel_names == ("DAPI 405", ("actin " * 20)[:40])
    (remark,) = image_remarks(stack, make_model(in_channels=1, depth=1), PredictSettings())
    assert "2 channels (DAPI 405, actin" in remark.text and "channel 0 (DAPI 405) is" in remark.text
    assert open_stack(tmp_path / "a.ome.tif", axes="ZYX").channel_names == ()


def truth_and_labels(folder: Path) -> np.ndarray:
    values = np.zeros((32, 40), "u2")
    values[4:12, 4:12], values[20:30, 20:30] = 1, 2
    tifffile.imwrite(folder / "flat.tif", values)
    tifffile.imwrite(
        folder / "deep.tif", values[None, None, None], imagej=True, metadata={"axes": "TZCYX"}
    )
    return values


def test_axes_of_one_position_keep_no_labels_from_being_scored(tmp_path: Path, capsys) -> None:
    values = truth_and_labels(tmp_path)
    for names in (("flat", "deep"), ("deep", "flat")):
        files = [str(tmp_path / f"{name}.tif") for name in names]
        assert main(["evaluate", *files]) == 0
        assert "1.000" in capsys.readouterr().out
    pair = LabelPair("a", tmp_path / "deep.tif", tmp_path / "flat.tif")
    assert read_pair(pair).labels.shape == values.shape
    labelled = read_labelled("a", tmp_path / "flat.tif", tmp_path / "deep.tif")
    np.testing.assert_array_equal(labelled.labels, values)
    table = measure(tmp_path / "deep.tif", tmp_path / "flat.tif")
    np.testing.assert_array_equal(table["label"], [1, 2])


def test_axes_of_labels_can_be_given(tmp_path: Path, capsys) -> None:
    values = np.zeros((3, 16, 20), "u1")
    values[:, 2:9, 2:9] = 1
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", values.transpose(1, 2, 0), photometric="minisblack")
    files = [str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    assert main(["evaluate", *files]) == 2
    capsys.readouterr()
    assert main(["evaluate", *files, "--axes", "TYX", "--truth-axes", "YXT"]) == 0
    assert "1.000" in capsys.readouterr().out
    labelled = read_labelled(
        "a", tmp_path / "a.tif", tmp_path / "b.tif", how=LabelReading(axes="YXZ")
    )
    np.testing.assert_array_equal(labelled.labels, values)


def test_a_scale_below_zero_is_kept(tmp_path: Path) -> None:
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    group.create_array("0", data=np.zeros((8, 8), "u1"))
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    scale = [{"type": "scale", "scale": [-0.5, 0.25]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    stack = open_stack(tmp_path / "a.zarr")
    assert stack.voxel_size_um == (1.0, 0.5, 0.25)
    assert stack.labels_transform.scale == (-0.5, 0.25)
