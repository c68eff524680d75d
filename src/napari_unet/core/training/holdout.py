"""What is held out from a training to judge it by, without leaks.

Samples of one image are never parted between training and validation. Where there are too few
images, each is cut in two with a gap between, so that no pixel and no object is in both parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from napari_unet.core.instances.heads import InstanceHead
from napari_unet.core.training.samples import Sample, Samples

ENOUGH_IMAGES = 4
"""From so many images on whole ones are held out."""
FEWEST = 2
"""Objects that each side needs, or nothing can be measured."""
GAP = 8
"""Least width of the gap between two parts of an image, in pixels."""
LEAST = 48
"""Least width of a part of an image that is held out, in pixels."""
PIXELS = 400
"""Of classes, so many known pixels count as an object."""


@dataclass(frozen=True)
class Split:
    """What is trained on and what it is judged by.

    Attributes
    ----------
    training, validation
        The second is None where too little is known to hold some of it out.
    reason
        Why there is no validation, in a sentence; empty where there is one.
    """

    training: Samples
    validation: Samples | None
    reason: str = ""


def hold_out(samples: Samples, share: float, seed: int = 0) -> Split:
    """Part samples into what is trained on and what the result is judged by.

    Parameters
    ----------
    samples
        What is known; samples of equal `source` (or else `group`) belong together.
    share
        Of the known objects, to be held out; 0 holds out nothing.
    seed
        Which images are held out.
    """
    if not share:
        return Split(
            samples, None, "Nothing was held out, so there is no telling how well it does."
        )
    counts = [count_known(item, samples) for item in samples.items]
    total = sum(counts)
    if total < 2 * FEWEST:
        what = f"{total} known object{'' if total == 1 else 's'}"
        return Split(
            samples, None, f"With {what} nothing can be held out to judge the result by; correct "
            "more of them."
        )  # fmt: skip
    images = _by_source(samples)
    split = (
        _by_image(samples, images, counts, share, seed) if len(images) >= ENOUGH_IMAGES else None
    )
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
    """Count the known objects of a sample; of classes, known pixels stand for them."""
    if isinstance(samples.head, InstanceHead):
        return len(np.unique(item.known_labels[item.known_labels > 0]))
    return int(np.count_nonzero(item.known)) // PIXELS


def _by_source(samples: Samples) -> list[list[int]]:
    """Return the positions of the samples of each image."""
    found: dict[str, list[int]] = {}
    for position, item in enumerate(samples.items):
        found.setdefault(item.source or item.group or f"#{position}", []).append(position)
    return list(found.values())


def _by_image(
    samples: Samples, images: list[list[int]], counts: list[int], share: float, seed: int
) -> Split | None:
    """Hold out whole images; None if one side would have too few objects."""
    order = np.random.default_rng(seed).permutation(len(images))
    sizes = [sum(counts[p] for p in images[i]) for i in order]
    wanted, total = share * sum(counts), sum(counts)
    held: list[int] = []
    count = 0
    for image, size in zip(order, sizes, strict=True):
        if count >= max(wanted, FEWEST):
            break
        if size and total - count - size >= FEWEST:
            held += images[image]
            count += size
    if count < FEWEST:
        return None
    return Split(
        Samples([item for p, item in enumerate(samples.items) if p not in held], samples.head),
        Samples([samples.items[p] for p in sorted(held)], samples.head),
    )


def _by_region(samples: Samples, images: list[list[int]], share: float) -> Split | None:
    """Hold out one end of each image; None if too few objects would be on one side."""
    training: list[Sample] = []
    held: list[Sample] = []
    for image in images:
        before, after = _cut([samples.items[p] for p in image], share, samples)
        training += before
        held += after
    split = Split(Samples(training, samples.head), Samples(held, samples.head))
    sides = [[count_known(item, samples) for item in side] for side in (training, held)]
    return split if min(map(sum, sides)) >= FEWEST else None


def _cut(frames: list[Sample], share: float, samples: Samples) -> tuple[list[Sample], list[Sample]]:
    """Cut all that there is of one image across, at the same place of the image.

    About `share` of what is known is held out; nothing, if the image is too small to be cut.
    """
    objects = isinstance(samples.head, InstanceHead)
    ndim = frames[0].known.ndim
    sizes = [(_lowest(frames, axis), _highest(frames, axis)) for axis in range(ndim)]
    axis = ndim - 1 - int(sizes[-2][1] - sizes[-2][0] > sizes[-1][1] - sizes[-1][0])
    low, high = sizes[axis]
    profile = np.zeros(high - low)
    for item in frames:
        seen = item.known_labels > 0 if objects else item.known
        begin = _begin(item, axis) - low
        along = seen.sum(tuple(a for a in range(ndim) if a != axis))
        profile[begin : begin + len(along)] += along
    profile = np.cumsum(profile)
    gap = max(GAP, *(round(item.diameter) for item in frames))
    # At least so wide that some objects lie in it whole.
    wide = max(LEAST, 3 * gap - GAP)
    end = int(np.searchsorted(profile, (1 - share) * profile[-1]))
    end = min(end, len(profile) - wide - gap + gap // 2)
    first, second = low + end - gap // 2, low + end + gap - gap // 2
    if not profile[-1] or first - low < wide:
        return frames, []
    return _before(frames, axis, first), _after(frames, axis, second, objects=objects)


def _before(frames: list[Sample], axis: int, stop: int) -> list[Sample]:
    """Return what lies before a place of the image."""
    ends = [(item, stop - _begin(item, axis)) for item in frames]
    return [_part(item, axis, slice(0, end)) for item, end in ends if end > 0]


def _after(frames: list[Sample], axis: int, start: int, *, objects: bool) -> list[Sample]:
    """Return what lies behind a place of the image, without the objects that it goes through."""
    found = []
    for item in frames:
        begin = start - _begin(item, axis)
        if begin >= item.known.shape[axis]:
            continue
        part = _part(item, axis, slice(max(0, begin), None))
        found.append(_whole(part, axis) if objects and begin > 0 else part)
    return found


def _begin(item: Sample, axis: int) -> int:
    return item.origin[axis] if item.origin else 0


def _lowest(frames: list[Sample], axis: int) -> int:
    return min(_begin(item, axis) for item in frames)


def _highest(frames: list[Sample], axis: int) -> int:
    return max(_begin(item, axis) + int(item.known.shape[axis]) for item in frames)


def _whole(held: Sample, axis: int) -> Sample:
    """Forget the objects that the cut went through; one of them may reach over the gap, too."""
    cut = np.unique(held.labels.take(0, axis))
    cut = cut[cut > 0]
    return replace(held, known=held.known & ~np.isin(held.labels, cut)) if len(cut) else held


def _part(item: Sample, axis: int, part: slice) -> Sample:
    """Return a copy of one part of an image; the other's pixels are not reachable from it."""
    place = (slice(None),) * axis + (part,)
    return replace(
        item,
        image=item.image[(slice(None), *place)].copy(),
        labels=item.labels[place].copy(),
        targets=item.targets[(slice(None), *place)].copy(),
        known=item.known[place].copy(),
        scribbled=None if item.scribbled is None else item.scribbled[place].copy(),
    )
