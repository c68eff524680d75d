"""The size of objects that a tuned model was taught, and what it says of a new image.

Images of one kind differ in their magnification, too. So the taught size is where one begins to
look, and what is found there moves it: the more, the more the taught images differed, and the more
objects are found. Then one looks again, at the new size.
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
FOUND_ERROR, OBJECT_SPREAD = 0.25, 0.5
"""The same, of what is found in an image; and what each of the objects found adds to it."""
LOOKS, SAME = 3, 1.15
"""So often an image is looked at, at most, each time at the size that the look before gave; unless
that is within this ratio of the size before."""
SLACK = 1.6
"""What is found further from the size that it is shown at than this may be fragments or clumps."""


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
    shown
        The size that the image is looked at for, in its pixels; 0: the taught one.
    """

    diameter: float
    spread: float = USUAL_SPREAD
    seen: float = 1.0
    shown: float = 0.0

    def ratio(self, found: float) -> float:
        """Return the logarithm of what was found, a diameter in pixels, over what was sought."""
        return math.log(found / self.seen / (self.shown or self.diameter))

    def of_image(self, found: float, objects: int) -> float:
        """Return the diameter of an image's objects, in pixels.

        Parameters
        ----------
        found
            Diameter of what the model finds if it looks for objects of the size `shown`, in pixels;
            0 for nothing.
        objects
            How many there are.
        """
        if not found or not objects:
            return self.diameter
        error = FOUND_ERROR**2 + OBJECT_SPREAD**2 / objects
        share = self.spread**2 / (self.spread**2 + error)
        limit = math.log(SLACK)
        moved = min(max(self.ratio(found), -limit), limit)
        already = math.log((self.shown or self.diameter) / self.diameter)
        return self.diameter * math.exp(share * (already + moved))


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
