"""A model: card, network and device; loading and saving it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from napari_unet.core.errors import DeviceError, ModelError
from napari_unet.core.models.folder import read_card, read_model, read_rehearsal, write_model
from napari_unet.core.models.foreign_folder import (
    foreign_weights,
    is_foreign,
    is_trusted,
    read_foreign,
    write_foreign,
)
from napari_unet.core.models.store import find_model, put_model
from napari_unet.core.server_access import REMOTE, is_remote
from napari_unet.core.settings.foreign_spec import ONNX, ForeignSpec
from napari_unet.core.settings.tasks import DEVICES, DecodeSettings
from napari_unet.nn.inference.foreign_net import ForeignNet
from napari_unet.nn.inference.onnx_runtime import DEVICE as ONNX_DEVICE
from napari_unet.nn.inference.onnx_runtime import OnnxDevice, OnnxNet, choose_provider
from napari_unet.nn.inference.remote import RemoteDevice, sent_model
from napari_unet.nn.inference.runner import OFF, Runner, get_flips
from napari_unet.nn.inference.size_regression import SizeRegressor
from napari_unet.nn.unet.click_head import ClickHead, build_click_head
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    import numpy as np

    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.settings.model_spec import ModelSpec


CLICK, SIZE = "click/", "size/"
"""The names of the click head's weights, and of the size regressor's, begin with this."""
AGREEMENT = 0.999
"""Dice against float32 labels from which on bfloat16 counts as giving the same objects."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its card, on a device.

    Attributes
    ----------
    card
        What the network was trained on and how it is to be run.
    net
        float32 weights as they were trained, on `device`, in evaluation mode. One that others
        built stands there as a `ForeignNet`, which is called alike; see `is_foreign`.
    device
        Where it runs.
    folder
        Where it was loaded from, if it was.
    click
        The head that answers clicks, on `device`, in evaluation mode; None if it has none.
    size
        Tells the size of objects by the look of an image; None if it has not learned to.
    engine
        What runs the network instead of torch on this computer: ONNX Runtime, or a server;
        `device` is the processor then.
    """

    card: ModelCard
    net: UNet
    device: torch.device
    folder: Path | None = field(default=None, compare=False)
    click: ClickHead | None = None
    size: SizeRegressor | None = None
    engine: OnnxDevice | RemoteDevice | None = None
    _runners: dict[str, Runner] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.card.name

    @property
    def spec(self) -> ModelSpec:
        """What the network is built from."""
        return self.card.spec

    @property
    def decoding(self) -> DecodeSettings:
        """How maps become objects, from the card."""
        return DecodeSettings().updated(**self.card.decode)

    @property
    def diameter(self) -> float | None:
        """Diameter in pixels of the objects that it works on best; None if not recorded.

        That to which its training images were zoomed, or else their objects' median.
        """
        training = self.card.training
        value = training.get("working_diameter_px") or training.get("diameter_px", {}).get("q50")
        return float(value) if value else None

    @property
    def is_foreign(self) -> bool:
        """Whether others built the network, so that it is only run."""
        return isinstance(self.net, ForeignNet)

    @property
    def has_features(self) -> bool:
        """Whether the network has a trunk whose features can be kept."""
        return not self.is_foreign

    @property
    def device_name(self) -> str:
        """Name of the device that the network runs on."""
        return str(self.engine or self.device)

    def to(self, device: str) -> Model:
        """Return the model on another device."""
        if device.partition(":")[0] in (ONNX_DEVICE, REMOTE) or self.is_foreign or self.engine:
            if self.folder is None:
                raise DeviceError(f"The model {self.name!r} has to be saved to run on {device}.")
            return load_model(self.folder, device)
        target = pick_device(device)
        if target == self.device:
            return self
        click = copy.deepcopy(self.click).to(target) if self.click else None
        return Model(self.card, _moved(self.net, target), target, self.folder, click, self.size)

    def choose_precision(self, wanted: str = "auto") -> str:
        """Return the number format to run in: `wanted`, or the fastest that gives the same objects.

        The card's metrics record how well bfloat16 agreed with float32 on the validation images.
        """
        if self.is_foreign or isinstance(self.engine, OnnxDevice):
            return "float32"
        if wanted != "auto":
            return wanted
        agrees = float(self.card.metrics.get("bfloat16_dice") or 0.0) >= AGREEMENT
        fast = self.engine.fast_bfloat16 if self.engine else has_fast_bfloat16(self.device)
        return "bfloat16" if agrees and fast else "float32"

    def runner(self, precision: str = "float32", augment: str = OFF) -> Runner:
        """Return the network made ready to run in one number format; built once for each.

        `augment` chooses the views in which it sees each tile; see `PredictSettings`.
        """
        if precision not in self._runners:
            self._runners[precision] = self._make_runner(precision)
        runner = self._runners[precision]
        if augment == OFF:
            return runner
        return replace(runner, views=get_flips(augment, self.spec.ndim))

    def _make_runner(self, precision: str) -> Runner:
        if self.is_foreign:
            return Runner(self.net, self.device, torch.float32)
        if isinstance(self.engine, RemoteDevice):
            if self.folder is None:
                raise DeviceError(f"The model {self.name!r} has to be saved to run on a server.")
            sent = sent_model(self.folder, self.spec, self.card.hash)
            return self.engine.runner(self.net, sent, precision)
        if self.engine:
            net = OnnxNet(self.net, self.card.hash, self.engine.provider)
            return Runner(cast("UNet", net), self.device, torch.float32)
        return Runner.from_net(self.net, self.device, precision)


def load_model(name_or_path: str | Path, device: str = "auto") -> Model:
    """Load a model from the store or from a folder.

    Parameters
    ----------
    name_or_path
        A name that ``napari-unet models list`` shows, or a model folder.
    device
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", ..., "mps"; "onnx" for what
        ONNX Runtime finds, "onnx:cpu", "onnx:dml", "onnx:coreml", "onnx:openvino";
        "remote:HOST:PORT" for a computer on which ``napari-unet serve`` runs.

    Raises
    ------
    ModelError
        Unknown, damaged, or weights that do not fit their card.
    DeviceError
        A device that is unknown or not there.
    """
    engine: OnnxDevice | RemoteDevice | None = None
    folder = find_model(name_or_path)
    if device.partition(":")[0] == ONNX_DEVICE:
        engine, device = OnnxDevice(choose_provider(device)), "cpu"
    elif is_remote(device):
        engine, device = RemoteDevice.connect(device), "cpu"
    return _model_in(folder, pick_device(device), engine)


def _model_in(
    folder: Path, target: torch.device, engine: OnnxDevice | RemoteDevice | None
) -> Model:
    if is_foreign(folder):
        if isinstance(engine, RemoteDevice):
            raise DeviceError(
                f"The model {read_card(folder).name!r} was built by others, and a server runs "
                "models of napari-unet only; choose another device."
            )
        return load_foreign(folder, target, engine)
    card, arrays = read_model(folder)
    sizes = {n.removeprefix(SIZE): arrays.pop(n) for n in list(arrays) if n.startswith(SIZE)}
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    clicks = {n.removeprefix(CLICK): tensors.pop(n) for n in list(tensors) if n.startswith(CLICK)}
    with torch.device("meta"):  # a card may describe a network that no memory could hold
        needed = sum(value.numel() for value in UNet(card.spec).parameters())
    net = UNet(card.spec) if needed <= sum(value.numel() for value in tensors.values()) else None
    try:
        if net is None:
            raise RuntimeError("weights are missing")
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(
            f"The weights of model {card.name!r} do not fit its card; the folder is damaged, "
            "import or train the model again."
        ) from error
    click = build_click_head(card.spec, card.click, clicks).to(target) if clicks else None
    size = SizeRegressor.from_arrays(sizes, card.spec)
    return Model(card, _moved(net, target), target, folder, click, size, engine)


def load_foreign(folder: Path, target: torch.device, engine: OnnxDevice | None = None) -> Model:
    """Load a model that others built from its folder.

    One in ONNX is run by ONNX Runtime on whatever it finds, one in TorchScript by torch.

    Raises
    ------
    ModelError
        It is damaged.
    DeviceError
        ONNX Runtime is needed and not installed, or the network is TorchScript and cannot be run
        by it.
    """
    card, weights = read_foreign(folder)
    spec = card.spec
    assert isinstance(spec, ForeignSpec)
    if spec.runtime == ONNX:
        engine, target = engine or OnnxDevice(choose_provider(ONNX_DEVICE)), torch.device("cpu")
    elif not is_trusted(card.hash):
        raise ModelError(
            f"The network of {card.name!r} is TorchScript, a program that runs with your rights; "
            "if you trust where it comes from, say so once: napari-unet models trust "
            f"{card.name!r}."
        )
    elif engine:
        raise DeviceError(
            f"The network of {card.name!r} is TorchScript, which ONNX Runtime does not run; choose "
            "another device."
        )
    provider = engine.provider if engine else "cpu"
    net = ForeignNet.load(spec, weights, target, provider, card.name)
    return Model(card, cast("UNet", net), target, folder, engine=engine)


def write_exactly(model: Model, folder: Path) -> None:
    """Write a model into a folder with its weights as they are, for another process to load."""
    if isinstance(model.spec, ForeignSpec):
        if model.folder is None:
            raise ModelError(f"The model {model.name!r} is in no folder; import it first.")
        write_foreign(folder, model.card, model.spec, foreign_weights(model.folder))
        return
    arrays = {name: value.detach().cpu().numpy() for name, value in model.net.state_dict().items()}
    write_model(folder, model.card.replace(replay="", click={}), arrays)


def save_model(
    model: Model,
    name_or_path: str | Path,
    *,
    thumbnail: np.ndarray | None = None,
    overwrite: bool = False,
    replay: bytes | None = None,
) -> Path:
    """Write a model into the store under a name, or to a path; whole or not at all.

    The weights are stored as float16, which halves the file and keeps the objects; tensors with
    numbers too large for it, such as variances of a normalisation, are stored as they are.

    Parameters
    ----------
    model
        What to write; its card gets the new name and the hash of the weights.
    name_or_path
        A name for the store, or a Path (or a string with a path separator) for a folder.
    thumbnail
        uint8 (Y, X, 3).
    overwrite
        Whether a model of that name in the store may be replaced.
    replay
        Its rehearsal set, by `pack_rehearsal`; None: that of the folder it was loaded from.

    Returns
    -------
    Path
        The model's folder.
    """
    state = dict(model.net.state_dict())
    if model.click:
        state |= {CLICK + name: value for name, value in model.click.state_dict().items()}
    arrays = {name: _stored(value).numpy() for name, value in state.items()}
    if model.size:
        arrays |= {SIZE + name: values for name, values in model.size.to_arrays().items()}
    if replay is None:
        replay = read_rehearsal(model.folder) if model.folder and model.card.replay else b""
    click = model.click.card_entry(model.card.click) if model.click else {}
    card = model.card.replace(click=click)
    if isinstance(name_or_path, Path) or any(mark in name_or_path for mark in "/\\"):
        folder = Path(name_or_path)
        write_model(folder, card.replace(name=folder.name), arrays, thumbnail, replay)
        return folder
    place = (name_or_path, card, arrays, thumbnail)
    return put_model(*place, overwrite=overwrite, replay=replay).path


def _stored(value: Tensor) -> Tensor:
    """Return a tensor of a network as it is written."""
    value = value.detach().cpu()
    if not value.is_floating_point():
        return value
    half = value.to(torch.float16)
    return half if torch.isfinite(half).all() else value


def pick_device(name: str = "auto") -> torch.device:
    """Turn a device's name into a device that is there.

    Raises
    ------
    DeviceError
        An unknown name, or no such device on this computer.
    """
    kind, _, number = name.partition(":")
    if kind in (ONNX_DEVICE, REMOTE):
        raise DeviceError(
            f"The device {name!r} runs models, it does not train them; choose one of: "
            f"{', '.join(DEVICES)}."
        )
    if kind not in DEVICES or (name != kind and not (kind == "cuda" and number.isdecimal())):
        raise DeviceError(f"The device {name!r} is unknown; choose one of: {', '.join(DEVICES)}.")
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if kind == "auto":
        return torch.device(next(k for k in ("cuda", "mps", "cpu") if present[k]))
    if not present[kind] or (number and int(number) >= torch.cuda.device_count()):
        there = ", ".join(k for k, ok in present.items() if ok)
        raise DeviceError(
            f"The device {name!r} was asked for, but torch finds none; use one of: auto, {there}."
        )
    return torch.device(name)


def _moved(net: UNet, device: torch.device) -> UNet:
    moved = UNet(net.spec)
    moved.load_state_dict(net.state_dict())
    return moved.to(device).eval()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether the processor multiplies bfloat16 itself; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # older torch: unknown
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False
