"""Settings of tasks: segmenting, decoding, clicking, linking through time, training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from napari_unet.core.errors import SettingsError
from napari_unet.core.settings.fields import check_settings, setting

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What networks are trained and run on."""
RUN_DEVICES = (*DEVICES, "onnx")
"""What networks are run on: `DEVICES`, and what ONNX Runtime finds."""

IDS, COMPONENTS, COLOURS = LABELS_AS = ("ids", "components", "colours")
"""What the values of a label image are: the objects' ids, a mask whose connected pieces are the
objects, or colours, one for each object."""

VOLUMES = ("auto", "planes", "joined", "orthogonal")
"""How a 2D model takes a stack with a z axis; see `core.volumes.volume_mode`."""


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
        None,
        "tiles, or small planes of a stack, that go through the network together. Empty: decided "
        "by device",
        low=1,
        high=64,
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
        "auto",
        "average the answers for mirrored copies of a tile (2D: 4 x the time), or turned ones, too "
        "(8 x). auto: mirrored copies where objects are so large that the network sees few pixels",
        choices=("auto", "off", "flips", "flips and turns"),
    )
    certify: bool = setting(
        True, "predict a random crop across tile borders once more, in one piece, and compare"
    )
    survey: bool = setting(
        True, "hold the image against those the model was trained on, and say what is unusual"
    )
    seed: int = setting(
        0, "seed of everything random, such as the crop that is checked for seams", low=0
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.diameter is not None and self.diameter_um is not None:
            raise SettingsError(
                f"diameter is {self.diameter} and diameter_um {self.diameter_um}; give one of them."
            )


HARMLESS = {"tile", "batch", "certify", "survey", "seed"}
"""Fields of `PredictSettings` that do not change the labels."""
EARLIER_DEFAULTS = {"augment": "off"}
"""Defaults of `PredictSettings` in versions that had others; they hold where none is recorded."""


def is_other_setting(name: str, then: Any, now: Any) -> bool:
    """Return whether a setting that is recorded and the one that is requested give other labels.

    Where both are the defaults of their versions nobody asked for another result.
    """
    if name in HARMLESS or then == now:
        return False
    if name not in EARLIER_DEFAULTS:
        return True
    defaults = (EARLIER_DEFAULTS[name], getattr(PredictSettings, name))
    return (then, now) != defaults


@dataclass(frozen=True)
class DecodeSettings:
    """How an instance head's maps become objects; calibrated for each model, kept in its card."""

    threshold: float = setting(0.5, "foreground probability that makes an object", low=0, high=1)
    merge: float = setting(0.2, "passes shallower than this do not divide", low=0, high=1)
    min_size: int = setting(
        10,
        "smaller objects are dropped; a model's card counts the network's pixels",
        unit="px",
        low=0,
    )

    def updated(self, **changes: float | None) -> DecodeSettings:
        """Return a copy with those changes that are not None."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]

    def in_image(self, scale: float, ndim: int) -> DecodeSettings:
        """Return a copy whose `min_size` counts an image's pixels instead of the network's.

        Parameters
        ----------
        scale
            Network pixels per image pixel, along each of `ndim` axes.
        """
        return replace(self, min_size=round(self.min_size / scale**ndim))


@dataclass(frozen=True)
class ClickSettings:
    """How objects are segmented by clicks in the window."""

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


LINK_METHODS = ("auto", "overlap", "trackastra")
"""What links objects through time; see `core.tracking`."""


@dataclass(frozen=True)
class LinkSettings:
    """How objects are linked through time."""

    link_by: str = setting(
        "auto",
        "what links objects through time: overlap and distance, or the package trackastra. auto: "
        "trackastra where it and its model are installed",
        choices=LINK_METHODS,
    )
    reach: float | None = setting(
        None,
        "how far an object moves between two frames. Empty: 1.2 of its diameters",
        unit="px",
        low=0.1,
    )
    divisions: bool = setting(True, "look for divisions")

    def __post_init__(self) -> None:
        check_settings(self)


LEAST_MINUTES = 0.01
"""The shortest training."""


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained."""

    minutes: float | None = setting(
        None,
        "stop after this time. Empty: after `epochs` or `steps`; fine-tuning without any of them "
        "takes 1 minute on a GPU, 3 on a processor",
        unit="min",
        low=LEAST_MINUTES,
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
        "images are zoomed until their objects have this diameter. Empty: a new network takes "
        "them at their own scale, a tuned one at the scale of its model",
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
        None,
        "steps between validations. Empty: 250 from scratch, else so that they take a tenth of the "
        "time",
        low=1,
    )
    log_every: int = setting(25, "steps that a row of the log sums up", low=1)
    seed: int = setting(0, "seed of weights, sampling and augmentation", low=0)

    def __post_init__(self) -> None:
        check_settings(self)
