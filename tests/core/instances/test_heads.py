"""Targets of the heads, and that decoding them gives the labels back."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import binary_blobs
from skimage.measure import label

from napari_unet.core.instances.heads import InstanceHead, SemanticHead, get_head, relative_distance
from napari_unet.core.instances.tile_merger import decode_instances
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import DecodeSettings


@pytest.mark.parametrize("ndim", [2, 3])
def test_blobs_come_back_as_they_were(ndim):
    blobs = label(binary_blobs(48, 0.15, n_dim=ndim, volume_fraction=0.1, rng=1)).astype(np.uint16)
    found = decode_instances(InstanceHead().targets(blobs), DecodeSettings(merge=1.0, min_size=0))
    assert np.array_equal(found > 0, blobs > 0)
    pairs = {(a, b) for a, b in zip(blobs.ravel().tolist(), found.ravel().tolist(), strict=True)}
    assert len(pairs) == blobs.max() + 1


def test_the_middle_of_every_object_is_one_whatever_its_size():
    labels = np.zeros((60, 90), np.uint16)
    labels[5:10, 5:10] = 1
    labels[20:55, 20:55] = 2
    distance = relative_distance(labels)
    assert distance[labels == 1].max() == distance[labels == 2].max() == 1
    assert distance[labels == 0].max() == 0


def test_the_distance_falls_between_objects_that_touch():
    labels = np.repeat([[1, 2]], 10, 1).repeat(20, 0).astype(np.uint16)
    labels = np.pad(labels, 3)
    distance = relative_distance(labels)
    middle = distance[13]
    assert middle[12] < 0.3 > middle[13]


def test_the_border_of_the_image_is_no_border_of_an_object():
    labels = np.zeros((40, 40), np.uint16)
    labels[10:30, :15] = 1  # cut by the left border
    assert relative_distance(labels)[20, 0] == 1


def test_one_object_that_fills_the_image():
    assert (relative_distance(np.ones((5, 7), np.uint8)) == 1).all()


def test_semantic_targets_and_probabilities():
    head = SemanticHead(3)
    labels = np.array([[0, 1], [2, 2]])
    assert head.targets(labels).argmax(0).tolist() == labels.tolist()
    maps = head.activate(np.random.default_rng(0).normal(size=(3, 4, 5)))
    assert np.allclose(maps.sum(0), 1)
    assert maps.dtype == np.float32


def test_head_of_spec():
    assert get_head(ModelSpec()) == InstanceHead()
    assert get_head(ModelSpec(head="semantic", classes=4)) == SemanticHead(4)


@pytest.mark.parametrize("threshold", [0.0, 1e-6, 0.05, 0.3, 0.5, 0.5000001, 0.72, 0.99, 1.0])
def test_the_cut_divides_raw_maps_as_the_threshold_divides_probabilities(threshold):
    cut = np.float32(InstanceHead.raw_threshold(threshold))
    near = cut.view(np.int32) + np.arange(-5000, 5000, dtype=np.int32)
    anywhere = np.linspace(-110, 110, 200_001, dtype=np.float32)
    special = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45], np.float32)
    raw = np.concatenate([near.view(np.float32), anywhere, special])
    foreground = InstanceHead().activate(np.stack([raw, raw]))[0] > threshold
    assert np.array_equal(raw > cut, foreground)
