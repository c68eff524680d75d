"""What a finished training still settles, on samples whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.core.instances.heads import get_head
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.tasks import DecodeSettings
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.training import calibrate as calibrate_module
from napari_unet.nn.training.calibrate import (
    calibrate,
    complete_card,
    format_agreement,
    scores_by_group,
)
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


def bars(count, valley, *, group="", pairs=False):
    """A sample of `count` bars, and its maps: each bar has a valley of that depth in its middle."""
    labels, height = np.zeros((2, 12 * count, 40))
    for number in range(count):
        rows = slice(12 * number + 2, 12 * number + 10)
        labels[rows, 4:36] = number + 1
        if pairs:
            labels[rows, 20:36] = count + number + 1
        distance = np.abs(np.abs(np.arange(32) - 15.5) - 8) / 8  # 0 at the peaks, 1 in the valley
        height[rows, 4:36] = 1 - valley * distance
    pair = [(np.random.default_rng(0).random(labels.shape), labels.astype(np.uint16))]
    sample = replace(Samples.from_labels(pair, channels=1).items[0], group=group)
    return sample, np.stack([labels > 0, height]).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "replayed", "chosen"),
    [
        (24, None, 0.4),  # whole bars were taught
        (24, "bars", 0.4),
        (24, "pairs", 0.3),  # what was known before would be merged
        (8, None, 0.3),  # too few to say
    ],
)
def test_a_tuned_model_merges_as_the_corrected_objects_say(
    make_model, monkeypatch, count, replayed, chosen
):
    model = make_model(card={"decode": {"threshold": 0.5, "merge": 0.3, "min_size": 5}})
    taught, maps = bars(count, 0.45)
    shown, held = {"": maps}, []
    if replayed:
        sample, seen = bars(24, 0.45, group="replay", pairs=replayed == "pairs")
        shown["replay"], held = seen, [sample]
    monkeypatch.setattr(calibrate_module, "sample_maps", lambda _, sample, p: shown[sample.group])
    monkeypatch.setattr(calibrate_module, "format_agreement", lambda *_: 1.0)
    head = get_head(model.spec)

    def no_notes(*_):
        yield
        return {}

    monkeypatch.setattr(calibrate_module, "_looked_at", no_notes)
    card = run_to_end(complete_card(model, Samples([taught], head), Samples(held, head)))
    assert card.decode == {"threshold": 0.5, "merge": chosen, "min_size": 5}


def test_of_a_large_image_the_part_with_the_objects_says_how_they_are_divided(
    make_model, monkeypatch
):
    monkeypatch.setattr(calibrate_module, "SCORED_PIXELS", 300 * 300)
    model = make_model(card={"decode": {"threshold": 0.5, "merge": 0.3, "min_size": 5}})
    taught, maps = bars(24, 0.45)
    around = ((600, 12), (10, 690))
    wide = replace(
        taught,
        image=np.pad(taught.image, ((0, 0), *around)),
        targets=np.pad(taught.targets, ((0, 0), *around)),
        labels=np.pad(taught.labels, around),
        known=np.pad(taught.known, around),
    )
    seen = []

    def look(_, sample, precision):
        seen.append(sample.labels)
        rows, columns = (np.flatnonzero(sample.labels.any(axis))[[0, -1]] for axis in (1, 0))
        found = np.zeros((2, *sample.labels.shape), np.float32)
        found[:, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = maps[:, 2:-2, 4:36]
        return found

    monkeypatch.setattr(calibrate_module, "sample_maps", look)
    steps = calibrate_module._merging_depth(
        model, Samples([wide], get_head(model.spec)), Samples([], get_head(model.spec)), False
    )
    assert run_to_end(steps) == 0.4
    assert [labels.shape for labels in seen] == [(300, 300)]
    assert len(np.unique(seen[0])) == 25
