"""Labels against their truth, frame by frame.

A frame is what objects are matched in: a plane, or a volume. Time points are frames of their own
always. Whether the planes of a stack are, too, depends on the labels: a 2D model numbers the
objects of each plane anew, so that equal numbers in two planes are two objects.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.match_status import MatchStatus, draw_match_status
from napari_unet.core.evaluation.metrics import Scores, score
from napari_unet.core.instances.matching import Overlap
from napari_unet.core.io.axes import PLANES, VOLUMES
from napari_unet.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

HIT_IOU = 0.5
"""IoU with its truth from which on an object is drawn as a hit."""

Place = tuple[int | slice, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Labels and their truth, array-likes of whole numbers and of the same shape.

    Attributes
    ----------
    labels, truth
        Numpy, dask or Zarr; 0 and below is background.
    axes
        One letter of "TCZYX" for each axis, in any order.
    ndim
        Whether objects are matched in planes (2) or in volumes (3).

    Raises
    ------
    InputError
        The shapes differ.
    """

    labels: Any
    truth: Any
    axes: str
    ndim: int = 3

    def __post_init__(self) -> None:
        if tuple(self.labels.shape) != tuple(self.truth.shape):
            raise InputError(
                f"The labels have shape {tuple(self.labels.shape)}, the truth "
                f"{tuple(self.truth.shape)}; give two labellings of the same image."
            )

    @property
    def what(self) -> str:
        """What the frames are, in words."""
        return VOLUMES if self.ndim == 3 and "Z" in self.axes else PLANES

    @property
    def frames(self) -> list[Place]:
        """Where the frames are in the arrays."""
        return _places(self.axes, self.labels.shape, "ZYX"[-self.ndim :])

    @property
    def planes(self) -> list[Place]:
        """Where the planes are in the arrays."""
        return _places(self.axes, self.labels.shape, "YX")

    def frame_of(self, plane: Place) -> Place:
        """Return the frame that holds a plane."""
        inside = "ZYX"[-self.ndim :]
        pairs = zip(self.axes, plane, strict=True)
        return tuple(slice(None) if letter in inside else at for letter, at in pairs)

    def planes_of(self, frame: Place) -> list[Place]:
        """Return where the planes are in the array of one frame."""
        sizes = zip(self.axes, self.labels.shape, frame, strict=True)
        left = [(letter, size) for letter, size, at in sizes if isinstance(at, slice)]
        return _places([letter for letter, _ in left], [size for _, size in left], "YX")

    def read(self, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels and the truth of a frame or plane."""
        return np.asarray(self.labels[place]), np.asarray(self.truth[place])

    def judge(self, frame: Place) -> MatchStatus:
        """Tell what became of the objects of one frame."""
        return MatchStatus.of(Overlap.from_labels(*self.read(frame)), HIT_IOU)


def score_steps(
    comparison: Comparison, out: np.ndarray | None = None
) -> Generator[Progress, None, Scores]:
    """Score labels against their truth, pooled over the frames; yield after every piece of work.

    Parameters
    ----------
    comparison
        What to score.
    out
        uint8, the labels' shape: the match status is drawn into it by `draw_match_status`.

    Returns
    -------
    Scores
        Of all frames together.

    Raises
    ------
    InputError
        Values that are no whole numbers, or no frame at all.
    """
    frames, scores = comparison.frames, []
    for number, place in enumerate(frames):
        progress = Progress(number, len(frames), comparison.what)
        yield progress
        labels, truth = comparison.read(place)
        overlap = Overlap.from_labels(labels, truth)
        scores.append(score(overlap))
        if out is not None:
            verdict = MatchStatus.of(overlap, HIT_IOU)
            for plane in comparison.planes_of(place):
                yield progress
                out[place][plane] = draw_match_status(verdict.split(labels[plane], truth[plane]))
    yield Progress(len(frames), len(frames), comparison.what)
    return Scores.pooled(scores)


def _places(axes: Sequence[str], shape: Sequence[int], inside: str) -> list[Place]:
    """List every position along the axes that are not `inside`, with all of those that are."""
    spans = [
        [slice(None)] if letter in inside else range(size)
        for letter, size in zip(axes, shape, strict=True)
    ]
    return list(itertools.product(*spans))
