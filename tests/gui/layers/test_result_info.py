from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_unet.core.errors import InputError
from napari_unet.gui.layers.label_geometry import Placement
from napari_unet.gui.layers.live_labels import draw_part
from napari_unet.gui.layers.result_info import (
    RESULT_KEY,
    labels_checksum,
    open_result,
    previous_result,
    seal_result,
)


@pytest.mark.parametrize(
    ("axes", "shape", "shown"),
    [
        ("YX", (5, 6), (5, 6)),
        ("TZYX", (2, 3, 5, 6), (2, 3, 5, 6)),
        ("ZTYX", (3, 2, 5, 6), (3, 2, 5, 6)),
        ("CZYX", (4, 3, 5, 6), (3, 5, 6)),
        ("TCZYX", (2, 4, 3, 5, 6), (2, 1, 3, 5, 6)),
        ("XY", (6, 5), (6, 5)),
    ],
)
def test_labels_lie_as_the_image_does(axes, shape, shown):
    labels_axes = "".join(letter for letter in "TZYX" if letter in axes)
    sizes = dict(zip(axes, shape, strict=True))
    labels = np.arange(np.prod([sizes[a] for a in labels_axes]), dtype=np.uint16)
    labels = labels.reshape([sizes[a] for a in labels_axes])
    placement = Placement(axes, labels_axes, shape)
    layer = placement.to_layer(labels)
    assert layer.shape == shown and np.shares_memory(layer, labels)
    back = placement.from_layer(layer)
    assert np.array_equal(back, labels) and np.shares_memory(back, labels)
    index = tuple(sizes[a] - 1 for a in labels_axes[:-2])
    window = (slice(1, 3), slice(2, 5))
    part = layer[placement.at(index, window)]
    assert part.size == 6
    assert np.array_equal(np.unique(part), np.unique(labels[(*index, *window)]))


def test_labels_show_in_every_channel():
    image = Image(np.zeros((2, 4, 5, 6)), scale=(1, 3, 1, 1), translate=(0, 7, 0, 0))
    geometry = Placement("TCYX", "TYX", (2, 4, 5, 6)).geometry(image)
    viewer = ViewerModel()
    viewer.add_layer(image)
    layer = viewer.add_labels(np.zeros((2, 1, 5, 6), np.uint8), **geometry)
    for channel in range(4):
        assert round(layer.world_to_data((0, 7 + 3 * channel, 0, 0))[1]) == 0
    assert viewer.dims.nsteps[1] == 4


def test_the_place_in_the_world_is_the_images():
    image = Image(
        np.zeros((3, 4, 5, 6)),
        scale=(1, 2, 0.5, 0.5),
        translate=(0, 10, 20, 30),
        rotate=np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]]),
        shear=[0, 0, 0, 0, 0, 0.1],
        affine=np.diag([1, 1, 2, 2, 1]),
        units=("pixel", "um", "um", "um"),
        axis_labels=("c", "z", "y", "x"),
    )
    layer = ViewerModel().add_labels(
        np.zeros((4, 5, 6), np.uint8),
        **Placement("CZYX", "ZYX", (3, 4, 5, 6)).geometry(image),
    )
    for corner in [(0, 0, 0), (3, 4, 5), (1, 0, 2)]:
        assert layer.data_to_world(corner) == pytest.approx(image.data_to_world((0, *corner))[1:])
    assert layer.units == image.units[1:] and layer.axis_labels == ("z", "y", "x")


class TestReplacing:
    @pytest.fixture
    def viewer(self):
        viewer = ViewerModel()
        viewer.add_image(np.zeros((4, 8, 8)), name="im", scale=(2, 1, 1))
        return viewer

    def open(self, viewer, model="nuclei"):
        placement = Placement("ZYX", "ZYX", (4, 8, 8))
        return open_result(viewer, viewer.layers["im"], model, placement, (4, 8, 8))

    def run(self, viewer, value=1):
        layer, array, new = self.open(viewer)
        assert not layer.editable
        array[:] = value
        seal_result(layer, {"model": value}, whole=True)
        return layer, new

    def test_an_untouched_result_is_used_again(self, viewer):
        first, new = self.run(viewer)
        assert new and first.name == "im nuclei" and first.data.dtype == np.uint16
        assert first.editable and first.metadata[RESULT_KEY]["passport"] == {"model": 1}
        viewer.layers["im"].scale = (3, 1, 1)
        second, new = self.run(viewer, 2)
        assert second is first and not new and (second.data == 2).all()
        assert second.metadata[RESULT_KEY]["runs"] == [{"model": 2}]
        assert second.scale.tolist() == [3, 1, 1]

    def test_runs_over_parts_are_listed(self, viewer):
        layer, _ = self.run(viewer)
        self.open(viewer)
        seal_result(layer, {"model": 2}, whole=False)
        assert layer.metadata[RESULT_KEY]["runs"] == [{"model": 1}, {"model": 2}]

    @pytest.mark.parametrize(
        "edit",
        [
            lambda layer: layer.paint((1, 4, 4), 9),
            lambda layer: layer.fill((1, 4, 4), 9),
            lambda layer: layer.data_setitem((np.array([0]),) * 3, 9),
            lambda layer: layer.data.__setitem__((3, 7, 7), 9),
            lambda layer: setattr(layer, "data", np.full((4, 8, 8), 3, np.uint16)),
            lambda layer: setattr(layer, "data", layer.data.astype(np.int32)),
            lambda layer: setattr(layer, "name", "mine"),
        ],
    )
    def test_an_edited_or_renamed_result_is_kept(self, viewer, edit):
        first, _ = self.run(viewer)
        edit(first)
        kept = first.data.copy()
        second, new = self.run(viewer, 2)
        assert new and second is not first
        assert np.array_equal(first.data, kept) and (second.data == 2).all()
        third, new = self.run(viewer, 3)  # and the new one is replaced in its turn
        assert third is second and not new

    def test_an_edit_that_was_undone_is_none(self, viewer):
        first, _ = self.run(viewer)
        first.paint((1, 4, 4), 9)
        first.undo()
        second, _ = self.run(viewer, 2)
        assert second is first
        second.undo()  # the old strokes are forgotten
        second.redo()
        assert (second.data == 2).all()

    def test_other_models_and_images_have_their_own(self, viewer):
        first, _ = self.run(viewer)
        assert previous_result(viewer, "im other", (4, 8, 8)) is None
        assert previous_result(viewer, "im nuclei", (4, 8, 9)) is None
        assert previous_result(viewer, "im nuclei", (4, 8, 8)) is first

    def test_labels_beyond_memory(self, viewer, monkeypatch):
        def no_memory(*_):
            raise MemoryError

        monkeypatch.setattr(np, "zeros", no_memory)
        with pytest.raises(InputError, match=r"4 x 8 x 8 .* do not fit into memory"):
            self.open(viewer)


def test_labels_checksum(monkeypatch):
    data = np.arange(4 * 8 * 8, dtype=np.uint16).reshape(4, 8, 8)
    same = np.ascontiguousarray(data.transpose(2, 1, 0)).transpose(2, 1, 0)
    assert labels_checksum(data) == labels_checksum(same)
    other = data.copy()
    other[3, 7, [6, 7]] = other[3, 7, [7, 6]]
    assert labels_checksum(other) != labels_checksum(data)
    monkeypatch.setattr("napari_unet.gui.layers.result_info._WHOLE_CHECK_BYTES", data.nbytes // 2)
    assert labels_checksum(other) == labels_checksum(data)  # sampled: every other plane
    other[2] += 1
    assert labels_checksum(other) != labels_checksum(data)


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
