"""The automatic object at a clicked place."""

import numpy as np
import pytest
import torch
from skimage.draw import disk

from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.settings.tasks import DecodeSettings
from napari_unet.nn.interactive.mask_predictor import InitialMask


@pytest.fixture
def labels():
    labels = np.zeros((48, 48), np.uint16)
    labels[disk((14, 14), 8)] = 1
    labels[disk((14, 30), 9)] = 2  # touches the first
    labels[disk((38, 10), 5)] = 3
    return labels


def as_seen(maps):
    """What the click head sees: other channels come before the maps."""
    return torch.from_numpy(np.concatenate([np.ones((5, *maps.shape[1:]), np.float32), maps]))


def test_it_is_the_object_that_the_automatic_head_finds_there(labels):
    guess = InitialMask(2, DecodeSettings())
    seen = as_seen(InstanceHead().targets(labels))
    for place, label in (((14.2, 13.6), 1), ((14, 31), 2), ((38, 10), 3)):
        np.testing.assert_array_equal(guess.at(seen, place), labels == label)


@pytest.mark.parametrize("place", [(0, 0), (47.4, 47.4), (-3, 20), (20, 99)])
def test_nothing_is_found_on_background_and_outside(labels, place):
    guess = InitialMask(2, DecodeSettings())
    assert not guess.at(as_seen(InstanceHead().targets(labels)), place).any()


def test_of_classes_it_is_the_connected_part(labels):
    classes = np.where(labels > 0, np.where(labels == 2, 2, 1), 0)
    guess = InitialMask(3, None)
    seen = as_seen(SemanticHead(3).targets(classes))
    np.testing.assert_array_equal(guess.at(seen, (14, 14)), labels == 1)
    np.testing.assert_array_equal(guess.at(seen, (14, 30)), labels == 2)
    assert not guess.at(seen, (0, 0)).any()


def test_volumes_have_objects_too():
    labels = np.zeros((12, 20, 20), np.uint16)
    labels[2:8, 4:12, 4:12] = 1
    guess = InitialMask(2, DecodeSettings())
    found = guess.at(as_seen(InstanceHead().targets(labels)), (4, 8, 8))
    np.testing.assert_array_equal(found, labels == 1)
