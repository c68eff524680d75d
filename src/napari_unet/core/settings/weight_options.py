"""What plain weights in ONNX or TorchScript do not say of themselves."""

from __future__ import annotations

from dataclasses import dataclass

from napari_unet.core.errors import SettingsError
from napari_unet.core.settings.fields import check_settings, setting
from napari_unet.core.settings.foreign_spec import CLASSES, IMAGE, OBJECTS

NORMALISE = ("percentiles", "standard", "range", "none")


@dataclass(frozen=True)
class WeightOptions:
    """What plain weights do not say of themselves; of a package only `decode` counts."""

    decode: str = setting(
        "auto",
        "what its output means: objects (a foreground, and a boundary or distance that divides "
        "them), classes (probabilities), image. auto: what its description says",
        choices=("auto", OBJECTS, CLASSES, IMAGE),
    )
    axes: str = setting("bcyx", "plain weights: order of the input's axes: b, c, z, y, x")
    channels: int = setting(1, "plain weights: channels of the image", low=1, high=64)
    normalise: str = setting(
        "percentiles",
        "plain weights: how intensities are prepared: percentiles (1 to 99.8 become 0 to 1), "
        "standard (mean 0, standard deviation 1), range (minimum to maximum become 0 to 1), none",
        choices=NORMALISE,
    )
    activation: str = setting(
        "none",
        "plain weights: what is still to be done to the output",
        choices=("none", "sigmoid", "softmax"),
    )
    halo: int = setting(32, "plain weights: how far an output pixel sees", unit="px", low=0)
    multiple: int = setting(
        16, "plain weights: sizes must be a multiple of this", unit="px", low=1, high=512
    )
    size: int | None = setting(
        None, "plain weights: the only size it takes. Empty: any", unit="px", low=8
    )
    boundary: int | None = setting(
        None, "objects: channel of the output that is high on borders, counted from 0", low=0
    )
    distance: int | None = setting(
        None, "objects: channel of the output that grows towards an object's middle", low=0
    )

    def __post_init__(self) -> None:
        check_settings(self)
        letters = sorted(self.axes)
        if len(set(letters)) != len(letters) or not {"y", "x"} <= set(letters) <= set("bczyxti"):
            raise SettingsError(f"axes is {self.axes!r}; give letters of bczyx, such as bcyx.")
        if self.boundary is not None and self.distance is not None:
            raise SettingsError("boundary and distance are given; give one of them.")
