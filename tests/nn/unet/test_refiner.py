"""The refiner: nothing is changed by an untrained one, clicks reach it, and it is stored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from napari_unet.core.errors import ModelError
from napari_unet.core.models.folder import read_card
from napari_unet.nn.inference.model import load_model, save_model
from napari_unet.nn.unet.prompts import Prompts
from napari_unet.nn.unet.refiner import Refiner, refiner_spec


def clicks(positive=(), negative=()):
    pair = [[np.array(at, np.float32).reshape(-1, 2)] for at in (positive, negative)]
    return Prompts.from_clicks(*pair, torch.zeros(1, 1, 1, 1))


def trained(seed=0):
    torch.manual_seed(seed)
    refiner = Refiner().eval()
    torch.nn.init.normal_(refiner.net.head.weight)
    return refiner


def test_an_untrained_one_changes_nothing():
    logit, image = torch.randn(1, 37, 50), torch.rand(1, 37, 50)
    with torch.inference_mode():
        assert torch.allclose(Refiner().eval()(logit, image, clicks([(5, 6)])), logit)


def test_image_and_clicks_make_a_difference():
    refiner, logit, image = trained(), torch.randn(1, 30, 32), torch.rand(1, 30, 32)
    with torch.inference_mode():
        plain = refiner(logit, image, clicks([(5, 6)]))
        assert not torch.allclose(plain, refiner(logit, image + 1, clicks([(5, 6)])))
        assert not torch.allclose(plain, refiner(logit, image, clicks([(5, 6)], [(20, 20)])))
        assert torch.allclose(plain, refiner.ready()(logit, image, clicks([(5, 6)])), atol=1e-4)


def test_it_is_small():
    assert sum(p.numel() for p in Refiner().parameters()) < 300_000


def with_refiner(model, refiner, **known):
    click = {**model.card.click, "refiner": known} if known else model.card.click
    head = model.click.with_refiner(refiner)
    return dataclasses.replace(model, click=head, card=model.card.replace(click=click))


def test_a_model_keeps_its_refiner(clicking_model, tmp_path):
    refiner = trained()
    model = with_refiner(clicking_model(), refiner, metrics={"IoU": 0.8})
    folder = save_model(model, tmp_path / "sharp")
    loaded = load_model(folder).click.refiner
    for name, value in refiner.state_dict().items():
        assert torch.allclose(loaded.state_dict()[name], value, rtol=1e-3, atol=1e-3)
    assert read_card(folder).click["refiner"]["metrics"] == {"IoU": 0.8}
    blunt = save_model(with_refiner(load_model(folder), None), tmp_path / "blunt")
    assert load_model(blunt).click.refiner is None
    assert "refiner" not in read_card(blunt).click
    assert read_card(blunt).hash != read_card(folder).hash


def test_weights_without_their_entry_are_refused(clicking_model, tmp_path):
    folder = save_model(with_refiner(clicking_model(), trained()), tmp_path / "sharp")
    card = folder / "model.json"
    card.write_text(card.read_text().replace('"refiner"', '"refined"'))
    with pytest.raises(ModelError, match="click head do not fit"):
        load_model(folder)


def test_a_refiner_that_writes_something_else_is_refused(clicking_model, tmp_path):
    other = Refiner(dataclasses.replace(refiner_spec(), classes=12))
    folder = save_model(with_refiner(clicking_model(), other), tmp_path / "sharp")
    with pytest.raises(ModelError, match="click head do not fit"):
        load_model(folder)
