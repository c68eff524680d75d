"""Training and validation sets: labelled images, and what they say of their objects together."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.image.diameters import (
    object_diameters,
    weighted_median,
    working_scale,
)
from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.io.stack import open_stack
from napari_unet.core.labels.object_check import background_below_zero, whole_numbers
from napari_unet.core.training.known_pixels import OTHERS, background_weight, labelled_diameter
from napari_unet.core.training.training_sample import Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


ALIKE = 6.0
"""Images whose typical diameters differ by no more than this ratio are of one kind."""
SPREAD, GUESSES = 0.35, 2
"""How the sizes of a kind's images usually spread, as a standard deviation of logarithms; it counts
as so many images."""


@dataclass
class Samples:
    """A training or validation set, with the head that its targets are for."""

    items: list[Sample] = field(default_factory=list)
    head: InstanceHead | SemanticHead = field(default_factory=InstanceHead)

    @classmethod
    def from_labels(
        cls,
        pairs: Iterable[tuple[Any, np.ndarray]],
        known: Sequence[np.ndarray | None] | None = None,
        groups: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        *,
        head: InstanceHead | SemanticHead | None = None,
        channels: int = 3,
    ) -> Samples:
        """Build samples from images and labels.

        Parameters
        ----------
        pairs
            (image, labels): an image of one frame that `open_stack` can open; whole-number labels
            of its shape without channels: objects for an instance head, for which numbers below 0
            are background, or classes for a semantic one.
        known
            For each pair a bool array of the labels' shape, or None if everything is known.
        groups, sources
            For each pair: see `Sample`.
        head
            Whose targets to compute; an instance head if not given.
        channels
            Input channels of the network.

        Raises
        ------
        InputError
            There are no pairs, labels do not fit their image, are no whole numbers or are unknown
            classes, masks have another shape or number, or nothing is known.
        """
        head = head or InstanceHead()
        items: list[Sample] = []
        for number, (source, labels) in enumerate(pairs):
            stack, labels = open_stack(source), np.asarray(labels)
            name = stack.name or f"pair {number}"
            if stack.labels_axes not in ("YX", "ZYX"):
                raise InputError(
                    f"{name} has axes {stack.axes}; give its frames one by one, planes (Y, X) or "
                    "volumes (Z, Y, X), each with its labels."
                )
            if tuple(labels.shape) != stack.labels_shape or labels.dtype.kind not in "uibf":
                raise InputError(
                    f"The labels of {name} are {labels.dtype} of shape "
                    f"{labels.shape}; give integers of shape {stack.labels_shape}."
                )
            labels = whole_numbers(np.asarray(labels), f"The labels array of {name}")
            if isinstance(head, InstanceHead):
                labels, _ = background_below_zero(labels)
            mask = None if known is None else _nth(known, number, "known masks")
            mask = None if mask is None else np.asarray(mask)
            _check_values(name, labels, head, mask)
            items.append(
                Sample.from_image(
                    _read_normalised(stack, labels.ndim, channels),
                    labels,
                    head,
                    known=mask,
                    group="" if groups is None else _nth(groups, number, "groups"),
                    source="" if sources is None else _nth(sources, number, "sources"),
                    voxel_size_um=stack.voxel_size_um,
                )
            )
        if not items:
            raise InputError("No labelled images were given; give at least one image with labels.")
        for given, what in (
            (known, "known masks"),
            (groups, "groups"),
            (sources, "sources"),
        ):
            if given is not None and len(given) > len(items):
                raise InputError(_uneven(len(given), what, str(len(items))))
        if not any(item.known.any() for item in items):
            raise InputError(
                "Nothing is known in any image; say which parts of the labels are right."
            )
        return cls(items, head)

    def weights(self) -> np.ndarray:
        """Return each sample's share of the crops, summing to 1.

        Groups weigh by the square root of their size, images in a group by the square root of their
        object count: crowded images teach more, but must not outweigh the others.
        """
        groups = np.array([item.group for item in self.items])
        counts = np.array([len(np.unique(item.known_labels)) for item in self.items], float)
        weights = np.zeros(len(self.items))
        for group in np.unique(groups):
            members = groups == group
            share = np.sqrt(counts[members])
            weights[members] = np.sqrt(members.sum()) * share / share.sum()
        return np.asarray(weights / weights.sum())

    def balanced(self, usual: float) -> Samples:
        """Return the samples with the known background weighted as in a whole image.

        Parameters
        ----------
        usual
            Share of an image that objects usually cover. Classes, and images that are known as a
            whole, are left unchanged.
        """
        if not isinstance(self.head, InstanceHead):
            return self
        weighed = [
            replace(item, background_weight=background_weight(item.labels, item.known, usual))
            for item in self.items
        ]
        return Samples(weighed, self.head)

    def taught_diameter(self) -> dict[str, float]:
        """Return how large the objects are that all images have, for images of the same kind.

        Returns
        -------
        dict
            ``px``, the median over the images of their diameter, an image counting by how many of
            its objects are known; ``um`` if the pixel size of each is known; and ``spread``, how
            far a new image's is likely to be from that, as a standard deviation of logarithms.
            Empty if there is no such size: no objects, or images whose objects differ by more than
            `ALIKE`, a few aside.
        """
        images: dict[str, list[Sample]] = {}
        for place, item in enumerate(self.items):
            if item.diameter:
                images.setdefault(item.source or item.group or f"#{place}", []).append(item)
        taught: dict[str, float] = {}
        for unit in ("px", "um") if images else ():
            sizes, weights = np.array([_size_of(items, unit) for items in images.values()]).T
            if min(sizes) > 0 and np.divide(*np.quantile(sizes, (0.9, 0.1))) <= ALIKE:
                middle = weighted_median(sizes, weights)
                errors = np.log(sizes / middle) ** 2
                count = len(sizes)
                variance = (GUESSES * SPREAD**2 + errors.sum()) / (GUESSES + count - 1)
                spread = math.sqrt(variance * (1 + 1 / count))
                taught |= {unit: round(middle, 3), "spread": round(spread, 3)}
        return taught

    def small_objects(self, diameter: float) -> float | None:
        """Return the size of small objects, in pixels at the scale of a working diameter.

        A tenth of the known objects is smaller, among them pieces cut off by a sample's border.
        None without any.
        """
        sizes = []
        for item in self.items:
            pixels = np.bincount(item.known_labels.ravel())[1:]
            scale = working_scale(item.diameter, diameter)
            sizes.append(pixels[pixels > 0] * scale**item.labels.ndim)
        found = np.concatenate([np.empty(0), *sizes])
        return float(np.quantile(found, 0.1)) if len(found) else None

    def card(self) -> dict[str, Any]:
        """Return a model card's description of the training data: counts, sizes and a hash."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(np.ascontiguousarray(item.image).tobytes())
            digest.update(np.ascontiguousarray(item.known_labels).tobytes())
            if not item.known.all():
                digest.update(np.packbits(item.known).tobytes())
        objects = [
            object_diameters(i.known_labels, i.voxel_ratio or 1.0) for i in self.items if i.diameter
        ]
        diameters = np.concatenate([np.empty(0), *objects])
        quantiles = np.quantile(diameters, [0.05, 0.25, 0.5, 0.75, 0.95]) if len(diameters) else []
        return {
            "images": len(self.items),
            "objects": len(diameters),
            "known_px": sum(int(np.count_nonzero(item.known)) for item in self.items),
            "groups": dict(sorted(Counter(item.group for item in self.items).items())),
            "diameter_px": {
                f"q{q:02d}": round(float(d), 2)
                for q, d in zip((5, 25, 50, 75, 95), quantiles, strict=False)
            },
            "data_hash": f"sha256:{digest.hexdigest()}",
        }


def find_voxel_ratio(samples: Samples) -> float | None:
    """Return how much longer a voxel is in z than in the plane, in most volumes; None: unknown.

    Where it is known, the diameters of objects are in pixels of the plane.
    """
    found = [item.voxel_ratio for item in samples.items if item.voxel_ratio]
    return round(float(np.median(found)), 4) if found else None


def with_voxel_ratio(samples: Samples, taught: float | None) -> Samples:
    """Return volumes with diameters that can be compared with those of a model.

    Parameters
    ----------
    taught
        The model's voxel ratio, which volumes of unknown voxels are taken to have; None: the
        model's diameters count voxels, and so do those of all volumes.
    """
    items = []
    for item in samples.items:
        ratio = (item.voxel_ratio or taught) if taught else 0.0
        if ratio != item.voxel_ratio:
            found = labelled_diameter(item.labels, item.known, samples.head, ratio or 1.0)
            item = replace(item, voxel_ratio=ratio, diameter=found)
        items.append(item)
    return Samples(items, samples.head)


def _size_of(items: list[Sample], unit: str) -> tuple[float, float]:
    """Return the diameter of an image's objects, of which there are some parts, and its weight."""
    sizes = [item.diameter * (item.pixel_um if unit == "um" else 1.0) for item in items]
    counts = np.array([len(np.unique(item.known_labels)) for item in items], float)
    known = counts.sum()
    return weighted_median(np.array(sizes), counts), float(known / (known + OTHERS))


def _read_normalised(stack: Any, ndim: int, channels: int) -> np.ndarray:
    """Read a stack of one frame, normalised, float32 (C, [Z,] Y, X)."""
    picked = stack.pick_channels(channels, None)
    window = tuple(slice(0, size) for size in stack.frame_shape(ndim))
    values = stack.read((), window, picked)
    return Normaliser.from_stack(stack, (), ndim, picked)(values)


def _nth(given: Sequence[Any], number: int, what: str) -> Any:
    """Return the entry of a pair; pairs may come from a generator of unknown length."""
    if number >= len(given):
        raise InputError(_uneven(len(given), what, f"more than {number}"))
    return given[number]


def _uneven(count: int, what: str, images: str) -> str:
    return f"There are {count} {what} for {images} images; give one for each."


def _check_values(
    name: str, labels: np.ndarray, head: InstanceHead | SemanticHead, known: np.ndarray | None
) -> None:
    lowest, highest = labels.min(initial=0), labels.max(initial=0)
    if isinstance(head, SemanticHead) and (lowest < 0 or highest >= head.classes):
        raise InputError(
            f"The labels of {name} go from {lowest} to {highest}; "
            f"give classes from 0 to {head.classes - 1}, or a head of more classes."
        )
    if known is not None and known.shape != labels.shape:
        raise InputError(
            f"The known mask of {name} has shape {known.shape}, its labels {labels.shape}; give a "
            "mask of the labels' shape."
        )
