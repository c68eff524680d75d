"""Where an image lies: coordinate transformations of OME-Zarr, and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import zarr

from napari_unet.core.io.coordinate_transform import CoordinateTransform, combine_transforms
from napari_unet.core.io.ome_zarr import find_labels_transform
from napari_unet.core.io.ome_zarr_labels import label_attributes


def scale(*values):
    return {"type": "scale", "scale": list(values)}


def translation(*values):
    return {"type": "translation", "translation": list(values)}


def test_transformations_are_done_one_after_the_other():
    steps = [scale(2, 3), translation(10, 20), {"type": "identity"}, scale(0.5, 2)]
    assert combine_transforms(steps, 2) == ([1, 6], [5, 40])
    assert combine_transforms([], 2) == ([1, 1], [0, 0])


@pytest.mark.parametrize(
    "odd", [scale(1), scale(1, "2"), {"type": "scale", "path": "s"}, {"scale": [1, 1]},
            {"type": "affine", "affine": [[1, 0, 0], [0, 1, 0]]}],
)  # fmt: skip
def test_what_is_no_scale_of_the_axes_leaves_it_open(odd):
    assert math.isnan(combine_transforms([scale(2, 2), odd], 2)[0][1])
    assert CoordinateTransform.from_metadata("YX", [{"name": "y"}, {"name": "x"}], [odd]) is None


def test_an_odd_translation_costs_no_scale():
    assert combine_transforms([scale(2, 3), translation(1)], 2)[0] == [2, 3]
    assert (
        CoordinateTransform.from_metadata("YX", [{"name": "y"}, {"name": "x"}], [translation(1)])
        is None
    )


def test_labels_lack_the_channels_of_their_image():
    names = [{"name": n, "type": t} for n, t in (("t", "time"), ("c", "channel"))]
    names += [{"name": n, "type": "space", "unit": "nanometer"} for n in "yx"]
    place = CoordinateTransform.from_metadata(
        "TCYX", names, [scale(60, 1, 500, 250), translation(5, 0, 7, 0)]
    )
    assert place is not None and place.select_axes("TZYX") is None
    labels = place.select_axes("TYX")
    assert labels is not None and list(labels.axes) == [names[0], *names[2:]]
    assert labels.transforms(1) == [scale(60, 1000, 500), translation(5, 7, 0)]


def test_levels_of_an_image_of_which_only_the_voxel_is_known():
    place = CoordinateTransform.from_voxel_size("TYX", (1.0, 0.5, 0.25))
    image = label_attributes("cells", place, 2, "0.5")["multiscales"][0]
    assert [axis.get("unit") for axis in image["axes"]] == [None, "micrometer", "micrometer"]
    found = [level["coordinateTransformations"] for level in image["datasets"]]
    assert found == [[scale(1, 0.5, 0.25)], [scale(1, 1, 0.5)]]
    assert np.all(np.equal(place.translation, 0))


def test_a_group_that_is_no_ome_zarr_says_nothing_of_a_place(tmp_path):
    group = zarr.open_group(str(tmp_path / "plain.zarr"), mode="w")
    group.create_array("data", data=np.zeros((8, 9), np.uint8))
    group.attrs["made_by"] = "somebody"
    assert find_labels_transform(tmp_path / "plain.zarr", "YX", (8, 9)) is None
