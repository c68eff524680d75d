"""A result is made again from what it says of itself, and compared."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr
from contract_parts import FIXTURES, paint

from napari_unet.batch import replay
from napari_unet.batch.replay import DIFFERENT, IDENTICAL, RENAMED, compare
from napari_unet.cli import main
from napari_unet.core.io.label_reader import read_labels
from napari_unet.core.io.methods_text import explain, methods_paragraph
from napari_unet.core.io.provenance import are_labels, hash_labels, read_provenance
from napari_unet.core.models.store import remove_model
from napari_unet.nn.inference.model import save_model


@pytest.fixture
def result(tiny_model, tmp_path):
    """Segment an image of noise by the command line; return the labels' path."""
    image = (np.random.default_rng(0).random((3, 70, 50)) * 900).astype(np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    out = tmp_path / "out" / "labels.tif"
    out.parent.mkdir()
    command = ["segment", str(tmp_path / "image.tif"), str(out), "--model", tiny_model]
    assert main([*command, "--threshold", "0.4", "--device", "cpu", "--axes", "ZYX"]) == 0
    return out


def run(*arguments) -> int:
    return main(["replay", *map(str, arguments), "--device", "cpu"])


def test_a_result_says_what_it_was_made_of(result):
    made = read_provenance(result)
    assert made["image"] == {"name": "image.tif", "axes": "ZYX", "level": 0}
    assert made["labels_hash"] == hash_labels(tifffile.imread(result))
    assert str(result.parent.parent) not in json.dumps(made), "no path of this computer"


def test_identical(result, capsys):
    before = result.read_bytes()
    assert run(result) == 0
    assert capsys.readouterr().out.startswith(f"{result}: identical: ")
    assert result.read_bytes() == before


@pytest.mark.parametrize("ending", [".png", ".zarr"])
def test_other_files(ending, tiny_model, tmp_path, capsys):
    image = (np.random.default_rng(1).random((60, 64)) * 900).astype(np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    out = tmp_path / f"labels{ending}"
    command = ["segment", str(tmp_path / "image.tif"), str(out), "--model", tiny_model]
    assert main([*command, "--device", "cpu"]) == 0
    assert run(out) == 0
    assert f"{out}: identical" in capsys.readouterr().out
    assert are_labels(read_labels(out), read_provenance(out)["labels_hash"])
    if ending == ".zarr":  # which is made block by block
        zarr.open_array(str(out / "0"), mode="r+")[:9, :9] = 99
        assert run(out) == 1
        assert "labels were changed since they were made" in capsys.readouterr().out


def test_linked_through_time(tiny_model, tmp_path, capsys):
    image = (np.random.default_rng(1).random((3, 40, 44)) * 900).astype(np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    out = tmp_path / "labels.tif"
    command = ["segment", str(tmp_path / "image.tif"), str(out), "--model", tiny_model]
    options = ["--axes", "TYX", "--link", "--link-by", "overlap", "--device", "cpu"]
    assert main([*command, *options]) == 0
    assert run(out) == 0
    assert "identical: " in capsys.readouterr().out


def test_frames_that_number_their_objects_anew_are_compared_each(tiny_model, tmp_path, capsys):
    """A run in blocks numbers the objects of each plane otherwise than one in memory."""
    image = (np.random.default_rng(1).random((3, 60, 64)) * 900).astype(np.uint16)
    tifffile.imwrite(tmp_path / "image.tif", image, imagej=True, metadata={"axes": "TYX"})
    out = tmp_path / "labels.zarr"
    command = ["segment", str(tmp_path / "image.tif"), str(out), "--model", tiny_model]
    assert main([*command, "--block", "32", "--device", "cpu"]) == 0
    assert run(out) == 0
    count = read_provenance(out)["objects"]
    assert f"identical but for the objects' numbers: {count} objects" in capsys.readouterr().out
    before = np.stack([[[1, 1, 2, 0]], [[2, 0, 0, 1]]])
    now = np.stack([[[2, 2, 1, 0]], [[2, 0, 0, 1]]])
    assert compare(before, now, leading=1).verdict == RENAMED
    assert compare(before, now).verdict == DIFFERENT


@pytest.mark.parametrize("shape", [(1, 40, 44), (1, 2, 40, 44)])
def test_axes_of_one_position_are_not_missed(tiny_model, tmp_path, capsys, shape):
    """A TIFF of ImageJ leaves them out."""
    np.save(tmp_path / "image.npy", np.random.default_rng(1).integers(0, 900, shape, np.uint16))
    out, axes = tmp_path / "labels.tif", "TZYX"[-len(shape) :]
    command = ["segment", str(tmp_path / "image.npy"), str(out), "--model", tiny_model]
    assert main([*command, "--axes", axes, "--device", "cpu"]) == 0
    assert run(out) == 0
    assert "identical: " in capsys.readouterr().out


def test_an_image_of_several_in_a_file(tiny_model, tmp_path, capsys):
    image = (np.random.default_rng(1).random((40, 44)) * 900).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "two.tif") as file:
        for part in (np.zeros((60, 60), np.uint16), image):
            file.write(part, photometric="minisblack", metadata=None)
    out = tmp_path / "labels.tif"
    command = ["segment", str(tmp_path / "two.tif"), str(out), "--model", tiny_model]
    assert main([*command, "--series", "1", "--device", "cpu"]) == 0
    assert run(out) == 0
    assert "identical: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["image.npz:b", "image.zarr/0", "several.zarr"])
def test_an_image_inside_a_file(tiny_model, tmp_path, capsys, name):
    """It is found again by its name there, and so are the labels that lie in a group of many."""
    image = (np.random.default_rng(1).random((40, 44)) * 900).astype(np.uint16)
    np.savez(tmp_path / "image.npz", a=image[:9], b=image)
    axes = [{"name": letter, "type": "space"} for letter in "yx"]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    for group in ("image.zarr", "several.zarr/0", "several.zarr/1"):
        found = zarr.open_group(str(tmp_path / group), mode="w", attributes={"ome": ome})
        found.create_array("0", data=image)
    kind = {"ome": {"version": "0.5", "bioformats2raw.layout": 3}}
    zarr.open_group(str(tmp_path / "several.zarr"), mode="a").attrs.update(kind)
    several = name == "several.zarr"
    out = tmp_path / ("several.zarr/1/labels/tiny" if several else "labels.tif")
    command = ["segment", str(tmp_path / name), *([] if several else [str(out)])]
    command += ["--series", "1"] if several else []
    assert main([*command, "--model", tiny_model, "--device", "cpu"]) == 0
    assert read_provenance(out)["image"]["name"] == name
    assert run(out) == 0
    assert "identical" in capsys.readouterr().out


def rewrite(result, change):
    labels, made = tifffile.imread(result), read_provenance(result)
    change(labels, made)
    from napari_unet.core.io.label_writer import create_output

    place = (result, labels.shape, "ZYX", np.uint32, None)
    with create_output(*place, overwrite=True) as output:
        output.array[...] = labels
        output.finish(np.uint16, made)


def test_labels_that_were_changed_since(result, capsys):
    def erase(labels, made):
        labels[0, :20] = 0

    rewrite(result, erase)
    assert run(result, "--out", result) == 2, "said before the run"
    assert capsys.readouterr().out == ""
    assert run(result, "--out", result.parent / "again.tif") == 1
    shown = capsys.readouterr().out
    assert "different: " in shown and "labels were changed since they were made" in shown
    again = tifffile.imread(result.parent / "again.tif")
    assert hash_labels(again) == read_provenance(result)["labels_hash"]


def test_another_image_version_and_device(result, capsys, tmp_path):
    def age(labels, made):
        made["versions"]["torch"] = "0.4.1"
        made["device"] = "cuda"

    rewrite(result, age)
    other = tifffile.imread(tmp_path / "image.tif")[:, ::-1]
    tifffile.imwrite(tmp_path / "other.tif", other, photometric="minisblack")
    assert run(result, tmp_path / "other.tif", "--axes", "ZYX") == 1
    shown = capsys.readouterr().out
    assert "the image is not the one" in shown
    assert "torch was 0.4.1, is" in shown and "device was cuda, is cpu" in shown


def test_strokes_made_since_are_counted(result, tmp_path, capsys):
    from napari_unet.core.annotations.journal import Journal
    from napari_unet.core.io.stack import open_stack

    made = read_provenance(result)
    stack, labels = open_stack(tmp_path / "image.tif", "ZYX"), tifffile.imread(result)
    journal = Journal.begin(stack, labels, model=made["model"], model_hash=made["model_hash"])
    for row in range(3):
        paint(journal, labels, np.s_[0:1, row : row + 1, 5:9], 700 + row, source="paint")
    journal.close()
    assert run(result) == 0
    assert "3 corrections were recorded since" in capsys.readouterr().out
    assert main(["replay", str(result), "--explain"]) == 0
    assert "corrected by hand (3 strokes)" in capsys.readouterr().out


class TestRefused:
    def test_no_image(self, result, capsys, tmp_path, monkeypatch):
        (tmp_path / "image.tif").rename(tmp_path / "moved.tif")
        monkeypatch.chdir(result.parent)
        assert run(result) == 2
        assert "its image 'image.tif' is not beside it; give the image" in capsys.readouterr().err
        assert run(result, tmp_path / "moved.tif") == 0
        assert run(result, tmp_path / "nothing.tif") == 2

    def test_no_model(self, result, capsys, make_model):
        remove_model("tiny")
        assert run(result) == 2
        assert "which is not in the store. Import it first" in capsys.readouterr().err
        save_model(make_model(), "tiny")
        assert run(result) == 2
        assert "the model 'tiny' of the store is another one" in capsys.readouterr().err

    def test_no_result(self, tmp_path, capsys):
        tifffile.imwrite(tmp_path / "labels.tif", np.zeros((9, 9), np.uint8))
        assert run(tmp_path / "labels.tif") == 2
        assert "has no provenance" in capsys.readouterr().err


class TestWords:
    def test_explained(self, result, capsys):
        assert main(["replay", str(result), "--explain"]) == 0
        shown = capsys.readouterr().out
        assert "Image image.tif, axes ZYX." in shown and "threshold 0.4" in shown
        assert "Run on cpu with float32." in shown
        assert "a foreground threshold of 0.4" in shown
        assert "Ronneberger et al. 2015" in shown and "Çiçek" not in shown

    def test_of_a_result_of_the_first_version(self):
        made = read_provenance(FIXTURES / "old_labels.tif")
        assert explain(made)[0].startswith("Model ")
        assert "napari-unet" in methods_paragraph(made)

    def test_volumes_and_strokes(self):
        made = {"object_axes": "ZYX", "volumes": "auto", "settings": {}, "model": "m"}
        text = methods_paragraph(made, strokes=4)
        assert "3D U-Net" in text and "Çiçek" in text and "4 strokes" in text


class TestCompare:
    labels = np.array([[0, 1, 1, 0], [2, 2, 0, 3]], np.uint16)

    def test_numbers(self):
        renamed = np.array([0, 7, 9, 1], np.uint32)[self.labels]
        assert compare(self.labels, self.labels.copy()).verdict == IDENTICAL
        found = compare(self.labels, renamed)
        assert (found.verdict, found.objects) == (RENAMED, 3)

    def test_background_is_no_object(self):
        swapped = np.array([1, 0, 2, 3], np.uint16)[self.labels]
        assert compare(self.labels, swapped).verdict == DIFFERENT

    def test_pixels(self):
        other = self.labels.copy()
        other[1, 3] = 0
        found = compare(self.labels, other, ("reason",))
        assert (found.verdict, found.objects, found.before) == (DIFFERENT, 2, 3)
        assert found.pixels == 1 / 8 and found.reasons == ("reason",)

    def test_shapes(self):
        assert "gives (2, 3)" in compare(self.labels, self.labels[:, :3]).reasons[0]


def test_plan_is_what_the_result_says(result):
    plan = replay.plan_replay(result)
    assert plan.entry.name == "tiny" and plan.stack.axes == "ZYX" and plan.reasons == ()
