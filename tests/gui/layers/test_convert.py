from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_unet.core.errors import InputError
from napari_unet.core.io.stack import Stack
from napari_unet.gui.layers.convert import layer_axes, layer_stack, voxel_size_um
from napari_unet.gui.layers.navigation import (
    SEEN,
    SLICE,
    WHOLE,
    NearestFirst,
    VisibleRegion,
    get_visible_region,
    plan_region,
)
from napari_unet.gui.open_files import open_fluorescence_sample, open_histology_sample


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


class TestLook:
    @pytest.fixture
    def viewer(self):
        viewer = ViewerModel()
        viewer.canvas.size = (100, 200)
        return viewer

    def test_the_window_is_what_the_canvas_holds(self, viewer):
        layer = viewer.add_layer(image(400, 400, scale=(0.5, 0.5), translate=(10, 0)))
        camera = viewer.scene.camera
        camera.center, camera.zoom = (0, 60, 50), 4.0  # 25 x 50 world units, 50 x 100 pixels
        view = get_visible_region(viewer, layer, "YX")
        assert view.centre == (100, 100) and view.planar and not view.volume
        assert view.window == (slice(75, 126), slice(50, 151))
        camera.center = (0, 10, 0)  # the image's corner
        assert get_visible_region(viewer, layer, "YX").window == (slice(0, 26), slice(0, 51))
        camera.center = (0, 10_000, 0)
        assert get_visible_region(viewer, layer, "YX").window is None

    def test_sliders(self, viewer):
        layer = viewer.add_layer(image(3, 10, 20, 20, scale=(1, 2, 1, 1)))
        viewer.dims.set_point((0, 1), (2, 9))
        view = get_visible_region(viewer, layer, "TZYX")
        assert view.position in ({"T": 2, "Z": 4}, {"T": 2, "Z": 5})

    def test_an_image_with_fewer_axes_than_the_viewer(self, viewer):
        viewer.add_layer(image(3, 10, 20, 20))
        layer = viewer.add_layer(image(6, 20, 20))
        viewer.dims.set_point((0, 1), (2, 9))
        assert get_visible_region(viewer, layer, "ZYX").position == {
            "Z": 5
        }  # beyond its end: the last

    def test_a_3d_view_shows_the_volume(self, viewer):
        layer = viewer.add_layer(image(10, 20, 20))
        viewer.dims.ndisplay = 3
        view = get_visible_region(viewer, layer, "ZYX")
        assert view.volume and view.planar and view.window == (slice(0, 20), slice(0, 20))

    def test_a_cut_across_the_planes(self, viewer):
        layer = viewer.add_layer(image(10, 20, 20))
        viewer.dims.order = (1, 0, 2)
        assert not get_visible_region(viewer, layer, "ZYX").planar

    def test_multiscale(self, viewer):
        data = [np.zeros((400, 400)), np.zeros((200, 200))]
        layer = viewer.add_layer(Image(data, multiscale=True))
        camera = viewer.scene.camera
        camera.center, camera.zoom = (0, 200, 200), 2.0
        view = get_visible_region(viewer, layer, "YX")
        assert view.window == (slice(175, 226), slice(150, 251))


class TestPlanRegion:
    stack = Stack(np.zeros((3, 4, 20, 30)), "TZYX")
    view = VisibleRegion({"T": 1, "Z": 2}, (slice(5, 10), slice(0, 30)), (7, 15))

    def plan(self, region, ndim=2, stack=None, **changes):
        view = VisibleRegion(**{**self.view.__dict__, **changes})
        return plan_region(region, view, stack or self.stack, ndim, "im")

    def test_whole_stack(self):
        frames, window = self.plan(WHOLE)
        assert len(frames) == 12 and window is None

    def test_current_slice(self):
        assert self.plan(SLICE) == ([(1, 2)], None)
        assert self.plan(SLICE, ndim=3) == ([(1,)], None)

    def test_what_is_in_view(self):
        assert self.plan(SEEN) == ([(1, 2)], (slice(5, 10), slice(0, 30)))
        assert self.plan(SEEN, ndim=3) == ([(1,)], (slice(0, 4), slice(5, 10), slice(0, 30)))

    def test_all_is_in_view(self):
        assert self.plan(SEEN, window=(slice(0, 20), slice(0, 30))) == ([(1, 2)], None)

    def test_a_volume_in_view(self):
        frames, window = self.plan(SEEN, volume=True)
        assert frames == [(1, 0), (1, 1), (1, 2), (1, 3)] and window is None
        assert self.plan(SEEN, ndim=3, volume=True) == ([(1,)], None)

    def test_a_plane_without_leading_axes(self):
        stack = Stack(np.zeros((20, 30)), "YX")
        assert self.plan(SLICE, stack=stack) == ([()], None)
        assert self.plan(WHOLE, stack=stack) == ([()], None)

    def test_out_of_view(self):
        with pytest.raises(InputError, match="Nothing of 'im' is in view"):
            self.plan(SEEN, window=None)
        assert self.plan(SLICE, window=None) == ([(1, 2)], None)

    @pytest.mark.parametrize("region", [SEEN, SLICE])
    def test_a_cut_across_the_planes(self, region):
        with pytest.raises(InputError, match="cuts across the planes of 'im'"):
            self.plan(region, planar=False)


def test_frames_come_nearest_first_wherever_the_user_goes():
    here = [(4,)]
    order = []
    for frame in NearestFirst([(n,) for n in range(8)], lambda: here[0]):
        order.append(frame[0])
        if len(order) == 3:
            here[0] = (7,)
    assert order[:3] == [4, 3, 5] and order[3:5] == [7, 6]
    assert sorted(order) == list(range(8))


def test_samples_open_as_layers():
    for reader, rgb in ((open_fluorescence_sample, False), (open_histology_sample, True)):
        ((data, options, kind),) = reader()
        layer = Image(data, **options)
        assert kind == "image" and layer.rgb == rgb and layer.ndim == 2


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
    assert stack.place is not None
    layer.affine = np.diag([1, 1, 2, 1, 1])
    assert layer_stack(layer).place is None
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
    place = layer_stack(layer).labels_place
    assert [axis.get("unit") for axis in place.axes] == ["second", "micrometer", "micrometer"]
    assert place.scale == pytest.approx((120, 0.5, 0.25))
    assert place.translation == pytest.approx((60, 7, 0))
    layer.rotate = 30  # a scale and a translation do not say that
    assert not any(layer_stack(layer).labels_place.translation)
