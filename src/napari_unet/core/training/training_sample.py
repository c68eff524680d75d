"""A labelled image to train on, normalised and with its targets computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.instances.mask import number_objects
from napari_unet.core.training.known_pixels import known_targets, labelled_diameter

if TYPE_CHECKING:
    from napari_unet.core.instances.heads import SemanticHead

LARGEST_LABEL = 2**20
"""Objects with greater labels are renumbered: tables have an entry for each label."""
STRIDE = 4
"""Positions to centre crops on lie on a grid of this many pixels in y and x."""


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes
    ----------
    image
        float32 (C, [Z,] Y, X), normalised.
    labels
        Unsigned integers ([Z,] Y, X).
    targets
        float32 (K, [Z,] Y, X), the head's.
    known
        bool ([Z,] Y, X): pixels whose label is right; others weigh nothing in the loss.
    group
        Group that the sampling is balanced over, such as the modality.
    diameter
        How large the objects are, in pixels, see `labelled_diameter`; 0 without any, and for
        classes.
    source
        The image that it is a part or a frame of: samples of one source are never divided between
        training and validation, unless the image itself is cut. If empty, the group is used.
    origin
        Position of the sample's first pixel in its image, ([z,] y, x); empty: 0.
    scribbled
        bool ([Z,] Y, X), or None: unknown pixels that belong to some object of unknown outline.
        Only their first target, the foreground, is valid.
    assumed
        bool ([Z,] Y, X), or None: known background that was not looked at, see `AnnotationMask`.
    background_weight
        Weight of the known background in the loss, objects being 1: see `Samples.balanced`.
    pixel_um
        Size of a pixel along X in micrometres; 0 if unknown.
    voxel_ratio
        How much longer a voxel is in z than in the plane; 0 if unknown, and for planes.
    """

    image: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    known: np.ndarray
    group: str
    diameter: float
    source: str = ""
    origin: tuple[int, ...] = ()
    scribbled: np.ndarray | None = None
    assumed: np.ndarray | None = None
    background_weight: float = 1.0
    pixel_um: float = 0.0
    voxel_ratio: float = 0.0

    @classmethod
    def from_image(
        cls,
        image: np.ndarray,
        labels: np.ndarray,
        head: InstanceHead | SemanticHead,
        *,
        known: np.ndarray | None = None,
        group: str = "",
        source: str = "",
        origin: tuple[int, ...] = (),
        scribbled: np.ndarray | None = None,
        assumed: np.ndarray | None = None,
        voxel_size_um: tuple[float, float, float] | None = None,
    ) -> Sample:
        """Build a sample of a normalised image; without `known`, everything is known."""
        if isinstance(head, InstanceHead) and labels.max(initial=0) > LARGEST_LABEL:
            _, labels = number_objects(labels)
        seen = np.ones(labels.shape, bool) if known is None else known.astype(bool)
        targets = known_targets(labels, seen, head)
        if scribbled is not None:
            targets[0][scribbled] = 1
        z, _, x = voxel_size_um or (0.0, 0.0, 0.0)
        ratio = z / x if x and labels.ndim == 3 else 0.0
        return cls(
            image=image,
            labels=labels,
            targets=targets,
            known=seen,
            group=group,
            diameter=labelled_diameter(labels, seen, head, ratio or 1.0),
            source=source,
            origin=origin,
            scribbled=scribbled,
            assumed=assumed,
            pixel_um=x,
            voxel_ratio=ratio,
        )

    @cached_property
    def is_grey(self) -> bool:
        """Whether all channels of the image are equal."""
        return bool((self.image[1:] == self.image[:1]).all())

    @cached_property
    def all_known(self) -> bool:
        """Whether every label is known."""
        return bool(self.known.all())

    @cached_property
    def foreground_known(self) -> np.ndarray:
        """Pixels whose foreground is known; bool ([Z,] Y, X)."""
        return self.known if self.scribbled is None else self.known | self.scribbled

    @cached_property
    def known_labels(self) -> np.ndarray:
        """The labels where they are known, 0 elsewhere."""
        return self.labels if self.all_known else np.where(self.known, self.labels, 0)

    @cached_property
    def on_objects(self) -> np.ndarray:
        """Positions of known pixels of objects, on a grid: integers (N, ndim)."""
        return _places(self.known_labels > 0)

    @cached_property
    def on_known(self) -> np.ndarray:
        """Positions of known pixels, on a grid: integers (N, ndim); none if all are known."""
        if self.all_known:
            return np.empty((0, self.known.ndim), int)
        return _places(self.foreground_known)


def _places(mask: np.ndarray) -> np.ndarray:
    """Return where a mask is true, on a grid, or anywhere if that finds nothing."""
    grid = (slice(None),) * (mask.ndim - 2) + (slice(None, None, STRIDE),) * 2
    step = np.array([1] * (mask.ndim - 2) + [STRIDE] * 2)
    on_grid = np.argwhere(mask[grid]) * step
    return on_grid if len(on_grid) else np.argwhere(mask)
