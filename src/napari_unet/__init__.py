"""U-Net segmentation of microscopy images, in napari and without it.

The names below load when they are first used: importing the package loads neither torch nor
napari.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_unet.core.clicks import Click
    from napari_unet.core.measure import measure
    from napari_unet.core.metrics import Scores, evaluate
    from napari_unet.core.samples import Samples
    from napari_unet.core.spec import (
        DeviceError,
        InputError,
        ModelError,
        ModelSpec,
        OutputError,
        PredictSettings,
        SettingsError,
        TrainSettings,
        UnetError,
    )
    from napari_unet.core.stack import Stack, open_stack
    from napari_unet.core.tracking.linking import LinkSettings
    from napari_unet.core.tracking.tracks import Tracks
    from napari_unet.nn.finetune import Tuning, fine_tune
    from napari_unet.nn.linking import link_frames
    from napari_unet.nn.model import Model, load_model, save_model
    from napari_unet.nn.predict import predict
    from napari_unet.nn.segment import segment, segment_steps
    from napari_unet.nn.session import ClickSession

__version__ = "0.1.0"

__all__ = [
    "Click",
    "ClickSession",
    "DeviceError",
    "InputError",
    "LinkSettings",
    "Model",
    "ModelError",
    "ModelSpec",
    "OutputError",
    "PredictSettings",
    "Samples",
    "Scores",
    "SettingsError",
    "Stack",
    "Tracks",
    "TrainSettings",
    "Tuning",
    "UnetError",
    "__version__",
    "evaluate",
    "fine_tune",
    "link_frames",
    "load_model",
    "measure",
    "open_stack",
    "predict",
    "save_model",
    "segment",
    "segment_steps",
]

_NAMES = {
    "core.clicks": ("Click",),
    "core.tracking.linking": ("LinkSettings",),
    "core.measure": ("measure",),
    "core.metrics": ("Scores", "evaluate"),
    "core.samples": ("Samples",),
    "core.spec": (
        "DeviceError",
        "InputError",
        "ModelError",
        "ModelSpec",
        "OutputError",
        "PredictSettings",
        "SettingsError",
        "TrainSettings",
        "UnetError",
    ),
    "core.stack": ("Stack", "open_stack"),
    "core.tracking.tracks": ("Tracks",),
    "nn.finetune": ("Tuning", "fine_tune"),
    "nn.linking": ("link_frames",),
    "nn.model": ("Model", "load_model", "save_model"),
    "nn.predict": ("predict",),
    "nn.segment": ("segment", "segment_steps"),
    "nn.session": ("ClickSession",),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
