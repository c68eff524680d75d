"""Scores of labels against the truth: AP, F1, PQ, Dice, Rand error; for one image or many."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.core.errors import InputError, SettingsError
from napari_unet.core.instances.mask import number_objects
from napari_unet.core.instances.matching import Overlap, match
from napari_unet.core.io.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""IoU thresholds 0.5, 0.55 ... 0.95."""


@dataclass(frozen=True)
class Scores:
    """Scores of labels against the truth, for one image or pooled over several.

    The arrays have one entry for each threshold of IoU. A ratio of 0 to 0 is 1: where there is
    nothing to find and nothing was found, the score is perfect.

    Attributes
    ----------
    thresholds
        A predicted object with at least this IoU counts as a true one.
    tp, fp, fn
        Numbers of hits, false objects and missed objects.
    iou_sum
        Sum of the hit objects' IoU.
    objects, true_objects
        Numbers of objects in the labels and in the truth.
    foreground
        Voxels that are foreground in both, in the labels, in the truth.
    rand
        Pairs of voxels of true objects that are in one object in both, in the labels, in the truth.
    images
        Number of images that were pooled.
    """

    thresholds: tuple[float, ...]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    iou_sum: NDArray[np.float64]
    objects: int
    true_objects: int
    foreground: tuple[int, int, int]
    rand: tuple[float, float, float]
    images: int = 1

    @property
    def ap(self) -> NDArray[np.float64]:
        """TP / (TP + FP + FN): "average precision", as this field uses the name."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> NDArray[np.float64]:
        """TP / (TP + FP)."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> NDArray[np.float64]:
        """TP / (TP + FN)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def pq(self) -> NDArray[np.float64]:
        """Panoptic quality (Kirillov et al. 2019): F1 times the mean IoU of the hits."""
        return _ratio(2 * self.iou_sum, 2 * self.tp + self.fp + self.fn)

    @property
    def dice(self) -> float:
        """Dice coefficient of foreground against background."""
        both, predicted, true = self.foreground
        return float(_ratio(2 * both, predicted + true))

    @property
    def iou(self) -> float:
        """Intersection over union of foreground against background."""
        both, predicted, true = self.foreground
        return float(_ratio(both, predicted + true - both))

    @property
    def rand_error(self) -> float:
        """Adapted Rand error: 1 - F-score over pairs of the true objects' voxels (SNEMI3D).

        Voxels that were predicted as background count as one more object, as in scikit-image.
        """
        pairs, predicted, true = self.rand
        return 1 - float(_ratio(2 * pairs, predicted + true))

    @property
    def count_error(self) -> int:
        """Predicted minus true objects."""
        return self.objects - self.true_objects

    def at(self, threshold: float) -> int:
        """Return the index of a threshold in the arrays.

        Raises
        ------
        SettingsError
            It is none of the thresholds.
        """
        for index, known in enumerate(self.thresholds):
            if abs(known - threshold) < 1e-9:
                return index
        raise SettingsError(
            f"There is no score at IoU {threshold}; choose one of: {self.thresholds}."
        )

    @classmethod
    def pooled(cls, several: Iterable[Scores]) -> Scores:
        """Add up the objects and voxels of several images and score them as if they were one.

        Raises
        ------
        InputError
            There are none, or they have different thresholds.
        """
        scores = list(several)
        if not scores or len({score.thresholds for score in scores}) > 1:
            raise InputError("Scores can be pooled from one image on, at the same thresholds.")
        return cls(
            thresholds=scores[0].thresholds,
            tp=np.sum([score.tp for score in scores], axis=0),
            fp=np.sum([score.fp for score in scores], axis=0),
            fn=np.sum([score.fn for score in scores], axis=0),
            iou_sum=np.sum([score.iou_sum for score in scores], axis=0),
            objects=sum(score.objects for score in scores),
            true_objects=sum(score.true_objects for score in scores),
            foreground=_sum3(score.foreground for score in scores),
            rand=_sum3(score.rand for score in scores),
            images=sum(score.images for score in scores),
        )

    def row(self) -> dict[str, float]:
        """Return the scores by name, for a table; PQ, precision, recall, F1 at the first IoU."""
        ap = {
            f"AP{round(100 * t)}": float(v) for t, v in zip(self.thresholds, self.ap, strict=True)
        }
        first = {
            name: float(getattr(self, name)[0]) for name in ("precision", "recall", "f1", "pq")
        }
        return {
            "objects": self.objects,
            "true_objects": self.true_objects,
            "count_error": self.count_error,
            **ap,
            **first,
            "dice": self.dice,
            "iou": self.iou,
            "rand_error": self.rand_error,
        }


def evaluate(
    labels: ArrayLike, truth: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> Scores:
    """Score labels against the truth.

    Parameters
    ----------
    labels, truth
        Integers of the same shape, of any number of dimensions; 0 and below is background.
    thresholds
        IoU at which a predicted object counts as a true one, each in (0, 1].

    Returns
    -------
    Scores
        By threshold: AP, precision, recall, F1, PQ. For the whole: Dice, IoU, adapted Rand error,
        count error.

    Raises
    ------
    InputError
        The shapes differ, or the values are no whole numbers.
    SettingsError
        A threshold outside (0, 1], or none.
    """
    levels = tuple(float(threshold) for threshold in thresholds)
    if not levels or not all(0 < level <= 1 for level in levels):
        raise SettingsError(f"thresholds is {levels}; give IoUs above 0 and at most 1.")
    return score(Overlap.from_labels(labels, truth), levels)


def score(overlap: Overlap, thresholds: tuple[float, ...] = THRESHOLDS) -> Scores:
    """Return the scores of `evaluate` for an overlap that was counted already."""
    matches = [match(overlap, threshold) for threshold in thresholds]
    objects, true_objects = overlap.predicted_sizes.size, overlap.true_sizes.size
    tp = np.array([found.iou.size for found in matches], np.int64)
    return Scores(
        thresholds=thresholds,
        tp=tp,
        fp=objects - tp,
        fn=true_objects - tp,
        iou_sum=np.array([found.iou.sum() for found in matches]),
        objects=objects,
        true_objects=true_objects,
        foreground=(
            int(overlap.shared.sum()),
            int(overlap.predicted_sizes.sum()),
            int(overlap.true_sizes.sum()),
        ),
        rand=_rand_sums(overlap),
    )


def _rand_sums(overlap: Overlap) -> tuple[float, float, float]:
    """Count the pairs of voxels of `Scores.rand`."""
    shared, true = overlap.shared.astype(float), overlap.true_sizes.astype(float)
    lost = true - np.bincount(overlap.true, shared, true.size)
    predicted = np.append(np.bincount(overlap.predicted, shared), lost.sum())
    voxels = true.sum()
    return (
        float(shared @ shared + lost @ lost - voxels),
        float(predicted @ predicted - voxels),
        float(true @ true - voxels),
    )


def _ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.asarray(np.divide(part, whole, out=np.ones_like(whole), where=whole > 0))


def _sum3(rows: Iterable[tuple[Any, Any, Any]]) -> tuple[Any, Any, Any]:
    first, second, third = (sum(column) for column in zip(*rows, strict=True))
    return first, second, third


def evaluate_known(
    labels: np.ndarray, truth: np.ndarray, known: np.ndarray, thresholds: tuple[float, ...]
) -> Scores:
    """Score labels whose truth is known in a part of the image only.

    An object counts, as a whole, if at least half of it lies in that part.

    Parameters
    ----------
    labels, truth
        Unsigned integers ([Z,] Y, X).
    known
        bool of the same shape: the part.
    """
    if known.all():
        return evaluate(labels, truth, thresholds)
    return evaluate(mostly_known(labels, known), mostly_known(truth, known), thresholds)


def mostly_known(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the labels of the objects of which at least half is known."""
    _, number = number_objects(labels)
    sizes = np.bincount(number.ravel())
    seen = np.bincount(number[known], minlength=len(sizes))
    return np.where((2 * seen >= sizes)[number], labels, 0)


_SHOWN = {
    "AP50": "AP50",
    "AP75": "AP75",
    "AP90": "AP90",
    "F1": "f1",
    "PQ": "pq",
    "Dice": "dice",
    "Rand err.": "rand_error",
}
SCORE_HEADINGS = ("image", "objects", "true", *_SHOWN)


def score_row(name: str, scores: Scores) -> list[str]:
    """Return the row below `SCORE_HEADINGS` for one image."""
    row = scores.row()
    counts = [f"{scores.objects:,}", f"{scores.true_objects:,}"]
    return [name, *counts, *(f"{row[share]:.3f}" for share in _SHOWN.values())]


def write_scores(path: Path, rows: dict[str, Scores]) -> None:
    """Write all scores of each image as CSV, whole or not at all; an existing file is replaced.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    text = io.StringIO()
    table = [{"image": name, **scores.row()} for name, scores in rows.items()]
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_text(path, text.getvalue())
