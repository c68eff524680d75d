"""The vocabulary that every layer shares: settings, progress records and errors.

Everything here is plain data. Defaults, bounds, units and help texts are written once, on the
fields of the settings classes; the command line and the widgets are built from those fields.

Import it from here; the modules inside part it by what it is about.
"""

from __future__ import annotations

from napari_unet.core.spec.errors import (
    DeviceError,
    DivergedError,
    InputError,
    ModelError,
    OutputError,
    SettingsError,
    UnetError,
)
from napari_unet.core.spec.fields import check_settings, setting
from napari_unet.core.spec.network import ModelSpec
from napari_unet.core.spec.progress import FrameDone, Progress, TileDone, TrainStep
from napari_unet.core.spec.running import DEVICES, VOLUMES, ClickSettings, PredictSettings
from napari_unet.core.spec.training import TrainSettings

__all__ = [
    "DEVICES",
    "VOLUMES",
    "ClickSettings",
    "DeviceError",
    "DivergedError",
    "FrameDone",
    "InputError",
    "ModelError",
    "ModelSpec",
    "OutputError",
    "PredictSettings",
    "Progress",
    "SettingsError",
    "TileDone",
    "TrainSettings",
    "TrainStep",
    "UnetError",
    "check_settings",
    "setting",
]
