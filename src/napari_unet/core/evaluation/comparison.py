"""Labels compared with their truth, frame by frame: scores, and which objects are hits.

Objects are matched within a frame: a plane or a volume. Each time point has frames of its own.
Whether the planes of a stack are frames, too, depends on the labels: a 2D model numbers the objects
of each plane anew, so that equal numbers in two planes are two objects.
"""

from __future__ import annotations

import fnmatch
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError
from napari_unet.core.evaluation.metrics import Scores, score
from napari_unet.core.instances.matching import Overlap, match
from napari_unet.core.io.axes import AUTO, PLANES, VOLUMES, object_ndim, shared_axes
from napari_unet.core.io.files import check_exists, is_image_folder, list_images
from napari_unet.core.io.provenance import find_provenance
from napari_unet.core.labels.foreign import COCO, foreign_kind
from napari_unet.core.labels.label_file import (
    LabelReading,
    doubt_sentence,
    fit_to_shape,
    read_label_file,
)
from napari_unet.core.labels.pairing import (
    is_of_challenge,
    list_label_files,
    match_label_files,
    unique_stems,
)
from napari_unet.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

MATCH_KINDS = ("hit", "false", "missed")
"""Status of an object; where two meet in a pixel, the one named first is drawn."""


def outline_code(kind: str, kinds: Sequence[str] = MATCH_KINDS) -> int:
    """Return the code that `draw_match_status` writes on the rim of an object: 1, 2 or 3."""
    return 1 + kinds.index(kind)


def inside_code(kind: str, kinds: Sequence[str] = MATCH_KINDS) -> int:
    """Return the code that `draw_match_status` writes inside an object: 4, 5 or 6."""
    return 1 + len(kinds) + kinds.index(kind)


@dataclass(frozen=True)
class MatchStatus:
    """Which objects are hits; all others are false (of the labels) or missed (of the truth).

    Attributes
    ----------
    hits
        Labels of the predicted objects that match a true one, ascending.
    found
        Labels of the true objects that match a predicted one, ascending.
    """

    hits: NDArray[np.int64]
    found: NDArray[np.int64]

    @classmethod
    def from_overlap(cls, overlap: Overlap, threshold: float = 0.5) -> MatchStatus:
        """Match the objects of an overlap: a hit has at least `threshold` IoU with its truth."""
        pairs = match(overlap, threshold)
        hits, found = overlap.predicted_ids[pairs.predicted], overlap.true_ids[pairs.true]
        return cls(np.sort(hits), np.sort(found))

    def split(self, labels: ArrayLike, truth: ArrayLike) -> dict[str, NDArray[Any]]:
        """Return the labels of the hits, the false and the missed objects, 0 elsewhere.

        Parameters
        ----------
        labels, truth
            The arrays that were matched, or a part of them, such as one plane of a volume.

        Returns
        -------
        dict
            An array for each of `MATCH_KINDS`.
        """
        predicted, true = np.asarray(labels), np.asarray(truth)
        hit = np.isin(predicted, self.hits.astype(predicted.dtype))
        missed = ~np.isin(true, self.found.astype(true.dtype))
        return {
            "hit": np.where(hit, predicted, 0),
            "false": np.where(hit, 0, np.maximum(predicted, 0)),
            "missed": np.where(missed, np.maximum(true, 0), 0),
        }


def draw_match_status(
    objects: dict[str, NDArray[Any]], axes: tuple[int, int] = (0, 1)
) -> NDArray[np.uint8]:
    """Draw objects of several kinds, such as hits, false and missed ones, into one array of codes.

    Rims lie above all insides, so that missed objects can be seen below one that is too large.

    Parameters
    ----------
    objects
        The objects of each kind, 0 elsewhere, as `MatchStatus.split` returns them, of any number of
        dimensions; where two kinds meet in a pixel, the one named first is drawn.
    axes
        The axes of the planes in which rims are drawn.

    Returns
    -------
    np.ndarray
        uint8, the shape of the objects: `outline_code`, `inside_code` or 0.
    """
    kinds = list(objects)
    codes = np.zeros(objects[kinds[0]].shape, np.uint8)
    for kind in reversed(kinds):
        codes[objects[kind] > 0] = inside_code(kind, kinds)
    for kind in reversed(kinds):
        codes[edges(objects[kind], axes)] = outline_code(kind, kinds)
    return codes


def edges(labels: NDArray[Any], axes: tuple[int, ...] = (0, 1)) -> NDArray[np.bool_]:
    """Return which pixels of objects have a neighbour along `axes` of another label."""
    edge = np.zeros(labels.shape, bool)
    for axis in axes:
        along, rim = np.moveaxis(labels, axis, 0), np.moveaxis(edge, axis, 0)
        differs = along[1:] != along[:-1]
        rim[:-1] |= differs
        rim[1:] |= differs
    return edge & (labels > 0)


HIT_IOU = 0.5
"""An object with at least this IoU with its truth is drawn as a hit."""
Selection = tuple[int | slice, ...]
"""Index of a frame or plane in an array."""


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
    remarks
        What was noticed in the files, a sentence each.

    Raises
    ------
    InputError
        The shapes differ.
    """

    labels: Any
    truth: Any
    axes: str
    ndim: int = 3
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if tuple(self.labels.shape) != tuple(self.truth.shape):
            raise InputError(
                f"The labels have shape {tuple(self.labels.shape)}, the truth "
                f"{tuple(self.truth.shape)}; give two labellings of the same image."
            )

    @property
    def what(self) -> str:
        """Name of the frames: "planes" or "volumes"."""
        return VOLUMES if self.ndim == 3 and "Z" in self.axes else PLANES

    @property
    def frames(self) -> list[Selection]:
        """Indices of all frames."""
        return _selections(self.axes, self.labels.shape, "ZYX"[-self.ndim :])

    @property
    def planes(self) -> list[Selection]:
        """Indices of all planes."""
        return _selections(self.axes, self.labels.shape, "YX")

    def get_frame(self, plane: Selection) -> Selection:
        """Return the index of the frame that holds a plane."""
        inside = "ZYX"[-self.ndim :]
        pairs = zip(self.axes, plane, strict=True)
        return tuple(slice(None) if letter in inside else at for letter, at in pairs)

    def planes_in(self, frame: Selection) -> list[Selection]:
        """Return the indices of the planes in the array of one frame."""
        sizes = zip(self.axes, self.labels.shape, frame, strict=True)
        left = [(letter, size) for letter, size, at in sizes if isinstance(at, slice)]
        return _selections([letter for letter, _ in left], [size for _, size in left], "YX")

    def read(self, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
        """Read the labels and the truth of a frame or plane."""
        return np.asarray(self.labels[selection]), np.asarray(self.truth[selection])

    def get_status(self, frame: Selection) -> MatchStatus:
        """Match the objects of one frame."""
        return MatchStatus.from_overlap(Overlap.from_labels(*self.read(frame)), HIT_IOU)


def score_steps(
    comparison: Comparison, out: np.ndarray | None = None
) -> Generator[Progress, None, Scores]:
    """Score labels against their truth, pooled over the frames; yield between frames and planes.

    Parameters
    ----------
    comparison
        Labels and truth.
    out
        uint8 of the labels' shape, filled by `draw_match_status`; None: nothing is drawn.

    Returns
    -------
    Scores
        Of all frames together.

    Raises
    ------
    InputError
        Values that are no whole numbers, or arrays without any frame.
    """
    frames, scores = comparison.frames, []
    for number, frame in enumerate(frames):
        progress = Progress(number, len(frames), comparison.what)
        yield progress
        labels, truth = comparison.read(frame)
        overlap = Overlap.from_labels(labels, truth)
        scores.append(score(overlap))
        if out is not None:
            status = MatchStatus.from_overlap(overlap, HIT_IOU)
            for plane in comparison.planes_in(frame):
                yield progress
                out[frame][plane] = draw_match_status(status.split(labels[plane], truth[plane]))
    yield Progress(len(frames), len(frames), comparison.what)
    return Scores.pooled(scores)


def _selections(axes: Sequence[str], shape: Sequence[int], inside: str) -> list[Selection]:
    """Return every index that takes one position along each axis but those `inside`."""
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


def pair_files(
    predicted: Path, truth: Path, pattern: str | None = None, select: str | None = None
) -> list[LabelPair]:
    """Match files of labels with their truth; labels without truth come last.

    Parameters
    ----------
    predicted, truth
        Files, or folders, or a folder and a COCO JSON.
    pattern
        The name of the truth, such as ``{stem}_masks.tif``; None: the name of the labels, perhaps
        with an ending that is known (see `core.labels.pairing`).
    select
        Which files of the folder are scored, such as ``*_pred.tif``; None: all.

    Raises
    ------
    InputError
        A path does not exist, one is a file and one a folder, or no name is in both folders.
    """
    check_exists(predicted, truth)
    if not is_image_folder(predicted):
        if is_image_folder(truth):
            raise InputError(
                f"{predicted} and {truth} are a file and a folder; give two of a kind."
            )
        return [LabelPair(predicted.name, predicted, truth)]
    if not is_image_folder(truth) and foreign_kind(truth) != COCO:
        raise InputError(f"{predicted} and {truth} are a folder and a file; give two of a kind.")
    files = list_label_files(predicted) or list_images(predicted)
    if select is not None:
        files = [path for path in files if fnmatch.fnmatch(path.name, select)]
        if not files:
            raise InputError(f"{predicted} holds no labels like {select!r}.")
    found = unique_stems(files)
    wanted = match_label_files(found, truth, pattern)
    if not wanted:
        raise InputError(f"{predicted} and {truth} have no file name in common.")
    taken = set(wanted.values())
    pairs = [LabelPair(name, found[name], path) for name, path in wanted.items()]
    if pattern is None and is_image_folder(truth):
        others = unique_stems(path for path in list_label_files(truth) if path not in taken)
        pairs += [LabelPair(name, None, path) for name, path in others.items()]
    if all(is_of_challenge(path) for path in taken):  # the truth there is of some frames only
        return pairs
    return pairs + [
        LabelPair(name, path, None) for name, path in found.items() if name not in wanted
    ]


def read_pair(
    pair: LabelPair,
    frames: str = AUTO,
    how: LabelReading | None = None,
    truth_how: LabelReading | None = None,
) -> Comparison:
    """Read the labels and the truth of a pair; axes of one time point or plane may differ.

    Parameters
    ----------
    frames
        In which frames objects are matched, one of `core.io.axes.FRAMES`.
    how, truth_how
        How the labels are read, and the truth; None: as the labels.

    Raises
    ------
    InputError
        A file is missing, cannot be read or holds no labels, or the shapes differ.
    """
    if pair.predicted is None or pair.truth is None:
        lacking = "prediction" if pair.predicted is None else "truth"
        raise InputError(f"{pair.truth or pair.predicted} has no {lacking} of that name.")
    ndim = object_ndim(frames, find_provenance(pair.predicted))
    how = replace(how or LabelReading(), ndim=ndim)
    truth_how = how if truth_how is None else replace(truth_how, ndim=ndim)
    how, truth_how = (replace(h, name=pair.name) for h in (how, truth_how))
    if foreign_kind(pair.predicted):  # the truth may know how large the image is
        truth = read_label_file(pair.truth, truth_how)
        how = replace(how, image=(truth.values.shape, truth.axes))
        labels = read_label_file(pair.predicted, how)
    else:
        labels = read_label_file(pair.predicted, how)
        truth_how = replace(truth_how, image=(labels.values.shape, labels.axes))
        truth = read_label_file(pair.truth, truth_how)
    found, wanted = labels.values, truth.values
    axes = shared_axes(labels.axes, truth.axes)
    if found.ndim < wanted.ndim:
        fitted, axes = fit_to_shape(found, labels.axes, wanted.shape), truth.axes
        found = found if fitted is None else fitted
    elif found.shape != wanted.shape:
        fitted = fit_to_shape(wanted, truth.axes, found.shape)
        wanted = wanted if fitted is None else fitted
    if found.shape != wanted.shape:
        raise InputError(
            f"{pair.predicted} has shape {found.shape}, its truth {wanted.shape}; "
            "give two labellings of the same image."
        )
    remarks = [*labels.remarks, *truth.remarks]
    for path, read in ((pair.predicted, labels), (pair.truth, truth)):
        remarks += [doubt_sentence(path, read.doubt)] if read.doubt else []
    return Comparison(found, wanted, axes, ndim, tuple(remarks))
