"""Measured objects: the same as scikit-image's, in however many blocks they lie."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.measure import label, regionprops_table

import napari_unet as nu
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.image.normalise import NonFiniteWarning
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.stack import open_stack
from napari_unet.core.regionprops import measure as measuring
from napari_unet.core.regionprops.measure import measure
from napari_unet.core.regionprops.table import layer_features, table_text, write_table

if TYPE_CHECKING:
    from pathlib import Path

AXES = {2: "YX", 3: "ZYX"}
SHAPES = {2: (150, 200), 3: (30, 50, 60)}


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random(shape)
    return label(gaussian_filter(noise, 3) > 0.51).astype(np.uint16)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(measuring, "BLOCK", {2: (37, 53), 3: (9, 11, 13)})
    monkeypatch.setattr(measuring, "ROWS", 50)


@pytest.mark.parametrize("ndim", [2, 3])
def test_as_scikit_image_measures_it_in_one_piece(small_blocks, ndim):
    labels = blobs(SHAPES[ndim])
    image = np.random.default_rng(1).random(labels.shape) * 1000
    table = measure(labels, image)
    names = {
        "label": "label",
        "area": "area_px" if ndim == 2 else "volume_voxels",
        "equivalent_diameter_area": "equivalent_diameter_px",
        "axis_major_length": "major_axis_px",
        "axis_minor_length": "minor_axis_px",
        "intensity_mean": "intensity_mean",
        "intensity_std": "intensity_std",
        "intensity_min": "intensity_min",
        "intensity_max": "intensity_max",
    }
    if ndim == 2:
        names["eccentricity"] = "eccentricity"
    for axis, letter in enumerate("zyx"[-ndim:]):
        names[f"centroid-{axis}"] = f"centroid_{letter}"
        names[f"bbox-{axis}"] = f"start_{letter}"
        names[f"bbox-{axis + ndim}"] = f"stop_{letter}"
    wanted = [name for name in names if "-" not in name] + ["centroid", "bbox"]
    truth = regionprops_table(labels, image, properties=wanted)
    assert len(table["label"]) > 15
    for theirs, ours in names.items():
        assert np.allclose(table[ours], truth[theirs], atol=1e-6), ours


@pytest.mark.parametrize("ndim", [2, 3])
def test_blocks_change_nothing(small_blocks, monkeypatch, ndim):
    labels = blobs(SHAPES[ndim])
    image = np.random.default_rng(1).integers(0, 4000, labels.shape).astype(np.uint16)
    divided = measure(labels, image)
    monkeypatch.setattr(measuring, "BLOCK", {2: (1024, 1024), 3: (64, 256, 256)})
    whole = measure(labels, image)
    assert list(divided) == list(whole)
    for name in whole:
        assert np.allclose(divided[name], whole[name], atol=1e-9, equal_nan=True), name


def test_solidity(small_blocks):
    labels = np.zeros((100, 120), np.uint8)
    labels[5:45, 5:65] = 1  # a box over several blocks
    labels[50:90, 5:65] = 2
    labels[60:90, 15:65] = 0  # an L
    labels[70, 70] = 3
    ball = (np.indices((21, 21, 21)) - 10).__pow__(2).sum(0) <= 100
    assert measure(labels)["solidity"] == pytest.approx([1, 900 / (900 + 30 * 50 / 2), 1])
    (solid,) = measure(ball)["solidity"]
    assert 0.8 < solid < 1


def test_units_follow_the_voxel_size():
    labels = np.zeros((8, 30, 40), np.uint8)
    labels[2:6, 5:25, 10:20] = 7
    table = measure(labels, voxel_size_um=(2, 0.5, 0.25))
    assert table["volume_voxels"] == [800] and table["volume_um3"] == [200]
    assert table["equivalent_diameter_um"] == pytest.approx(np.cbrt(6 / np.pi * 200))
    side = np.array([4 * 2, 20 * 0.5, 10 * 0.25])
    axes = np.sqrt(20 * (side**2 - side**2 / np.array([4, 20, 10]) ** 2) / 12)
    assert table["major_axis_um"] == pytest.approx(axes[1])
    assert table["minor_axis_um"] == pytest.approx(axes[2])
    assert "major_axis_px" not in table and "eccentricity" not in table
    plane = measure(labels[3], voxel_size_um=(0.5, 0.25))
    assert plane["area_px"] == [200] and plane["area_um2"] == [25]


def test_frames_are_apart():
    labels = np.zeros((3, 20, 20), np.uint8)
    labels[0, 2:5, 2:5] = 1
    labels[2, 2:8, 2:8] = 1
    series = measure(labels, axes="TYX")
    assert series["t"].tolist() == [0, 2] and series["area_px"].tolist() == [9, 36]
    planes = measure(labels, frames="planes")
    assert planes["z"].tolist() == [0, 2]
    (volume,) = measure(labels)["volume_voxels"]
    assert volume == 45


def test_the_image_knows_which_axis_is_time():
    labels = np.zeros((2, 20, 20), np.uint8)
    labels[:, 3:6, 3:6] = 1
    image = nu.open_stack(np.stack([np.full((20, 20), 5.0), np.full((20, 20), 9.0)]), "TYX")
    table = measure(labels, image)
    assert table["t"].tolist() == [0, 1] and table["intensity_mean"].tolist() == [5, 9]


def test_channels():
    labels = np.zeros((20, 20), np.uint8)
    labels[3:6, 3:6] = 1
    image = nu.open_stack(np.stack([np.full((20, 20), v, np.uint8) for v in (3, 8)]), "CYX")
    table = measure(labels, image)
    assert table["intensity_mean_c0"] == [3] and table["intensity_max_c1"] == [8]
    assert table["intensity_std_c1"] == [0]


def test_intensities_that_are_not_finite_are_said_once_and_only_their_objects(small_blocks):
    labels = np.zeros((40, 50), np.uint8)
    labels[2:30, 3:9], labels[2:9, 20:30], labels[20:30, 20:30] = 1, 2, 3
    image = np.ones(labels.shape)
    image[12, 4], image[4, 22], image[0, 0] = np.inf, np.nan, np.nan
    with pytest.warns(NonFiniteWarning) as caught:
        table = measure(labels, open_stack(image))
    (line,) = (str(each.message) for each in caught)
    assert line == (
        "image holds NaN or infinity: an object with such pixels has no finite intensities."
    )
    assert np.isfinite(table["intensity_mean"]).tolist() == [False, False, True]
    assert np.isnan(table["intensity_std"]).tolist() == [True, True, False]


def test_what_touches_the_border():
    labels = np.zeros((1, 20, 30), np.uint8)
    for number, (y, x) in enumerate([(0, 10), (8, 10), (8, 27), (17, 3)], 1):
        labels[0, y : y + 3, x : x + 3] = number
    assert measure(labels[0])["touches_border"].tolist() == [True, False, True, True]
    assert measure(labels)["touches_border"].tolist() == [True, False, True, True], "one plane"
    deep = np.concatenate([labels, labels])
    assert measure(deep)["touches_border"].all()


def test_no_object_and_a_thin_one():
    table = measure(np.zeros((30, 40), np.uint16), np.zeros((30, 40)))
    assert len(table["label"]) == 0 and "intensity_mean" in table and "solidity" in table
    labels = np.zeros((30, 40), np.int32)
    labels[5, 3:20] = 2**31 - 1
    labels[7, 7] = -4
    table = measure(labels)
    assert table["label"] == [2**31 - 1] and np.isnan(table["elongation"]).all()
    assert table["solidity"] == [1]
    assert table_text(table).splitlines()[1].split(",")[-3:] == ["", "1", "1"]


class Watched:
    """A label image that is computed where it is read, and remembers the largest read."""

    shape, dtype, largest = (4000, 5000), np.dtype(np.uint16), 0

    def __getitem__(self, key):
        rows, columns = (np.arange(n)[part] for n, part in zip(self.shape, key, strict=True))
        self.largest = max(self.largest, len(rows) * len(columns))
        near = (rows[:, None] // 8 % 8 < 2) & (columns // 8 % 8 < 2)
        return np.where(near, 1 + rows[:, None] // 64 * 79 + columns // 64, 0).astype(np.uint16)


def test_a_large_image_is_read_in_blocks():
    labels = Watched()
    table = measure(labels)
    assert labels.largest <= 1024 * 1024
    assert len(table["label"]) == 63 * 79
    whole = ~table["touches_border"]
    assert (table["area_px"][whole] == 256).all() and (table["solidity"][whole] == 1).all()


@pytest.mark.parametrize(
    ("labels", "image", "message"),
    [
        (np.full((9, 9), 1.5), None, "holds numbers between the labels, such as 1.5"),
        (np.zeros((9, 9), int), np.zeros((9, 8)), r"shape \(9, 9\) \(YX\), the image"),
        (np.zeros((9, 9, 3), np.uint8), None, "has 3 channels"),
        ("nowhere.tif", None, "nowhere.tif does not exist"),
    ],
)
def test_one_sentence_says_what_is_wrong(labels, image, message):
    with pytest.raises(InputError, match=message):
        measure(labels, image)


def test_a_result_file_says_how_far_objects_extend(tmp_path: Path):
    labels = np.zeros((2, 20, 20), np.uint16)
    labels[:, 3:6, 3:6] = 1
    path = tmp_path / "labels.tif"
    provenance = {"object_axes": "YX"}
    with create_output(path, labels.shape, "ZYX", np.uint16, (2, 0.5, 0.5), provenance) as output:
        output.array[...] = labels
    table = measure(path)
    assert table["z"].tolist() == [0, 1] and table["area_um2"].tolist() == [2.25, 2.25]


def test_the_table_as_a_file(tmp_path: Path):
    labels = blobs((40, 50))
    table = measure(labels, labels * 2)
    path = tmp_path / "table.csv"
    path.write_text("an older one")
    write_table(path, table)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table) and len(rows) == labels.max()
    for name in table:
        column = np.array([float(row[name] or "nan") for row in rows])
        assert np.allclose(column, table[name], rtol=1e-6, equal_nan=True)
    with pytest.raises(OutputError, match="cannot be written"):
        write_table(tmp_path / "nowhere" / "table.csv", table)
    assert len(list(tmp_path.iterdir())) == 1


def test_features_name_the_row_of_a_label():
    table = {"label": np.array([4, 7, 4]), "area_px": np.array([1, 2, 3])}
    features = layer_features(table)
    assert features["index"].tolist() == [-1, 7, -1], "a label in two frames has no one row"
    assert list(features) == ["index", "label", "area_px"]
    assert io.StringIO(table_text(table)).readline() == "label,area_px\n"
