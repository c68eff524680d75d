"""Labels of other programs: what is written is read back, and what they write is read."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from odd_objects import random_labels
from roifile import ROI_TYPE, ImagejRoi, roiread

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.comparison import LabelPair, read_pair
from napari_unet.core.labels.cellpose_seg import read_cellpose_seg, write_cellpose_seg
from napari_unet.core.labels.coco import list_coco_images, read_coco, write_coco
from napari_unet.core.labels.foreign import COCO, GEOJSON, ROIS, foreign_kind
from napari_unet.core.labels.geojson import read_geojson, write_geojson
from napari_unet.core.labels.imagej_rois import read_rois, write_rois
from napari_unet.core.labels.label_file import LabelReading, read_label_file
from napari_unet.core.labels.outlines import draw_regions, trace_objects
from napari_unet.core.regionprops.measure import measure
from napari_unet.core.training.pairs import read_labelled

if TYPE_CHECKING:
    from pathlib import Path

LABELS = random_labels(2, (40, 60), 1.5).astype(np.uint16)
STACK = np.stack([random_labels(n, (20, 30)) for n in (1, 2, 3)])


def reading(values=LABELS, axes="YX", **more) -> LabelReading:
    return LabelReading(image=(values.shape, axes), **more)


# ------------------------------------------------------------------------------------------- ROIs


@pytest.mark.parametrize(("labels", "axes"), [(LABELS, "YX"), (STACK, "ZYX"), (STACK, "TYX")])
def test_rois_are_read_back_as_the_same_labels(tmp_path: Path, labels, axes) -> None:
    path = tmp_path / "a_rois.zip"
    count = write_rois(path, trace_objects(labels, axes))
    found = roiread(path)
    assert len(found) == count and {roi.roitype for roi in found} <= {
        ROI_TYPE.TRACED,
        ROI_TYPE.RECT,
    }
    assert foreign_kind(path) == ROIS
    assert np.array_equal(read_label_file(path, reading(labels, axes)).values, labels)


def test_a_simple_roi_has_the_corners_that_imagej_traces(tmp_path: Path) -> None:
    labels = np.zeros((9, 12), np.uint8)
    labels[2:5, 3:8] = 4
    write_rois(tmp_path / "r.zip", trace_objects(labels, "YX"))
    (roi,) = roiread(tmp_path / "r.zip")
    assert sorted(map(tuple, roi.coordinates().tolist())) == [(3, 2), (3, 5), (8, 2), (8, 5)]
    assert (roi.name, roi.left, roi.top) == ("4", 3, 2)


def write_roi_zip(path: Path, *rois: ImagejRoi) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number, roi in enumerate(rois):
            archive.writestr(f"{number:04}-x.roi", roi.tobytes())


def test_rois_that_people_draw(tmp_path: Path) -> None:
    """A rectangle, an oval, a polygon between pixels, a line and a point."""
    rectangle = ImagejRoi(roitype=ROI_TYPE.RECT, top=2, left=3, bottom=6, right=9, name="cell")
    oval = ImagejRoi(roitype=ROI_TYPE.OVAL, top=10, left=10, bottom=20, right=30, name="b")
    polygon = ImagejRoi.frompoints([[40.2, 1.7], [50.5, 1.2], [45.1, 12.9]], name="c")
    line = ImagejRoi(roitype=ROI_TYPE.LINE, x1=1, y1=1, x2=9, y2=9)
    point = ImagejRoi.frompoints([[5, 5]])
    point.roitype = ROI_TYPE.POINT
    write_roi_zip(tmp_path / "r.zip", rectangle, oval, polygon, line, point)
    found = read_label_file(tmp_path / "r.zip", reading())
    assert "2 ROIs that are lines, points or text, left out" in found.remarks[0]
    assert (found.values[2:6, 3:9] == 1).all() and np.count_nonzero(found.values == 1) == 24
    assert np.count_nonzero(found.values == 2) == pytest.approx(np.pi * 50, rel=0.03)
    assert np.count_nonzero(found.values == 3) == pytest.approx(58.6, abs=4)
    rectangle.tofile(tmp_path / "one.roi")
    assert read_label_file(tmp_path / "one.roi", reading()).values.sum() == 24
    write_roi_zip(tmp_path / "lines.zip", line)
    with pytest.raises(InputError, match="holds no ROI that is an area"):
        read_rois(tmp_path / "lines.zip")


def test_rois_of_old_stacks_count_all_planes(tmp_path: Path) -> None:
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, top=2, left=3, bottom=6, right=9, position=5)
    write_roi_zip(tmp_path / "r.zip", roi)
    regions, _ = read_rois(tmp_path / "r.zip")
    drawn, _ = draw_regions(regions, (2, 3, 20, 30), "TZYX")
    assert np.argwhere(drawn.any((2, 3))).tolist() == [[1, 1]]
    assert draw_regions(regions, (7, 20, 30), "ZYX")[0][4].any()
    assert draw_regions(regions, (20, 30), "YX")[0].any()


# ----------------------------------------------------------------------------------------- QuPath


@pytest.mark.parametrize(("labels", "axes"), [(LABELS, "YX"), (STACK, "ZYX"), (STACK, "TYX")])
def test_geojson_is_read_back_as_the_same_labels(tmp_path: Path, labels, axes) -> None:
    path = tmp_path / "a.geojson"
    write_geojson(path, trace_objects(labels, axes))
    assert foreign_kind(path) == GEOJSON
    assert np.array_equal(read_label_file(path, reading(labels, axes)).values, labels)


def test_geojson_of_qupath(tmp_path: Path) -> None:
    ring = [[3, 2], [9, 2], [9, 6], [3, 6], [3, 2]]
    hole = [[4, 3], [5, 3], [5, 4], [4, 4], [4, 3]]
    feature = {
        "type": "Feature",
        "id": "f7c6",
        "geometry": {"type": "Polygon", "coordinates": [ring, hole]},
        "properties": {"objectType": "cell", "classification": {"name": "Tumor"}},
    }
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}}
    for values in ([feature, point], {"type": "FeatureCollection", "features": [feature, point]}):
        path = tmp_path / "q.geojson"
        path.write_text(json.dumps(values))
        found = read_label_file(path, reading())
        assert found.values.sum() == 23 and found.values[3, 4] == 0
        assert "1 feature that are no areas" in found.remarks[0]
    path.write_text(json.dumps(feature))
    assert read_geojson(path)[0][0].label == 0


# ------------------------------------------------------------------------------------------- COCO


def test_coco_is_read_back_as_the_same_objects(tmp_path: Path) -> None:
    path, other = tmp_path / "a.json", random_labels(9, (30, 20), 0.5)
    write_coco(path, {"a.png": LABELS, "b.png": other})
    assert list_coco_images(path) == ["a.png", "b.png"] and foreign_kind(path) == COCO
    for name, wanted in (("a.tif", LABELS), ("b.png", other)):
        found = read_label_file(path, LabelReading(name=name)).values
        ids = np.unique(wanted[wanted > 0])
        assert np.array_equal(found, np.searchsorted(ids, wanted) * (wanted > 0) + (wanted > 0))
    values = json.loads(path.read_text())
    for annotation in values["annotations"]:
        labels = LABELS if annotation["image_id"] == 1 else other
        x, _, width, height = annotation["bbox"]
        assert annotation["area"] <= width * height and x + width <= labels.shape[1]
    with pytest.raises(InputError, match=r"has no image of the name c\.tif"):
        read_coco(path, "c.tif")
    with pytest.raises(InputError, match="holds 2 images"):
        read_coco(path)
    with pytest.raises(InputError, match="planes alone"):
        write_coco(path, {"s": STACK})


def test_coco_with_packed_run_lengths_and_crowds(tmp_path: Path) -> None:
    counts = [6, 1, 40, 4, 5, 4, 5, 4, 21]
    flat = np.repeat(np.arange(9) % 2, counts)
    rle = {"size": [9, 10], "counts": pack(counts)}
    path = tmp_path / "c.json"
    image = {"id": 5, "file_name": "x/a.png", "width": 10, "height": 9}

    def read(segmentation):
        annotations = [
            {"id": 1, "image_id": 5, "category_id": 1, "segmentation": segmentation},
            {"id": 2, "image_id": 5, "iscrowd": 1, "segmentation": rle},
            {"id": 3, "image_id": 6, "segmentation": [[0, 0, 1, 1, 0, 1]]},
        ]
        path.write_text(json.dumps({"images": [image], "annotations": annotations}))
        return read_coco(path)

    labels, remarks = read({"size": [9, 10], "counts": counts})
    assert np.array_equal(labels, flat.reshape(10, 9).T)
    assert remarks == ["1 crowd left out, as no single objects"]
    assert np.array_equal(read(rle)[0], labels)
    for bad in ({"size": [9, 9], "counts": counts}, {"size": [9, 10], "counts": [1]}, 5, [["a"]]):
        with pytest.raises(InputError, match="cannot be read as COCO"):
            read(bad)


def pack(counts: list[int]) -> str:
    """Write run lengths as `rleToString` of pycocotools does."""
    text = ""
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        more = True
        while more:
            code = value & 0x1F
            value >>= 5
            more = value != -1 if code & 0x10 else value != 0
            text += chr((code | 0x20 if more else code) + 48)
    return text


# --------------------------------------------------------------------------------------- Cellpose


def seg_file(path: Path, values: object, protocol: int = 4) -> Path:
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump(np.array(values, dtype=object), file, protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_what_cellpose_saves_is_read(tmp_path: Path, protocol) -> None:
    """The entries are those of Cellpose 3 and 4."""
    values = {
        "outlines": LABELS,
        "colors": np.zeros((9, 3), np.uint8),
        "masks": LABELS,
        "chan_choose": [0, 0],
        "img": np.zeros(LABELS.shape, np.float32),
        "filename": "C:\\images\\ä.tif",
        "flows": [np.zeros((1, 40, 60, 3), np.uint8), [], None, 2.5],
        "ismanual": np.zeros(9, bool),
        "manual_changes": [],
        "model_path": 0,
        "flow_threshold": 0.4,
        "cellprob_threshold": 0.0,
        "normalize_params": {"lowhigh": None, "percentile": (1.0, 99.0), "tile": True},
        "diameter": np.float64(30.0),
        "est_diam": np.float32(30.0),
    }
    path = seg_file(tmp_path / "a_seg.npy", values, protocol)
    assert np.array_equal(read_label_file(path).values, LABELS)
    seg_file(path, {**values, "masks": np.asfortranarray(LABELS.astype(">i4"))}, protocol)
    assert np.array_equal(read_label_file(path).values, LABELS)
    seg_file(path, {"masks": LABELS.astype(np.int32) - 1}, protocol)  # before version 1
    assert np.array_equal(read_label_file(path).values, LABELS)
    seg_file(path, {"masks": STACK}, protocol)
    assert read_label_file(path).axes == "ZYX"


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_in_a_seg_file_is_run(tmp_path: Path, monkeypatch, protocol) -> None:
    monkeypatch.chdir(tmp_path)
    for values in ({"masks": Harmful()}, {"masks": LABELS, "x": Harmful()}, Harmful()):
        path = seg_file(tmp_path / "a_seg.npy", values, protocol)
        with pytest.raises(InputError, match=r"save the masks as \.tif or \.png in Cellpose"):
            read_cellpose_seg(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a_seg.npy"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"masks": 5},
        {"masks": None},
        {"masks": np.zeros((4, 4))},
        [1],
        {"masks": np.zeros(3, int)},
    ],
    ids=str,
)
def test_other_contents_of_a_seg_file_are_refused(tmp_path: Path, values) -> None:
    path = seg_file(tmp_path / "a_seg.npy", values)
    with pytest.raises(InputError, match="cannot be read as masks of Cellpose"):
        read_cellpose_seg(path)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_seg_file_is_refused_or_read(tmp_path: Path, seed) -> None:
    path = seg_file(tmp_path / "a_seg.npy", {"masks": LABELS, "chan_choose": [0, 0]})
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for place in rng.integers(0, len(data), 3):
        data[place] = rng.integers(256)
    head = 128 if seed % 2 else len(data)
    for place in rng.integers(0, min(head + 90, len(data)), 2):
        data[place] = rng.integers(256)
    path.write_bytes(bytes(data[: None if seed % 3 else rng.integers(len(data))]))
    try:
        read_cellpose_seg(path)
    except InputError:
        pass


def test_what_is_written_for_cellpose(tmp_path: Path) -> None:
    """Cellpose loads it with `np.load(..., allow_pickle=True).item()`."""
    write_cellpose_seg(tmp_path / "a_seg.npy", LABELS, tmp_path / "a.tif")
    values = np.load(tmp_path / "a_seg.npy", allow_pickle=True).item()
    assert np.array_equal(values["masks"], LABELS)
    assert values["filename"] == str(tmp_path / "a.tif")
    rim = values["outlines"] > 0
    assert rim.any() and np.array_equal(values["outlines"][rim], LABELS[rim])
    assert len(values["ismanual"]) == LABELS.max()
    assert np.array_equal(read_cellpose_seg(tmp_path / "a_seg.npy"), LABELS)


# --------------------------------------------------------------------------- where labels are taken


def test_outlines_are_scored_measured_and_learned_from(tmp_path: Path) -> None:
    rois, truth, image = tmp_path / "a.zip", tmp_path / "t.tif", tmp_path / "i.tif"
    write_rois(rois, trace_objects(LABELS, "YX"))
    tifffile.imwrite(truth, LABELS)
    tifffile.imwrite(image, np.uint16(LABELS) * 3 + 5)
    for pair in (LabelPair("a", rois, truth), LabelPair("a", truth, rois)):
        found = read_pair(pair)
        assert np.array_equal(found.labels, found.truth)
    assert np.array_equal(read_labelled("a", image, rois).labels, LABELS)
    wanted = measure(truth, image)
    assert np.array_equal(measure(rois, image)["area_px"], wanted["area_px"])
    with pytest.raises(InputError, match=r"not the size of their image; give the image"):
        measure(rois)


@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.zip", "a.roi", "a_seg.npy"])
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[5]", b'{"images": 3, "annotations": 1}', b"PK\3\4"]
)
def test_files_that_are_something_else(tmp_path: Path, name, content) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        read_label_file(tmp_path / name, reading())
