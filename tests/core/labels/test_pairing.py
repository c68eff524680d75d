"""Images and labels in the layouts that people have, made into pairs."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_unet.cli import main
from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.comparison import pair_files
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.labels.cellpose_seg import write_cellpose_seg
from napari_unet.core.labels.coco import write_coco
from napari_unet.core.labels.pairing import find_layout, pair_images
from napari_unet.core.training.pairs import pair_paths, read_labelled, samples_of

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30)
LABELS = np.zeros((20, 30), np.uint8)
LABELS[2:9, 3:12], LABELS[11:18, 15:28] = 1, 2


def files(folder: Path, *names: str) -> Path:
    """Write an image or labels under each name, by what it says."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        words = ("mask", "label", "SEG", "RES", "truth", "found")
        is_label = any(word in name for word in words)
        if name.endswith("_seg.npy"):
            write_cellpose_seg(path, LABELS, None)
        elif name.endswith(".png"):
            from PIL import Image

            Image.fromarray(LABELS if is_label else np.uint8(IMAGE % 256)).save(path)
        else:
            tifffile.imwrite(path, LABELS if is_label else IMAGE)
    return folder


def names_of(pairs) -> dict[str, str]:
    return {name: pair.labels.name for name, pair in pairs.items()}


def test_cellpose_beside_the_images(tmp_path: Path) -> None:
    files(
        tmp_path, "a.tif", "a_masks.tif", "b.tif", "b_cp_masks.png", "c.tif", "c_seg.npy", "d.tif"
    )
    pairs, remark = pair_paths(tmp_path)
    found = {name: pair.labels.name for name, (pair, _) in pairs.items()}
    assert found == {"a": "a_masks.tif", "b": "b_cp_masks.png", "c": "c_seg.npy"} and not remark
    for name, (pair, _) in pairs.items():
        assert np.array_equal(read_labelled(name, pair.images, pair.labels).labels, LABELS)


@pytest.mark.parametrize("root", ["", "train/"])
def test_stardist(tmp_path: Path, root) -> None:
    files(tmp_path, f"{root}images/x.tif", f"{root}images/y.tif", f"{root}masks/y.tif")
    pairs, _ = pair_paths(tmp_path)
    assert list(pairs) == ["y"]


def test_nnunet_with_channels(tmp_path: Path) -> None:
    files(tmp_path, *[f"imagesTr/case_{n}_000{c}.png" for n in (1, 2) for c in (0, 1)])
    files(tmp_path, "labelsTr/case_1.png", "labelsTr/case_2.png")
    classes = {"background": 0, "cell": 1, "rim": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": classes}))
    pairs, remark = pair_paths(tmp_path)
    assert list(pairs) == ["case_1", "case_2"] and "add --classes 3" in remark
    pair, _ = pairs["case_1"]
    assert [path.name for path in pair.images] == ["case_1_0000.png", "case_1_0001.png"]
    stack = read_labelled("case_1", pair.images, pair.labels).stack
    assert stack.axes == "CYX" and stack.channels == 2


def test_cell_tracking_challenge(tmp_path: Path) -> None:
    files(tmp_path, "01/t000.tif", "01/t001.tif", "01/t002.tif")
    files(tmp_path, "01_GT/SEG/man_seg001.tif", "01_GT/TRA/man_track001.tif")
    files(tmp_path, "01_RES/mask000.tif", "01_RES/mask001.tif", "01_RES/mask002.tif")
    pairs, _ = pair_paths(tmp_path / "01")
    assert {name: pair.labels.name for name, (pair, _) in pairs.items()} == {
        "t001": "man_seg001.tif"
    }
    scored = pair_files(tmp_path / "01_RES", tmp_path / "01_GT" / "SEG")
    assert [(pair.predicted.name, pair.truth.name) for pair in scored] == [
        ("mask001.tif", "man_seg001.tif")
    ]
    assert main(["evaluate", str(tmp_path / "01_RES"), str(tmp_path / "01_GT" / "SEG")]) == 0


def test_a_labelled_plane_of_a_volume(tmp_path: Path) -> None:
    (tmp_path / "01").mkdir()
    tifffile.imwrite(tmp_path / "01" / "t003.tif", np.stack([IMAGE] * 4), imagej=True)
    files(tmp_path, "01_GT/SEG/man_seg_003_002.tif")
    pairs, _ = pair_paths(tmp_path / "01")
    ((name, (pair, _)),) = pairs.items()
    assert (name, pair.plane) == ("t003 z2", 2)
    axes = {"axes": "ZYX"}
    found = read_labelled(name, pair.images, pair.labels, plane=pair.plane, **axes)
    assert np.array_equal(found.labels[2], LABELS)
    assert found.known.any((1, 2)).tolist() == [False, False, True, False]
    (item,) = samples_of([found], 2, 1, InstanceHead()).items
    assert np.array_equal(item.labels, LABELS)
    with pytest.raises(InputError, match="for the plane 9"):
        read_labelled(name, pair.images, pair.labels, plane=9, **axes)


def test_patterns(tmp_path: Path) -> None:
    files(
        tmp_path,
        "raw/a.tif",
        "raw/b.tif",
        "raw/a.png",
        "drawn/a-truth-2.tif",
        "drawn/b-truth-2.tif",
    )
    with pytest.raises(InputError, match="no file name in common"):
        pair_images(tmp_path / "raw", tmp_path / "drawn", "*.tif")
    pairs = pair_images(tmp_path / "raw", tmp_path / "drawn", "*.tif", "{stem}-truth-2.tif")
    assert names_of(pairs) == {"a": "a-truth-2.tif", "b": "b-truth-2.tif"}
    with pytest.raises(InputError, match=r"no labels like '\{stem\}_x.tif'; of a.tif .* a_x.tif"):
        pair_images(tmp_path / "raw", tmp_path / "drawn", "*.tif", "{stem}_x.tif")
    with pytest.raises(InputError, match=r"has no \{stem\}"):
        pair_images(tmp_path / "raw", tmp_path / "drawn", None, "masks.tif")
    with pytest.raises(InputError, match=r"holds no image like '\*\.jpg'"):
        pair_images(tmp_path / "raw", tmp_path / "drawn", "*.jpg")


def test_a_coco_file_for_a_folder(tmp_path: Path) -> None:
    files(tmp_path, "images/a.tif", "images/b.tif", "images/c.tif")
    write_coco(tmp_path / "all.json", {"a.png": LABELS, "c.png": LABELS.T})
    pairs = pair_images(tmp_path / "images", tmp_path / "all.json")
    assert list(pairs) == ["a", "c"]
    found = read_labelled("a", pairs["a"].images, pairs["a"].labels)
    assert np.array_equal(found.labels, LABELS)
    with pytest.raises(InputError, match="their image"):
        read_labelled("c", pairs["c"].images, pairs["c"].labels)
    files(tmp_path, "found/a.tif")
    scored = pair_files(tmp_path / "found", tmp_path / "all.json")
    assert [pair.name for pair in scored] == ["a"]
    assert main(["evaluate", str(tmp_path / "found"), str(tmp_path / "all.json")]) == 0


def test_names_that_are_spelled_in_two_ways(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "Zählung.tif") for form in ("NFC", "NFD"))
    files(tmp_path, f"images/{one}", f"masks/{other}")
    assert len(pair_images(tmp_path / "images", tmp_path / "masks")) == 1


def test_evaluate_by_patterns_and_endings(tmp_path: Path, capsys) -> None:
    files(
        tmp_path, "found/a.tif", "found/b.tif", "data/a.tif", "data/a_masks.tif", "data/b_masks.tif"
    )
    arguments = ["evaluate", str(tmp_path / "found"), str(tmp_path / "data")]
    assert main([*arguments, "--labels", "{stem}_masks.tif"]) == 0
    assert "pooled (2 images)" in capsys.readouterr().out
    assert main([*arguments, "--labels", "{stem}_masks.tif", "--predicted", "b*"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("b ")
    files(tmp_path, "res/a.tif", "gt/a_masks.tif")
    assert main(["evaluate", str(tmp_path / "res"), str(tmp_path / "gt")]) == 0


def test_train_takes_a_layout_and_patterns(tmp_path: Path, home, capsys) -> None:
    files(tmp_path, "a.tif", "a_masks.tif")
    new = ["--scratch", "--depth", "1", "--width", "4", "--steps", "2", "--crop", "16"]
    new += ["--device", "cpu"]
    assert main(["train", str(tmp_path), *new, "--name", "one"]) == 0
    assert "1 image, 2 objects" in capsys.readouterr().out
    options = ["--images", "?.tif", "--labels", "{stem}_masks.tif", "--name", "two"]
    assert main(["train", str(tmp_path), str(tmp_path), *new, *options]) == 0
    assert main(["train", str(tmp_path / "a.tif"), *new, "--name", "x"]) == 2
    assert "labels of" in capsys.readouterr().err


def test_a_folder_without_labels_says_what_is_known(tmp_path: Path) -> None:
    files(tmp_path, "a.tif", "b.tif")
    with pytest.raises(InputError, match=r"holds no labels by the names that are known.*imagesTr"):
        find_layout(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        find_layout(tmp_path / "gone")


def test_what_lies_beside_labels_for_other_programs_is_left_out(tmp_path: Path, capsys) -> None:
    """As after `segment --also`, and with the description of a data set among the truth."""
    files(tmp_path, "found/a.tif", "found/a_seg.npy", "truth/a.tif", "images/a.tif")
    write_coco(tmp_path / "found" / "a.json", {"a.tif": LABELS})
    for name in ("truth/dataset.json", "found/notes.json"):
        (tmp_path / name).write_text('{"labels": {"cell": 1}}')
    pairs = pair_files(tmp_path / "found", tmp_path / "truth")
    assert [(pair.name, pair.predicted.name, pair.truth.name) for pair in pairs] == [
        ("a", "a.tif", "a.tif")
    ]
    assert main(["evaluate", str(tmp_path / "found"), str(tmp_path / "truth")]) == 0
    assert main(["measure", str(tmp_path / "found"), str(tmp_path / "images")]) == 0
    assert names_of(pair_images(tmp_path / "images", tmp_path / "found")) == {"a": "a.tif"}
    (tmp_path / "found" / "a.tif").unlink()
    assert names_of(pair_images(tmp_path / "images", tmp_path / "found")) == {"a": "a.json"}
