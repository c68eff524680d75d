"""Objects are described by what the network sees in them, whatever parts it is read in."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.core.alike.descriptors import NAMES
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import PredictSettings
from napari_unet.nn.inference import object_features
from napari_unet.nn.inference.embeddings import FeatureCache
from napari_unet.nn.inference.object_features import describe_stack

RNG = np.random.default_rng(0)


def labelled(planes=2):
    labels = np.zeros((planes, 90, 110), np.int32)
    for plane in labels:
        for number in range(1, 9):
            y, x = RNG.integers(4, 80), RNG.integers(4, 100)
            plane[y : y + 8, x : x + 6] = number
        plane[88, 3] = 20  # one pixel
    return labels, open_stack(RNG.random(labels.shape).astype(np.float32), "TYX")


def described(stack, labels, model, **how):
    settings = PredictSettings(diameter=8.0)
    return run_to_end(describe_stack(stack, labels, model, settings, cache=FeatureCache(), **how))


@pytest.mark.parametrize("working", [8, 5])
def test_parts_of_the_frame_give_what_one_piece_gives(make_model, monkeypatch, working):
    labels, stack = labelled()
    model = make_model(card={"training": {"working_diameter_px": working}})
    whole = described(stack, labels, model)
    assert len(whole.items) == sum(len(np.unique(plane)) - 1 for plane in labels)
    assert whole.values.shape[1] > len(NAMES) + 2 * model.spec.width
    assert np.isfinite(whole.values).all()
    monkeypatch.setitem(object_features.BLOCK, 2, 24)
    parts = described(stack, labels, model)
    assert np.allclose(whole.values, parts.values, atol=5e-3)


def test_pairs_and_objects_as_they_were_are_described_too(make_model):
    labels, stack = labelled(1)
    labels[0, 40:50, 40:50], labels[0, 40:50, 50:60] = 30, 31
    model = make_model(card={"training": {"working_diameter_px": 8}})
    pairs = described(stack, labels, model, pairs=True)
    assert (30, 31) in [item.labels for item in pairs.items]
    single = described(stack, labels, model)
    again = described(stack, labels, model, extra=single.items[:1])
    assert again.items[0].labels == single.items[0].labels
    assert np.allclose(again.values[0], again.values[1])
    assert len(again.items) == len(single.items) + 1
