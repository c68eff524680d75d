"""What the user looks at, and the regions of a run."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_unet.core.errors import InputError
from napari_unet.core.io.stack import Stack
from napari_unet.gui.layers.navigation import (
    SEEN,
    SLICE,
    WHOLE,
    NearestFirst,
    VisibleRegion,
    get_visible_region,
    plan_region,
)


def image(*shape, **options):
    return Image(np.zeros(shape, np.uint8), name="im", **options)


class TestVisibleRegion:
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
