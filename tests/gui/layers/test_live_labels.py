from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet.gui.layers.live_labels import LiveLabels, draw_part

Y, X = slice(2, 5), slice(1, 4)


def make(shape=(3, 8, 9), frame_ndim=2, window=None, dtype=np.uint16):
    return LiveLabels(np.full(shape, 9, dtype), frame_ndim, window)


def test_it_passes_for_a_uint32_array():
    live = make()
    assert live.shape == (3, 8, 9) and live.ndim == 3 and live.dtype == np.uint32


def test_provisional_numbers_do_not_show():
    live = make()
    live[1, Y, X] = 70_000
    assert live.array.max() == 9 and live.untouched
    assert (live[1, Y, X] == 70_000).all() and live[1, Y, X].dtype == np.uint32
    assert live[1].sum() == 70_000 * 9


def test_a_preview_clears_its_frame_once_and_no_other():
    live = make()
    live.preview((1,), (Y, X), np.full((3, 3), 5, np.uint16))
    live.preview((1,), (slice(0, 2), X), np.full((2, 3), 6, np.uint16))
    assert (live.array[[0, 2]] == 9).all()
    assert live.array[1].sum() == 5 * 9 + 6 * 6


def test_a_finished_frame_replaces_its_preview_and_can_be_read_and_rewritten():
    live = make()
    live.preview((1,), (Y, X), np.full((3, 3), 5, np.uint16))
    live[1, Y, X] = 3
    live.finish((1,))
    assert live.array[1].sum() == 27 and live.array.dtype == np.uint16
    assert live[1].sum() == 27 and live[1].dtype == np.uint32
    live[1, 0, 0] = 4  # a frame that is written again keeps what it had
    live.finish((1,))
    assert live.array[1].sum() == 31


def test_a_frame_beyond_uint16_makes_the_array_uint32():
    live = make()
    live[0, Y, X] = 65_535
    live.finish((0,))
    assert live.array.dtype == np.uint16
    live[2, Y, X] = 65_536
    live.finish((2,))
    assert live.array.dtype == np.uint32
    assert live.array[0].max() == 65_535 and live.array[2].max() == 65_536
    assert (live.array[1] == 9).all()


def test_a_window_holds_no_more_than_itself():
    live = make(window=(Y, X))
    live[1, slice(3, 5), X] = 2
    assert live[1, Y, X].shape == (3, 3) and live[1, Y, X].sum() == 12
    live.finish((1,))
    assert live.array[1].sum() == 12 and (live.array[1, 3:5, 1:4] == 2).all()


def test_volumes():
    live = make((2, 4, 8, 9), frame_ndim=3)
    live[(1, slice(0, 2), Y, X)] = 7
    live.finish_all()
    assert live.array[1].sum() == 7 * 2 * 9 and (live.array[0] == 9).all()


def test_a_single_plane_has_no_leading_axis():
    live = make((8, 9))
    live[Y, X] = 7
    live[..., 0] = 1
    assert live[...].sum() == 7 * 9 + 8
    live.finish(())
    assert live.array.sum() == 7 * 9 + 8


def test_frames_are_written_one_by_one():
    live = make()
    with pytest.raises(IndexError, match="frame by frame"):
        live[:, 0, 0] = 1
    assert live[:, 0, 0].tolist() == [9, 9, 9]


class TestDrawPart:
    @pytest.fixture
    def layer(self):
        viewer = ViewerModel()
        layer = viewer.add_labels(np.zeros((4, 8, 8), np.uint16), scale=(2, 1, 1))
        layer.drawn = []
        layer.events.labels_update.connect(lambda e: layer.drawn.append((e.data.shape, e.offset)))
        viewer.dims.set_point(0, 4)  # plane 2
        layer.viewer = viewer
        return layer

    def draw(self, layer, plane):
        place = (slice(plane, plane + 1), slice(2, 5), slice(1, 8))
        return draw_part(layer.viewer, layer, place)

    def test_only_the_part(self, layer):
        assert self.draw(layer, 2)
        assert layer.drawn == [((3, 7), [2, 1])]

    def test_nothing_of_another_plane(self, layer):
        assert self.draw(layer, 1) and layer.drawn == []

    def test_not_in_3d_nor_across_nor_outlined_nor_wide(self, layer):
        layer.contour = 1
        assert not self.draw(layer, 2)
        layer.contour = 0
        layer.viewer.dims.order = (1, 0, 2)
        assert not self.draw(layer, 2)
        layer.viewer.dims.order = (0, 1, 2)
        layer.viewer.dims.ndisplay = 3
        assert not self.draw(layer, 2)
        layer.viewer.dims.ndisplay = 2
        layer.data = layer.data.astype(np.uint32)
        assert not self.draw(layer, 2)
