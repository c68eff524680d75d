"""A model learns while it is corrected, and is judged as after any fine-tuning."""

import numpy as np
import pytest
import torch
from discs import disc_labels
from scipy import ndimage

from napari_unet.core.errors import InputError
from napari_unet.core.models.store import list_models
from napari_unet.core.progress import run_to_end
from napari_unet.core.settings.tasks import TrainSettings
from napari_unet.core.training.holdout import HeldPlaces, hold_out
from napari_unet.core.training.samples import Samples
from napari_unet.nn.inference.model import load_model
from napari_unet.nn.training.live import LiveTuning

FEW = TrainSettings(minutes=0.01, batch=2, crop=32, learning_rate=1e-3)


@pytest.fixture
def model(make_model):
    return make_model(card={"training": {"working_diameter_px": 14.0}, "hash": "abc"})


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    labels = disc_labels(rng, (96, 200))
    return ndimage.gaussian_filter(labels > 0, 1.0, output=float) + rng.normal(0, 0.03, (96, 200))


@pytest.fixture(scope="module")
def labels():
    return disc_labels(np.random.default_rng(0), (96, 200))


def known_to(picture, labels, column, names=("one",)):
    """Samples of images of which so many columns were corrected."""
    known = np.zeros(labels.shape, bool)
    known[:, :column] = True
    pairs, masks = [(picture, labels)] * len(names), [known] * len(names)
    return Samples.from_labels(pairs, masks, sources=names, channels=1)


def test_it_takes_in_what_is_corrected_meanwhile(model, picture, labels):
    live = LiveTuning(model, FEW)
    assert list(live.learn(3)) == [], "there is nothing to learn from"
    run_to_end(live.take(known_to(picture, labels, 30)))
    learning = live.learn(5)
    next(learning)
    learning.close()  # the user paints
    assert live.steps == 1
    run_to_end(live.take(known_to(picture, labels, 60)))  # too few to hold some out
    assert len(list(live.learn(2))) == 2
    assert live.steps == 3
    trained, _ = live.tuning.data.mix(live.tuning.config.replay)
    assert trained.items[0].known.sum() == 96 * 60
    now = live.current()
    weights = now.net.state_dict()
    assert any(not torch.equal(v, weights[k]) for k, v in model.net.state_dict().items())
    assert now.diameter == 14


def test_what_is_held_out_is_never_learned_from(model, picture, labels):
    live = LiveTuning(model, FEW)
    run_to_end(live.take(known_to(picture, labels, 60)))
    list(live.learn(2))
    run_to_end(live.take(known_to(picture, labels, 190)))
    assert live.steps == 0, "what is held out now was learned from before"
    list(live.learn(1))
    held = live.tuning.split.validation.items[0]
    first = held.origin[1]
    run_to_end(live.take(known_to(picture, labels, 200, ("one", "another"))))
    assert live.steps == 1
    trained, _ = live.tuning.data.mix(live.tuning.config.replay)
    for item in trained.items:
        if item.source == "one":
            assert item.known.shape[1] < first
    assert {item.source for item in trained.items} == {"one", "another"}
    assert live.tuning.split.validation.items[0].origin[1] == first


def test_images_that_were_held_out_stay_so(picture, labels):
    names = ("a", "b", "c", "d")
    split = hold_out(known_to(picture, labels, 200, names), 0.2)
    places = HeldPlaces.from_split(split)
    assert list(places.places.values()) == [None]
    again = hold_out(known_to(picture, labels, 200, (*names, "e")), 0.2, held=places)
    assert {item.source for item in again.validation.items} == set(places.places)
    assert len(again.training.items) == 4


def test_it_is_judged_and_kept_as_a_child_and_nothing_is_written_before(model, picture, labels):
    live = LiveTuning(model, FEW)
    assert run_to_end(live.conclude()) is None
    run_to_end(live.take(known_to(picture, labels, 200)))
    list(live.learn(4))
    tuning = run_to_end(live.conclude())
    assert tuning.judgement.before is not None
    assert tuning.judgement.verdict in ("better", "worse", "not measurable")
    assert "kept" not in [entry.name for entry in list_models()]
    tuning.save("kept")
    child = load_model("kept", "cpu")
    assert child.card.parent == "abc"
    assert child.card.training["steps"] == 4
    list(live.learn(2))
    assert run_to_end(live.conclude()).best().card.training["steps"] == 6


def test_samples_that_do_not_fit_change_nothing(model, picture, labels):
    live = LiveTuning(model, FEW)
    run_to_end(live.take(known_to(picture, labels, 60)))
    list(live.learn(1))
    with pytest.raises(InputError, match="Nothing is known"):
        run_to_end(live.take(known_to(picture, labels, 0)))
    assert len(list(live.learn(1))) == 1
