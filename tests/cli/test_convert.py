"""`napari-unet convert` and `segment --also`: labels from and for other programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr
from odd_objects import random_labels
from roifile import roiread

from napari_unet.cli import main
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.label_writer import create_output
from napari_unet.core.io.stack import open_stack
from napari_unet.core.labels.cellpose_seg import read_cellpose_seg

if TYPE_CHECKING:
    from pathlib import Path

LABELS = random_labels(4, (40, 50), 1.5).astype(np.uint16)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "a.tif", LABELS)
    tifffile.imwrite(tmp_path / "image.tif", np.zeros(LABELS.shape, np.uint8))
    return tmp_path / "a.tif"


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


@pytest.mark.parametrize(
    "name",
    ["b_rois.zip", "b.zip", "b.geojson", "b.json", "b_seg.npy", "b.png", "b.zarr", "b.ome.tif"],
)
def test_there_and_back(labels: Path, tmp_path: Path, capsys, name) -> None:
    assert convert(labels, tmp_path / name) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / name}: ") and not err
    image = (
        [] if "." + name.split(".")[-1] not in (".zip", ".geojson") else ["--image", "image.tif"]
    )
    image = [str(tmp_path / part) if part.endswith("tif") else part for part in image]
    assert convert(tmp_path / name, tmp_path / "back.tif", *image) == 0
    back = read_labels(tmp_path / "back.tif")
    if name == "b.json":  # COCO numbers its objects anew
        pairs = np.unique(np.stack([back.ravel(), LABELS.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(LABELS))
    else:
        assert np.array_equal(back, LABELS)
    assert convert(labels, tmp_path / name) == 2
    assert "exists already" in capsys.readouterr().err
    assert convert(labels, tmp_path / name, "--overwrite") == 0


def test_a_folder_and_a_file_of_many_images(tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    for name in ("x", "y"):
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", LABELS)
    assert convert(tmp_path / "in", tmp_path / "out") == 2
    assert "say what to make of each" in capsys.readouterr().err
    assert convert(tmp_path / "in", tmp_path / "out", "--to", "rois") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x_rois.zip", "y_rois.zip"]
    images = ["--image", tmp_path / "in"]
    assert convert(tmp_path / "out", tmp_path / "again", "--to", "tif", *images) == 0
    assert np.array_equal(read_labels(tmp_path / "again" / "y.tif"), LABELS)
    (tmp_path / "in" / "z.tif").write_bytes(b"no image")
    assert convert(tmp_path / "in", tmp_path / "third", "--to", "geojson") == 2
    assert len(list((tmp_path / "third").iterdir())) == 2
    assert "skipped" in capsys.readouterr().err
    images = [{"id": n, "file_name": f"{n}.png", "height": 9, "width": 9} for n in (1, 2)]
    square = [[2, 2, 6, 2, 6, 6, 2, 6]]
    objects = [{"id": n, "image_id": n, "segmentation": square} for n in (1, 2)]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": objects}))
    assert convert(tmp_path / "c.json", tmp_path / "planes", "--to", "tif") == 0
    assert read_labels(tmp_path / "planes" / "2.tif").sum() == 16


def test_masks_become_objects(labels: Path, tmp_path: Path, capsys) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.uint8(LABELS > 0) * 255)
    assert convert(tmp_path / "mask.tif", tmp_path / "o.tif", "--labels-as", "components") == 0
    assert read_labels(tmp_path / "o.tif").max() > 1
    assert convert(tmp_path / "mask.tif", tmp_path / "p.tif") == 0
    assert "this looks like a mask" in capsys.readouterr().err


def test_voxel_size_and_provenance_are_kept(tmp_path: Path) -> None:
    described = (tmp_path / "a.tif", LABELS.shape, "YX", np.uint16, (1.0, 0.5, 0.25))
    with create_output(*described, provenance={"model": "nuclei"}) as output:
        output.array[...] = LABELS
    assert convert(tmp_path / "a.tif", tmp_path / "b.zarr") == 0
    assert open_stack(tmp_path / "b.zarr").voxel_size_um == (1.0, 0.5, 0.25)
    from napari_unet.core.io.provenance import read_provenance

    assert read_provenance(tmp_path / "b.zarr") == {"model": "nuclei"}


def test_labels_stay_where_they_lie_in_the_world(tmp_path: Path) -> None:
    named = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    named = [{"name": "t", "type": "time", "unit": "second"}, *named]
    steps = [{"type": "scale", "scale": [30.0, 0.5, 0.25]},
             {"type": "translation", "translation": [0.0, 100.0, 200.0]}]  # fmt: skip
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=3)
    group.create_array("0", data=np.stack([LABELS, LABELS]))
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    images = [{"name": "a", "axes": named, "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": images}
    assert convert(tmp_path / "a.zarr", tmp_path / "b.zarr") == 0
    assert convert(tmp_path / "a.zarr", tmp_path / "c.tif") == 0
    assert convert(tmp_path / "c.tif", tmp_path / "d.zarr", "--image", tmp_path / "a.zarr") == 0
    wanted = open_stack(tmp_path / "a.zarr").transform
    assert open_stack(tmp_path / "b.zarr").transform == wanted
    assert open_stack(tmp_path / "d.zarr").transform == wanted


@pytest.mark.parametrize("name", ["b_rois.zip", "b.geojson", "b.json", "b_seg.npy"])
def test_an_image_without_objects_is_one_of_its_folder(tmp_path: Path, name: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((30, 40), np.uint8))
    assert convert(tmp_path / "a.tif", tmp_path / name) == 0
    assert convert(tmp_path / name, tmp_path / "c.tif", "--image", tmp_path / "a.tif") == 0
    assert not read_labels(tmp_path / "c.tif").any()


def test_labels_of_no_pixel(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 20), np.uint16))
    for name in ("b.zarr", "b.geojson", "b.json", "b_seg.npy"):
        assert convert(tmp_path / "a.npy", tmp_path / name) == 0
    assert main(["measure", str(tmp_path / "b.zarr"), "--csv", str(tmp_path / "c.csv")]) == 0
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 1
    picture = ("--overlay", str(tmp_path / "p.png"))
    assert main(["evaluate", str(tmp_path / "b.zarr"), str(tmp_path / "a.npy"), *picture]) == 2
    np.save(tmp_path / "a.npy", np.zeros((0, 20, 20), np.uint16))
    assert main(["measure", str(tmp_path / "a.npy"), "--axes", "TYX"]) == 2


def test_an_image_is_not_replaced_by_what_lies_in_it(
    tmp_path: Path, tiny_model: str, capsys
) -> None:
    """Not even by --overwrite: the raw data would be gone."""
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("0", data=LABELS)
    whole = str(tmp_path / "a.zarr")
    assert main(["segment", f"{whole}/0", whole, "--overwrite", "--model", tiny_model]) == 2
    assert convert(f"{whole}/0", whole, "--overwrite") == 2
    for line in capsys.readouterr().err.splitlines():
        assert "a.zarr holds the input" in line
    np.testing.assert_array_equal(open_stack(tmp_path / "a.zarr/0").data[:], LABELS)


def test_the_cell_tracking_challenge(tmp_path: Path, capsys) -> None:
    moving = np.zeros((3, 20, 20), np.uint16)
    moving[0, 2:6, 2:6] = moving[1, 3:7, 3:7] = 5
    moving[2, 2:5, 2:5], moving[2, 9:13, 9:13] = 8, 9
    tifffile.imwrite(tmp_path / "tracked.tif", moving, imagej=True, metadata={"axes": "TYX"})
    (tmp_path / "tracked.tracks.csv").write_text(
        "id,t,z,y,x,parent\n5,0,0,3,3,0\n8,2,0,3,3,5\n9,2,0,9,9,5\n"
    )
    assert convert(tmp_path / "tracked.tif", tmp_path / "01_RES", "--to", "ctc") == 0
    names = sorted(path.name for path in (tmp_path / "01_RES").iterdir())
    assert names == ["mask000.tif", "mask001.tif", "mask002.tif", "res_track.txt"]
    text = (tmp_path / "01_RES" / "res_track.txt").read_text()
    assert text == "5 0 1 0\n8 2 2 5\n9 2 2 5\n"
    assert convert(tmp_path / "01_RES", tmp_path / "back.tif") == 0
    back = open_stack(tmp_path / "back.tif")
    assert back.axes == "TYX" and np.array_equal(np.asarray(back.data), moving)
    assert convert(tmp_path / "tracked.tif", tmp_path / "01_RES", "--to", "ctc") == 2
    tifffile.imwrite(tmp_path / "plane.tif", moving[0])
    assert convert(tmp_path / "plane.tif", tmp_path / "02_RES", "--to", "ctc") == 2
    assert "have no time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.tif", "b.txt"], "does not say what to write"),
        (["a.tif", "b.tif", "--to", "pdf"], "choose one of: rois, geojson"),
        (["gone.tif", "b.tif"], "does not exist"),
        (["a.geojson", "b.tif"], "not the size of their image"),
        (["a.tif", "nowhere/b.tif"], "nowhere"),
        (["a.tif", "nowhere/b_rois.zip"], "nowhere"),
    ],
)
def test_one_line_says_what_is_wrong(labels, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert convert(labels, "a.geojson") == 0
    assert convert(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_ids_that_no_file_holds_are_refused(tmp_path: Path, capsys) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(np.int64) << 40)
    for name in ("b.tif", "b.zarr", "b.geojson"):
        assert convert(tmp_path / "a.tif", tmp_path / name) == 2
        assert "and label files hold them below 4,294,967,296" in capsys.readouterr().err


def test_a_stack_is_no_coco(tmp_path: Path, capsys) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.stack([LABELS] * 5), photometric="minisblack")
    assert convert(tmp_path / "s.tif", tmp_path / "s.json") == 2
    assert "are no plane" in capsys.readouterr().err
    assert convert(tmp_path / "s.tif", tmp_path / "s_rois.zip") == 0
    assert {roi.z_position for roi in roiread(tmp_path / "s_rois.zip")} == {1, 2, 3, 4, 5}


def test_segment_writes_for_others_too(tmp_path: Path, tiny_model, capsys) -> None:
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "cells.tif", rng.integers(0, 255, (64, 64), np.uint8))
    command = ["segment", str(tmp_path / "cells.tif"), str(tmp_path / "out.tif")]
    command += ["--model", tiny_model, "--device", "cpu"]
    assert main([*command, "--also", "pdf"]) == 2
    assert "choose from: rois, geojson, coco, cellpose" in capsys.readouterr().err
    assert main([*command, "--also", "rois,geojson,coco,cellpose"]) == 0
    found = read_labels(tmp_path / "out.tif")
    assert np.array_equal(read_cellpose_seg(tmp_path / "out_seg.npy"), found)
    for name in ("out.geojson", "out.json"):
        assert json.loads((tmp_path / name).read_text())
    assert (tmp_path / "out_rois.zip").is_file()
    assert main([*command, "--also", "rois", "--overwrite"]) == 0
    (tmp_path / "out.tif").unlink()
    assert main([*command, "--also", "rois"]) == 2
    assert "out_rois.zip exists already" in capsys.readouterr().err
    assert not (tmp_path / "out.tif").exists(), "said before the run"
