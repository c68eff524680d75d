"""What lies beside a corrected object is learned as background only where the model sees none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.core.annotations.corrections import list_corrections
from napari_unet.core.annotations.journal import Journal
from napari_unet.core.annotations.training_set import to_samples
from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.io.stack import open_stack
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.samples import Samples
from napari_unet.core.training.training_sample import Sample
from napari_unet.nn.inference.model import load_model
from napari_unet.nn.training import assumed_background
from napari_unet.nn.training.assumed_background import doubt_background
from napari_unet.nn.training.finetune import Tuning

Y, X = np.mgrid[:128, :128]
DRAWN, BESIDE = np.hypot(Y - 64, X - 50) < 11, np.hypot(Y - 64, X - 76) < 11
IMAGE = ndimage.gaussian_filter((DRAWN | BESIDE).astype(float), 1.5)
IMAGE += np.random.default_rng(0).normal(0, 0.02, IMAGE.shape)


@pytest.fixture(scope="module")
def nuclei():
    return load_model("nuclei", "cpu")


def sample_with_margin(nuclei):
    """One of two nuclei is drawn; the background assumed around it reaches over the other."""
    near = np.hypot(Y - 64, X - 50) < 30
    return Sample.from_image(
        np.repeat(IMAGE[None], nuclei.spec.in_channels, 0).astype(np.float32),
        DRAWN.astype(np.uint16),
        InstanceHead(),
        known=near,
        assumed=near & ~ndimage.binary_dilation(DRAWN, iterations=2),
    )


def test_a_neighbour_that_the_model_sees_becomes_unknown_and_the_rest_stays(nuclei):
    before = sample_with_margin(nuclei)
    after = run_to_end(doubt_background(nuclei, Samples([before]))).items[0]
    beside = BESIDE & before.known
    assert beside.any()
    assert not after.known[ndimage.binary_erosion(beside, iterations=2)].any()
    elsewhere = before.known & ~ndimage.binary_dilation(BESIDE, iterations=6)
    assert after.known[elsewhere].mean() > 0.98
    assert after.known[DRAWN].all()


def test_what_did_not_change_is_looked_at_once(nuclei, monkeypatch):
    looked = []
    maps = assumed_background.sample_maps
    monkeypatch.setattr(
        assumed_background, "sample_maps", lambda *parts: looked.append(0) or maps(*parts)
    )
    whole = sample_with_margin(nuclei)
    expected = run_to_end(doubt_background(nuclei, Samples([whole]))).items[0].known
    looked.clear()
    same = replace(whole, source="im", origin=(0, 0))
    other, seen = replace(same, origin=(0, 128)), {}
    # A whole image need not say where it begins.
    first = run_to_end(doubt_background(nuclei, Samples([replace(same, origin=())]), seen))
    again = run_to_end(
        doubt_background(nuclei, Samples([replace(same, diameter=20.0), other]), seen)
    )
    assert len(looked) == 2, "objects of nearly the same size: nothing else is seen"
    assert np.array_equal(first.items[0].known, expected)
    assert np.array_equal(again.items[0].known, expected)
    assert not np.array_equal(again.items[1].known, other.known)
    run_to_end(doubt_background(nuclei, Samples([other]), seen))
    assert len(looked) == 2
    assert len(seen) == 1, "what no sample needs any more is forgotten"


def test_parts_of_samples_lie_on_one_grid_and_cover_them():
    parts = list(assumed_background._parts((300, 130), (200, 512)))
    count = np.zeros((300, 130), int)
    for part in parts:
        count[part] += 1
    assert (count == 1).all()
    assert parts[:2] == [
        (slice(0, 56), slice(0, 130)),
        (slice(56, 300), slice(0, 130)),
    ]


def test_background_that_was_said_is_not_doubted(nuclei):
    said = Samples([replace(sample_with_margin(nuclei), assumed=None)])
    after = run_to_end(doubt_background(nuclei, said))
    assert np.array_equal(after.items[0].known, said.items[0].known)


def test_a_tuning_leaves_out_the_neighbour_of_a_drawn_object(nuclei):
    stack = open_stack(IMAGE)
    labels = np.zeros(IMAGE.shape, np.uint16)
    with Journal.begin(stack, labels, model=nuclei.name, model_hash=nuclei.card.hash) as journal:
        where = np.nonzero(DRAWN)
        journal.record(journal.edit(where, labels[where], np.uint16(1), labels=labels))
    rows = list(list_corrections("nuclei"))
    samples, _ = run_to_end(to_samples(rows, channels=nuclei.spec.in_channels, opened=[stack]))
    assert samples.items[0].assumed.any()
    samples.items[0].known[:] = True  # as if the margin were wide
    samples.items[0].assumed[:] = ~ndimage.binary_dilation(DRAWN, iterations=2)
    tuning = Tuning(nuclei, samples, TrainSettings(steps=1, batch=1, crop=32, validation=0))
    run_to_end(tuning.steps())
    learned = tuning.split.training.items[0]
    assert not learned.known[ndimage.binary_erosion(BESIDE, iterations=2)].any()
    assert learned.known[DRAWN].all()
    assert tuning.evaluation.split.training is tuning.split.training, "and it is judged by that"
