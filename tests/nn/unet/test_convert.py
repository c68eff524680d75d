"""A network in a file of its own, as TorchScript and as ONNX gives the maps of the U-Net."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.nn.unet import convert, portable
from napari_unet.nn.unet.net import UNet

SPECS = {
    "plain": ModelSpec(in_channels=3, depth=3, width=4, skip="add"),
    "anisotropic": ModelSpec(
        ndim=3,
        in_channels=1,
        depth=2,
        width=4,
        pooling=((1, 2, 2), (2, 2, 2)),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    ),
    "everything": ModelSpec(
        in_channels=1,
        depth=2,
        width=4,
        up="linear",
        pool="stride",
        attention=True,
        residual=True,
        activation="gelu",
        head="semantic",
        classes=3,
    ),
    "volumes": ModelSpec(ndim=3, in_channels=2, depth=2, width=4, up="linear", norm="none"),
}


def network(spec: ModelSpec) -> UNet:
    torch.manual_seed(0)
    net = UNet(spec).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net


def image(spec: ModelSpec, count: int = 2) -> torch.Tensor:
    """Inputs of unequal edges, none of which is that of the example."""
    sizes = [step * (3 + axis) for axis, step in enumerate(spec.stride)]
    return torch.from_numpy(
        np.random.default_rng(1).normal(size=(count, spec.in_channels, *sizes)).astype(np.float32)
    )


@pytest.mark.parametrize("name", SPECS)
@torch.inference_mode()
def test_one_file_holds_the_same_network(name):
    net, values = network(SPECS[name]), image(SPECS[name])
    raw = net(values)
    assert torch.equal(convert.to_portable(net, activated=False)(values), raw)
    if net.spec.head == "instance":
        raw[:, :1].sigmoid_()
    torch.testing.assert_close(convert.to_portable(net)(values), raw)


def test_the_file_needs_nothing_but_torch():
    source = Path(portable.__file__).read_text(encoding="utf-8")
    imported = set(re.findall(r"(?m)^(?:from|import) ([\w.]+)", source))
    assert imported == {"__future__", "typing", "torch", "torch.nn"}


@pytest.mark.parametrize("name", SPECS)
@torch.inference_mode()
def test_torchscript_runs_other_sizes(name, tmp_path):
    net, values = network(SPECS[name]), image(SPECS[name])
    plain = convert.to_portable(net, activated=False)
    convert.write_torchscript(plain, convert.example_input(net.spec), tmp_path / "net.pt")
    traced = convert.read_torchscript(tmp_path / "net.pt", torch.device("cpu"))
    torch.testing.assert_close(traced(values), net(values), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "volumes")) for name in SPECS]
)
@torch.inference_mode()
def test_onnx_runs_other_sizes(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    net, values = network(SPECS[name]), image(SPECS[name])
    plain = convert.to_portable(net, activated=False)
    convert.write_onnx(plain, convert.example_input(net.spec), tmp_path / "net.onnx")
    session = runtime.InferenceSession(
        str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"]
    )
    found = session.run(["output"], {"input": values.numpy()})[0]
    assert np.abs(found - net(values).numpy()).max() < 1e-4
