"""The size of objects that a tuned model was taught, and what it says of a new image.

Images of one kind differ in their magnification, too. So an image is looked at for the taught size
and for others around it; the further one is from the taught size, the better it must explain what
is seen, and the fewer objects say so, the closer to the taught size the image is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_unet.core.io.stack import Stack
    from napari_unet.nn.inference.model import Model

USUAL_SPREAD = 0.5
"""How far a new image's size lies from that of a single taught one: a standard deviation, in
logarithms. Six kinds of images have 0.05 to 0.7."""
FOUND_ERROR, OBJECT_SPREAD = 0.15, 0.5
"""The same, of what is found in an image; and what each of the objects found adds to it."""
SURPRISE = 0.5
"""What a scale's quality loses for each unit of improbability (minus the logarithm)."""


@dataclass(frozen=True)
class TaughtSize:
    """How large the objects of a kind are.

    Attributes
    ----------
    diameter
        Of the objects that the model was taught, in pixels of the image it is asked about.
    spread
        How far an image's size usually is from that, as a standard deviation of logarithms.
    seen
        Ratio of the size that the model finds in the taught images, shown at their size, to that.
    """

    diameter: float
    spread: float = USUAL_SPREAD
    seen: float = 1.0

    def penalty(self, diameter: float) -> float:
        """Return what a scale's quality loses if it is that for objects of this size (pixels)."""
        return SURPRISE * (math.log(diameter / self.diameter) / self.spread) ** 2 / 2

    def of_image(self, found: float, objects: int) -> float:
        """Return the diameter of an image's objects, in pixels.

        Parameters
        ----------
        found
            Diameter by what is seen in the image, in pixels; 0 for nothing.
        objects
            How many are found.
        """
        if not found or not objects:
            return self.diameter
        error = FOUND_ERROR**2 + OBJECT_SPREAD**2 / objects
        share = error / (self.spread**2 + error)
        # An image that is much further off is one of another magnification, not a wrong finding.
        away = math.log(self.diameter / found)
        return found * math.exp(share * min(max(away, -self.spread), self.spread))


def taught_size(model: Model, stack: Stack) -> TaughtSize | None:
    """Return the size that a tuned model was taught, in the stack's pixels; None if unknown.

    It is known in micrometres if the pixel size of all images that it was taught on was.
    """
    taught = model.card.training.get("taught_diameter") or {}
    diameter = float(taught.get("px") or 0.0)
    if stack.voxel_size_um and taught.get("um"):
        diameter = float(taught["um"]) / stack.voxel_size_um[-1]
    if not diameter:
        return None
    return TaughtSize(diameter, taught.get("spread") or USUAL_SPREAD, taught.get("seen") or 1.0)
