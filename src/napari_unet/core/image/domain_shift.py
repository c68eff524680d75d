"""Is this image like those that the model was trained on? Statistics, their limits, and words.

The card keeps, for each statistic, between which values nearly all training images lay. An image
far outside may still come out well, but its user should know before trusting the result.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_unet.core.progress import Progress

Statistics = Mapping[str, float]
Ranges = Mapping[str, Sequence[float]]

SIZE_RATIO = 2.0
"""Objects this many times larger or smaller than the network works on best are remarked on."""
QUANTILES = (0.01, 0.99)
"""Between which quantiles of the training images the range of a statistic reaches ..."""
SLACK = 0.2
"""... and by which share of itself it is widened on both sides."""

WORDS = {
    "noise": ("it is smoother", "it is noisier"),
    "mean": ("its background is darker", "it has more bright than dark pixels"),
    "spread": ("its contrast is lower", "its contrast is higher"),
    "share": ("fewer pixels look like objects", "more pixels look like objects"),
    "peak": ("its objects have other shapes", "its objects have other shapes"),
    "certainty": ("the model is unsure of its objects", "the model is surer than it should be"),
}
"""What it means when a statistic is below or above its range."""


class ShiftWarning(UserWarning):
    """An image that is unlike those the model was trained on."""


@dataclass(frozen=True)
class ShiftRemark:
    """What is unusual about an image, and the diameter (px) that would mend it, if one would."""

    text: str
    diameter: float | None = None


@dataclass(frozen=True)
class ShiftReport(Progress):
    """A look at the image before the run: `remarks` say what is unlike the training images."""

    remarks: tuple[ShiftRemark, ...] = ()

    def warn(self) -> None:
        """Issue each remark as a ShiftWarning."""
        for remark in self.remarks:
            warnings.warn(remark.text, ShiftWarning, stacklevel=3)


def intensity_statistics(values: np.ndarray) -> dict[str, float]:
    """Describe the intensities of a normalised image.

    Parameters
    ----------
    values
        float32 (C, [Z,] Y, X), 0 and 1 being the frame's percentiles.

    Returns
    -------
    dict
        ``noise``: standard deviation of what differs from pixel to pixel, from the median of second
        differences along X (robust against edges); ``mean`` and ``spread``: mean and standard
        deviation.
    """
    values = np.clip(values, -0.5, 1.5)
    second = values[..., 2:] - 2 * values[..., 1:-1] + values[..., :-2]
    noise = np.median(np.abs(second)) / 0.6745 / math.sqrt(6) if second.size else 0.0
    return {"noise": float(noise), "mean": float(values.mean()), "spread": float(values.std())}


def statistic_ranges(several: Sequence[Statistics]) -> dict[str, list[float]]:
    """Return within which limits each statistic lies, for nearly all of several images."""
    found = {}
    for name in several[0]:
        low, high = np.quantile([statistics[name] for statistics in several], QUANTILES)
        slack = SLACK * (high - low)
        found[name] = [round(float(low - slack), 5), round(float(high + slack), 5)]
    return found


def shift_remark(statistics: Statistics, ranges: Ranges) -> ShiftRemark | None:
    """Say in what an image is unlike the training images; None if it is like them."""
    unlike = []
    for name, (low, high) in ranges.items():
        value = statistics.get(name, low)
        if not low <= value <= high:
            unlike.append(WORDS[name][value > high])
    if not unlike:
        return None
    return ShiftRemark(
        "This image is unlike those the model was trained on: "
        f"{', '.join(dict.fromkeys(unlike))}. Check the result before you use it."
    )


def size_remark(found: float, used: float) -> ShiftRemark | None:
    """Say that objects have another size than the network expects; None if the sizes agree.

    Parameters
    ----------
    found
        Diameter of the image's objects, in its pixels.
    used
        The diameter in its pixels for which the image is rescaled.
    """
    if not found or not used or abs(math.log(found / used)) < math.log(SIZE_RATIO):
        return None
    times, what = (found / used, "larger") if found > used else (used / found, "smaller")
    return ShiftRemark(
        f"Objects look {times:.1f} x {what} than those the model was trained on; "
        f"set Diameter to {found:.0f}.",
        round(found),
    )
