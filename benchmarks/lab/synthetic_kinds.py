"""More generated scenes: what a general model is trained on beside labelled images.

One layer of objects each, no object inside another: what the object is would be a guess. Rods,
colonies of rods, rings, branched cells and packed tissue join the shapes of `synthetic_images`;
some pictures get the halos of phase contrast. Everything follows from the seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from lab.synthetic_images import (
    KINDS,
    SMALLEST,
    SyntheticImage,
    borders,
    draw_objects,
    largest_parts,
    log_uniform,
    photograph,
    smooth_noise,
    stamp,
    star_shape,
    territories,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.synthetic_images import Rng

HALO = 0.3
"""Share of the scenes that are seen as in phase contrast."""


def make_object_scene(
    seed: int | list[int], size: int = 256, kind: str | None = None
) -> SyntheticImage:
    """Generate a scene of one layer.

    Parameters
    ----------
    seed
        Of everything in it.
    size
        Edge length in pixels.
    kind
        One of `OBJECT_KINDS`; drawn if not given.
    """
    rng = np.random.default_rng(seed)
    kind = kind or str(rng.choice(list(OBJECT_KINDS)))
    labels = OBJECT_KINDS[kind](rng, size)
    if kind == "rings":
        drawn = _draw_rings(rng, labels)
    else:
        drawn = draw_objects(rng, [labels], flat=False)
    if rng.random() < HALO:
        drawn = drawn + _halo(rng, labels) * float(drawn.std())
    clean = largest_parts(labels, SMALLEST)
    return SyntheticImage(photograph(rng, drawn), clean[None], kind)


def _rods(rng: Rng, size: int) -> np.ndarray:
    """Scatter capsules, straight or a little bent, in heaps of which many lie side by side."""
    labels = np.zeros((size, size), np.uint16)
    width = log_uniform(rng, 5, 16)
    longest = log_uniform(rng, 2, 12)
    count = int(np.clip(rng.uniform(0.2, 0.9) * size**2 / (width**2 * longest), 3, 200))
    heading = rng.uniform(0, np.pi)
    order = rng.choice([0.15, 0.6, 3.0])  # from nearly parallel to all ways
    centres = rng.uniform(0, size, (count, 2))
    if rng.random() < 0.4:
        centres = rng.normal(rng.uniform(0.3, 0.7, 2) * size, size / 5, (count, 2))
    for number, centre in enumerate(centres, 1):
        length = width * rng.uniform(1.2, longest)
        steps = max(2, round(length))
        bend = rng.normal(0, 0.4) / steps
        turns = heading + rng.normal(0, order) + bend * np.arange(steps)
        path = np.cumsum(np.stack([np.sin(turns), np.cos(turns)], 1), 0)
        path += centre - path.mean(0)
        near = _close_to(path, size, 0.5 * width * rng.uniform(0.85, 1.15))
        labels[near & ((labels == 0) | (rng.random() < 0.3))] = number
    return labels


def _colonies(rng: Rng, size: int) -> np.ndarray:
    """Draw colonies of capsules that lie side by side in bent rows, on empty ground."""
    labels = np.zeros((size, size), np.uint16)
    width = log_uniform(rng, 5, 14)
    aspect = rng.uniform(1.5, 5)
    grid = np.mgrid[:size, :size].astype(float)
    for _ in range(int(rng.integers(1, 7))):
        centre = rng.uniform(0.1, 0.9, 2) * size
        radius = width * log_uniform(rng, 1.5, 9)
        turn, reach = rng.uniform(0, np.pi), 2 * radius + 4 * width
        y, x = (axis - at for axis, at in zip(grid, centre, strict=True))
        wave = rng.uniform(0, 0.5) * width * smooth_noise(rng, size, 4 * width)
        along = x * np.cos(turn) + y * np.sin(turn)
        across = y * np.cos(turn) - x * np.sin(turn) + wave + reach
        row = np.floor(across / width).astype(int)
        for number in range(max(0, row.min()), min(row.max(), int(2 * reach / width)) + 1):
            lengths = width * np.maximum(aspect * rng.lognormal(0, 0.25, 200), 1.2)
            ends = np.cumsum(lengths) - rng.uniform(0, lengths[0]) - reach
            middle = (number + 0.5) * width - reach
            mine = row == number
            cell = np.minimum(np.searchsorted(ends, along[mine]), len(ends) - 1)
            centres = ends[cell] - lengths[cell] / 2
            beyond = np.abs(along[mine] - centres) - (lengths[cell] - width) / 2
            off = across[mine] - reach - middle
            thick = 0.5 * width * rng.uniform(0.85, 1.05, len(ends))[cell]
            inside = np.hypot(np.maximum(beyond, 0), off) <= thick
            inside &= np.hypot(centres, middle) < radius
            first = int(labels.max()) + 1
            labels[mine] = np.where(inside & (labels[mine] == 0), first + cell, labels[mine])
    return labels


def _rings(rng: Rng, size: int) -> np.ndarray:
    """Scatter round shapes that touch but do not lie on one another: `_draw_rings` gives rims."""
    labels = np.zeros((size, size), np.uint16)
    typical = log_uniform(rng, 7, 32)
    count = int(np.clip(rng.uniform(0.4, 1.6) * (size / (2 * typical)) ** 2, 3, 200))
    for number in range(1, count + 1):
        layer = np.zeros_like(labels)
        radius = typical * rng.lognormal(0, 0.3)
        stamp(layer, 1, rng.uniform(0, size, 2), star_shape(rng, radius, 0.1, 1.4))
        free = (layer > 0) & (labels == 0)
        if free.sum() > 0.6 * (layer > 0).sum():
            labels[free] = number
    return labels


def _branched(rng: Rng, size: int) -> np.ndarray:
    """Draw cells with arms that grow thinner."""
    labels = np.zeros((size, size), np.uint16)
    radius = log_uniform(rng, 8, 30)
    count = int(np.clip(0.12 * (size / radius) ** 2 * rng.uniform(0.3, 1), 1, 20))
    for number in range(1, count + 1):
        body = np.zeros_like(labels)
        centre = rng.uniform(0, size, 2)
        stamp(body, 1, centre, star_shape(rng, radius * rng.lognormal(0, 0.2), 0.15, 1.4))
        whole = body > 0
        for _ in range(int(rng.integers(2, 7))):
            steps = max(4, round(radius * rng.uniform(1, 4)))
            wander = np.cumsum(ndimage.gaussian_filter1d(rng.normal(0, 0.3, steps), 4))
            turns = rng.uniform(0, 2 * np.pi) + wander
            path = centre + np.cumsum(np.stack([np.sin(turns), np.cos(turns)], 1), 0)
            thick = radius * rng.uniform(0.15, 0.4)
            for part, share in zip(np.array_split(path, 3), (1.0, 0.8, 0.6), strict=True):
                whole |= _close_to(part, size, thick * share)
        labels[whole & (labels == 0)] = number
    return labels


def _packed(rng: Rng, size: int) -> np.ndarray:
    """Fill the plane, or a part of it, with cells that leave hardly a gap."""
    labels = territories(rng, size, log_uniform(rng, 14, 70), log_uniform(rng, 1, 2.2))
    if rng.random() < 0.5:  # an edge of the tissue
        inside = smooth_noise(rng, size, size / rng.uniform(3, 8)) > rng.uniform(-1, 0.3)
        cells, area = np.unique(labels, return_counts=True)
        covered = np.bincount(labels.ravel(), inside.ravel())[cells]
        labels = np.where(np.isin(labels, cells[covered > 0.5 * area]), labels, 0)
    return np.asarray(np.where(borders(labels), 0, labels), np.uint16)


def _draw_rings(rng: Rng, labels: np.ndarray) -> np.ndarray:
    """Give objects a rim unlike their inside, which may look like the background."""
    size = len(labels)
    depth = np.zeros(labels.shape)
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            own = labels[box] == number
            inside = ndimage.distance_transform_edt(np.pad(own, 1))[1:-1, 1:-1]
            depth[box][own] = inside[own]
    count = int(labels.max()) + 1
    reach = np.maximum(ndimage.maximum(depth, labels, np.arange(count)), 1)[labels]
    thick = np.clip(rng.uniform(0.15, 0.6) * rng.lognormal(0, 0.25, count), 0.1, 0.8)[labels]
    rim = (labels > 0) & (depth < np.maximum(thick * reach, 1.5))
    strength = rng.uniform(0.8, 2.5) * rng.choice([-1, 1])
    lumen = strength * rng.uniform(-0.4, 0.4) + rng.normal(0, 0.15, count)[labels]
    ground = rng.uniform(0, 0.4) * smooth_noise(rng, size, size / 5)
    ground += rng.uniform(0, 0.5) * smooth_noise(rng, size, log_uniform(rng, 1, 8))
    levels = strength + rng.normal(0, 0.15 * abs(strength), count)[labels]
    return np.asarray(np.where(rim, levels, np.where(labels > 0, lumen, ground)))


def _halo(rng: Rng, labels: np.ndarray) -> np.ndarray:
    """Return the bright (or dark) fringe that phase contrast leaves around objects."""
    outside = ndimage.distance_transform_edt(labels == 0)
    fringe = np.exp(-((outside / log_uniform(rng, 1.5, 6)) ** 2)) * (labels == 0)
    return np.asarray(rng.uniform(0.6, 2.5) * rng.choice([-1, 1], p=[0.25, 0.75]) * fringe)


def _close_to(path: np.ndarray, size: int, width: float) -> np.ndarray:
    """Mark the pixels within a distance of the points of a path; bool (size, size)."""
    marked = np.zeros((size, size), bool)
    low = np.maximum(np.floor(path.min(0) - width).astype(int), 0)
    high = np.minimum(np.ceil(path.max(0) + width).astype(int) + 1, size)
    if (low >= high).any():
        return marked
    line = np.ones(high - low, bool)
    pixels = path.round().astype(int) - low
    pixels = pixels[((pixels >= 0) & (pixels < line.shape)).all(1)]
    if len(pixels):
        line[tuple(pixels.T)] = False
        place = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        marked[place] = ndimage.distance_transform_edt(line) <= width
    return marked


OBJECT_KINDS: dict[str, Callable[[Rng, int], np.ndarray]] = {
    "blobs": KINDS["blobs"],
    "cells": KINDS["cells"],
    "islands": KINDS["islands"],
    "rods": _rods,
    "colonies": _colonies,
    "rings": _rings,
    "branched": _branched,
    "packed": _packed,
}
"""The shapes that there are."""
