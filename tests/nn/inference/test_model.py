"""Models load, save, and run in the number format that suits the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.core.errors import DeviceError, ModelError
from napari_unet.nn.inference import model as model_module
from napari_unet.nn.inference.map_source import predict
from napari_unet.nn.inference.model import load_model, pick_device, save_model

IMAGE = np.random.default_rng(0).random((40, 50))


def test_a_model_comes_back_as_it_was_saved(make_model, tmp_path):
    model = make_model(card={"training": {"diameter_px": {"q50": 17.5}}, "decode": {"merge": 0.3}})
    folder = save_model(model, tmp_path / "mine")
    loaded = load_model(folder)
    assert loaded.name == "mine"
    assert loaded.spec == model.spec
    assert loaded.diameter == 17.5
    assert loaded.decoding.merge == 0.3
    assert loaded.card.hash
    assert np.abs(predict(IMAGE, loaded) - predict(IMAGE, model)).max() < 0.01  # float16 on disk


def test_a_model_in_the_store_is_found_by_name(make_model):
    save_model(make_model(), "stored")
    assert load_model("stored").name == "stored"
    with pytest.raises(ModelError):
        save_model(make_model(), "stored")
    save_model(make_model(), "stored", overwrite=True)


def test_weights_that_do_not_fit_their_card_are_refused(make_model, tmp_path):
    model = make_model()
    wrong = model_module.Model(
        model.card.replace(spec=make_model(width=8).spec), model.net, model.device
    )
    folder = save_model(wrong, tmp_path / "wrong")
    with pytest.raises(ModelError, match="do not fit"):
        load_model(folder)


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", ""])
def test_unknown_devices(name):
    with pytest.raises(DeviceError, match="choose one of"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a computer without CUDA")
def test_a_device_that_is_not_there():
    with pytest.raises(DeviceError, match="use one of: auto, cpu"):
        pick_device("cuda")


def test_auto_is_always_there():
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}


def test_numbers_too_large_for_float16_come_back_as_they_are(make_model, tmp_path):
    model = make_model()
    name = next(name for name in model.net.state_dict() if name.endswith("running_var"))
    model.net.state_dict()[name][0] = 70_000.0  # float16 ends at 65,504
    save_model(model, tmp_path / "m")
    assert load_model(tmp_path / "m", "cpu").net.state_dict()[name][0] == 70_000


def test_bfloat16_only_where_it_is_fast_and_agrees(make_model, monkeypatch):
    good = make_model(card={"metrics": {"bfloat16_dice": 0.9995}})
    poor = make_model(card={"metrics": {"bfloat16_dice": 0.99}})
    unknown = make_model()
    monkeypatch.setattr(model_module, "has_fast_bfloat16", lambda device: True)
    assert good.choose_precision() == "bfloat16"
    assert poor.choose_precision() == unknown.choose_precision() == "float32"
    assert unknown.choose_precision("bfloat16") == "bfloat16"
    monkeypatch.setattr(model_module, "has_fast_bfloat16", lambda device: False)
    assert good.choose_precision() == "float32"


def test_bfloat16_runs_and_agrees(make_model):
    model = make_model(gain=2.0)
    tiles = torch.rand(2, 1, 48, 32)
    exact, short = model.runner("float32")(tiles), model.runner("bfloat16")(tiles)
    assert short.dtype == torch.float32
    assert (exact - short).abs().max() < 0.1 * exact.abs().max()


def test_the_ready_network_is_built_once_and_equals_the_trained_one(make_model):
    model = make_model()
    assert model.runner() is model.runner()
    tiles = torch.rand(1, 1, 40, 24)
    with torch.inference_mode():
        assert torch.allclose(model.net(tiles), model.runner()(tiles), atol=1e-4)


@pytest.mark.parametrize("name", ["cpu:", "cuda:", "auto:", "cpu:0", "cuda:x", "cuda:²", "tpu"])
def test_a_device_that_is_no_name_is_refused(name):
    with pytest.raises(DeviceError, match="is unknown; choose one of: auto, cpu, cuda, mps"):
        pick_device(name)


def test_an_older_torch_cannot_tell_what_the_processor_has(make_model, monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert make_model(card={"metrics": {"bfloat16_dice": 1.0}}).choose_precision() == "float32"
