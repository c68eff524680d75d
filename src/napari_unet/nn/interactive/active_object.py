"""The object that is being segmented: what a click, a box or growth through planes makes of it.

All functions here are pure: the session keeps the object's history, and decides what is late.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.instances.mask import ObjectMask, outside, union
from napari_unet.core.prompts.clicks import Click, ClickSet
from napari_unet.core.prompts.simulation import first_click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.tiles import Index
    from napari_unet.nn.interactive.mask_predictor import MaskPredictor

PredictorAt = Callable[["Index"], "MaskPredictor"]
"""Returns what answers clicks in a frame, by its position along the leading axes."""

BOX_SLACK = 0.15
"""By this share of its size an object may be larger than the box that was drawn around it: boxes
are drawn nearly right."""
MINIMUM_IOU = 0.35
"""From plane to plane an object overlaps with itself by at least this."""
MINIMUM_CERTAINTY = 0.75
"""Mean probability below which there is no object any more."""
MINIMUM_CONTRAST = 0.3
"""Share of the contrast to its surroundings, in the trunk's features, that an object keeps."""
MAXIMUM_GAIN = 1.8
"""By this factor of its area an object may be larger in the next plane."""
MINIMUM_AREA = 12
"""Pixels of the smallest piece that is worth following."""


@dataclass(frozen=True)
class ActiveObject:
    """The object that is being segmented, after some clicks.

    Attributes
    ----------
    clicks
        On it.
    masks
        The object in each frame that was clicked in or grown into.
    label
        The id of the object that is refined; None for a new one.
    replaced
        Where that object was.
    grown
        Whether it was followed through the neighbouring planes.
    """

    clicks: ClickSet = field(default_factory=ClickSet)
    masks: Mapping[Index, ObjectMask] = field(default_factory=dict)
    label: int | None = None
    replaced: Mapping[Index, ObjectMask] = field(default_factory=dict)
    grown: bool = False

    @property
    def area(self) -> int:
        """How many pixels it has."""
        return sum(mask.area for mask in self.masks.values())


def add_click(
    active: ActiveObject, click: Click, index: Index, predictor_at: PredictorAt, protected: Any
) -> ActiveObject:
    """Return the object after a click; after a positive one where nothing is left, a new object.

    Parameters
    ----------
    index
        The frame that the click is in.
    predictor_at
        Measures a frame that is new, so it is not called before the click is checked.
    protected
        As for `exclude_others`.

    Raises
    ------
    InputError
        A first click is negative.
    """
    if not (click.positive or active.area or active.clicks):
        raise InputError("The first click must be on the object; a later one may take away.")
    if click.positive and not active.area:
        active = ActiveObject()
    clicks = active.clicks.added(click)
    previous = active.masks.get(index)
    mask = predictor_at(index).answer(clicks.within(index), previous)
    if previous is not None and (rest := outside(previous, mask.window)).area:
        mask = union(rest, mask)
    masks = {**active.masks, index: exclude_others(mask, index, active.label, protected)}
    return replace(active, clicks=clicks, masks=masks)


def from_box(
    index: Index, box: ObjectMask, predictor_at: PredictorAt, protected: Any
) -> ActiveObject:
    """Return the object in a box of a frame; arguments as for `add_click`."""
    predictor = predictor_at(index)
    box = _deepen(box, predictor.features.frame)
    mask = predictor.answer(ClickSet(), box)
    wide = tuple(
        slice(w.start - round(BOX_SLACK * size), w.stop + round(BOX_SLACK * size))
        for w, size in zip(box.window, box.inside.shape, strict=True)
    )
    allowed = ObjectMask(wide, np.ones([w.stop - w.start for w in wide], bool))
    kept = replace(mask, inside=mask.inside & allowed.within(mask.window))
    return ActiveObject(ClickSet(), {index: exclude_others(kept, index, None, protected)})


def from_mask(inside: np.ndarray, ndim: int, protected: Any) -> ActiveObject:
    """Return an object that was segmented elsewhere.

    Parameters
    ----------
    inside
        bool, of the labels' shape.
    ndim
        Axes of a frame: 2 or 3.
    protected
        As for `exclude_others`.
    """
    split = inside.ndim - ndim
    window = tuple(slice(0, n) for n in inside.shape[split:])
    return ActiveObject(
        masks={
            index: exclude_others(
                ObjectMask(window, inside[index]).cropped(), index, None, protected
            )
            for index in np.ndindex(inside.shape[:split])
            if inside[index].any()
        }
    )


def exclude_others(mask: ObjectMask, index: Index, label: int | None, protected: Any) -> ObjectMask:
    """Take the pixels of other objects out of a mask.

    Parameters
    ----------
    index
        The frame that it is in.
    label
        The id of the object itself; None for a new one.
    protected
        The labels that keep their pixels; None where there are none.
    """
    if protected is None:
        return mask
    there = np.asarray(protected[(*index, *mask.window)])
    unclaimed = (there == 0) if label is None else (there == 0) | (there == label)
    return replace(mask, inside=mask.inside & unclaimed)


def _deepen(box: ObjectMask, frame: Frame) -> ObjectMask:
    """Return a box of one plane in a volume as one that is as deep as it is wide."""
    depth, *sides = (w.stop - w.start for w in box.window)
    if len(sides) < 2 or depth > 1:
        return box
    along_z, *ratios = (m / n for m, n in zip(frame.shape, frame.size, strict=True))
    width = sum(side * ratio for side, ratio in zip(sides, ratios, strict=True)) / 2
    z, reach = box.window[0].start, round(width / along_z / 2)
    planes = slice(max(0, z - reach), min(frame.size[0], z + reach + 1))
    return ObjectMask(
        (planes, *box.window[1:]), np.repeat(box.inside, planes.stop - planes.start, axis=0)
    )


def propagate(
    active: ActiveObject, predictor_at: PredictorAt, depth: int
) -> Iterator[tuple[Index, ObjectMask]]:
    """Follow an object through the planes on either side of those where it is known.

    Parameters
    ----------
    predictor_at
        As for `add_click`.
    depth
        How many planes there are.

    Yields
    ------
    Index, ObjectMask
        One plane after the other, until the object ends or is known again.
    """
    for seed in sorted(active.masks):
        for step in (1, -1):
            for index, mask in _follow(predictor_at, seed, active.masks[seed], step, depth):
                if index in active.masks:
                    break
                yield index, mask


def _follow(
    predictor_at: PredictorAt,
    seed: Index,
    mask: ObjectMask,
    step: int,
    depth: int,
) -> Iterator[tuple[Index, ObjectMask]]:
    """Yield an object's masks in the planes above (`step` 1) or below (-1) a known one.

    The mask of a plane is the previous mask in the next, and its deepest pixel is clicked there.
    """
    *outer, z = seed
    known = predictor_at(seed).contrast(mask)
    while 0 <= (z := z + step) < depth and mask.area >= MINIMUM_AREA:
        index = (*outer, z)
        found = predictor_at(index).answer(_click_deepest(mask), mask.cropped())
        if not _is_same_object(mask, found):
            return
        contrast = predictor_at(index).contrast(found)
        kept = float(contrast @ known / max(float(known @ known), 1e-12))
        if kept < MINIMUM_CONTRAST:
            return
        yield index, found
        mask = found


def click_on(mask: ObjectMask, predictor: MaskPredictor) -> ObjectMask | None:
    """Return the object that a click in the middle of a mask gives; None if it is another one."""
    found = predictor.answer(_click_deepest(mask)).cropped()
    return found if _is_same_object(mask, found) else None


def _click_deepest(mask: ObjectMask) -> ClickSet:
    """Click on a mask's deepest pixel."""
    at = first_click(mask.inside).place
    return ClickSet((Click(tuple(a + w.start for a, w in zip(at, mask.window, strict=True))),))


def _is_same_object(before: ObjectMask, after: ObjectMask) -> bool:
    """Return whether what was found in the next plane is still the same object."""
    if after.area < MINIMUM_AREA or after.certainty < MINIMUM_CERTAINTY:
        return False
    both = int(np.count_nonzero(before.within(after.window) & after.inside))
    union = before.area + after.area - both
    return both / union >= MINIMUM_IOU and after.area <= MAXIMUM_GAIN * before.area
