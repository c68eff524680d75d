"""The object at hand: what it becomes by a click or a box, and what of it belongs to others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.instances.mask import ObjectMask, outside, union
from napari_unet.core.prompts.clicks import Click, ClickSet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.core.image.frames import Frame
    from napari_unet.core.tiles import Index
    from napari_unet.nn.interactive.frames import ClickFrames

MARGIN = 0.15
"""By this share of its size an object may be larger than the box that was drawn around it."""


@dataclass(frozen=True)
class ActiveObject:
    """What there is of the object at hand, after some clicks.

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


def clicked(
    shown: ActiveObject, click: Click, index: Index, frames: ClickFrames, protected: Any
) -> ActiveObject:
    """Return what the object at hand is after a click; positive where there is none, a new one.

    Parameters
    ----------
    index
        The frame that the click is in.
    frames
        Answer it.
    protected
        As for `free`.

    Raises
    ------
    InputError
        A first click is negative.
    """
    if not (click.positive or shown.area or shown.clicks):
        raise InputError("The first click must be on the object; a later one may take away.")
    if click.positive and not shown.area:
        shown = ActiveObject()
    clicks = shown.clicks.added(click)
    previous = shown.masks.get(index)
    mask = frames.at(index).answer(clicks.within(index), previous)
    if previous is not None and (rest := outside(previous, mask.window)).area:
        mask = union(rest, mask)
    masks = {**shown.masks, index: free(mask, index, shown.label, protected)}
    return replace(shown, clicks=clicks, masks=masks)


def boxed(index: Index, box: ObjectMask, frames: ClickFrames, protected: Any) -> ActiveObject:
    """Return the object in a box of a frame; arguments as for `clicked`."""
    clicker = frames.at(index)
    box = _deep(box, clicker.features.frame)
    mask = clicker.answer(ClickSet(), box)
    wide = tuple(
        slice(w.start - round(MARGIN * len_), w.stop + round(MARGIN * len_))
        for w, len_ in zip(box.window, box.inside.shape, strict=True)
    )
    allowed = ObjectMask(wide, np.ones([w.stop - w.start for w in wide], bool))
    kept = replace(mask, inside=mask.inside & allowed.within(mask.window))
    return ActiveObject(ClickSet(), {index: free(kept, index, None, protected)})


def free(mask: ObjectMask, index: Index, label: int | None, protected: Any) -> ObjectMask:
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


def _deep(box: ObjectMask, frame: Frame) -> ObjectMask:
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
