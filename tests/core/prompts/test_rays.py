"""A ray through a volume."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.prompts.rays import Ray, first_inside, values_along


@pytest.mark.parametrize(
    ("near", "far"), [((-3, 4, 5), (12, 4, 5)), ((9, 0, 0), (0, 11, 12)), ((2, 11, 3), (2, 0, 3))]
)
def test_the_values_along_it_are_those_of_the_array(near, far):
    volume = np.arange(10 * 12 * 13).reshape(10, 12, 13)
    read = []

    def window(index, place):
        read.append(index)
        return volume[(*index, *place)]

    voxels = Ray(near, far).voxels(volume.shape)
    values = values_along(voxels, window)
    assert values.tolist() == [volume[tuple(voxel)] for voxel in voxels]
    assert len(set(read)) == len(read), "each plane once"
    assert np.abs(np.diff(voxels, axis=0)).max() == 1, "none is left out"
    assert (np.abs(voxels[0] - near) < np.abs(voxels[-1] - near)).any()


def test_the_first_object_counts_and_beside_the_volume_there_is_none():
    voxels = Ray((0, 1, 1), (4, 1, 1)).voxels((5, 3, 3))
    assert first_inside(voxels, np.array([0, 0, 7, 3, 0])) == (2, 1, 1)
    assert first_inside(voxels, np.zeros(5)) is None
    assert not len(Ray((0, 9, 9), (4, 9, 9)).voxels((5, 3, 3)))
