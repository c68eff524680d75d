"""The vocabulary that every layer shares: settings, progress records and errors.

Everything here is plain data. Defaults, bounds, units and help texts are written once, on the
fields of the settings classes; the command line and the widgets are built from those fields.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

DEVICES = ("auto", "cpu", "cuda", "mps")
VOLUMES = ("auto", "planes", "joined", "orthogonal")
"""How a 2D model takes a stack with a z axis; see `core.volumes`."""


class UnetError(Exception):
    """A problem that the user can solve; its one-line message says how.

    The message names what was given, what is allowed and what to do next. The command line prints
    it and exits with status 2; the window shows it as a notification.
    """


class InputError(UnetError):
    """An image, label or folder that cannot be used."""


class SettingsError(UnetError):
    """A setting outside its allowed values."""


class ModelError(UnetError):
    """A model that is unknown, damaged or unfit for the image."""


class DeviceError(UnetError):
    """A device that is unknown or not present."""


class OutputError(UnetError):
    """A result that cannot be written where it was asked for."""


class DivergedError(UnetError):
    """A training whose loss is no number any more; what was best before can still be had."""


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one setting: a dataclass field that knows its help text, unit, bounds and choices."""
    return field(
        default=default,
        metadata={"help": help, "unit": unit, "low": low, "high": high, "choices": choices},
    )


def check_settings(settings: Any) -> None:
    """Hold every field that was declared with `setting` against its bounds and choices.

    A whole number in another type, such as 64.0, is stored as an int.

    Raises
    ------
    SettingsError
        Naming the setting, the value given and the values allowed. ``None`` always passes when it
        is the default (it stands for "decide for me").
    """
    for item in fields(settings):
        value, meta = getattr(settings, item.name), item.metadata
        if not meta or (value is None and item.default is None):
            continue
        if meta["choices"] and value not in meta["choices"]:
            raise SettingsError(
                f"{item.name} is {value!r}; choose one of: {', '.join(meta['choices'])}."
            )
        low, high = meta["low"], meta["high"]
        if low is None and high is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise SettingsError(f"{item.name} is {value!r}; give a number.")
        if str(item.type).startswith("int"):
            if not float(value).is_integer():
                raise SettingsError(f"{item.name} is {value!r}; give a whole number.")
            object.__setattr__(settings, item.name, int(value))
        too_low, too_high = low is not None and value < low, high is not None and value > high
        if math.isnan(value) or too_low or too_high:
            unit = f" {meta['unit']}" if meta["unit"] else ""
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            raise SettingsError(f"{item.name} is {value}{unit}; it must be {bounds}{unit}.")


@dataclass(frozen=True)
class ModelSpec:
    """What a U-Net is built from; a model's weights fit exactly one spec.

    The network has ``depth`` poolings. Level ``i`` works at ``width * 2**i`` channels (at most
    ``max_width``) and holds ``convs`` convolutions on the way down and again on the way up.
    """

    ndim: int = setting(2, "2 for planes, 3 for volumes", low=2, high=3)
    in_channels: int = setting(3, "channels of the input image", low=1, high=64)
    head: str = setting(
        "instance", "separate objects, or classes of pixels", choices=("instance", "semantic")
    )
    classes: int = setting(1, "classes of a semantic head, background included", low=1, high=255)
    depth: int = setting(4, "how many times the image is pooled", low=1, high=7)
    width: int = setting(16, "channels at full resolution", low=1, high=512)
    max_width: int = setting(512, "most channels at any level", low=1, high=4096)
    kernel: int = setting(3, "size of each convolution's kernel, odd", unit="px", low=1, high=9)
    convs: int = setting(2, "convolutions a level, each way", low=1, high=8)
    skip: str = setting("concat", "how a level meets its skip", choices=("concat", "add"))
    up: str = setting("transpose", "up-sampling", choices=("transpose", "linear"))
    pool: str = setting("max", "down-sampling", choices=("max", "stride"))
    pooling: tuple[tuple[int, ...], ...] | None = None
    """Pooling factors for each level and axis, such as ((1, 2, 2), (2, 2, 2)); None: all are 2."""
    kernels: tuple[tuple[int, ...], ...] | None = None
    """Kernel for each axis of each level, the bottleneck's last, such as ((1, 3, 3), (3, 3, 3));
    None: `kernel` along every axis."""
    norm: str = setting("batch", "normalisation layers", choices=("batch", "none"))
    activation: str = setting(
        "relu", "activation", choices=("relu", "leaky_relu", "elu", "silu", "gelu")
    )
    residual: bool = setting(False, "add each block's input to its output")
    attention: bool = setting(False, "attention gates on the skips (Oktay et al. 2018)")
    dropout: float = setting(0.0, "share of channels dropped in training", low=0.0, high=0.9)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.kernel % 2 == 0:
            raise SettingsError(f"kernel is {self.kernel}; give an odd number.")
        if self.head == "semantic" and self.classes < 2:
            raise SettingsError(f"classes is {self.classes}; a semantic head needs at least 2.")
        self._check_kernels()
        if self.pooling is None:
            return
        object.__setattr__(self, "pooling", tuple(tuple(int(f) for f in p) for p in self.pooling))
        fits = all(len(p) == self.ndim and set(p) <= {1, 2} for p in self.pooling)
        if len(self.pooling) != self.depth or not fits:
            raise SettingsError(
                f"pooling is {self.pooling}; give {self.depth} tuples of {self.ndim} factors, "
                "each 1 or 2."
            )

    def _check_kernels(self) -> None:
        if self.kernels is None:
            return
        object.__setattr__(self, "kernels", tuple(tuple(int(k) for k in ks) for ks in self.kernels))
        fits = all(len(k) == self.ndim and set(k) <= {1, 3, 5, 7, 9} for k in self.kernels)
        if len(self.kernels) != self.depth + 1 or not fits:
            raise SettingsError(
                f"kernels is {self.kernels}; give {self.depth + 1} tuples of {self.ndim} odd "
                "numbers from 1 to 9, the bottleneck's last."
            )

    def kernel_at(self, level: int) -> tuple[int, ...]:
        """Return the kernel of a level along each axis; the bottleneck is level `depth`."""
        return self.kernels[level] if self.kernels else (self.kernel,) * self.ndim

    @property
    def factors(self) -> tuple[tuple[int, ...], ...]:
        """Pooling factor for each level and axis."""
        return self.pooling or ((2,) * self.ndim,) * self.depth

    @property
    def stride(self) -> tuple[int, ...]:
        """Product of the pooling factors along each axis: the grid that tiles must lie on."""
        return tuple(math.prod(level[axis] for level in self.factors) for axis in range(self.ndim))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at each level, full resolution first, bottleneck last."""
        return tuple(min(self.width * 2**level, self.max_width) for level in range(self.depth + 1))

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelSpec:
        """Build a spec from `to_json`'s answer.

        Raises
        ------
        ModelError
            A name that no spec has, or a value outside its bounds.
        """
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(
                f"The model's spec has unknown entries ({', '.join(unknown)}); "
                "it was made by a newer version, update napari-unet."
            )
        try:
            return cls(**values)
        except (SettingsError, TypeError, ValueError) as error:
            raise ModelError(f"The model's spec cannot be used: {error}") from error


@dataclass(frozen=True)
class PredictSettings:
    """How a model is run over a stack."""

    diameter: float | None = setting(
        None,
        "diameter of a typical object; the image is rescaled so that it matches the objects the "
        "model was trained on. Empty: estimated from the image",
        unit="px",
        low=1.0,
        high=10000.0,
    )
    diameter_um: float | None = setting(
        None,
        "the same in micrometres, for images that record the size of their pixels",
        unit="um",
        low=1e-3,
        high=1e6,
    )
    channel: int | None = setting(
        None, "which channel to use, counted from 0. Empty: all for RGB, else the first", low=0
    )
    tile: int | None = setting(
        None,
        "edge length of a tile. Empty: from the memory that is free on the device",
        unit="px",
        low=16,
        high=16384,
    )
    batch: int | None = setting(
        None, "tiles that go through the network together. Empty: decided by device", low=1, high=64
    )
    threshold: float | None = setting(
        None, "foreground probability that makes an object. Empty: the model's", low=0.01, high=0.99
    )
    merge: float | None = setting(
        None,
        "parts whose dividing valley is shallower than this are one object, as a share of an "
        "object's height. Empty: the model's",
        low=0.0,
        high=1.0,
    )
    min_size: int | None = setting(
        None, "objects of fewer pixels (voxels) are dropped. Empty: the model's", unit="px", low=0
    )
    precision: str = setting(
        "auto",
        "number format on the device; auto takes the fastest that gives the same objects",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    volumes: str = setting(
        "auto",
        "how a 2D model takes a stack with a z axis: planes (each on its own), joined (objects are "
        "joined through z), orthogonal (planes across z, y and x, averaged; several times as "
        "slow). auto: orthogonal for true volumes (voxels of known size, at most 4 times as long "
        "in z; at least 1.5 objects deep), else joined, as always in the Segment panel, where "
        "planes are shown as they come. A 3D model sees volumes whatever is chosen",
        choices=VOLUMES,
    )
    augment: str = setting(
        "off",
        "average the answers for mirrored copies of a tile (2D: 4 x the time), or turned ones, too "
        "(8 x)",
        choices=("off", "flips", "flips and turns"),
    )
    certify: bool = setting(
        True, "predict a random crop across tile borders once more, in one piece, and compare"
    )
    survey: bool = setting(
        True, "hold the image against those the model was trained on, and say what is unusual"
    )
    seed: int = setting(0, "seed of everything random, such as the certified crop", low=0)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.diameter is not None and self.diameter_um is not None:
            raise SettingsError(
                f"diameter is {self.diameter} and diameter_um {self.diameter_um}; give one of them."
            )


@dataclass(frozen=True)
class ClickSettings:
    """How the window answers clicks."""

    hover: bool = setting(True, "show under the cursor what a click there would give")
    grow: bool = setting(
        True,
        "follow a new object of a 2D model through the neighbouring slices, as far as it goes on, "
        "before it is kept",
    )
    overwrite: bool = setting(False, "let an object take pixels that belong to others")
    cache: int = setting(
        1024,
        "features of the image that are kept, to answer at once",
        unit="MB",
        low=16,
        high=1_000_000,
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained."""

    minutes: float | None = setting(
        None,
        "stop after this time. Empty: after `epochs` or `steps`; fine-tuning without any of them "
        "takes 1 minute on a GPU, 3 on a processor",
        unit="min",
        low=0.01,
    )
    epochs: float | None = setting(
        None, "stop when all that is known was seen so many times. Empty: after `steps`", low=0.01
    )
    steps: int | None = setting(
        None,
        "training steps, and the length of the learning-rate cycle. Empty: 4000 from scratch",
        low=1,
    )
    validation: float = setting(
        0.2, "share of what is known that is held out, to judge the result by", low=0, high=0.5
    )
    replay: float = setting(
        0.5, "share of the crops that show what the model was trained on before", low=0, high=0.9
    )
    freeze: str = setting(
        "nothing",
        "what stays as it is when a model is tuned",
        choices=("nothing", "encoder", "all but the head"),
    )
    batch: int | None = setting(
        None, "crops a step. Empty: decided by device and dimensions", low=1, high=1024
    )
    crop: int | None = setting(
        None,
        "edge length of a training crop; volumes are cut as flat as the network pools them. Empty: "
        "192 in planes, 64 in volumes",
        unit="px",
        low=16,
        high=2048,
    )
    learning_rate: float | None = setting(
        None,
        "highest learning rate (AdamW). Empty: 0.002 from scratch, 0.0005 for tuning",
        low=1e-7,
        high=1.0,
    )
    weight_decay: float = setting(1e-3, "weight decay (AdamW)", low=0.0, high=1.0)
    warm_up: float = setting(0.05, "share of the steps in which the rate rises", low=0.0, high=0.9)
    average: float = setting(
        0.998, "decay of the weights' moving average, which is what is kept", low=0.0, high=0.99999
    )
    plain: float = setting(
        0.0, "share of the crops that are only turned by right angles and mirrored", low=0, high=1
    )
    diameter: float | None = setting(
        None,
        "images are zoomed until their objects have this diameter. Empty: taken at their own scale",
        unit="px",
        low=4.0,
        high=200.0,
    )
    freeze_norm: bool = setting(False, "keep the statistics of BatchNorm as they are")
    focal: float = setting(
        0.0, "focusing of the entropy on doubtful pixels (Lin et al. 2017); 0: none", low=0, high=10
    )
    precision: str = setting(
        "auto",
        "number format of the network's arithmetic; auto takes bfloat16 where that is faster",
        choices=("auto", "float32", "bfloat16"),
    )
    clip: float = setting(1.0, "largest norm of a step's gradient", low=1e-3)
    validate_every: int | None = setting(
        None, "steps between validations. Empty: 250 from scratch, else now and then", low=1
    )
    log_every: int = setting(25, "steps that a row of the log sums up", low=1)
    seed: int = setting(0, "seed of weights, sampling and augmentation", low=0)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Progress:
    """One report of long work: `done` of `total` units of `what` are finished."""

    done: int
    total: int
    what: str


@dataclass(frozen=True)
class TileDone(Progress):
    """A tile's objects, as far as this tile alone can tell them apart.

    Attributes
    ----------
    index
        The plane's or volume's position along the leading axes of the labels: () or (t,), (z,),
        (t, z) for a 2D model, () or (t,) for a 3D model.
    window
        The tile's place in that plane or volume, one slice an axis.
    labels
        Preview labels of the window, unsigned, 0 is background; the ids are unlike those of the
        tiles before as far as the type allows. The final labels come with `FrameDone`.
    """

    index: tuple[int, ...] = ()
    window: tuple[slice, ...] = ()
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class FrameDone(Progress):
    """A plane or volume whose labels are final, in the output array at `index`."""

    index: tuple[int, ...] = ()
    objects: int = 0


@dataclass(frozen=True)
class TrainStep(Progress):
    """One training step: its loss, its rate, and the validation scores when there are new ones."""

    loss: float = math.nan
    learning_rate: float = math.nan
    seconds_left: float = math.nan
    validation: dict[str, float] | None = None
