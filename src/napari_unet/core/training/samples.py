"""Labelled images to train on, each normalised and with its targets computed once."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
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
from napari_unet.core.instances.mask import number_objects
from napari_unet.core.io.stack import open_stack
from napari_unet.core.labels.object_check import background_below_zero, whole_numbers
from napari_unet.core.training.known_pixels import (
    OTHERS,
    background_weight,
    known_targets,
    labelled_diameter,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unet.core.io.stack import Stack


LARGEST_LABEL = 2**20
"""Objects with greater labels are renumbered: tables have an entry for each label."""
STRIDE = 4
"""Positions to centre crops on lie on a grid of this many pixels in y and x."""
ALIKE = 6.0
"""Images whose typical diameters differ by no more than this ratio are of one kind."""
SPREAD, GUESSES = 0.35, 2
"""How the sizes of a kind's images usually spread, as a standard deviation of logarithms; it counts
as so many images."""


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
        pixel_um: float = 0.0,
    ) -> Sample:
        """Build a sample of a normalised image; without `known`, everything is known."""
        if isinstance(head, InstanceHead) and labels.max(initial=0) > LARGEST_LABEL:
            _, labels = number_objects(labels)
        seen = np.ones(labels.shape, bool) if known is None else known.astype(bool)
        targets = known_targets(labels, seen, head)
        if scribbled is not None:
            targets[0][scribbled] = 1
        return cls(
            image=image,
            labels=labels,
            targets=targets,
            known=seen,
            group=group,
            diameter=labelled_diameter(labels, seen, head),
            source=source,
            origin=origin,
            scribbled=scribbled,
            assumed=assumed,
            pixel_um=pixel_um,
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
            stack = open_stack(source)
            name = stack.name or f"pair {number}"
            if tuple(labels.shape) != stack.labels_shape or labels.dtype.kind not in "uibf":
                raise InputError(
                    f"The labels of {name} are {labels.dtype} of shape "
                    f"{labels.shape}; give integers of shape {stack.labels_shape}."
                )
            labels = whole_numbers(np.asarray(labels), f"The labels array of {name}")
            if isinstance(head, InstanceHead):
                labels, _ = background_below_zero(labels)
            mask = None if known is None else _nth(known, number, "known masks")
            _check_values(name, labels, head, mask)
            items.append(
                Sample.from_image(
                    _read_normalised(stack, labels.ndim, channels),
                    labels,
                    head,
                    known=mask,
                    group="" if groups is None else _nth(groups, number, "groups"),
                    source="" if sources is None else _nth(sources, number, "sources"),
                    pixel_um=pixel_size(stack),
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
        objects = [object_diameters(i.known_labels) for i in self.items if i.diameter]
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


def _size_of(items: list[Sample], unit: str) -> tuple[float, float]:
    """Return the diameter of an image's objects, of which there are some parts, and its weight."""
    sizes = [item.diameter * (item.pixel_um if unit == "um" else 1.0) for item in items]
    counts = np.array([len(np.unique(item.known_labels)) for item in items], float)
    known = counts.sum()
    return weighted_median(np.array(sizes), counts), float(known / (known + OTHERS))


def pixel_size(stack: Stack) -> float:
    """Return the size of a stack's pixels along X, in micrometres; 0 if unknown."""
    return float(stack.voxel_size_um[-1]) if stack.voxel_size_um else 0.0


def _places(mask: np.ndarray) -> np.ndarray:
    """Return where a mask is true, on a grid, or anywhere if that finds nothing."""
    grid = (slice(None),) * (mask.ndim - 2) + (slice(None, None, STRIDE),) * 2
    step = np.array([1] * (mask.ndim - 2) + [STRIDE] * 2)
    on_grid = np.argwhere(mask[grid]) * step
    return on_grid if len(on_grid) else np.argwhere(mask)


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
