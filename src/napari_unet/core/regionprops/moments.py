"""Sizes, moments, boxes and intensities of objects, which are added up over blocks; convex hulls.

A part is what one block holds of an object. Means and sums of squared deviations of parts are
joined exactly (Chan, Golub and LeVeque 1983), so that an object measures the same however many
blocks it lies in.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import ConvexHull

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class ObjectParts:
    """Parts of objects, one a row, N rows in D dimensions with C channels.

    Attributes
    ----------
    labels
        (N,) int64; a label is in several rows until the parts are joined.
    size
        (N,) float64, pixels or voxels.
    pieces
        (N,) int64, how many parts were joined into this one.
    centre, spread
        (N, D) mean position, and (N, D, D) summed products of the deviations from it.
    start, stop
        (N, D) int64: the bounding box.
    mean, square, low, high
        (N, C) intensities: mean, summed squared deviations, minimum and maximum.
    """

    labels: np.ndarray
    size: np.ndarray
    pieces: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    mean: np.ndarray
    square: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_block(
        cls, block: np.ndarray, origin: Sequence[int], intensities: np.ndarray | None = None
    ) -> ObjectParts:
        """Measure the part of each object in a block.

        Parameters
        ----------
        block
            (Y, X) or (Z, Y, X), whole numbers; 0 and below is background.
        origin
            Position of the block's first voxel in its frame.
        intensities
            (C, *block.shape); None: no channels.
        """
        where = np.nonzero(block > 0)
        values = block[where]
        order = np.argsort(values, kind="stable")
        values = values[order]
        first = _firsts(values)
        size = np.diff(np.append(first, len(values))).astype(float)
        points = np.stack([axis[order] for axis in where]) + np.asarray(origin)[:, None]
        if intensities is None or not len(intensities):
            channels = np.zeros((0, len(values)))
        else:
            channels = np.stack([channel[where][order] for channel in intensities]).astype(float)
        start, stop = (f.reduceat(points, first, axis=1).T for f in (np.minimum, np.maximum))
        centre, spread = _moments(points.astype(float), first, size)
        with np.errstate(invalid="ignore", over="ignore"):  # of NaN and infinity, see `measure`
            mean = _sums(channels, first) / size
            square = _sums((channels - np.repeat(mean, size.astype(int), axis=1)) ** 2, first)
        low, high = (f.reduceat(channels, first, axis=1).T for f in (np.minimum, np.maximum))
        pieces = np.ones(len(size), np.int64)
        labels = values[first].astype(np.int64)
        return cls(
            labels, size, pieces, centre, spread, start, stop + 1, mean.T, square.T, low, high
        )

    @classmethod
    def join(cls, parts: Sequence[ObjectParts]) -> ObjectParts:
        """Join parts into one row for each label, in the order of the labels; at least one part."""
        rows = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in cls.__dataclass_fields__
        }
        order = np.argsort(rows["labels"], kind="stable")
        rows = {name: values[order] for name, values in rows.items()}
        first = _firsts(rows["labels"])
        count = np.diff(np.append(first, len(order)))
        size = np.add.reduceat(rows["size"], first)
        share = (rows["size"] / np.repeat(size, count))[:, None]
        centre = np.add.reduceat(rows["centre"] * share, first)
        off = rows["centre"] - np.repeat(centre, count, axis=0)
        weight = rows["size"][:, None]
        products = off[:, :, None] * off[:, None, :] * weight[:, :, None]
        with np.errstate(invalid="ignore", over="ignore"):
            mean = np.add.reduceat(rows["mean"] * share, first)
            squares = (rows["mean"] - np.repeat(mean, count, axis=0)) ** 2 * weight
            square = np.add.reduceat(rows["square"] + squares, first)
        return cls(
            rows["labels"][first],
            size,
            np.add.reduceat(rows["pieces"], first),
            centre,
            np.add.reduceat(rows["spread"] + products, first),
            np.minimum.reduceat(rows["start"], first),
            np.maximum.reduceat(rows["stop"], first),
            mean,
            square,
            np.minimum.reduceat(rows["low"], first),
            np.maximum.reduceat(rows["high"], first),
        )


def _firsts(values: np.ndarray) -> np.ndarray:
    """Return the positions in sorted values at which a new value begins."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.append(True, values[1:] != values[:-1]))


def _sums(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    return np.asarray(np.add.reduceat(values, first, axis=-1))


def _moments(
    points: np.ndarray, first: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (N, D) and the summed products of deviations (N, D, D) of points (D, M)."""
    centre = _sums(points, first) / size
    off = points - np.repeat(centre, size.astype(int), axis=1)
    axes = range(len(points))
    spread = np.array([[_sums(off[a] * off[b], first) for b in axes] for a in axes])
    return centre.T, spread.transpose(2, 0, 1)


def hull_points(mask: np.ndarray, origin: Sequence[int]) -> np.ndarray:
    """Return those corners of a mask's pixels that span the convex hull of all of them.

    Parameters
    ----------
    mask
        bool, (Y, X) or (Z, Y, X).
    origin
        Position of its first pixel; the corner before a pixel has the pixel's own position.

    Returns
    -------
    np.ndarray
        (N, D) float64; empty for an empty mask.
    """
    lines = np.argwhere(mask.any(-1))
    if not len(lines):
        return np.zeros((0, mask.ndim))
    rows = mask[tuple(lines.T)]
    left, right = rows.argmax(-1), rows.shape[-1] - rows[:, ::-1].argmax(-1)
    ends = np.concatenate([np.column_stack([lines, end]) for end in (left, right)])
    steps = np.array([(*step, 0) for step in itertools.product((0, 1), repeat=mask.ndim - 1)])
    corners = (ends[:, None, :] + steps).reshape(-1, mask.ndim) + np.asarray(origin)
    points = corners.astype(float)
    return np.asarray(points[ConvexHull(points).vertices])


def hull_size(points: np.ndarray) -> float:
    """Return the area or volume of the convex hull of points (N, D)."""
    return float(ConvexHull(points).volume)
