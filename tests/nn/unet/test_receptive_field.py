"""What `core.tiles` says a network sees is what it sees: neither a pixel less nor a pixel more.

With positive weights, no biases and the activation of positive values nothing cancels: an image
that is 0 but for one pixel gives maps above 0 exactly where they depend on that pixel, whatever
the network's options, max pooling included.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.tiles import input_interval, receptive_field
from napari_unet.nn.unet.net import UNet

PLAIN = {2: 23, 3: 51, 4: 107}
ANISOTROPIC = ((1, 2, 2), (2, 2, 2))
FLAT = ((1, 3, 3), (3, 5, 1), (3, 3, 3))
NEVER = ((1, 1, 2), (1, 2, 2))
SPECS = {
    "depth 1": ModelSpec(depth=1),
    "depth 2": ModelSpec(depth=2),
    "depth 3": ModelSpec(depth=3),
    "depth 1, linear": ModelSpec(depth=1, up="linear"),
    "depth 2, linear": ModelSpec(depth=2, up="linear"),
    "depth 3, linear": ModelSpec(depth=3, up="linear"),
    "kernel 1": ModelSpec(depth=2, kernel=1),
    "kernel 1, linear": ModelSpec(depth=2, kernel=1, up="linear"),
    "kernel 5": ModelSpec(depth=2, kernel=5),
    "kernel 5, linear": ModelSpec(depth=2, kernel=5, up="linear"),
    "kernel 5, depth 3": ModelSpec(depth=3, kernel=5, convs=1),
    "one convolution": ModelSpec(depth=3, convs=1, up="linear"),
    "three convolutions": ModelSpec(depth=2, convs=3),
    "stride": ModelSpec(depth=2, pool="stride"),
    "stride, linear": ModelSpec(depth=2, pool="stride", up="linear"),
    "add, residual": ModelSpec(depth=2, skip="add", residual=True),
    "attention": ModelSpec(depth=2, attention=True),
    "attention, linear": ModelSpec(depth=2, attention=True, up="linear", skip="add"),
    "pooled along x only": ModelSpec(depth=2, pooling=((1, 2), (1, 2))),
    "pooled along x first": ModelSpec(depth=2, pooling=((1, 2), (2, 1)), up="linear"),
    "3D": ModelSpec(ndim=3, depth=1),
    "3D, anisotropic": ModelSpec(ndim=3, depth=2, convs=1, pooling=ANISOTROPIC),
    "3D, anisotropic, linear": ModelSpec(
        ndim=3, depth=2, convs=1, pooling=ANISOTROPIC, up="linear"
    ),
    "3D, anisotropic, kernel 5": ModelSpec(ndim=3, depth=2, convs=1, pooling=ANISOTROPIC, kernel=5),
    "3D, flat kernels": ModelSpec(ndim=3, depth=2, convs=1, pooling=ANISOTROPIC, kernels=FLAT),
    "3D, flat kernels, linear": ModelSpec(
        ndim=3, depth=2, convs=2, pooling=ANISOTROPIC, kernels=FLAT, up="linear"
    ),
    "kernels of each level": ModelSpec(depth=2, kernels=((5, 1), (3, 3), (1, 7))),
    "3D, z never pooled": ModelSpec(ndim=3, depth=2, convs=1, pooling=NEVER, pool="stride"),
}
AXES = [
    pytest.param(spec, axis, id=f"{name}, axis {axis}")
    for name, spec in SPECS.items()
    for axis in range(spec.ndim)
]


def positive(spec: ModelSpec) -> UNet:
    """Build the spec's network, one channel wide and without norm, in which nothing cancels."""
    options = {**spec.to_json(), "width": 1, "max_width": 1, "in_channels": 1, "norm": "none"}
    net = UNet(ModelSpec.from_json(options)).double().eval()
    for name, values in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(values)
        else:
            nn.init.constant_(values, 1 / values[0].numel())
    return net


@functools.cache
def dependence(spec: ModelSpec, axis: int) -> tuple[np.ndarray, int]:
    """Return which input (row) each output (column) of one axis depends on, and a grid point.

    Around the grid point lies room for everything that the outputs of two grid cells can see.
    """
    stride = spec.stride[axis]
    reach = -(-receptive_field(spec)[axis] // stride) * stride + stride
    size = 2 * reach + 2 * stride
    sizes = [size if a == axis else s for a, s in enumerate(spec.stride)]
    net, rows = positive(spec), []
    with torch.inference_mode():
        for pixels in torch.arange(size).split(64):
            images = torch.zeros(len(pixels), 1, *sizes, dtype=torch.float64)
            images.movedim(2 + axis, 1)[torch.arange(len(pixels)), pixels] = 1.0
            seen = net(images).gt(0).any(dim=1).movedim(1 + axis, 1)
            rows.append(seen.flatten(2).any(dim=2))
    return torch.cat(rows).numpy(), reach


@pytest.mark.parametrize(("spec", "axis"), AXES)
def test_interval_holds_just_the_pixels_that_outputs_depend_on(spec, axis):
    seen, origin = dependence(spec, axis)
    ends = range(2 * spec.stride[axis] + 1)
    for start, stop in ((a, b) for a in ends for b in ends if a < b):
        inputs = np.flatnonzero(seen[:, origin + start : origin + stop].any(axis=1)) - origin
        found = (int(inputs[0]), int(inputs[-1]) + 1)
        assert found == input_interval(spec, axis, start, stop), (start, stop)


@pytest.mark.parametrize(("spec", "axis"), AXES)
def test_receptive_field_is_the_farthest_dependence(spec, axis):
    seen, origin = dependence(spec, axis)
    stop = origin + spec.stride[axis]
    reach = max(np.abs(np.flatnonzero(seen[:, p]) - p).max() for p in range(origin, stop))
    assert reach == receptive_field(spec)[axis]


@pytest.mark.parametrize(("spec", "axis"), AXES)
def test_interval_moves_with_the_grid(spec, axis):
    lo, hi = input_interval(spec, axis, 1, 3)
    for shift in (-5 * spec.stride[axis], 7 * spec.stride[axis]):
        assert input_interval(spec, axis, 1 + shift, 3 + shift) == (lo + shift, hi + shift)


@pytest.mark.parametrize(("depth", "reach"), PLAIN.items())
def test_plain_network_sees_as_far_as_designed(depth, reach):
    assert receptive_field(ModelSpec(depth=depth)) == (reach, reach)
    assert receptive_field(ModelSpec(ndim=3, depth=depth)) == (reach,) * 3


def test_gradient_agrees_for_the_deepest_plain_network():
    spec = ModelSpec(pool="stride")  # max pooling would hand the gradient to one pixel only
    net, origin = positive(spec), 128
    image = torch.ones(1, 1, 16, 2 * origin, dtype=torch.float64, requires_grad=True)
    farthest = 0
    for pixel in range(origin, origin + 16):
        (gradient,) = torch.autograd.grad(net(image)[0, 0, 8, pixel], image)
        columns = gradient[0, 0].ne(0).any(dim=0).nonzero().flatten().tolist()
        assert (columns[0], columns[-1] + 1) == input_interval(spec, 1, pixel, pixel + 1)
        farthest = max(farthest, pixel - columns[0], columns[-1] - pixel)
    assert farthest == PLAIN[4]


@pytest.mark.parametrize("up", ["transpose", "linear"])
@pytest.mark.parametrize("pool", ["max", "stride"])
def test_nothing_outside_the_interval_matters_to_a_network_as_it_comes(pool, up):
    spec = ModelSpec(
        depth=2, width=4, up=up, pool=pool, attention=True, residual=True, activation="gelu"
    )
    torch.manual_seed(0)
    net, origin, window = UNet(spec).double().eval(), 40, slice(41, 46)
    image, other = torch.rand(2, 1, 3, 88, 88, dtype=torch.float64)
    lo, hi = input_interval(spec, 0, window.start, window.stop)
    assert 0 < lo < origin < hi < 88
    mixed = other.clone()
    mixed[..., lo:hi, lo:hi] = image[..., lo:hi, lo:hi]
    nearly = other.clone()
    nearly[..., lo + 1 : hi, lo:hi] = image[..., lo + 1 : hi, lo:hi]
    with torch.inference_mode():
        expected, same, unlike = (net(x)[..., window, window] for x in (image, mixed, nearly))
    torch.testing.assert_close(same, expected, rtol=0, atol=1e-12)
    assert (unlike - expected).abs().max() > 1e-12
