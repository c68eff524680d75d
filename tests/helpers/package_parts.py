"""Packages of bioimage.io as other people make them, with tiny networks in ONNX and TorchScript."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

GAIN = 12.0


def write_onnx_net(
    path: Path,
    *,
    ndim: int = 2,
    channels: int = 1,
    axes: str = "bcyx",
    pooled: tuple[int, ...] | None = None,
    size: int | None = None,
) -> None:
    """Write a network of two maps: what is bright (after pooling, if any), and its border.

    The first is a sigmoid of the mean of 3 x 3 pixels, the second of what a larger mean adds to it.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    own = "bc" + "zyx"[-ndim:]
    nodes, seen = [], "input"
    missing = [at for at, letter in enumerate(own) if letter not in axes]
    if axes != own:
        back = [[letter for letter in axes if letter in own].index(x) for x in own if x in axes]
        nodes.append(helper.make_node("Transpose", [seen], ["own"], perm=back))
        seen = "own"
    constants = {}
    if missing:
        constants["missing"] = np.array(missing, np.int64)
        nodes.append(helper.make_node("Unsqueeze", [seen, "missing"], ["full"]))
        seen = "full"
    if pooled:
        nodes.append(
            helper.make_node("MaxPool", [seen], ["small"], kernel_shape=pooled, strides=pooled)
        )
        constants["scales"] = np.array([1, 1, *pooled], np.float32)
        nodes.append(
            helper.make_node(
                "Resize",
                ["small", "", "scales"],
                ["grown"],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        )
        seen = "grown"
    kernel = (5,) * ndim
    weights = np.zeros((2, channels, *kernel), np.float32)
    inner = tuple(slice(1, 4) for _ in kernel)
    weights[0, 0][inner] = GAIN / 3**ndim
    weights[1, 0] = -GAIN / 5**ndim
    weights[1, 0][(2,) * ndim] += GAIN
    constants |= {"weights": weights, "bias": np.array([-GAIN / 2, -GAIN / 3], np.float32)}
    nodes.append(
        helper.make_node(
            "Conv", [seen, "weights", "bias"], ["raw"], kernel_shape=kernel, pads=[2] * 2 * ndim
        )
    )
    nodes.append(helper.make_node("Sigmoid", ["raw"], ["maps"]))
    last, left = "maps", [letter for letter in own if letter in axes]
    if missing:
        nodes.append(helper.make_node("Squeeze", [last, "missing"], ["flat"]))
        last = "flat"
    perm = [left.index(letter) for letter in axes]
    nodes.append(helper.make_node("Transpose", [last], ["output"], perm=perm))
    shape: list[Any] = [channels if x == "c" else (size if x in "yx" and size else x) for x in axes]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [f"{x}_out" for x in axes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_script_net(path: Path, *, pooled: bool = True, shrink: int = 0) -> None:
    """Write the planes' network as TorchScript; with `shrink` its output is smaller at each end."""
    import torch
    from torch import nn

    from napari_unet.nn.unet.convert import write_torchscript

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)
            self.up = nn.Upsample(scale_factor=2.0)
            self.conv = nn.Conv2d(1, 2, 5, padding=0 if shrink else 2)
            with torch.no_grad():
                self.conv.weight.zero_()
                self.conv.weight[0, 0, 1:4, 1:4] = GAIN / 9
                self.conv.weight[1, 0] = -GAIN / 25
                self.conv.weight[1, 0, 2, 2] += GAIN
                self.conv.bias.copy_(torch.tensor([-GAIN / 2, -GAIN / 3]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if pooled:
                x = self.up(self.pool(x))
            return torch.sigmoid(self.conv(x))

    write_torchscript(Net().eval(), torch.zeros(1, 1, 32, 32), path)


def make_package(
    folder: Path,
    weights: Path,
    *,
    axes: str = "bcyx",
    sizes: dict[str, Any] | None = None,
    halo: int = 3,
    shrink: int = 0,
    names: tuple[str, ...] = ("foreground", "boundary"),
    preprocessing: Any = None,
    postprocessing: Any = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    name: str = "discs of others",
    description: str = "made by a test",
) -> Path:
    """Write a package of specification 0.5 as a .zip file.

    Parameters
    ----------
    sizes
        For each spatial axis a single size, or (minimum, step).
    test
        Input and output of the network's test.
    """
    from bioimageio.spec import save_bioimageio_package
    from bioimageio.spec.model import v0_5 as spec

    from napari_unet.core.models.bioimageio import import_spec, package_context

    import_spec()
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {letter: (8, 8) for letter in axes if letter in "zyx"} | (sizes or {})
    (folder / weights.name).write_bytes(weights.read_bytes())
    inputs, outputs = [], []
    for letter in axes:
        if letter == "b":
            inputs.append(spec.BatchAxis())
            outputs.append(spec.BatchAxis())
        elif letter == "c":
            inputs.append(spec.ChannelAxis(channel_names=["grey"]))
            outputs.append(spec.ChannelAxis(channel_names=list(names)))
        else:
            size = sizes[letter]
            given = (
                size if isinstance(size, int) else spec.ParameterizedSize(min=size[0], step=size[1])
            )
            inputs.append(spec.SpaceInputAxis(id=spec.AxisId(letter), size=given))
            same = spec.SizeReference(
                tensor_id=spec.TensorId("image"), axis_id=spec.AxisId(letter), offset=-2 * shrink
            )
            kind = spec.SpaceOutputAxisWithHalo if halo else spec.SpaceOutputAxis
            extra = {"halo": halo} if halo else {}
            outputs.append(kind(id=spec.AxisId(letter), size=same, **extra))
    tensors = {}
    if test is not None:
        for key, values in zip(("input", "output"), test, strict=True):
            np.save(folder / f"test_{key}.npy", values)
            tensors[key] = spec.FileDescr(source=folder / f"test_{key}.npy")
    source = folder / weights.name
    form = (
        {"onnx": spec.OnnxWeightsDescr(source=source, opset_version=17)}
        if weights.suffix == ".onnx"
        else {"torchscript": spec.TorchscriptWeightsDescr(source=source, pytorch_version="2.4.0")}
    )
    with package_context(folder):
        made = spec.ModelDescr(
            name=name,
            description=description,
            authors=[spec.Author(name="Somebody")],
            license="MIT",
            inputs=[
                spec.InputTensorDescr(
                    id=spec.TensorId("image"),
                    axes=inputs,
                    test_tensor=tensors.get("input"),
                    preprocessing=preprocessing(spec) if preprocessing else [],
                    data=spec.IntervalOrRatioDataDescr(type="float32"),
                )
            ],
            outputs=[
                spec.OutputTensorDescr(
                    id=spec.TensorId("maps"),
                    axes=outputs,
                    test_tensor=tensors.get("output"),
                    postprocessing=postprocessing(spec) if postprocessing else [],
                    data=spec.IntervalOrRatioDataDescr(type="float32"),
                )
            ],
            weights=spec.WeightsDescr(**form),
        )
        target = folder.with_suffix(".zip")
        save_bioimageio_package(made, output_path=target)
        del made  # the files that it holds open
    return target


def make_old_package(folder: Path, weights: Path, test: tuple[np.ndarray, np.ndarray]) -> Path:
    """Write a package of specification 0.4 as a .zip file."""
    from bioimageio.spec import save_bioimageio_package
    from bioimageio.spec.model import v0_4 as spec

    from napari_unet.core.models.bioimageio import import_spec, package_context

    import_spec()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / weights.name).write_bytes(weights.read_bytes())
    (folder / "README.md").write_text("# Validation\nnone\n", encoding="utf-8")
    for key, values in zip(("input", "output"), test, strict=True):
        np.save(folder / f"test_{key}.npy", values)
    with package_context(folder):
        made = spec.ModelDescr(
            name="discs of old",
            description="predicts foreground probabilities and boundary maps",
            documentation=folder / "README.md",
            authors=[spec.Author(name="Somebody")],
            license="MIT",
            cite=[spec.CiteEntry(text="nobody", doi="10.1038/s41592-018-0261-2")],
            tags=["unet"],
            timestamp="2022-01-01T00:00:00",
            inputs=[
                spec.InputTensorDescr(
                    name="image",
                    axes="bcyx",
                    shape=spec.ParameterizedInputShape(min=[1, 1, 16, 16], step=[0, 0, 8, 8]),
                    data_type="float32",
                    preprocessing=[
                        spec.ZeroMeanUnitVarianceDescr(
                            kwargs=spec.ZeroMeanUnitVarianceKwargs(mode="per_sample", axes="xy")
                        )
                    ],
                )
            ],
            outputs=[
                spec.OutputTensorDescr(
                    name="maps",
                    axes="bcyx",
                    shape=spec.ImplicitOutputShape(
                        reference_tensor="image", scale=[1, 2, 1, 1], offset=[0, 0, 0, 0]
                    ),
                    data_type="float32",
                    halo=[0, 0, 3, 3],
                )
            ],
            test_inputs=[folder / "test_input.npy"],
            test_outputs=[folder / "test_output.npy"],
            weights=spec.WeightsDescr(
                onnx=spec.OnnxWeightsDescr(source=folder / weights.name, opset_version=17)
            ),
        )
        target = folder.with_suffix(".zip")
        save_bioimageio_package(made, output_path=target)
        del made  # the files that it holds open
    return target
