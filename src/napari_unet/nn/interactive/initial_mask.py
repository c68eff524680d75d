"""What the automatic segmentation says of a clicked place: the mask that a first click begins with.

Most objects that are clicked on were seen by the automatic head, too, if not well enough. So the
click head does not begin with nothing, and learns when to trust what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_unet.core.instances.tile_merger import DecodeSettings, decode_instances
from napari_unet.nn.unet.net import out_channels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_unet.nn.inference.model import Model


@dataclass(frozen=True)
class InitialMask:
    """Finds the automatic object at a place.

    Attributes
    ----------
    maps
        How many maps K the automatic head has.
    decoding
        Of an instance head; None: the maps are those of classes.
    """

    maps: int
    decoding: DecodeSettings | None

    @classmethod
    def of(cls, model: Model) -> InitialMask:
        """Decode as a model does."""
        decoding = model.decoding if model.spec.head == "instance" else None
        return cls(out_channels(model.spec), decoding)

    def at(self, seen: Tensor, place: Sequence[float]) -> np.ndarray:
        """Return the object at a place, bool (*spatial), False everywhere where there is none.

        Parameters
        ----------
        seen
            float32 (C, *spatial): what the click head sees, the activated maps last.
        place
            Along each of the spatial axes, in pixels.
        """
        labels = self._objects(seen[-self.maps :].float().cpu().numpy())
        pixel = tuple(int(np.floor(p + 0.5)) for p in place)
        inside = all(0 <= p < n for p, n in zip(pixel, labels.shape, strict=True))
        label = labels[pixel] if inside else 0
        return np.asarray((labels == label) & (label > 0))

    def _objects(self, maps: np.ndarray) -> np.ndarray:
        if self.decoding:
            return decode_instances(maps, self.decoding)
        labels = np.zeros(maps.shape[1:], np.int32)
        for name in range(1, len(maps)):
            parts, _ = ndimage.label(maps.argmax(0) == name)
            labels[parts > 0] = parts[parts > 0] + labels.max()
        return labels
