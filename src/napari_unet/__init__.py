"""U-Net segmentation of microscopy images, in napari and without it.

The names below load when they are first used: importing the package loads neither torch nor
napari.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_unet.core.errors import (
        DeviceError,
        InputError,
        ModelError,
        OutputError,
        SettingsError,
        UnetError,
    )
    from napari_unet.core.evaluation.metrics import Scores, evaluate
    from napari_unet.core.io.stack import Stack, open_stack
    from napari_unet.core.prompts.clicks import Click
    from napari_unet.core.regionprops.measure import measure
    from napari_unet.core.settings.model_spec import ModelSpec
    from napari_unet.core.settings.tasks import LinkSettings, PredictSettings, TrainSettings
    from napari_unet.core.tracking import Tracks
    from napari_unet.core.training.samples import Samples
    from napari_unet.nn.inference.linking import link_frames
    from napari_unet.nn.inference.map_source import predict
    from napari_unet.nn.inference.model import Model, load_model, save_model
    from napari_unet.nn.inference.segment import segment, segment_steps
    from napari_unet.nn.interactive.session import ClickSession
    from napari_unet.nn.training.finetune import Tuning, fine_tune

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
    "core.errors": (
        "DeviceError",
        "InputError",
        "ModelError",
        "OutputError",
        "SettingsError",
        "UnetError",
    ),
    "core.evaluation.metrics": ("Scores", "evaluate"),
    "core.io.stack": ("Stack", "open_stack"),
    "core.prompts.clicks": ("Click",),
    "core.regionprops.measure": ("measure",),
    "core.settings.model_spec": ("ModelSpec",),
    "core.settings.tasks": ("LinkSettings", "PredictSettings", "TrainSettings"),
    "core.tracking": ("Tracks",),
    "core.training.samples": ("Samples",),
    "nn.inference.linking": ("link_frames",),
    "nn.inference.map_source": ("predict",),
    "nn.inference.model": ("Model", "load_model", "save_model"),
    "nn.inference.segment": ("segment", "segment_steps"),
    "nn.interactive.session": ("ClickSession",),
    "nn.training.finetune": ("Tuning", "fine_tune"),
}
_HOME = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
