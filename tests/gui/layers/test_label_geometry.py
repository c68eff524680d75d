"""How labels lie on their image."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_unet.gui.layers.label_geometry import Placement


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
