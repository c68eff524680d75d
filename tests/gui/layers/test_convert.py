from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image

from napari_unet.core.errors import InputError
from napari_unet.gui.layers.convert import (
    layer_axes,
    layer_stack,
    possible_axes,
    read_axes,
    voxel_size_um,
)


def image(*shape, **options):
    return Image(np.zeros(shape, np.uint8), name="im", **options)


@pytest.mark.parametrize(
    ("shape", "options", "axes"),
    [
        ((5, 6), {}, "YX"),
        ((4, 5, 6), {}, "ZYX"),
        ((3, 4, 5, 6), {}, "TZYX"),
        ((3, 2, 4, 5, 6), {}, "TCZYX"),
        ((4, 5, 6), {"axis_labels": ("t", "y", "x")}, "TYX"),
        ((4, 5, 6), {"axis_labels": ("Channel", "Y", "X")}, "CYX"),
        ((4, 3, 5, 6), {"axis_labels": ("z", "time", "y", "x")}, "ZTYX"),
        ((4, 5, 6), {"axis_labels": ("angle", "y", "x")}, "ZYX"),
        ((4, 5, 6), {"axis_labels": ("y", "y", "x")}, "ZYX"),
        ((5, 6, 3), {"rgb": True}, "YX"),
        ((2, 5, 6, 4), {"rgb": True}, "ZYX"),
    ],
)
def test_axes(shape, options, axes):
    layer = image(*shape, **options)
    assert layer_axes(layer) == axes
    stack = layer_stack(layer)
    assert stack.axes == axes + "C" * layer.rgb
    assert stack.rgb == layer.rgb and stack.name == "im"


NAMES = {"T": "time", "C": "channel", "Z": "z", "Y": "y", "X": "x"}


@pytest.mark.parametrize(
    ("truth", "shape", "units", "guess", "certain"),
    [
        ("YX", (40, 50), "", "YX", True),
        ("YXC", (40, 50, 1), "", "YXC", True),
        ("YXC", (40, 50, 2), "", "YXC", True),
        ("CYX", (2, 40, 50), "", "ZYX", False),
        ("ZYX", (9, 40, 50), "", "ZYX", False),
        ("TYX", (9, 40, 50), "", "ZYX", False),
        ("TYX", (9, 40, 50), "s px px", "TYX", True),
        ("ZYX", (9, 40, 50), "um um um", "ZYX", True),
        ("ZCYX", (9, 2, 40, 50), "", "TZYX", False),
        ("TZYX", (9, 4, 40, 50), "s um um um", "TZYX", True),
        ("TYXC", (9, 40, 50, 2), "", "ZYXC", False),
        ("TZCYX", (3, 4, 2, 40, 50), "", "TCZYX", False),
    ],
)
def test_axes_without_names_are_a_guess_where_they_could_be_others(
    truth, shape, units, guess, certain
):
    units = tuple("pixel" if unit == "px" else unit for unit in units.split()) or None
    assert read_axes(image(*shape, units=units)) == (guess, certain)
    named = image(*shape, axis_labels=[NAMES[letter] for letter in truth])
    assert read_axes(named) == (truth, True)
    plain = image(*shape, units=units)
    assert truth in possible_axes(plain), "the menu offers what it is"


def test_axes_that_cannot_be_told():
    with pytest.raises(InputError, match="'im' has 6 axes; name them"):
        layer_axes(image(1, 1, 1, 1, 4, 4))
    with pytest.raises(InputError, match="colours and a channel axis"):
        layer_axes(image(2, 1, 1, 4, 4, 3, rgb=True))


def test_multiscale_gives_the_full_resolution():
    layer = Image([np.zeros((8, 8)), np.zeros((4, 4))], multiscale=True, name="im")
    assert layer_stack(layer).labels_shape == (8, 8)


def test_dask_stays_lazy():
    array = pytest.importorskip("dask.array")
    read = []

    def block(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.zeros((1, 8, 8), np.uint8)

    data = array.map_blocks(block, chunks=((1,) * 4, (8,), (8,)), dtype=np.uint8)
    layer = Image(data, name="im", contrast_limits=(0, 255), cache=False)
    stack = layer_stack(layer)
    read.clear()
    assert stack.read((2,), (slice(0, 4), slice(0, 4)), (0,)).shape == (1, 4, 4)
    assert read == [(2, 0, 0)]


@pytest.mark.parametrize(
    ("shape", "scale", "units", "size"),
    [
        ((4, 5, 6), (2, 0.5, 0.25), ("um", "um", "um"), (2, 0.5, 0.25)),
        ((4, 5, 6), (2000, 500, 250), ("nm", "nm", "nm"), (2, 0.5, 0.25)),
        ((5, 6), (0.5, -0.5), ("um", "um"), (1, 0.5, 0.5)),
        ((3, 4, 5, 6), (60, 2, 1, 1), ("s", "um", "um", "um"), (2, 1, 1)),
        ((4, 5, 6), (2, 1, 1), ("pixel",) * 3, None),
    ],
)
def test_voxel_size(shape, scale, units, size):
    layer = image(*shape, scale=scale, units=units)
    found = voxel_size_um(layer, layer_axes(layer))
    assert found == (size if size is None else pytest.approx(size))


def test_an_ome_zarr_that_napari_opened_keeps_its_axes_and_voxel_size(tmp_path, viewer):
    import zarr

    group = zarr.open_group(str(tmp_path / "im.zarr"), mode="w")
    group.create_array("0", data=np.zeros((2, 3, 8, 9), np.uint8))
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 2.0, 0.5, 0.25]}]
    data = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": data}]}
    (layer,) = viewer.open(str(tmp_path / "im.zarr"), plugin="napari")
    assert tuple(layer.scale) == (1, 1, 1, 1)  # napari's own reader knows no metadata
    stack = layer_stack(layer)
    assert (stack.axes, stack.voxel_size_um) == ("CZYX", (2.0, 0.5, 0.25))
    assert stack.transform is not None
    layer.affine = np.diag([1, 1, 2, 1, 1])
    assert layer_stack(layer).transform is None
    layer.affine = np.eye(5)
    layer.scale = (1, 3, 1, 1)  # what the user says counts
    assert layer_stack(layer).voxel_size_um is None


def test_a_layer_s_place_is_that_of_what_is_written_of_it():
    layer = Image(
        np.zeros((2, 8, 9)),
        axis_labels=("t", "y", "x"),
        units=("min", "nm", "nm"),
        scale=(2, 500, 250),
        translate=(1, 7000, 0),
    )
    place = layer_stack(layer).labels_transform
    assert [axis.get("unit") for axis in place.axes] == ["second", "micrometer", "micrometer"]
    assert place.scale == pytest.approx((120, 0.5, 0.25))
    assert place.translation == pytest.approx((60, 7, 0))
    layer.rotate = 30  # a scale and a translation do not say that
    assert not any(layer_stack(layer).labels_transform.translation)
