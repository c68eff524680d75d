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


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("strip_bytes", [1, 2**30])
def test_the_core_of_an_image_has_the_answers_of_the_whole(make_model, options, strip_bytes):
    model = make_model(gain=4.0, **options)
    image, plain = image_for(model), ready(model)
    fast = FusedUNet(ready(model), strip_bytes)
    with torch.inference_mode():
        maps, features = plain(image), plain.trunk(image)
        for start, stop in ((8, 9), (0, 11), (9, 17), (5, 1000)):
            core = tuple(slice(min(start, n - 2), min(stop, n)) for n in image.shape[2:])
            for net in (plain, fast):
                torch.testing.assert_close(net(image, core), maps[(..., *core)])
                torch.testing.assert_close(net.trunk(image, core), features[(..., *core)])


@pytest.mark.parametrize("strip_bytes", [1, 2**30])
def test_the_way_up_computes_the_core_and_what_its_convolutions_look_at(
    make_model, monkeypatch, strip_bytes
):
    model, seen = make_model(), []
    run = fused.FusedConv.__call__
    fast = FusedUNet(ready(model), strip_bytes)
    if not isinstance(fast.encoder[0], FusedBlock):
        pytest.skip("needs a torch with oneDNN")
    last = fast.decoder[0].convs[-1]

    def spied(conv, x, *rest):
        y = run(conv, x, *rest)
        if conv is last:
            seen.append((x.shape[2:], y.shape[2:]))
        return y

    monkeypatch.setattr(fused.FusedConv, "__call__", spied)
    with torch.inference_mode():
        fast(image_for(model), (slice(20, 30), slice(19, 26)))
    assert seen == [((12, 9), (10, 7))]


def test_small_strips_are_several(make_model):
    model = make_model()
    fast = FusedUNet(ready(model), 2**11)
    whole = (slice(0, 400), slice(0, 40))
    like = torch.empty(1, model.spec.width, 400, 40)
    strips = fast._strips(0, whole, like)
    rows = [strip.write[0] for strip in strips]
    assert len(strips) > 3
    assert [row.start for row in rows[1:]] == [row.stop for row in rows[:-1]]
    assert (rows[0].start, rows[-1].stop) == (0, 400)
    assert all(row.start % 2 == 0 for row in rows)
    assert [s.write for s in fast._strips(0, (slice(0, 24), slice(0, 8)), like)] == [
        (slice(0, 24), slice(0, 8))
    ]


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
