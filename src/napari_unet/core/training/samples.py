"""Labelled images, ready to train on.

`Samples` keeps each image normalised and its targets computed once; `crops` says where training
crops are cut.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.image.diameters import object_diameters
from napari_unet.core.image.normalise import Normaliser
from napari_unet.core.instances.heads import InstanceHead, SemanticHead
from napari_unet.core.io.stack import open_stack
from napari_unet.core.training.partial_labels import (
    background_weight,
    known_diameter,
    known_targets,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LARGEST_LABEL = 2**20
"""Objects with greater numbers are numbered anew: tables have a place for each number."""
STRIDE = 4
"""Places to cut crops around are looked for on a grid of so many pixels in y and x."""


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
        bool ([Z,] Y, X): the pixels that were looked at; others weigh nothing in the loss.
    group
        What the sampling is balanced over, such as the modality.
    diameter
        Median diameter of the known objects, in pixels; 0 without any, and where labels are
        classes.
    source
        The image that it is a part or a frame of: samples of one source are never parted between
        training and validation, unless the image itself is cut. Where it is not given, the group is
        taken for it.
    origin
        Where the sample begins in its image, ([z,] y, x); empty: at its beginning.
    sketched
        bool ([Z,] Y, X), or None for nowhere: pixels, none of them known, that belong to some
        object of unknown outline. Their first target, the foreground, is true and no other.
    background_weight
        How much more than objects the known background weighs in the loss: see `Samples.balanced`.
    """

    image: np.ndarray
    labels: np.ndarray
    targets: np.ndarray
    known: np.ndarray
    group: str
    diameter: float
    source: str = ""
    origin: tuple[int, ...] = ()
    sketched: np.ndarray | None = None
    background_weight: float = 1.0

    @classmethod
    def of(
        cls,
        image: np.ndarray,
        labels: np.ndarray,
        head: InstanceHead | SemanticHead,
        *,
        known: np.ndarray | None = None,
        group: str = "",
        source: str = "",
        origin: tuple[int, ...] = (),
        sketched: np.ndarray | None = None,
    ) -> Sample:
        """Compute a normalised image's targets; without `known`, everything is known."""
        if isinstance(head, InstanceHead) and labels.max(initial=0) > LARGEST_LABEL:
            names, place = np.unique(labels, return_inverse=True)
            labels = place.reshape(labels.shape) + int(names[0] > 0)
        seen = np.ones(labels.shape, bool) if known is None else known.astype(bool)
        targets = known_targets(labels, seen, head)
        if sketched is not None:
            targets[0][sketched] = 1
        return cls(
            image=image,
            labels=labels,
            targets=targets,
            known=seen,
            group=group,
            diameter=known_diameter(labels, seen, head),
            source=source,
            origin=origin,
            sketched=sketched,
        )

    @property
    def foreground_known(self) -> np.ndarray:
        """Where it is known whether there is an object; bool ([Z,] Y, X)."""
        return self.known if self.sketched is None else self.known | self.sketched

    @cached_property
    def known_labels(self) -> np.ndarray:
        """The labels where they are known, 0 elsewhere."""
        return self.labels if self.known.all() else np.where(self.known, self.labels, 0)

    @cached_property
    def on_objects(self) -> np.ndarray:
        """Known places on objects, on a grid: integers (N, ndim)."""
        return _places(self.known_labels > 0)

    @cached_property
    def on_known(self) -> np.ndarray:
        """Known places, on a grid: integers (N, ndim); none where everything is known."""
        if self.known.all():
            return np.empty((0, self.known.ndim), int)
        return _places(self.foreground_known)


@dataclass
class Samples:
    """A training or validation set, and the head whose targets its samples have."""

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
            (image, labels): the image is anything that `open_stack` takes and has one frame; the
            labels are integers of the image's shape without channels: objects for an instance head,
            classes for a semantic one.
        known
            For each pair a bool array of the labels' shape, or None where everything is known.
        groups
            For each pair what the sampling is balanced over.
        sources
            For each pair the image that it is a part or a frame of: see `Sample`.
        head
            Whose targets to compute; an instance head if not given.
        channels
            Input channels of the network.

        Raises
        ------
        InputError
            No pairs, labels whose shape or type does not fit their image, negative labels or
            unknown classes, masks of another shape or number, or nothing that is known.
        """
        head = head or InstanceHead()
        items: list[Sample] = []
        for number, (source, labels) in enumerate(pairs):
            stack = open_stack(source)
            if tuple(labels.shape) != stack.labels_shape or labels.dtype.kind not in "ui":
                raise InputError(
                    f"The labels of {stack.name or f'pair {number}'} are {labels.dtype} of shape "
                    f"{labels.shape}; give integers of shape {stack.labels_shape}."
                )
            mask = None if known is None else _nth(known, number, "known masks")
            _check_values(stack.name or f"pair {number}", labels, head, mask)
            items.append(
                Sample.of(
                    _read_normalised(stack, labels.ndim, channels),
                    labels,
                    head,
                    known=mask,
                    group="" if groups is None else _nth(groups, number, "groups"),
                    source="" if sources is None else _nth(sources, number, "sources"),
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

        Groups weigh by the square root of their size, images inside one by the square root of
        their object count: crowded images have more to teach, but must not drown the others.
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
        """Return the samples with a background that weighs as much as objects leave of an image.

        Parameters
        ----------
        usual
            Share of an image that objects cover. Classes, and images of which all is known, stay
            as they are.
        """
        if not isinstance(self.head, InstanceHead):
            return self
        weighed = [
            replace(item, background_weight=background_weight(item.labels, item.known, usual))
            for item in self.items
        ]
        return Samples(weighed, self.head)

    def card(self) -> dict[str, Any]:
        """Return what a model card says of its training data: counts, sizes and a hash."""
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
            "groups": {g: sum(i.group == g for i in self.items) for g in self._groups()},
            "diameter_px": {
                f"q{q:02d}": round(float(d), 2)
                for q, d in zip((5, 25, 50, 75, 95), quantiles, strict=False)
            },
            "data_hash": f"sha256:{digest.hexdigest()}",
        }

    def _groups(self) -> list[str]:
        return sorted({item.group for item in self.items})


def _places(mask: np.ndarray) -> np.ndarray:
    """Return where a mask is true, on a grid where that finds any."""
    grid = (slice(None),) * (mask.ndim - 2) + (slice(None, None, STRIDE),) * 2
    step = np.array([1] * (mask.ndim - 2) + [STRIDE] * 2)
    on_grid = np.argwhere(mask[grid]) * step
    return on_grid if len(on_grid) else np.argwhere(mask)


def _read_normalised(stack: Any, ndim: int, channels: int) -> np.ndarray:
    """Return a one-frame stack as the network sees it, float32 (C, [Z,] Y, X)."""
    picked = stack.pick_channels(channels, None)
    window = tuple(slice(0, size) for size in stack.frame_shape(ndim))
    values = stack.read((), window, picked)
    return Normaliser.from_stack(stack, (), ndim, picked)(values)


def _nth(given: Sequence[Any], number: int, what: str) -> Any:
    """Return what belongs to a pair; the pairs may come from a generator."""
    if number >= len(given):
        raise InputError(_uneven(len(given), what, f"more than {number}"))
    return given[number]


def _uneven(count: int, what: str, images: str) -> str:
    return f"There are {count} {what} for {images} images; give one for each."


def _check_values(
    name: str, labels: np.ndarray, head: InstanceHead | SemanticHead, known: np.ndarray | None
) -> None:
    least, most = labels.min(initial=0), labels.max(initial=0)
    if isinstance(head, SemanticHead) and (least < 0 or most >= head.classes):
        raise InputError(
            f"The labels of {name} go from {least} to {most}; "
            f"give classes from 0 to {head.classes - 1}, or a head of more classes."
        )
    if least < 0:
        raise InputError(
            f"The labels of {name} go down to {least}; give 0 for background and objects above, "
            "and leave out what is unknown by a known mask."
        )
    if known is not None and known.shape != labels.shape:
        raise InputError(
            f"The known mask of {name} has shape {known.shape}, its labels {labels.shape}; give a "
            "mask of the labels' shape."
        )
