"""What a network's raw maps mean: labels to training targets, raw maps to probabilities.

A head is the only place that knows both directions. `tile_merger` turns an instance head's maps
into separate objects; a semantic head's classes are labels already.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from scipy import ndimage
from scipy.special import expit, softmax

from napari_unet.core.errors import ModelError
from napari_unet.core.settings.foreign_spec import IMAGE, ForeignSpec

if TYPE_CHECKING:
    from napari_unet.core.settings.model_spec import ModelSpec


class Head(Protocol):
    """The contract of a head; K is the number of its maps."""

    names: tuple[str, ...]

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Turn labels ([Z,] Y, X) into float32 training targets (K, [Z,] Y, X)."""
        ...

    def activate(self, raw: np.ndarray) -> np.ndarray:
        """Turn the network's raw maps (K, [Z,] Y, X) into those of the head, float32."""
        ...


@dataclass(frozen=True)
class InstanceHead:
    """Separate objects: foreground, and the relative distance to the object's border.

    The distance is divided by the largest one in the object, so that it is 1 in the middle of every
    object, small or large, and falls to 0 where two objects touch. That makes the map independent
    of an image's scale: it can be warped together with the image, and one merging depth serves
    objects of all sizes.
    """

    names: ClassVar[tuple[str, ...]] = ("foreground", "distance")

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Return foreground (0 or 1) and relative distance in [0, 1], float32 (2, [Z,] Y, X)."""
        return np.stack([(labels > 0).astype(np.float32), relative_distance(labels)])

    def activate(self, raw: np.ndarray) -> np.ndarray:
        """Return foreground probability and relative distance, float32 (2, [Z,] Y, X)."""
        maps = np.array(raw, dtype=np.float32)
        expit(maps[0], out=maps[0])
        return maps

    @staticmethod
    def raw_threshold(threshold: float) -> float:
        """Return the raw value above which, and only above which, a pixel is foreground.

        It is the largest float32 whose probability does not exceed `threshold`. Comparing raw maps
        with it needs no exponential, which no two devices round alike.
        """
        # Read as integers, the bits of floats of one sign have the order of the floats.
        largest = int(np.float32(np.inf).view(np.int32))

        def value(bits: int) -> float:
            return math.copysign(np.int32(abs(bits)).view(np.float32), bits)

        def probability(bits: int) -> np.float32:
            return np.float32(expit(np.float32(value(bits))))

        above = bisect_right(range(-largest, largest + 1), np.float32(threshold), key=probability)
        return value(above - 1 - largest)


@dataclass(frozen=True)
class SemanticHead:
    """Classes of pixels: a softmax over `classes`, of which 0 is background."""

    classes: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the maps."""
        return ("background", *(f"class {k}" for k in range(1, self.classes)))

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Return one map per class, 1 where the pixel is of that class, float32 (K, [Z,] Y, X)."""
        classes = np.arange(self.classes).reshape(-1, *(1,) * labels.ndim)
        return np.asarray(labels[None] == classes, dtype=np.float32)

    def activate(self, raw: np.ndarray) -> np.ndarray:
        """Return the classes' probabilities, float32 (K, [Z,] Y, X)."""
        return np.asarray(softmax(raw, axis=0), dtype=np.float32)


@dataclass(frozen=True)
class ImageHead(SemanticHead):
    """Maps that are images themselves, of networks that others built; they become no labels."""

    channels: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the maps."""
        return self.channels

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Refuse: nothing is taught with labels."""
        raise ModelError("The model gives images, not labels; choose another one.")

    def activate(self, raw: np.ndarray) -> np.ndarray:
        """Return the maps as they are, float32 (K, [Z,] Y, X)."""
        return np.asarray(raw, dtype=np.float32)


def get_head(spec: ModelSpec) -> InstanceHead | SemanticHead:
    """Return the head that a spec names."""
    if isinstance(spec, ForeignSpec) and spec.meaning == IMAGE:
        return ImageHead(len(spec.names), spec.names)
    return InstanceHead() if spec.head == "instance" else SemanticHead(spec.classes)


def relative_distance(labels: np.ndarray) -> np.ndarray:
    """Return each pixel's distance to its object's border, as a share of the object's largest.

    Parameters
    ----------
    labels
        Unsigned integers ([Z,] Y, X); 0 is background. The image's border is no object's border:
        an object that it cuts is taken to continue outside.

    Returns
    -------
    np.ndarray
        float32 in [0, 1] of the same shape, 0 on background, 1 in each object's middle.
    """
    distance = np.zeros(labels.shape, np.float32)
    for index, box in enumerate(ndimage.find_objects(labels.astype(np.int32, copy=False)), 1):
        if box is None:
            continue
        wide = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        inside = labels[wide] == index
        depth = (
            ndimage.distance_transform_edt(inside)
            if not inside.all()
            else np.ones(inside.shape)  # one object fills the image: there is no border
        )
        distance[wide][inside] = (depth / depth.max())[inside]
    return distance
