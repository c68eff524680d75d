"""What a finished training still settles, on samples whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.core.instances.heads import get_head
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import DecodeSettings
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.training import calibrate as calibrate_module
from napari_unet.nn.training.calibrate import calibrate, format_agreement, scores_by_group
from napari_unet.nn.training.held_out import sample_maps


@pytest.fixture
def samples():
    """Two images of three discs each, one of which is called dark."""
    y, x = np.mgrid[:64, :64]
    labels = np.zeros((64, 64), np.uint16)
    for number, (cy, cx) in enumerate([(14, 16), (20, 46), (46, 30)], 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 9**2] = number
    image = (labels > 0) + 0.1 * np.random.default_rng(0).random((64, 64))
    pairs = [(image, labels), (image[::-1], labels[::-1])]
    return Samples.from_labels(pairs, groups=["dark", "bright"], channels=1)


def test_maps_of_a_sample_are_those_of_its_image(make_model, samples):
    model, sample = make_model(), samples.items[0]
    maps = sample_maps(model, sample)
    assert maps.shape == (2, 64, 64)
    assert maps.dtype == np.float32
    assert np.abs(maps - predict(sample.image[0], model)).max() < 0.2  # other percentiles


def test_the_threshold_that_fits_is_found(samples):
    """The outlines are right at 0.6 and nowhere else; specks of 15 pixels are no objects."""
    maps = []
    for sample in samples.items:
        foreground, distance = sample.targets.copy()
        around = ndimage.maximum_filter(foreground, 11)  # more than twice the disc
        probability = np.where(foreground > 0, 0.65, np.where(around > 0, 0.55, 0.1))
        probability[60:63, :5] = 0.9
        maps.append(np.stack([probability, distance]).astype(np.float32))
    best = calibrate(maps, samples)
    assert best.threshold == 0.6
    assert best.min_size == 20
    scores = scores_by_group(maps, samples, best)
    assert list(scores) == ["bright", "dark"]
    assert all(score.ap.min() == 1 for score in scores.values())
    assert scores_by_group(maps, samples, DecodeSettings(0.4))["dark"].ap[0] < 1


def test_a_number_format_agrees_with_itself(make_model, samples):
    model = make_model(gain=6.0, card={"decode": {"min_size": 0}})
    assert format_agreement(model, samples, "float32") == 1.0
    assert 0.8 < format_agreement(model, samples, "bfloat16") <= 1.0


def test_classes_that_a_number_format_takes_for_others_are_no_agreement(make_model, monkeypatch):
    """Both are no background, which a foreground alone would not tell apart."""
    spec = ModelSpec(in_channels=1, depth=1, width=2, head="semantic", classes=3)
    labels = np.tile(np.uint8([0, 1, 2, 2]), (8, 2))
    three = Samples.from_labels([(labels * 1.0, labels)], head=get_head(spec), channels=1)
    maps = {"float32": np.zeros((3, 8, 8)), "bfloat16": np.zeros((3, 8, 8))}
    maps["float32"][1] = maps["bfloat16"][1] = 1
    maps["bfloat16"][2, :2] = 2
    monkeypatch.setattr(calibrate_module, "sample_maps", lambda model, sample, p: maps[p])
    assert format_agreement(make_model(), three) == 0.75
