"""Generated volumes: the same from the same seed, with objects that can be found in them."""

from __future__ import annotations

import numpy as np
import pytest
from lab.synthetic_volumes import SMALLEST, make_volume
from scipy import ndimage


def test_the_seed_gives_everything():
    one, same, other = (make_volume(seed, (12, 40, 40)) for seed in (1, 1, 2))
    assert np.array_equal(one.image, same.image) and np.array_equal(one.labels, same.labels)
    assert one.voxel_size_um == same.voxel_size_um
    assert not np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize("seed", range(4))
def test_objects_are_whole_bright_and_counted(seed):
    scene = make_volume(seed, (16, 64, 64), crowding=0.4)
    labels = scene.labels
    assert scene.image.dtype == np.float32 and np.isfinite(scene.image).all()
    assert scene.image.shape == labels.shape == (16, 64, 64)
    sizes = np.bincount(labels.ravel())[1:]
    assert len(sizes) > 1 and sizes.min() >= SMALLEST
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        assert ndimage.label(labels[box] == number)[1] == 1
    assert scene.image[labels > 0].mean() > 1.3 * scene.image[labels == 0].mean()


def test_nuclei_are_as_flat_as_the_voxels_are_long():
    scene = make_volume(3, (30, 120, 120), anisotropy=3.0, diameter=24, crowding=0.05)
    assert scene.voxel_size_um == (3.0, 1.0, 1.0)
    inside = [
        [s.stop - s.start for s in box]
        for box in ndimage.find_objects(scene.labels)
        if all(s.start > 0 and s.stop < n for s, n in zip(box, scene.labels.shape, strict=True))
    ]
    z, y, x = np.mean(inside, 0)
    assert 2 < (y + x) / 2 / z < 4 and 14 < y < 34


def test_crowded_nuclei_touch():
    labels = make_volume(5, (20, 80, 80), diameter=16, crowding=0.8).labels
    step = (
        (labels[:, :, 1:] != labels[:, :, :-1]) & (labels[:, :, 1:] > 0) & (labels[:, :, :-1] > 0)
    )
    assert step.sum() > 50
