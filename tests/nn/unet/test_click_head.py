"""The click head: maps of clicks, similarity, and its place in a model's folder."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from napari_unet.core.errors import ModelError
from napari_unet.core.models.folder import read_card
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.inference.model import load_model, save_model
from napari_unet.nn.unet.click_head import (
    ClickHead,
    activate,
    click_spec,
)
from napari_unet.nn.unet.prompts import Prompts, nearness, similarity

NONE = np.zeros((0, 2), np.float32)


def prompts(positive, negative, shape=(20, 30)):
    clicks = [np.array(at, np.float32).reshape(-1, 2) for at in (positive, negative)]
    return Prompts.from_clicks(clicks[:1], clicks[1:], torch.zeros(1, 1, *shape))


def test_clicks_are_drawn_where_they_are():
    drawn = nearness(prompts([(5, 7), (9, 20)], [(15, 3)]), (20, 30))[0]
    spot, slope, other_spot, other_slope = drawn
    assert spot[5, 7] == slope[5, 7] == spot[9, 20] == 1
    assert spot[5, 12] < 0.05 < 0.5 < slope[5, 12] < 1
    assert other_spot[15, 3] == other_slope[15, 3] == 1
    assert other_spot[5, 7] < 1e-3
    nothing = nearness(prompts([], []), (20, 30))
    assert nothing.abs().max() == 0


def test_pixels_like_those_clicked_are_similar():
    embedded = torch.zeros(1, 2, 20, 30)
    embedded[:, 0, :, :15] = embedded[:, 1, :, 15:] = 1
    positive, negative = similarity(embedded, prompts([(3, 2)], [(4, 25)]))[0]
    assert (positive[:, :15] == 1).all() and (positive[:, 15:] == 0).all()
    assert torch.equal(negative, 1 - positive)
    assert similarity(embedded, prompts([(3, 2)], []))[0, 1].abs().max() == 0


def test_windows_of_a_batch_do_not_see_each_others_clicks():
    clicks = [np.array([(3, 4)], np.float32), NONE], [NONE, np.array([(5, 6), (7, 8)], np.float32)]
    both = nearness(Prompts.from_clicks(*clicks, torch.zeros(2, 1, 20, 30)), (20, 30))
    assert torch.equal(both[0], nearness(prompts([(3, 4)], []), (20, 30))[0])
    assert torch.equal(both[1], nearness(prompts([], [(5, 6), (7, 8)]), (20, 30))[0])


@pytest.mark.parametrize("spec", [{}, {"ndim": 3}, {"head": "semantic", "classes": 3}])
def test_the_ready_head_answers_as_the_trained_one(make_model, spec):
    model = make_model(**spec)
    torch.manual_seed(0)
    head, shape = ClickHead(model.spec).eval(), (16,) * model.spec.ndim
    maps = activate(model.spec, torch.randn(1, 2 if spec.get("classes") is None else 3, *shape))
    window = torch.rand(1, model.spec.width + 1, *shape)
    at = np.array([(8,) * model.spec.ndim], np.float32)
    clicks = Prompts.from_clicks([at], [at[:0]], torch.zeros(1, 1, *shape))
    with torch.inference_mode():
        trained, ready = (h(window, maps, clicks) for h in (head, head.ready()))
    assert trained.shape == (1, *shape)
    assert torch.allclose(trained, ready, atol=1e-4)


def test_it_is_small():
    head = ClickHead(ModelSpec(width=16, skip="add"))
    assert sum(p.numel() for p in head.parameters()) < 450_000


def test_a_model_keeps_its_click_head(clicking_model, tmp_path):
    model = clicking_model()
    loaded = load_model(save_model(model, tmp_path / "clicks"))
    weights = model.click.state_dict()
    assert loaded.click.state_dict().keys() == weights.keys()
    for name, value in loaded.click.state_dict().items():
        assert torch.allclose(value.float(), weights[name].float(), rtol=1e-3, atol=1e-3)
    moved = loaded.to("cpu").click
    assert moved is loaded.click
    assert not any(module.training for module in moved.modules())
    child = dataclasses.replace(
        loaded, card=loaded.card.replace(name="child", parent=loaded.card.hash)
    )
    assert load_model(save_model(child, tmp_path / "child")).click is not None


def test_a_model_without_one_stays_without(make_model, clicking_model, tmp_path):
    plain = make_model()
    card = clicking_model().card.replace(click={"spec": click_spec(plain.spec).to_json()})
    folder = save_model(dataclasses.replace(plain, card=card), tmp_path / "plain")
    assert read_card(folder).click == {}
    assert load_model(folder).click is None


def test_weights_that_do_not_fit_are_refused(clicking_model, tmp_path):
    model = clicking_model()
    wrong = dataclasses.replace(model, click=ClickHead(ModelSpec(in_channels=1, depth=2, width=8)))
    with pytest.raises(ModelError, match="click head do not fit"):
        load_model(save_model(wrong, tmp_path / "wrong"))
