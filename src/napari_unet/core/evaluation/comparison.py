"""Labels against their truth, frame by frame.

A frame is what objects are matched in: a plane, or a volume. Time points are frames of their own
always. Whether the planes of a stack are, too, depends on the labels: a 2D model numbers the
objects of each plane anew, so that equal numbers in two planes are two objects.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.match_status import MatchStatus, draw_match_status
from napari_unet.core.evaluation.metrics import Scores, score
from napari_unet.core.instances.matching import Overlap, are_whole
from napari_unet.core.io.axes import AUTO, PLANES, VOLUMES, object_ndim, shared_axes
from napari_unet.core.io.files import match_by_name
from napari_unet.core.io.provenance import read_provenance
from napari_unet.core.io.stack import read_labels_and_axes
from napari_unet.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

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
        return MatchStatus.of(Overlap.of(*self.read(frame)), HIT_IOU)


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
        overlap = Overlap.of(labels, truth)
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


@dataclass(frozen=True)
class LabelPair:
    """Files of labels and of their truth, one of which may be missing."""

    name: str
    predicted: Path | None
    truth: Path | None


def pair_files(predicted: Path, truth: Path) -> list[LabelPair]:
    """Match files of labels with their truth, see `match_by_name`; those without partner are last.

    Raises
    ------
    InputError
        A path does not exist, one is a file and one a folder, or no name is in both folders.
    """
    found, wanted = match_by_name(predicted, truth)
    if not set(found) & set(wanted):
        raise InputError(f"{predicted} and {truth} have no file name in common.")
    names = [*wanted, *(name for name in found if name not in wanted)]
    return [LabelPair(name, found.get(name), wanted.get(name)) for name in names]


def read_pair(pair: LabelPair, frames: str = AUTO) -> Comparison:
    """Read two label files, to score one against the other.

    Parameters
    ----------
    frames
        One of `napari_unet.core.io.axes.FRAMES`: what objects are matched in.

    Raises
    ------
    InputError
        One of them is missing, cannot be read or holds no labels, or their shapes differ.
    """
    if pair.predicted is None or pair.truth is None:
        lacking = "prediction" if pair.predicted is None else "truth"
        raise InputError(f"{pair.truth or pair.predicted} has no {lacking} of that name.")
    labels, axes = read_labels_and_axes(pair.predicted)
    truth, truth_axes = read_labels_and_axes(pair.truth)
    if labels.shape != truth.shape:
        raise InputError(
            f"{pair.predicted} has shape {labels.shape}, its truth {truth.shape}; "
            "give two labellings of the same image."
        )
    for path, values in ((pair.predicted, labels), (pair.truth, truth)):
        if not are_whole(values):
            raise InputError(
                f"{path} holds {values.dtype} that are no whole numbers; give the objects' "
                "numbers, 0 for background."
            )
    provenance: dict[str, Any] = {}
    with suppress(InputError):  # most labels come from elsewhere
        provenance = read_provenance(pair.predicted)
    ndim = object_ndim(frames, provenance)
    return Comparison(labels, truth, shared_axes(axes, truth_axes), ndim)
