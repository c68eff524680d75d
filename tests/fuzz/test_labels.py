"""Label files of other programs with something wrong in them."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st
from mutations import changed_bytes, changed_json
from odd_objects import random_labels

from napari_unet.core.labels.cellpose_seg import write_cellpose_seg
from napari_unet.core.labels.coco import write_coco
from napari_unet.core.labels.geojson import write_geojson
from napari_unet.core.labels.imagej_rois import write_rois
from napari_unet.core.labels.label_file import LabelReading, read_label_file
from napari_unet.core.labels.outlines import trace_objects

LABELS = random_labels(2, (24, 30), 1.5).astype(np.uint16)
HOW = LabelReading(image=(LABELS.shape, "YX"))


@pytest.mark.parametrize("name", ["a.geojson", "a.json"])
def test_json(fuzz, tmp_path, name) -> None:
    path = tmp_path / name
    if name == "a.json":
        write_coco(path, {"a.tif": LABELS})
    else:
        write_geojson(path, trace_objects(LABELS, "YX"))
    values, whole = json.loads(path.read_text()), path.read_bytes()
    spoiled = changed_json(values, 2).map(lambda found: json.dumps(found).encode())

    def check(data) -> None:
        path.write_bytes(data)
        read_label_file(path, HOW)

    fuzz(spoiled | changed_bytes([whole]), check, 150)


def test_rois(fuzz, tmp_path) -> None:
    path = tmp_path / "a.zip"
    write_rois(path, trace_objects(LABELS, "YX"))
    parts = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    rois = [parts.read(name) for name in parts.namelist()]

    @st.composite
    def rezipped(draw):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("1.roi", draw(changed_bytes(rois, 3)))
            archive.writestr("2.roi", rois[0])
        return out.getvalue()

    def check(data) -> None:
        path.write_bytes(data)
        read_label_file(path, HOW)

    fuzz(rezipped() | changed_bytes([path.read_bytes()]), check, 300)


def test_cellpose(fuzz, tmp_path) -> None:
    path = tmp_path / "a_seg.npy"
    write_cellpose_seg(path, LABELS, None)

    def check(data) -> None:
        path.write_bytes(data)
        read_label_file(path)

    fuzz(changed_bytes([path.read_bytes()]), check, 300)
