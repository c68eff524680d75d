"""Objects as outlines, and outlines as objects, exactly.

Outlines run along the edges of pixels: the pixel (y, x) is the square from (y, x) to (y + 1,
x + 1), as in ImageJ, QuPath and COCO. A pixel belongs to an outline if its middle lies inside, by
the even-odd rule, so that the outlines of labels give the same labels back, holes included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_unet.core.errors import InputError
from napari_unet.core.instances.mask import number_objects
from napari_unet.core.text import pluralise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Ring = np.ndarray
"""Corners of a closed line, (N, 2) of (y, x); the first is not repeated at the end."""

LARGEST = 2**31
"""Pixels of the labels that outlines are drawn into, at most."""


POSITION = "position"
"""Key of a plane that is counted through all planes, time points outermost."""


@dataclass(frozen=True, eq=False)
class ObjectRegion:
    """An object, or the part of it in one plane, as outlines.

    Attributes
    ----------
    parts
        Connected parts, each an outer ring followed by its holes.
    label
        The object's id; 0 if the file does not say.
    plane
        Where its plane lies along T and Z, from 0; an axis that is not named has one plane, or
        the region is in all of them. `POSITION` counts all planes, as old ROIs of ImageJ do.
    """

    parts: list[list[Ring]]
    label: int = 0
    plane: Mapping[str, int] = field(default_factory=dict)

    @property
    def rings(self) -> list[Ring]:
        """All rings."""
        return [ring for part in self.parts for ring in part]


def trace_objects(labels: np.ndarray, axes: str) -> Iterator[ObjectRegion]:
    """Yield the outlines of labels, plane by plane, in each plane by ascending id.

    Parameters
    ----------
    labels
        Integers, 0 is background.
    axes
        One letter of "TZYX" for each axis, in this order.
    """
    for index in np.ndindex(labels.shape[:-2]):
        plane = np.asarray(labels[index])
        ids, numbered = number_objects(plane)
        where = dict(zip(axes, index, strict=False))
        found = ndimage.find_objects(numbered) if numbered.size else []
        for label, window in zip(ids, found, strict=True):
            inside = plane[window] == label
            corner = np.array([span.start for span in window])
            parts = [[ring + corner for ring in part] for part in trace_mask(inside)]
            yield ObjectRegion(parts, int(label), where)


def trace_mask(mask: np.ndarray) -> list[list[Ring]]:
    """Return the outlines of a mask (Y, X): for each part an outer ring and its holes.

    Parts are connected along edges; those that meet at corners have outlines of their own.
    """
    parts, count = ndimage.label(mask)
    if count == 1:
        return [_sorted_rings(_trace(mask))]
    return [
        [
            ring + np.array([rows.start, columns.start])
            for ring in _sorted_rings(_trace(parts[rows, columns] == number))
        ]
        for number, (rows, columns) in enumerate(ndimage.find_objects(parts), 1)
    ]


def ring_area(ring: Ring) -> float:
    """Return the area inside a ring, in pixels."""
    y, x = np.asarray(ring, float).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _sorted_rings(rings: list[Ring]) -> list[Ring]:
    return sorted(rings, key=ring_area, reverse=True)


def _trace(mask: np.ndarray) -> list[Ring]:
    """Follow the edges between a mask and its surroundings, the mask on the right-hand side."""
    inside = np.pad(mask, 1)
    core = inside[1:-1, 1:-1]
    width = mask.shape[1] + 1
    # Edges of four directions: right, down, left, up; a corner's number is y * width + x.
    edges = (
        (core & ~inside[:-2, 1:-1], 0, 1),
        (core & ~inside[1:-1, 2:], 1, width + 1),
        (core & ~inside[2:, 1:-1], width + 1, width),
        (core & ~inside[1:-1, :-2], width, 0),
    )
    steps: list[dict[int, int]] = []
    for here, start, end in edges:
        y, x = np.nonzero(here)
        corner = y * width + x
        steps.append(dict(zip((corner + start).tolist(), (corner + end).tolist(), strict=True)))
    rings = []
    for first in range(4):
        while steps[first]:
            rings.append(_follow(steps, first, width))
    return rings


def _follow(steps: list[dict[int, int]], direction: int, width: int) -> Ring:
    """Take the edges of one ring out of `steps` and return its corners."""
    start = corner = next(iter(steps[direction]))
    corners = []
    while True:
        corners.append(corner)
        while (after := steps[direction].get(corner)) is not None:
            del steps[direction][corner]
            corner = after
            if corner == start:
                break
            # Where two pixels meet at a corner, a turn to the right stays at this pixel.
            if corner in steps[(direction + 1) % 4]:
                break
        if corner == start:
            break
        turns = ((direction + 1) % 4, (direction + 3) % 4)
        direction = next(turn for turn in turns if corner in steps[turn])
    ring = np.stack(np.divmod(np.array(corners), width), axis=1)
    return _without_straight(ring)


def _without_straight(ring: Ring) -> Ring:
    """Drop corners at which a ring does not turn."""
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return np.asarray(ring[turns])


def fill_rings(
    rings: Iterable[Ring], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """Return the pixels whose middle lies inside rings, by the even-odd rule.

    Parameters
    ----------
    rings
        Corners (N, 2) of (y, x), whole or not, inside the plane or not.
    shape
        Of the plane.

    Returns
    -------
    window, mask
        The part of the plane around the rings, and bool of its shape; None if that is empty.
    """
    lines = [np.stack([ring, np.roll(ring, -1, 0)], 1) for ring in rings if len(ring) > 2]
    if not lines:
        return None
    edges = np.concatenate(lines).astype(float)
    if not np.isfinite(edges).all():
        raise ValueError("an outline has corners that are no numbers")
    low = np.floor(np.clip(edges.min((0, 1)), 0, shape)).astype(int)
    high = np.ceil(np.clip(edges.max((0, 1)), 0, shape)).astype(int)
    if (low >= high).any():
        return None
    edges = edges[edges[:, 0, 0] != edges[:, 1, 0]]
    down = edges[:, 0, 0] > edges[:, 1, 0]
    edges[down] = edges[down][:, ::-1]
    (y0, x0), (y1, x1) = edges[:, 0].T, edges[:, 1].T
    first = np.clip(np.ceil(y0 - 0.5), low[0], high[0]).astype(int)
    stop = np.clip(np.ceil(y1 - 0.5), low[0], high[0]).astype(int)
    count = np.maximum(stop - first, 0)
    edge = np.repeat(np.arange(len(edges)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    share = (row + 0.5 - y0[edge]) / (y1 - y0)[edge]
    cross = x0[edge] + share * (x1 - x0)[edge]
    column = np.clip(np.ceil(cross - 0.5), low[1], high[1]).astype(int)
    height, width = high - low
    turns = np.zeros((height, width + 1), np.int32)
    np.add.at(turns, (row - low[0], column - low[1]), 1)
    mask = (np.cumsum(turns, axis=1)[:, :-1] & 1).astype(bool)
    return (slice(low[0], high[0]), slice(low[1], high[1])), mask


def draw_regions(
    regions: Iterable[ObjectRegion], shape: tuple[int, ...], axes: str
) -> tuple[np.ndarray, list[str]]:
    """Draw outlines into labels; where two overlap, the one drawn last is seen.

    Parameters
    ----------
    regions
        With ids, or all without: those are numbered in their order from 1.
    shape, axes
        Of the labels, a letter of "TZYX" for each axis.

    Returns
    -------
    labels
        Unsigned integers.
    remarks
        On what is outside the image, or overlaps.

    Raises
    ------
    InputError
        An outline that is none, or more objects than labels can hold.
    """
    found = list(regions)
    if np.prod(shape, dtype=float) > LARGEST:
        raise InputError(f"Labels of shape {shape} are too large for outlines.")
    numbers = [region.label for region in found]
    if not all(numbers):
        numbers = list(range(1, len(found) + 1))
    if max(numbers, default=0) >= 2**32:
        raise InputError(f"The outlines have the id {max(numbers)}; ids end below 2**32.")
    out = np.zeros(shape, np.uint16 if max(numbers, default=0) < 2**16 else np.uint32)
    outside = overlapping = 0
    for number, region in zip(numbers, found, strict=True):
        plane = _place(region.plane, axes[:-2], shape[:-2])
        sizes = dict(zip(axes, shape, strict=True))
        if any(not 0 <= at < sizes.get(letter, 1) for letter, at in plane.items()):
            outside += 1
            continue
        try:
            filled = fill_rings(region.rings, (shape[-2], shape[-1]))
        except (ValueError, OverflowError) as error:
            raise InputError(f"An outline cannot be drawn: {error}.") from error
        if filled is None or not filled[1].any():
            outside += 1
            continue
        window, mask = filled
        index = tuple(plane.get(letter, slice(None)) for letter in axes[:-2])
        part = out[(*index, *window)]
        before = part[..., mask]
        overlapping += int(np.count_nonzero((before > 0) & (before != number)))
        part[..., mask] = number
    remarks = []
    if outside:
        remarks.append(f"{pluralise(outside, 'outline')} outside the image, left out")
    if overlapping:
        remarks.append(f"{pluralise(overlapping, 'pixel')} in several outlines, given to the last")
    return out, remarks


def _place(plane: Mapping[str, int], leading: str, sizes: tuple[int, ...]) -> Mapping[str, int]:
    """Return where a plane lies in labels with these axes before Y and X.

    Programs mix up time and depth where a stack has only one of them, and count all planes.
    """
    if len(plane) != 1 or not leading:
        return {} if set(plane) == {POSITION} else plane
    ((letter, at),) = plane.items()
    if len(leading) == 1:
        return {leading: at}
    if letter == POSITION:
        return {leading[0]: at // sizes[1], leading[1]: at % sizes[1]}
    return plane
