"""Corrections are shown as thumbnails and exported as files that other programs read."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_unet.core.annotations.corrections import list_corrections
from napari_unet.core.annotations.edits import KNOWN
from napari_unet.core.annotations.export import draw_correction, export_corrections
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.errors import InputError, OutputError
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end

LABELS = np.zeros((3, 60, 200), np.uint16)
LABELS[:, 10:30, 10:30] = 500
LABELS[:, 10:30, 100:150] = 7


@pytest.fixture
def volume(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, LABELS.shape).astype(np.uint8)
    tifffile.imwrite(tmp_path / "volume.tif", values, photometric="minisblack")
    with Journal.begin(open_stack(tmp_path / "volume.tif", "ZYX"), LABELS) as journal:
        journal.mark(KNOWN, (1,))
    return values


def test_a_thumbnail_shows_what_is_known_with_outlines(volume, tmp_path):
    (entry,) = list_corrections()
    drawn = draw_correction(entry)
    assert (drawn.shape, drawn.dtype) == ((30, 100, 3), np.uint8)
    assert (drawn.max(2) > drawn.min(2)).any()  # outlines have colours, the image has none
    (tmp_path / "volume.tif").unlink()
    assert not draw_correction(entry)[25:].any()
    with pytest.raises(InputError, match="Nothing is known"):
        draw_correction(entry, (0,))


@pytest.mark.parametrize("layout", ["cellpose", "stardist"])
def test_pairs_are_written_as_other_programs_look_for_them(volume, tmp_path, layout):
    out = tmp_path / "out"
    assert run_to_end(export_corrections(list(list_corrections()), out, layout=layout)) == []
    if layout == "cellpose":
        (masks,) = out.glob("*_masks.tif")
        image = masks.with_name(masks.name.replace("_masks", ""))
        assert sorted(out.glob("*.tif")) == sorted([image, masks])
    else:
        (image,) = (out / "images").iterdir()
        (masks,) = (out / "masks").iterdir()
        assert image.name == masks.name
    assert np.array_equal(tifffile.imread(image), volume[1])
    labels = tifffile.imread(masks)
    assert labels.dtype == np.uint16
    assert np.array_equal(np.unique(labels), [0, 1, 2])
    assert np.array_equal(labels > 0, LABELS[1] > 0)
    assert (tifffile.imread(out / "known" / image.name) == 255).all()


def test_colour_images_stay_colour_images(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (60, 200, 3)).astype(np.uint8)
    with Journal.begin(open_stack(values, "YXS"), LABELS[0]) as journal:
        journal.mark(KNOWN)
    run_to_end(export_corrections(list(list_corrections()), tmp_path / "out", layout="stardist"))
    (image,) = (tmp_path / "out" / "images").iterdir()
    assert np.array_equal(tifffile.imread(image), values)
    assert draw_correction(next(list_corrections())).shape == (30, 100, 3)


def test_volumes_are_written_as_volumes(volume, tmp_path):
    run_to_end(export_corrections(list(list_corrections()), tmp_path / "out", ndim=3))
    (masks,) = (tmp_path / "out").glob("*_masks.tif")
    assert tifffile.imread(masks).shape == LABELS.shape
    known = tifffile.imread(tmp_path / "out" / "known" / masks.name.replace("_masks", ""))
    assert known.any((1, 2)).tolist() == [False, True, False]


def test_what_cannot_be_exported_is_said(volume, tmp_path):
    with pytest.raises(InputError, match="choose one of: cellpose, stardist"):
        run_to_end(export_corrections(list(list_corrections()), tmp_path / "out", layout="imagej"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        run_to_end(export_corrections(list(list_corrections()), tmp_path / "file" / "out"))
    corrections = list(list_corrections())
    (tmp_path / "volume.tif").unlink()
    with pytest.raises(InputError, match="no corrections to export"):
        run_to_end(export_corrections(corrections, tmp_path / "out"))
