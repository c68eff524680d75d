"""The network: every option does what its spec says, at any size, and folding changes nothing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from napari_unet.core.errors import ModelError
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.unet.layers import AttentionGate, BiasGradient, Block, LinearUp
from napari_unet.nn.unet.net import UNet, fold, out_channels, pad_symmetric, pad_to_multiple

OPTIONS = {
    "plain": {},
    "one level": {"depth": 1},
    "one channel": {"in_channels": 1},
    "semantic": {"head": "semantic", "classes": 5},
    "kernel 1": {"kernel": 1},
    "kernel 5": {"kernel": 5},
    "one convolution": {"convs": 1},
    "three convolutions": {"convs": 3},
    "narrow": {"max_width": 4},
    "narrower than wide": {"max_width": 2},
    "add": {"skip": "add"},
    "linear": {"up": "linear"},
    "stride": {"pool": "stride"},
    "no norm": {"norm": "none"},
    "leaky_relu": {"activation": "leaky_relu"},
    "elu": {"activation": "elu"},
    "silu": {"activation": "silu"},
    "gelu": {"activation": "gelu"},
    "residual": {"residual": True},
    "residual, one convolution": {"residual": True, "convs": 1},
    "attention": {"attention": True},
    "attention, add": {"attention": True, "skip": "add"},
    "dropout": {"dropout": 0.3},
    "everything": {
        "skip": "add",
        "up": "linear",
        "pool": "stride",
        "norm": "none",
        "residual": True,
        "attention": True,
        "dropout": 0.1,
        "activation": "silu",
        "kernel": 5,
    },
}


def small(ndim: int = 2, **options: object) -> ModelSpec:
    return ModelSpec(**{"ndim": ndim, "depth": 2, "width": 4, **options})  # type: ignore[arg-type]


def image(spec: ModelSpec, *sizes: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, spec.in_channels, *sizes)


def count(net: nn.Module, *kinds: type[nn.Module]) -> int:
    return sum(isinstance(part, kinds) for part in net.modules())


def with_statistics(net: UNet) -> UNet:
    """Give the BatchNorm layers statistics and scales unlike those they begin with."""
    for part in net.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(part.running_mean, 0.3, 0.5)
            nn.init.uniform_(part.running_var, 0.2, 3.0)
            nn.init.uniform_(part.weight, 0.5, 2.0)
            nn.init.normal_(part.bias, 0.1, 0.5)
    return net


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_option_gives_maps_of_the_input_size_and_trains_every_parameter(options, ndim):
    spec = small(ndim, **options)
    net = UNet(spec)
    x = image(spec, *(5, 6, 7)[-ndim:], batch=3)
    maps = net(x)
    assert maps.shape == (3, out_channels(spec), *x.shape[2:])
    assert maps.dtype == torch.float32
    assert torch.isfinite(maps).all()
    (maps * torch.randn_like(maps)).sum().backward()
    untrained = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert untrained == []


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_folding_changes_no_output_and_leaves_the_network_alone(options, ndim):
    spec = small(ndim, **options)
    net = with_statistics(UNet(spec))
    before = {name: values.clone() for name, values in net.state_dict().items()}
    folded = fold(net)
    x = image(spec, *(6, 7, 9)[-ndim:])
    with torch.no_grad():
        expected = net.eval()(x)
        atol = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(folded(x), expected, rtol=1e-4, atol=atol)
    assert not folded.training
    assert count(folded, nn.BatchNorm2d, nn.BatchNorm3d) == 0
    assert all(torch.equal(values, before[name]) for name, values in net.state_dict().items())


@pytest.mark.parametrize("pool", ["max", "stride"])
@pytest.mark.parametrize("up", ["transpose", "linear"])
@pytest.mark.parametrize(
    "sizes", [(1, 1), (1, 9), (3, 2), (7, 16), (17, 5), (1, 1, 1), (1, 6, 5), (3, 1, 8), (9, 4, 7)]
)
def test_any_size_works(sizes, up, pool):
    net = UNet(small(len(sizes), up=up, pool=pool)).eval()
    maps = net(image(net.spec, *sizes))
    assert maps.shape == (2, 2, *sizes)
    assert torch.isfinite(maps).all()


@pytest.mark.parametrize("sizes", [(1, 1), (5, 9), (2, 3, 5)])
def test_odd_sizes_are_mirrored_at_the_far_end(sizes):
    net = UNet(small(len(sizes))).eval()
    x = image(net.spec, *sizes)
    ends = [(0, -size % 4) for size in sizes]
    whole = net(torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), *ends], mode="symmetric")))
    torch.testing.assert_close(net(x), whole[(..., *(slice(s) for s in sizes))])


@pytest.mark.parametrize("shape", [(3,), (1, 1), (2, 5), (4, 1, 3)])
@pytest.mark.parametrize("widths", [(0, 0), (1, 0), (0, 2), (7, 11)])
def test_padding_is_that_of_numpy(shape, widths):
    x = np.random.default_rng(0).random((2, *shape))
    expected = np.pad(x, [(0, 0)] + [widths] * len(shape), mode="symmetric")
    padded = pad_symmetric(torch.from_numpy(x), [widths] * len(shape))
    np.testing.assert_array_equal(padded.numpy(), expected)


def test_padding_to_a_multiple_leaves_what_fits():
    x = torch.rand(1, 1, 8, 12)
    assert pad_to_multiple(x, (4, 4)) is x
    assert pad_to_multiple(x, (16, 5)).shape == (1, 1, 16, 15)


@pytest.mark.parametrize(
    ("ndim", "shape"), [(2, (1, 2, 8, 8)), (2, (3, 8, 8)), (3, (1, 3, 8, 8)), (2, (1, 3, 0, 8))]
)
def test_an_unfit_input_is_named(ndim, shape):
    with pytest.raises(ModelError, match=r"shape \(.*it takes \(N, 3, "):
        UNet(small(ndim))(torch.zeros(shape))


def test_head_of_trunk_is_the_whole_network():
    net = UNet(small(width=6)).eval()
    x = image(net.spec, 7, 9)
    features = net.trunk(x)
    assert features.shape == (2, 6, 7, 9)
    torch.testing.assert_close(net.head(features), net(x))


def test_seed_decides_the_weights():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(UNet(small(attention=True)).state_dict())
    first, same, other = (torch.cat([v.flatten() for v in state.values()]) for state in states)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_without_memory_no_weights_are_drawn(monkeypatch):
    monkeypatch.setattr(nn.init, "kaiming_normal_", None)  # imports torch's compiler for these
    with torch.device("meta"):
        assert UNet(small()).head.weight.is_meta


def test_new_weights_keep_the_size_of_the_signal():
    net = UNet(ModelSpec(in_channels=1, norm="none", depth=3)).eval()
    features = net.trunk(torch.randn(1, 1, 64, 64))
    assert 0.1 < features.std().item() < 10


def test_widths_double_down_to_the_limit():
    net = UNet(ModelSpec(depth=3, width=4, max_width=8))
    outputs = [block.units[-1].conv.out_channels for block in net.encoder]
    assert outputs == [4, 8, 8]
    assert net.bottleneck.units[-1].conv.out_channels == 8


@pytest.mark.parametrize(("skip", "channels"), [("concat", [8, 16]), ("add", [4, 8])])
def test_skip_decides_what_the_decoder_takes(skip, channels):
    net = UNet(small(skip=skip))
    assert [block.units[0].conv.in_channels for block in net.decoder] == channels


@pytest.mark.parametrize("skip", ["concat", "add"])
def test_skip_reaches_the_output(skip):
    net = UNet(small(skip=skip, norm="none")).eval()
    for up in net.ups:
        nn.init.zeros_(up.weight)
    x, other = image(net.spec, 8, 8), image(net.spec, 8, 8)
    assert not torch.allclose(net(x), net(other))
    for block in net.encoder:
        nn.init.zeros_(block.units[-1].conv.weight)
    assert torch.equal(net(x), net(other))


@pytest.mark.parametrize(("up", "transposed", "linear"), [("transpose", 2, 0), ("linear", 0, 2)])
def test_up_decides_the_up_sampling(up, transposed, linear):
    for ndim in (2, 3):
        net = UNet(small(ndim, up=up))
        assert count(net, nn.ConvTranspose2d, nn.ConvTranspose3d) == transposed
        assert count(net, LinearUp) == linear


def test_linear_up_sampling_interpolates_between_pixel_centres():
    spec = small(up="linear")
    up = LinearUp(spec, 1, 1, (1, 2))
    nn.init.ones_(up.conv.weight)
    nn.init.zeros_(up.conv.bias)
    row = up(torch.tensor([[[[0.0, 4.0, 8.0]]]]))
    assert row.tolist() == [[[[0, 1, 3, 5, 7, 8]]]]


@pytest.mark.parametrize(("pool", "maxima", "strided"), [("max", 2, 0), ("stride", 0, 2)])
def test_pool_decides_the_down_sampling(pool, maxima, strided):
    for ndim in (2, 3):
        net = UNet(small(ndim, pool=pool))
        assert count(net, nn.MaxPool2d, nn.MaxPool3d) == maxima
        convs = [m for m in net.modules() if type(m) in (nn.Conv2d, nn.Conv3d)]
        assert sum(m.stride == (2,) * ndim == m.kernel_size for m in convs) == strided


@pytest.mark.parametrize("up", ["transpose", "linear"])
@pytest.mark.parametrize("pool", ["max", "stride"])
def test_pooling_factors_hold_for_each_axis(pool, up):
    net = UNet(small(3, pool=pool, up=up, pooling=((1, 2, 2), (1, 1, 2)))).eval()
    sizes = []
    net.bottleneck.register_forward_hook(lambda part, inputs, output: sizes.append(output.shape))
    assert net(image(net.spec, 3, 6, 8)).shape[2:] == (3, 6, 8)
    assert sizes == [(2, 16, 3, 3, 2)]


def test_norm_decides_about_batch_norm_and_biases():
    for ndim in (2, 3):
        with_norm, without = UNet(small(ndim)), UNet(small(ndim, norm="none"))
        assert count(with_norm, nn.BatchNorm2d, nn.BatchNorm3d) == 10
        assert count(without, nn.BatchNorm2d, nn.BatchNorm3d) == 0
        assert with_norm.bottleneck.units[0].conv.bias is None
        assert without.bottleneck.units[0].conv.bias is not None


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", lambda v: max(v, 0.0)),
        ("leaky_relu", lambda v: max(v, 0.01 * v)),
        ("elu", lambda v: v if v > 0 else math.expm1(v)),
        ("silu", lambda v: v / (1 + math.exp(-v))),
        ("gelu", lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2),
    ],
)
def test_activation_is_the_one_named(name, function):
    block = Block(small(activation=name, kernel=1, convs=1, norm="none"), 1, 1)
    nn.init.ones_(block.units[0].conv.weight)
    nn.init.zeros_(block.units[0].conv.bias)
    values = [-2.0, -0.5, 0.0, 1.5]
    out = block(torch.tensor(values).reshape(1, 1, 2, 2)).flatten().tolist()
    assert out == pytest.approx([function(v) for v in values], abs=1e-6)


@pytest.mark.parametrize(("kernel", "convs"), [(1, 1), (3, 2), (5, 3)])
def test_kernel_and_convs_decide_each_block(kernel, convs):
    net = UNet(small(3, kernel=kernel, convs=convs))
    for block in (*net.encoder, net.bottleneck, *net.decoder):
        assert [unit.conv.kernel_size for unit in block.units] == [(kernel,) * 3] * convs


def test_convolutions_pad_with_zeros():
    block = Block(small(convs=1, norm="none"), 1, 1)
    nn.init.ones_(block.units[0].conv.weight)
    nn.init.zeros_(block.units[0].conv.bias)
    assert block(torch.ones(1, 1, 3, 3)).tolist() == [[[[4, 6, 4], [6, 9, 6], [4, 6, 4]]]]


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_residual_block_without_its_convolutions_is_the_identity(norm):
    block = Block(small(residual=True, norm=norm), 4, 4).eval()
    for unit in block.units:
        nn.init.zeros_(unit.conv.weight)
    x = torch.rand(2, 4, 5, 5)
    if norm == "none":
        for unit in block.units:
            nn.init.zeros_(unit.conv.bias)
    assert torch.equal(block(x), x)


def test_residual_block_projects_where_channels_differ():
    block = Block(small(3, residual=True), 3, 4).eval()
    nn.init.zeros_(block.units[-1].conv.weight)
    assert block.shortcut.kernel_size == (1, 1, 1)
    x = torch.rand(2, 3, 5, 5, 5)
    torch.testing.assert_close(block(x), torch.relu(block.shortcut(x)))
    assert Block(small(3), 3, 4).shortcut is None


@pytest.mark.parametrize("skip", ["concat", "add"])
def test_attention_weighs_the_skip_between_0_and_1(skip):
    spec = small(skip=skip, attention=True)
    net = UNet(spec).eval()
    seen = []
    for gate in net.gates:
        gate.register_forward_hook(lambda gate, inputs, output: seen.append((*inputs, output)))
    net(10 * image(spec, 8, 8))
    assert len(seen) == 2
    for (values, signal, weighted), gate in zip(seen, reversed(net.gates), strict=True):
        weights = gate.weights(values, signal)
        assert weights.shape == (2, 1, *values.shape[2:])
        assert weights.min() >= 0
        assert weights.max() <= 1
        torch.testing.assert_close(weighted, values * weights)
    assert len(UNet(small(skip=skip)).gates) == 0


def test_attention_gate_can_close_and_open():
    gate = AttentionGate(small(attention=True), 4)
    skip, signal = torch.rand(1, 4, 3, 3), torch.rand(1, 4, 3, 3)
    nn.init.constant_(gate.weigh.bias, -100.0)
    assert gate(skip, signal).abs().max() < 1e-30
    nn.init.constant_(gate.weigh.bias, 100.0)
    assert torch.equal(gate(skip, signal), skip)


@pytest.mark.parametrize("ndim", [2, 3])
def test_dropout_takes_whole_channels_in_training_only(ndim):
    spec = small(ndim, dropout=0.5, activation="silu")
    block = Block(spec, 3, 64)
    x = image(spec, *(6,) * ndim, batch=1)
    kept = block(x).flatten(2).ne(0).float().mean(dim=-1)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert 16 < kept.sum() < 48
    block.eval()
    assert block(x).ne(0).all()
    assert torch.equal(block(x), block(x))


def test_without_dropout_training_is_repeatable():
    net = UNet(small())
    x = image(net.spec, 8, 8)
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize("up", ["transpose", "linear"])
def test_runs_in_bfloat16_and_channels_last(up):
    net = fold(UNet(small(up=up, attention=True)))
    x = image(net.spec, 16, 16)
    expected = net(x)
    net = net.to(torch.bfloat16, memory_format=torch.channels_last)
    maps = net(x.to(torch.bfloat16, memory_format=torch.channels_last))
    assert maps.dtype == torch.bfloat16
    torch.testing.assert_close(maps.float(), expected, rtol=0.1, atol=0.1)


def test_a_spec_rebuilt_from_json_takes_the_weights():
    spec = small(3, pooling=((1, 2, 2), (2, 2, 2)), attention=True, residual=True)
    again = ModelSpec.from_json(dataclasses.asdict(spec))
    UNet(again).load_state_dict(UNet(spec).state_dict(), strict=True)


@pytest.mark.parametrize("ndim", [2, 3])
def test_frozen_statistics_give_the_gradients_of_the_plain_network(ndim):
    """In training they are a part of the kernels; biases get their gradient by a plain sum."""
    torch.manual_seed(0)
    net = UNet(ModelSpec(ndim=ndim, in_channels=1, depth=2, width=4, convs=2)).double()
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 2)
            for values in (module.running_mean, module.bias.data):
                values.normal_()
    x = torch.rand(2, 1, *[8] * ndim, dtype=torch.float64)
    answers, gradients = [], []
    for frozen in (True, False):
        net.zero_grad()
        net.eval()
        if frozen:
            net.train()
            for module in net.modules():
                if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                    module.eval()
        answers.append(net(x))
        answers[-1].square().sum().backward()
        gradients.append({name: value.grad.clone() for name, value in net.named_parameters()})
    assert torch.allclose(*answers)
    for name, value in gradients[0].items():
        assert torch.allclose(value, gradients[1][name], rtol=1e-5), name


def test_a_bias_gets_the_gradient_of_the_transposed_convolution():
    torch.manual_seed(0)
    conv = nn.ConvTranspose2d(3, 2, 2, stride=2).double()
    x, weigh = torch.rand(2, 3, 4, 5, dtype=torch.float64), torch.rand(2, 2, 8, 10).double()
    wanted = torch.autograd.grad((conv(x) * weigh).sum(), conv.bias)[0]
    bias = conv.bias
    y = nn.functional.conv_transpose2d(x, conv.weight, bias.detach(), stride=2)
    (BiasGradient.apply(y, bias).relu_() * weigh).sum().backward()
    mask = conv(x) > 0
    assert torch.allclose(bias.grad, (weigh * mask).sum((0, 2, 3)))
    assert torch.allclose(wanted, weigh.sum((0, 2, 3)))
