"""Clicks and boxes: their places in a stack, the objects that they select, and an undo stack.

A positive click marks a place of the object, a negative one a place that is not of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from scipy import ndimage

from napari_unet.core.errors import InputError
from napari_unet.core.instances.mask import ObjectMask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Index, Window


State = TypeVar("State")


@dataclass(frozen=True)
class Click:
    """One click.

    Attributes
    ----------
    place
        (y, x) or (z, y, x), or with the time in front, as far as the image has these axes; in
        pixels, a pixel's centre on the integer.
    positive
        Whether the place belongs to the object.
    """

    place: tuple[float, ...]
    positive: bool = True

    def __post_init__(self) -> None:
        try:
            place = tuple(float(coordinate) for coordinate in self.place)
        except (TypeError, ValueError):
            place = ()
        if not 2 <= len(place) <= 4 or not all(map(math.isfinite, place)):
            raise InputError(
                f"A click is at {self.place!r}; give (y, x) or (z, y, x), with the time in front "
                "for an image that has one, in pixels."
            )
        object.__setattr__(self, "place", place)
        object.__setattr__(self, "positive", bool(self.positive))

    @property
    def pixel(self) -> tuple[int, ...]:
        """The pixel that was clicked."""
        return tuple(math.floor(coordinate + 0.5) for coordinate in self.place)


@dataclass(frozen=True)
class ClickSet:
    """The clicks on one object, in the order in which they were made."""

    clicks: tuple[Click, ...] = ()

    def __len__(self) -> int:
        return len(self.clicks)

    def added(self, click: Click) -> ClickSet:
        """Return the clicks with one more; it replaces others on the same pixel.

        So of contradictory clicks the last one counts, and a thousand on one pixel are one.
        """
        others = tuple(other for other in self.clicks if other.pixel != click.pixel)
        return ClickSet((*others, click))

    def within(self, leading: Sequence[int]) -> ClickSet:
        """Return the clicks of one plane or volume, by the first of their coordinates."""
        at = tuple(leading)
        return ClickSet(tuple(c for c in self.clicks if c.pixel[: len(at)] == at))

    def inside(self, window: Sequence[slice]) -> ClickSet:
        """Return the clicks in a window of a plane or volume, by the last of their coordinates."""
        return ClickSet(
            tuple(
                click
                for click in self.clicks
                if all(
                    w.start <= p < w.stop
                    for p, w in zip(click.pixel[-len(window) :], window, strict=True)
                )
            )
        )

    def places(self, *, positive: bool, ndim: int) -> np.ndarray:
        """Return the places of the clicks of one sign, float32 (N, ndim): the last coordinates."""
        chosen = [c.place[-ndim:] for c in self.clicks if c.positive == positive]
        return np.array(chosen, np.float32).reshape(-1, ndim)


class UndoStack(Generic[State]):
    """A state, those before it, and those that were undone.

    Parameters
    ----------
    state
        The first one.
    """

    def __init__(self, state: State) -> None:
        self._states, self._at = [state], 0

    @property
    def now(self) -> State:
        """The current state."""
        return self._states[self._at]

    def push(self, state: State) -> None:
        """Go on to another state; those that were undone are forgotten."""
        self._states[self._at + 1 :] = [state]
        self._at += 1

    def undo(self) -> bool:
        """Go one state back; False at the first one."""
        return self._move(self._at - 1)

    def redo(self) -> bool:
        """Go one state forward again; False if nothing was undone."""
        return self._move(self._at + 1)

    def _move(self, to: int) -> bool:
        there = 0 <= to < len(self._states)
        self._at = to if there else self._at
        return there


def extract_object(probability: np.ndarray, window: Window, clicks: ClickSet) -> ObjectMask:
    """Return one object from probabilities: what is connected to the positive clicks.

    Clicks are obeyed in their own pixel, and holes without a negative click are filled. Without a
    positive click the largest piece is the object.

    Parameters
    ----------
    probability
        float32, of the window's shape.
    window
        Where that is in the plane or volume.
    """
    ndim, inside = probability.ndim, probability > 0.5
    start = np.array([w.start for w in window])
    spots = {
        sign: _spots(clicks.places(positive=sign, ndim=ndim) - start, inside.shape)
        for sign in (True, False)
    }
    inside = (inside | spots[True]) & ~spots[False]
    parts, count = ndimage.label(inside)
    if spots[True].any():
        chosen = np.unique(parts[spots[True] & inside])
    elif count:
        chosen = np.array([1 + np.bincount(parts.ravel())[1:].argmax()])
    else:
        chosen = np.zeros(0, int)
    inside = np.isin(parts, chosen[chosen > 0])
    inside = _filled(inside, spots[False])
    certainty = float(probability[inside].mean()) if inside.any() else 0.0
    return ObjectMask(window, inside, certainty)


def _spots(places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Mark the pixels that places lie in, bool; no larger spot, for later clicks are on rims."""
    found, pixels = np.zeros(shape, bool), np.floor(places + 0.5).astype(int)
    inside = ((pixels >= 0) & (pixels < np.array(shape))).all(1)
    found[tuple(pixels[inside].T)] = True
    return found


def _filled(inside: np.ndarray, open_: np.ndarray) -> np.ndarray:
    """Fill holes, except those with a pixel marked as open."""
    parts, count = ndimage.label(~inside)
    if count < 2:
        return inside
    hole = np.ones(count + 1, bool)
    hole[0] = False
    for axis in range(inside.ndim):
        for end in (0, -1):
            hole[np.unique(parts.take(end, axis))] = False
    hole[np.unique(parts[open_])] = False
    return np.asarray(inside | hole[parts])


def locate(click: Click, stack: Stack, ndim: int) -> tuple[Index, Index]:
    """Return the frame of `ndim` axes that a click is in, and its pixel there.

    Raises
    ------
    InputError
        It lies outside the image, or has not as many coordinates as the labels have axes.
    """
    _check_axes(click, stack)
    shape = stack.labels_shape
    if not all(0 <= p < n for p, n in zip(click.pixel, shape, strict=True)):
        raise InputError(f"The click {_format(click)} lies outside the image, which is {shape}.")
    split = len(shape) - ndim
    return click.pixel[:split], click.pixel[split:]


def box_mask(
    low: Sequence[float], high: Sequence[float], stack: Stack, ndim: int
) -> tuple[Index, ObjectMask]:
    """Return the frame that a box lies in, and its pixels there, from two opposite corners.

    Raises
    ------
    InputError
        Its corners lie in different frames, or have not as many coordinates as the labels have
        axes; or no two pixels of the image lie in it along Y and X.
    """
    ends = Click(tuple(low)), Click(tuple(high))
    for end in ends:
        _check_axes(end, stack)
    name = f"The box from {_format(ends[0])} to {_format(ends[1])}"
    split = len(stack.labels_shape) - ndim
    if ends[0].pixel[:split] != ends[1].pixel[:split]:
        raise InputError(f"{name} reaches over several frames; draw it in one of them.")
    corners = np.array([end.place for end in ends])
    last = np.array(stack.labels_shape) - 1
    # Along the leading axes a box is not clipped: it is refused if its frame does not exist.
    last[:split] = np.iinfo(last.dtype).max
    first, second = (np.clip(end, 0, last) for end in (corners.min(0), corners.max(0)))
    index, start = locate(Click(tuple(first)), stack, ndim)
    _, stop = locate(Click(tuple(second)), stack, ndim)
    window = tuple(slice(a, b + 1) for a, b in zip(start, stop, strict=True))
    shape = [w.stop - w.start for w in window]
    if min(shape[-2:]) < 2:
        raise InputError(f"{name} holds too few pixels of the image; draw it around the object.")
    return index, ObjectMask(window, np.ones(shape, bool))


def _check_axes(click: Click, stack: Stack) -> None:
    axes = stack.labels_axes.lower()
    if len(click.place) != len(axes):
        raise InputError(
            f"The click {_format(click)} has {len(click.place)} coordinates; the image has axes "
            f"{axes}, give ({', '.join(axes)})."
        )


def _format(click: Click) -> str:
    """Return a click's place as text, to a tenth of a pixel."""
    return f"({', '.join(f'{round(coordinate, 1):.10g}' for coordinate in click.place)})"
