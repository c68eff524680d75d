"""Settings: plain data whose defaults, bounds, units and help texts stand once, on their fields.

The command line and the widgets are built from those fields.
"""

from __future__ import annotations

from napari_unet.core.settings.fields import check_settings, setting
from napari_unet.core.settings.model_spec import ModelSpec
from napari_unet.core.settings.run import DEVICES, VOLUMES, ClickSettings, PredictSettings
from napari_unet.core.settings.train import TrainSettings

__all__ = [
    "DEVICES",
    "VOLUMES",
    "ClickSettings",
    "ModelSpec",
    "PredictSettings",
    "TrainSettings",
    "check_settings",
    "setting",
]
