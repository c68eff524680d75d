"""Domain shift: whether an image is like those that the model was trained on.

The model card keeps for each statistic the range of nearly all training images. An image far
outside may still be segmented well, but its user should know before trusting the result.
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
"""Objects this many times larger or smaller than those the network is best at are remarked on."""
QUANTILES = (0.01, 0.99)
"""Quantiles of the training images that bound the range of a statistic ..."""
SLACK = 0.2
"""... which is widened on both sides by this share of itself."""

WORDS = {
    "noise": ("it is smoother", "it is noisier"),
    "mean": ("its background is darker", "it has more bright than dark pixels"),
    "spread": ("its contrast is lower", "its contrast is higher"),
    "share": ("fewer pixels look like objects", "more pixels look like objects"),
    "peak": ("its objects have other shapes", "its objects have other shapes"),
    "certainty": ("the model is unsure of its objects", "the model is surer than it should be"),
}
"""What a statistic below or above its range means."""


class ShiftWarning(UserWarning):
    """An image that is unlike those the model was trained on."""


@dataclass(frozen=True)
class ShiftRemark:
    """What is unusual about an image.

    Attributes
    ----------
    text
        In a sentence or two.
    diameter
        In pixels, the one to set, if it is the size of the objects.
    sizes
        The two diameters in pixels that explain the image, the one that is used first; () without.
    """

    text: str
    diameter: float | None = None
    sizes: tuple[float, ...] = ()


@dataclass(frozen=True)
class ShiftReport(Progress):
    """The image was compared with the training images; `remarks` say in what it is unlike them."""

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
        ``noise``: standard deviation of the noise, from the median of second differences along X,
        which is robust against edges; ``mean`` and ``spread``: mean and standard deviation.
    """
    values = np.clip(values, -0.5, 1.5)
    second = values[..., 2:] - 2 * values[..., 1:-1] + values[..., :-2]
    # 0.6745 s is the median of |x| of normal noise; second differences have 1 + 4 + 1 times its
    # variance.
    noise = np.median(np.abs(second)) / 0.6745 / math.sqrt(6) if second.size else 0.0
    return {"noise": float(noise), "mean": float(values.mean()), "spread": float(values.std())}


def statistic_ranges(several: Sequence[Statistics]) -> dict[str, list[float]]:
    """Return the range of each statistic over several images, as the card keeps it."""
    found = {}
    for name in several[0]:
        low, high = np.quantile([statistics[name] for statistics in several], QUANTILES)
        slack = SLACK * (high - low)
        found[name] = [round(float(low - slack), 5), round(float(high + slack), 5)]
    return found


def shift_remark(statistics: Statistics, ranges: Ranges) -> ShiftRemark | None:
    """Return in what an image is unlike the training images; None if it is like them."""
    reasons = []
    for name, (low, high) in ranges.items():
        value = statistics.get(name, low)
        if not low <= value <= high:
            reasons.append(WORDS[name][value > high])
    if not reasons:
        return None
    return ShiftRemark(
        "This image is unlike those the model was trained on: "
        f"{', '.join(dict.fromkeys(reasons))}. Check the result before you use it."
    )


def size_remark(found: float, used: float, *, told: bool = False) -> ShiftRemark | None:
    """Return a remark on objects of another size than the network expects; None if they agree.

    Parameters
    ----------
    found
        Diameter of the image's objects, in its pixels.
    used
        Diameter that the image is rescaled for, in its pixels.
    told
        The user has set it: what the model sees is no reason to give it up.
    """
    if not found or not used or abs(math.log(found / used)) < math.log(SIZE_RATIO):
        return None
    if told:
        return ShiftRemark(
            f"You set {used:.3g} px; to the model, things of {found:.0f} px look like objects, "
            "too. Yours is right if it fits the objects that you want.",
            round(found),
        )
    times, what = (found / used, "larger") if found > used else (used / found, "smaller")
    return ShiftRemark(
        f"Objects look {times:.1f} x {what} than those the model was trained on; "
        f"set Diameter to {found:.0f}.",
        round(found),
    )


def two_sizes_remark(used: float, other: float) -> ShiftRemark:
    """Return the remark on an image in which objects of two sizes are seen, in its pixels."""
    small, large = sorted((used, other))
    return ShiftRemark(
        f"{small:.0f} px or {large:.0f} px? Objects of both sizes are seen in this image; "
        f"{used:.0f} px was taken. Set Diameter to choose.",
        sizes=(round(used, 1), round(other, 1)),
    )
