"""The split of samples into training and validation, without leaks.

Samples of one image are never divided between the two. If there are too few images, each is cut in
two with a gap between, so that no pixel and no object is in both parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.training.samples import Samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.core.training.training_sample import Sample

MIN_IMAGES = 4
"""From this number of images on, whole images are held out."""
MIN_OBJECTS = 2
"""Objects that each side needs; with fewer nothing can be measured."""
MIN_GAP = 8
"""Minimum width of the gap between two parts of an image, in pixels."""
MIN_WIDTH = 48
"""Minimum width of the part of an image that is held out, in pixels."""
MOST_HELD = 0.5
"""Share of images and known objects that is held out at most, however many one image has."""
PIXELS_PER_OBJECT = 400
"""Of classes, this number of known pixels counts as an object."""


@dataclass(frozen=True)
class Split:
    """Samples to train on, and samples to validate on.

    Attributes
    ----------
    training, validation
        `validation` is None if too little is known to hold some of it out.
    reason
        Why there is no validation, in a sentence; otherwise empty.
    """

    training: Samples
    validation: Samples | None
    reason: str = ""


@dataclass(frozen=True)
class HeldPlaces:
    """Where held-out samples lie, so that more samples of the same images are split alike.

    Attributes
    ----------
    places
        Images by their `source` (or else `group`). An axis, where training ends along it and where
        validation begins; None for an image that is held out as a whole.
    """

    places: Mapping[str, tuple[int, int, int] | None]

    @classmethod
    def from_split(cls, split: Split) -> HeldPlaces:
        """Return where the validation samples of a split lie."""
        if split.validation is None:
            return cls({})
        training = _items_by_source(split.training)
        held = _items_by_source(split.validation)
        return cls({s: _find_cut(training.get(s, []), items) for s, items in held.items()})

    def split(self, samples: Samples) -> Split:
        """Split samples at these places; other images are trained on."""
        training: list[Sample] = []
        held: list[Sample] = []
        objects = isinstance(samples.head, InstanceHead)
        for source, items in _items_by_source(samples).items():
            if source not in self.places:
                training += items
            elif (place := self.places[source]) is None:
                held += items
            else:
                axis, end, start = place
                training += _before(items, axis, end)
                held += _after(items, axis, start, objects=objects)
        validation = Samples(held, samples.head)
        if not training or not held:
            return Split(samples, None, "Nothing is known any more where it was held out.")
        return Split(Samples(training, samples.head), validation)


def _items_by_source(samples: Samples) -> dict[str, list[Sample]]:
    return {
        samples.items[members[0]].source or samples.items[members[0]].group: [
            samples.items[position] for position in members
        ]
        for members in _group_by_source(samples)
    }


def _find_cut(training: list[Sample], held: list[Sample]) -> tuple[int, int, int] | None:
    """Find the axis along which all of `training` lies before `held`; None without training."""
    for axis in reversed(range(held[0].known.ndim)):
        end = max((_start(item, axis) + item.known.shape[axis] for item in training), default=0)
        start = min(_start(item, axis) for item in held)
        if training and end <= start:
            return axis, end, start
    return None


def hold_out(
    samples: Samples, share: float, seed: int = 0, held: HeldPlaces | None = None
) -> Split:
    """Split samples into training and validation.

    Parameters
    ----------
    samples
        All samples; those of equal `source` (or else `group`) are of one image.
    share
        Share of the known objects to hold out; 0 holds out nothing.
    seed
        Of the choice of images.
    held
        What was held out of fewer samples before: the choice is made already.
    """
    if held is not None:
        return held.split(samples)
    if not share:
        return Split(
            samples, None, "Nothing was held out, so there is no telling how well it does."
        )
    counts = [count_known(item, samples) for item in samples.items]
    total = sum(counts)
    if total < 2 * MIN_OBJECTS:
        what = f"{total or 'no'} known object{'' if total == 1 else 's'}"
        return Split(
            samples, None, f"With {what} nothing can be held out to judge the result by; correct "
            "more of them."
        )  # fmt: skip
    images = _group_by_source(samples)
    split = _by_image(samples, images, counts, share, seed) if len(images) >= MIN_IMAGES else None
    split = split or _by_region(samples, images, share)
    if split is None and len(images) > 1:
        split = _by_image(samples, images, counts, share, seed)
    return split or Split(
        samples,
        None,
        "The known objects lie too close together to hold some of them out; correct others, "
        "farther away or in another image.",
    )


def count_known(item: Sample, samples: Samples) -> int:
    """Count the known objects of a sample; of classes, count known pixels instead."""
    if isinstance(samples.head, InstanceHead):
        return len(np.unique(item.known_labels[item.known_labels > 0]))
    return int(np.count_nonzero(item.known)) // PIXELS_PER_OBJECT


def _group_by_source(samples: Samples) -> list[list[int]]:
    """Return the indices of the samples of each image."""
    found: dict[str, list[int]] = {}
    for position, item in enumerate(samples.items):
        found.setdefault(item.source or item.group or f"#{position}", []).append(position)
    return list(found.values())


def _by_image(
    samples: Samples, images: list[list[int]], counts: list[int], share: float, seed: int
) -> Split | None:
    """Hold out whole images; None if one side would get too few objects."""
    order = np.random.default_rng(seed).permutation(len(images))
    sizes = [sum(counts[p] for p in images[i]) for i in order]
    total = sum(counts)
    wanted, most = share * total, min(MOST_HELD * total, total - MIN_OBJECTS)
    held: list[int] = []
    count = chosen = 0
    for image, size in zip(order, sizes, strict=True):
        if count >= max(wanted, MIN_OBJECTS) or chosen >= MOST_HELD * len(images):
            break
        if size and count + size <= most:
            held += images[image]
            count, chosen = count + size, chosen + 1
    if count < MIN_OBJECTS:
        return None
    return Split(
        Samples([item for p, item in enumerate(samples.items) if p not in held], samples.head),
        Samples([samples.items[p] for p in sorted(held)], samples.head),
    )


def _by_region(samples: Samples, images: list[list[int]], share: float) -> Split | None:
    """Hold out one end of each image; None if one side would get too few objects."""
    training: list[Sample] = []
    held: list[Sample] = []
    for image in images:
        before, after = _cut([samples.items[p] for p in image], share, samples)
        training += before
        held += after
    split = Split(Samples(training, samples.head), Samples(held, samples.head))
    sides = [[count_known(item, samples) for item in side] for side in (training, held)]
    return split if min(map(sum, sides)) >= MIN_OBJECTS else None


def _cut(frames: list[Sample], share: float, samples: Samples) -> tuple[list[Sample], list[Sample]]:
    """Cut all samples of one image at the same position, across its longer axis.

    About `share` of what is known is held out; nothing if the image is too small.
    """
    objects = isinstance(samples.head, InstanceHead)
    ndim = frames[0].known.ndim
    sizes = [(_lowest(frames, axis), _highest(frames, axis)) for axis in range(ndim)]
    axis = ndim - 1 - int(sizes[-2][1] - sizes[-2][0] > sizes[-1][1] - sizes[-1][0])
    low, high = sizes[axis]
    profile = np.zeros(high - low)
    for item in frames:
        counted = item.known_labels > 0 if objects else item.known
        start = _start(item, axis) - low
        along = counted.sum(tuple(a for a in range(ndim) if a != axis))
        profile[start : start + len(along)] += along
    profile = np.cumsum(profile)
    gap = max(MIN_GAP, *(round(item.diameter) for item in frames))
    # Wide enough for some whole objects.
    wide = max(MIN_WIDTH, 3 * gap - MIN_GAP)
    end = int(np.searchsorted(profile, (1 - share) * profile[-1]))
    end = min(end, len(profile) - wide - gap + gap // 2)
    first, second = low + end - gap // 2, low + end + gap - gap // 2
    if not profile[-1] or first - low < wide:
        return frames, []
    return _before(frames, axis, first), _after(frames, axis, second, objects=objects)


def _before(frames: list[Sample], axis: int, stop: int) -> list[Sample]:
    """Return the part of each sample before a position of the image."""
    ends = [(item, stop - _start(item, axis)) for item in frames]
    return [_part(item, axis, slice(0, end)) for item, end in ends if end > 0]


def _after(frames: list[Sample], axis: int, start: int, *, objects: bool) -> list[Sample]:
    """Return the part of each sample behind a position, without the objects that are cut."""
    found = []
    for item in frames:
        first = start - _start(item, axis)
        if first >= item.known.shape[axis]:
            continue
        part = _part(item, axis, slice(max(0, first), None))
        found.append(_whole(part, axis) if objects and first > 0 else part)
    return found


def _start(item: Sample, axis: int) -> int:
    return item.origin[axis] if item.origin else 0


def _lowest(frames: list[Sample], axis: int) -> int:
    return min(_start(item, axis) for item in frames)


def _highest(frames: list[Sample], axis: int) -> int:
    return max(_start(item, axis) + int(item.known.shape[axis]) for item in frames)


def _whole(held: Sample, axis: int) -> Sample:
    """Make the objects at the cut unknown; one of them may even reach over the gap."""
    cut = np.unique(held.labels.take(0, axis))
    cut = cut[cut > 0]
    return replace(held, known=held.known & ~np.isin(held.labels, cut)) if len(cut) else held


def _part(item: Sample, axis: int, part: slice) -> Sample:
    """Return a copy of one part of a sample, so that no view keeps the other's pixels."""
    place = (slice(None),) * axis + (part,)
    origin = list(item.origin or (0,) * item.known.ndim)
    origin[axis] += part.start or 0
    return replace(
        item,
        origin=tuple(origin),
        image=item.image[(slice(None), *place)].copy(),
        labels=item.labels[place].copy(),
        targets=item.targets[(slice(None), *place)].copy(),
        known=item.known[place].copy(),
        scribbled=None if item.scribbled is None else item.scribbled[place].copy(),
        assumed=None if item.assumed is None else item.assumed[place].copy(),
    )
