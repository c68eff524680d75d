"""Fused operators and strips give the answers of the plain network."""

from __future__ import annotations

import pytest
import torch

from napari_unet.core.errors import ModelError
from napari_unet.nn.unet import fused
from napari_unet.nn.unet.fused import FusedBlock, FusedUNet, can_fuse
from napari_unet.nn.unet.net import fold

LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}
OPTIONS = [
    {},
    {"skip": "add", "convs": 1},
    {"residual": True, "norm": "none"},
    {"up": "linear", "attention": True},
    {"pool": "stride", "activation": "silu"},
    {"pooling": ((1, 2), (2, 2)), "kernels": ((5, 3), (3, 3), (1, 3))},
    {"ndim": 3, "up": "linear"},
    {"ndim": 3, "pooling": ((1, 2, 2), (2, 2, 2)), "residual": True},
]


def ready(model, dtype=torch.float32):
    return fold(model.net).to(dtype).to(memory_format=LAYOUT[model.spec.ndim])


def image_for(model, dtype=torch.float32, batch=1):
    torch.manual_seed(1)
    size = (45, 40) if model.spec.ndim == 2 else (21, 16, 12)
    image = torch.rand(batch, model.spec.in_channels, *size).to(dtype)
    return image.contiguous(memory_format=LAYOUT[model.spec.ndim])


def has_operators():
    return torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_convolution_pointwise"
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("strip_bytes", [1, 2**11, 2**30])
@pytest.mark.parametrize("batch", [1, 2])
def test_answers_are_those_of_the_folded_network(make_model, options, strip_bytes, batch):
    model = make_model(gain=4.0, **options)
    plain, fast = ready(model), FusedUNet(ready(model), strip_bytes)
    image = image_for(model, batch=batch)
    with torch.inference_mode():
        assert torch.allclose(fast(image), plain(image), atol=1e-5)
        assert torch.allclose(fast.trunk(image), plain.trunk(image), atol=1e-5)
        assert torch.equal(fast.head(fast.trunk(image)), fast(image))


def test_small_strips_are_several(make_model):
    model = make_model()
    fast = FusedUNet(ready(model), 2**11)
    shape = torch.Size((1, model.spec.width, 400, 40))
    strips = list(fast._strips(0, shape, 4))
    assert len(strips) > 3
    assert [strip.write[0] for strip in strips[1:]] == [strip.write[1] for strip in strips[:-1]]
    assert (strips[0].write[0], strips[-1].write[1]) == (0, 400)
    assert all(strip.write[0] % 2 == 0 for strip in strips)
    assert len(list(fast._strips(0, torch.Size((1, 4, 24, 8)), 4))) == 1


@pytest.mark.skipif(not has_operators(), reason="needs a torch with oneDNN")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
def test_the_operators_of_onednn_are_used_where_they_are(make_model, dtype, options):
    model = make_model(gain=4.0, **options)
    plain, fast = ready(model, dtype), FusedUNet(ready(model, dtype))
    assert isinstance(fast.encoder[0], FusedBlock)
    image = image_for(model, dtype)
    with torch.inference_mode():
        wanted = plain(image).float()
        error = (fast(image).float() - wanted).abs().max()
    # A sum of a residual block is rounded once by the fused operator, twice by the plain ones.
    assert error <= max(4 * torch.finfo(dtype).eps, 1e-5) * wanted.abs().max()


def test_without_the_operators_the_plain_ones_run(make_model, monkeypatch):
    def missing(*_args):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(fused.FusedConv, "__call__", missing)
    model = make_model(gain=4.0)
    assert not can_fuse(ready(model))
    fast, image = FusedUNet(ready(model), 2**11), image_for(model)
    with torch.inference_mode():
        assert torch.allclose(fast(image), ready(model)(image), atol=1e-6)


def test_operators_with_other_values_are_not_used(make_model, monkeypatch):
    right = fused.FusedConv.__call__
    monkeypatch.setattr(fused.FusedConv, "__call__", lambda *args: 2 * right(*args) + 1)
    assert not can_fuse(ready(make_model()))


def test_a_runner_on_a_processor_is_fused(make_model):
    assert isinstance(make_model().runner().net, FusedUNet)


def test_an_unfit_input_is_named(make_model):
    with pytest.raises(ModelError, match="shape"):
        make_model().runner().net(torch.zeros(1, 2, 8, 8))
