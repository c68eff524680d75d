"""A model: card, network and device; loading and saving it; how it sees a stack."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from napari_unet.core.errors import DeviceError, InputError, ModelError, SettingsError
from napari_unet.core.image.foreign_frame import ForeignFrame, ForeignNormaliser
from napari_unet.core.image.frames import Frame
from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.models.folder import read_model, read_rehearsal, write_model
from napari_unet.core.models.foreign_folder import (
    foreign_weights,
    is_foreign,
    is_trusted,
    read_foreign,
    write_foreign,
)
from napari_unet.core.models.store import find_model, put_model
from napari_unet.core.progress import ImageRemark
from napari_unet.core.settings.foreign_spec import ONNX, ForeignSpec
from napari_unet.core.settings.tasks import DEVICES, DecodeSettings
from napari_unet.nn.inference.foreign_net import ForeignNet
from napari_unet.nn.inference.onnx_runtime import DEVICE as ONNX_DEVICE
from napari_unet.nn.inference.onnx_runtime import OnnxDevice, OnnxNet, choose_provider
from napari_unet.nn.inference.runner import OFF, Runner, get_flips
from napari_unet.nn.inference.size_regression import SizeRegressor
from napari_unet.nn.unet.click_head import ClickHead, build_click_head
from napari_unet.nn.unet.net import UNet

if TYPE_CHECKING:
    import numpy as np

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.models.card import ModelCard
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.settings.tasks import PredictSettings
    from napari_unet.core.tiles import Index


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
        What runs the network instead of torch; `device` is the processor then.
    """

    card: ModelCard
    net: UNet
    device: torch.device
    folder: Path | None = field(default=None, compare=False)
    click: ClickHead | None = None
    size: SizeRegressor | None = None
    engine: OnnxDevice | None = None
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
        if device.partition(":")[0] == ONNX_DEVICE or self.is_foreign or self.engine:
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
        if self.is_foreign or self.engine:
            return "float32"
        if wanted != "auto":
            return wanted
        agrees = float(self.card.metrics.get("bfloat16_dice") or 0.0) >= AGREEMENT
        return "bfloat16" if agrees and has_fast_bfloat16(self.device) else "float32"

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
        ONNX Runtime finds, "onnx:cpu", "onnx:dml", "onnx:coreml", "onnx:openvino".

    Raises
    ------
    ModelError
        Unknown, damaged, or weights that do not fit their card.
    DeviceError
        A device that is unknown or not there.
    """
    engine = None
    if device.partition(":")[0] == ONNX_DEVICE:
        engine, device = OnnxDevice(choose_provider(device)), "cpu"
    target = pick_device(device)
    return _model_in(find_model(name_or_path), target, engine)


def _model_in(folder: Path, target: torch.device, engine: OnnxDevice | None) -> Model:
    if is_foreign(folder):
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
    click = {**model.card.click, "spec": model.click.spec.to_json()} if model.click else {}
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
    if kind == ONNX_DEVICE:
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


def image_remarks(stack: Stack, model: Model, settings: PredictSettings) -> tuple[ImageRemark, ...]:
    """Return what to say of how the image was read, and of channels that are left out unasked."""
    texts = list(stack.remarks)
    used = get_channels(stack, model, settings)
    seen = min(stack.channels, 3) if stack.rgb else stack.channels
    if settings.channel is None and len(set(used)) < seen:
        names = stack.channel_names
        held = f" ({', '.join(names)})" if names else ""
        name = f" ({names[used[0]]})" if names and names[used[0]] else ""
        texts.append(
            f"{stack.name} has {stack.channels} channels{held}, of which channel {used[0]}{name} "
            f"is used. Choose another (channel, 0 to {stack.channels - 1}), or name the axes if "
            "they are planes."
        )
    return tuple(map(ImageRemark, texts))


def get_channels(stack: Stack, model: Model, settings: PredictSettings) -> tuple[int, ...]:
    """Return which channel of the image each input of the model is given."""
    return stack.pick_channels(model.spec.in_channels, settings.channel)


def check_fit(stack: Stack, model: Model) -> None:
    """Raise InputError if a model's axes cannot be found in a stack."""
    if model.spec.ndim == 3 and "Z" not in stack.axes:
        raise InputError(
            f"{stack.name or 'The image'} has axes {stack.axes}, but the model {model.name!r} "
            "needs volumes; give axes with a Z, or choose a 2D model."
        )


def open_frame(
    stack: Stack,
    model: Model,
    settings: PredictSettings,
    index: Index,
    *,
    normaliser: Normaliser | None = None,
    ndim: int | None = None,
) -> Frame:
    """Return one frame of a stack as a model sees it: its channels, percentiles and scale.

    Parameters
    ----------
    index
        The frame's position along the leading axes.
    normaliser
        Measured already, with an entry for each distinct channel; None: it is measured here.
    ndim
        2 for a plane, 3 for a volume; the model's own if not given.
    """
    channels = get_channels(stack, model, settings)
    if isinstance(model.spec, ForeignSpec):
        choose_scale(model, settings)  # raises if a diameter is given
        ndim = ndim or model.spec.ndim
        found = normaliser or measure_intensities(stack, model, index, channels)
        size = stack.frame_shape(ndim)
        return ForeignFrame(stack, index, channels, found, size, size)
    scale, ndim = choose_scale(model, settings), ndim or model.spec.ndim
    if normaliser is None:
        norm = model.card.normalisation
        limits = (norm["low"], norm["high"])
        return Frame.from_stack(stack, index, ndim, channels, percentiles=limits, scale=scale)
    size = stack.frame_shape(ndim)
    return Frame(stack, index, channels, normaliser, size, size).at(scale)


def measure_intensities(
    stack: Stack,
    model: Model,
    index: Index,
    channels: tuple[int, ...],
    ndim: int | None = None,
    skip: tuple[type[Exception], ...] = (),
) -> Normaliser:
    """Measure how the intensities of a frame are prepared for a model.

    Parameters
    ----------
    channels
        As `Stack.pick_channels` gives them.
    ndim
        2 for a plane, 3 for a volume; the model's own if not given.
    skip
        Errors at which a part of the frame is left out.
    """
    ndim = ndim or model.spec.ndim
    if isinstance(model.spec, ForeignSpec):
        steps = model.spec.preprocessing
        return ForeignNormaliser.measure(stack, index, ndim, channels, steps, skip)
    norm = model.card.normalisation
    distinct = tuple(sorted(set(channels)))
    limits = (norm["low"], norm["high"])
    return Normaliser.from_stack(stack, index, ndim, distinct, *limits, skip=skip)


def choose_scale(model: Model, settings: PredictSettings) -> float:
    """Return network pixels a stack pixel, from the diameter in the settings.

    Raises
    ------
    SettingsError
        A diameter is given, but the model does not record the one that it was trained for.
    """
    if settings.diameter is None:
        return 1.0
    if model.diameter is None:
        raise SettingsError(
            f"diameter is {settings.diameter}, but the model {model.name!r} does not record the "
            "size of its training objects; leave diameter empty."
        )
    return model.diameter / settings.diameter
