"""What an object looks like, in numbers: size, shape, brightness, and what is around it.

They are chosen so that objects that a person would call alike are near each other, in planes and
in volumes; networks add more (`nn.inference.object_features`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_unet.core.instances.mask import ObjectMask, bounding_window, number_objects
from napari_unet.core.regionprops.moments import hull_points, hull_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.tiles import Index, Window

NAMES = (
    "log_size", "brightness", "texture", "contrast", "rim_contrast",
    "log_elongation", "log_raggedness", "log_thickness", "solidity", "neck", "contact",
    "log_size_to_neighbours", "brightness_to_neighbours", "log_distance", "crowding",
)  # fmt: skip
"""One descriptor each, in this order."""
SIZE, LEVEL, TEXTURE, CONTRAST = 0, 1, 2, 3
RELATIVE, BRIGHT = 5, slice(1, 5)
"""So many columns are relative to the frame's usual object; of them, these are in units of its
contrast: images of one stack may be brighter, or dark on bright."""
LEAST_CONTRAST = 0.02
NEIGHBOURS = 6
"""Objects that count as the surroundings of another."""
LEVELS = 10
"""Heights at which a neck is looked for."""
RING = 0.35
"""Width of the ring around an object, as a share of its radius; at least `LEAST_RING` pixels."""
LEAST_RING = 2


@dataclass(frozen=True)
class Candidate:
    """An object of labels, or two that touch.

    Attributes
    ----------
    index
        The frame's position along the leading axes of the labels.
    labels
        One id, or two.
    mask
        In the frame.
    """

    index: Index
    labels: tuple[int, ...]
    mask: ObjectMask


def object_masks(labels: np.ndarray) -> dict[int, ObjectMask]:
    """Return the mask of each object of a frame ([Z,] Y, X), by its label."""
    ids, compact = number_objects(labels)
    boxes = ndimage.find_objects(compact)
    pairs = zip(ids.tolist(), boxes, strict=True)
    return {label: ObjectMask(window, labels[window] == label) for label, window in pairs}


def touching_pairs(labels: np.ndarray) -> list[tuple[int, int]]:
    """List the pairs of objects that touch along an axis, the lower label first."""
    found = []
    for axis in range(labels.ndim):
        one, other = (np.moveaxis(labels, axis, 0)[part] for part in (np.s_[:-1], np.s_[1:]))
        meet = (one != other) & (one > 0) & (other > 0)
        found.append(np.sort(np.stack([one[meet], other[meet]], 1), axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return [(int(a), int(b)) for a, b in pairs]


def describe_objects(
    masks: Sequence[ObjectMask], labels: np.ndarray, image: np.ndarray, usual: int = 0
) -> np.ndarray:
    """Describe objects of a frame by what a person would look at.

    Parameters
    ----------
    masks
        The objects; unions of labels, too.
    labels
        All objects of the frame, ([Z,] Y, X).
    image
        The frame, float (C, [Z,] Y, X), normalised; the mean of the channels is looked at.
    usual
        The first of the objects that say what is usual in the frame.

    Returns
    -------
    np.ndarray
        float64 (N, D), a column for each of `NAMES`.
    """
    if not len(masks):
        return np.zeros((0, len(NAMES)))
    rows = [_describe(mask, labels, image) for mask in masks]
    own = np.array([row for row, _ in rows])
    centres = np.array([centre for _, centre in rows])
    found = np.concatenate([own, _surroundings(own, centres, labels.ndim)], axis=1)
    middle = np.median(found[usual:] if usual < len(found) else found, axis=0)
    contrast = float(middle[CONTRAST])
    unit = math.copysign(max(abs(contrast), LEAST_CONTRAST), contrast)
    found[:, :RELATIVE] -= middle[:RELATIVE]
    found[:, BRIGHT] /= unit
    found[:, TEXTURE] *= math.copysign(1, unit)
    found[:, NAMES.index("brightness_to_neighbours")] /= unit
    return found


def _describe(
    mask: ObjectMask, labels: np.ndarray, image: np.ndarray
) -> tuple[list[float], np.ndarray]:
    """Return what an object shows by itself, and its centre."""
    ndim, size = labels.ndim, max(1, mask.area)
    radius = equivalent_radius(size, ndim)
    ring = max(LEAST_RING, round(RING * radius))
    window = _grown(mask.window, ring, labels.shape)
    inside = mask.within(window)
    seen = image[(slice(None), *window)].mean(0)
    near = ndimage.distance_transform_edt(~inside)
    # Outside the frame is no background: the distance inside is padded, so that borders count.
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[(slice(1, -1),) * ndim]
    places = np.argwhere(inside)
    centre = places.mean(0) + [w.start for w in window]
    spread = np.linalg.eigvalsh(np.cov(places.T, bias=True) + np.eye(ndim) / 12)
    ellipsoid = _unit_ball(ndim) * math.sqrt(float(np.prod((ndim + 2) * spread)))
    around = (near > 0) & (near <= ring)
    others = around & (labels[window] > 0)
    ground = around & ~others
    rim = inside & (depth <= max(1.5, 0.3 * float(depth.max())))
    border = (near > 0) & (near <= 1.5)
    level = float(seen[inside].mean())
    outside = float(seen[ground if ground.any() else around].mean()) if around.any() else 0.0
    row = [
        math.log(size),
        level,
        float(seen[inside].std()),
        level - outside,
        level - float(seen[rim].mean()),
        math.log(float(spread[-1] / spread[0])) / 2,
        math.log(ellipsoid / size),
        math.log(float(depth.max()) / radius),
        size / hull_size(hull_points(inside, [0] * ndim)),
        neck_depth(depth, inside),
        float((labels[window][border] > 0).mean()) if border.any() else 0.0,
    ]
    return row, centre


@dataclass(frozen=True)
class Pass:
    """The pass between the two peaks of an object that are farthest from being one.

    Attributes
    ----------
    peaks
        Positions in the window, the higher one first.
    depth
        How far the lower peak rises above the pass, as a share of the higher one's height.
    """

    peaks: tuple[tuple[int, ...], tuple[int, ...]]
    depth: float


def find_pass(height: np.ndarray, inside: np.ndarray) -> Pass | None:
    """Find the deepest pass between two peaks of an object; None if it has one peak.

    In a distance map it tells two objects that were taken for one.
    """
    top = float(height[inside].max(initial=0))
    found: Pass | None = None
    for level in top * np.arange(1, LEVELS) / LEVELS if top > 0 else ():
        parts, count = ndimage.label(inside & (height > level))
        if count < 2:
            continue
        numbers = np.arange(1, count + 1)
        peaks = ndimage.maximum(height, parts, numbers)
        second, first = np.argsort(peaks, kind="stable")[-2:]
        depth = float(peaks[second] - level) / top
        if found is None or depth > found.depth:
            at = ndimage.maximum_position(height, parts, numbers[[first, second]])
            one, other = (tuple(int(p) for p in place) for place in at)
            found = Pass((one, other), depth)
    return found


def neck_depth(height: np.ndarray, inside: np.ndarray) -> float:
    """Return the depth of `find_pass`, from 0 (one peak) to 1."""
    found = find_pass(height, inside)
    return 0.0 if found is None else found.depth


def _surroundings(own: np.ndarray, centres: np.ndarray, ndim: int) -> np.ndarray:
    """Compare each object with those nearest to it; (N, 4)."""
    count = len(own)
    if count < 2:
        return np.zeros((count, 4))
    radius = np.array([equivalent_radius(math.exp(size), ndim) for size in own[:, SIZE]])
    away, near = cKDTree(centres).query(centres, min(NEIGHBOURS + 1, count))
    away, near = away[:, 1:], near[:, 1:]
    return np.stack(
        [
            own[:, SIZE] - np.median(own[near, SIZE], axis=1),
            own[:, LEVEL] - np.median(own[near, LEVEL], axis=1),
            np.log((away[:, 0] + 1) / (radius + radius[near[:, 0]])),
            (away < 4 * np.median(radius)).mean(1),
        ],
        axis=1,
    )


def equivalent_radius(size: float, ndim: int) -> float:
    """Return the radius of the disc or ball of a size in pixels."""
    return float((size / _unit_ball(ndim)) ** (1 / ndim))


def join_masks(masks: Sequence[ObjectMask]) -> ObjectMask:
    """Return the union of objects of one frame."""
    window = bounding_window([mask.window for mask in masks])
    return ObjectMask(window, np.logical_or.reduce([mask.within(window) for mask in masks]))


def _unit_ball(ndim: int) -> float:
    return math.pi if ndim == 2 else 4 / 3 * math.pi


def _grown(window: Window, by: int, shape: tuple[int, ...]) -> Window:
    return tuple(
        slice(max(0, w.start - by), min(n, w.stop + by)) for w, n in zip(window, shape, strict=True)
    )
