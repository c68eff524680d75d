"""What belongs to one image and to no other: how its axes are read, its channel, its objects' size.

It is kept in the layer's metadata: another image, or another session, never gets it silently.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Image, Labels

METADATA_KEY = "napari-unet"
"""The key of a layer's metadata under which the plugin keeps what it knows of the layer."""
IN_PREDICTION = ("diameter", "diameter_um", "channel")
"""The fields that are prediction settings, too."""


@dataclass(frozen=True)
class ImageSettings:
    """What the user has chosen for one image, or was found out about it; None: nothing.

    Attributes
    ----------
    axes
        One letter for each axis.
    channel
        Counted from 0.
    diameter, diameter_um
        Of a typical object, in pixels or in micrometres; at most one of them.
    found_px, other_px
        What "auto" found, in pixels, and another size that it saw objects of: both are shown, and
        used by nothing.
    """

    axes: str | None = None
    channel: int | None = None
    diameter: float | None = None
    diameter_um: float | None = None
    found_px: float | None = None
    other_px: float | None = None

    def prediction(self) -> dict[str, Any]:
        """Return the fields that are prediction settings, too."""
        return {name: getattr(self, name) for name in IN_PREDICTION}


def get_image_settings(image: Image | Labels | None) -> ImageSettings:
    """Return what belongs to an image layer; nothing is known of None. Labels have axes, too."""
    stored = {} if image is None else image.metadata.get(METADATA_KEY, {})
    return ImageSettings(**{item.name: stored.get(item.name) for item in fields(ImageSettings)})


def update_image_settings(image: Image | Labels | None, **values: Any) -> None:
    """Set fields of an image's `ImageSettings`; None removes one."""
    if image is None:
        return
    stored = image.metadata.setdefault(METADATA_KEY, {})
    for name, value in values.items():
        if value is None:
            stored.pop(name, None)
        else:
            stored[name] = value
