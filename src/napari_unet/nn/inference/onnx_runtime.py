"""ONNX Runtime: sessions of networks in ONNX, and our own networks run by it (``--device onnx``).

It reaches devices that torch does not: DirectML on Windows, CoreML on macOS, OpenVINO.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.core.errors import DeviceError, ModelError
from napari_unet.core.io.files import atomic_file, first_line, make_folder
from napari_unet.core.models.store import home
from napari_unet.nn.unet.convert import OPSET, example_input, to_portable, write_onnx
from napari_unet.nn.unet.net import UNet, fold, pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from napari_unet.core.settings.model_spec import ModelSpec

DEVICE = "onnx"
"""The device's name; ``onnx:cpu`` and the like name one of the `PROVIDERS`."""
PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "dml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""What runs a network, in the order in which it is looked for."""


def import_runtime() -> Any:
    """Return the package `onnxruntime`.

    Raises
    ------
    DeviceError
        It is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(
            "ONNX Runtime is not installed; run: pip install 'napari-unet[onnx]', or choose "
            "another device."
        ) from error
    return onnxruntime


def choose_provider(device: str) -> str:
    """Return the short name of what runs networks on a device ``onnx`` or ``onnx:NAME``.

    Raises
    ------
    DeviceError
        ONNX Runtime is not installed, or has nothing of that name on this computer.
    """
    present = set(import_runtime().get_available_providers())
    there = [name for name, provider in PROVIDERS.items() if provider in present]
    wanted = device.partition(":")[2]
    if not wanted:
        return there[0]
    if wanted not in there:
        names = ", ".join(f"{DEVICE}:{name}" for name in there)
        raise DeviceError(
            f"The device {device!r} was asked for, but ONNX Runtime has none here; use one of: "
            f"{DEVICE}, {names}."
        )
    return wanted


def open_session(path: Path, provider: str) -> Any:
    """Load a network; it is data, no code is run.

    Parameters
    ----------
    provider
        One of `PROVIDERS`; the processor does what that one cannot.

    Raises
    ------
    ModelError
        The file is damaged, no ONNX, or uses operators that are unknown here.
    """
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    # As many threads as torch would take, so that the user's setting counts for both.
    options.intra_op_num_threads = torch.get_num_threads()
    providers = list(dict.fromkeys([PROVIDERS[provider], PROVIDERS["cpu"]]))
    try:
        return runtime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:  # its errors share no base class below Exception
        raise ModelError(f"{path} cannot be run as ONNX ({first_line(error)}).") from error


def external_files(path: Path) -> list[str]:
    """Return the files in which an ONNX file keeps weights besides itself.

    None are found where the package `onnx` is missing, or in what is no ONNX, which ONNX Runtime
    then refuses.
    """
    try:
        import onnx
    except ImportError:
        return []
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # of the package protobuf, which has no types
        return []
    constants = [entry.t for node in graph.node for entry in node.attribute]
    places = (entry for t in [*graph.initializer, *constants] for entry in t.external_data)
    return sorted({entry.value for entry in places if entry.key == "location"})


@dataclass(frozen=True)
class OnnxDevice:
    """What runs a model's network instead of torch.

    Attributes
    ----------
    provider
        One of `PROVIDERS`.
    """

    provider: str

    def __str__(self) -> str:
        """Return the device's name, as `--device` takes it."""
        return f"{DEVICE}:{self.provider}"


class OnnxNet:
    """One of our networks, run by ONNX Runtime; features for clicks are computed by torch.

    Parameters
    ----------
    net
        On the processor.
    key
        Name of the weights, under which the converted network is kept in the store's cache.
    provider
        One of `PROVIDERS`.
    """

    def __init__(self, net: UNet, key: str, provider: str) -> None:
        self.spec: ModelSpec = net.spec
        self._net = net
        self._folded: UNet | None = None
        self._session = open_session(converted(net, key), provider)

    def __call__(self, images: Tensor) -> Tensor:
        """Map images (N, C, *spatial) of any size to raw maps, as a `UNet` does."""
        sizes = images.shape[2:]
        values = np.ascontiguousarray(pad_to_multiple(images, self.spec.stride).numpy())
        maps = torch.from_numpy(self._session.run(None, {"input": values})[0])
        for axis, size in enumerate(sizes, start=2):
            maps = maps.narrow(axis, 0, size)
        return maps

    def trunk(self, images: Tensor) -> Tensor:
        """Return the features of images, by torch."""
        return self._torch.trunk(images)

    def pyramid(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the features of each level, the coarsest first, by torch."""
        return self._torch.pyramid(images)

    @property
    def head(self) -> Any:
        """The convolution that reads maps off features, by torch."""
        return self._torch.head

    @property
    def _torch(self) -> UNet:
        if self._folded is None:
            self._folded = fold(self._net)
        return self._folded


def converted(net: UNet, key: str) -> Path:
    """Return the file of a network in ONNX, written when it is first asked for."""
    folder = home() / "onnx"
    path = folder / f"{key[:32] or 'unsaved'}-{OPSET}.onnx"
    if not key or not path.is_file():
        make_folder(folder)
        with atomic_file(path) as partial:
            write_onnx(to_portable(net, activated=False), example_input(net.spec), partial)
    return path
