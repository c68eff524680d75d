"""What a look at an object is expected to gain: by the network's doubt, and by how it looks.

A correction of an object mends AP50 by what it was: nearly nothing where it was right, a little
for debris, more for a wrong outline, and most for a clump that is several objects. What is
expected of an object is a ridge regression on signs that are there before anybody has looked,
most of them in units of their spread over the labels, so that it holds for other kinds of images.
`benchmarks/review.py --fit` gives the weights, and what they do for kinds that they do not know.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_unet.core.alike.descriptors import NAMES, neck_depth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.core.instances.mask import ObjectMask

LOOKS = (
    "log_size", "log_raggedness", "solidity", "log_thickness", "contact", "log_size_to_neighbours",
)  # fmt: skip
"""The descriptors among the signs."""
SIGNS = ("doubt", "doubt_here", "flatness", "uncertain_beside", "ridge", "neck", *LOOKS)
"""The columns of `gain_signs`: the doubt as it is; it, and all others, compared with the usual."""
WEIGHTS = np.array([
    0.157, 0.043, 0.034, 0.045, -0.003, 0.12, 0.026, 0.032, -0.047, 0.036, 0.03, 0.014, 0.086,
])  # fmt: skip
"""Of each sign, and of none: fitted by `benchmarks/review.py --fit`."""
LARGE = 3.0
"""An object of more than so many usual ones may be a clump of as many."""
CLUMP = 0.02
"""What is expected of it for each further one, also where the network is sure."""
_FURTHEST = 4.0
_RING = 2


@dataclass(frozen=True)
class NetworkSigns:
    """What a network's maps say about an object.

    Attributes
    ----------
    flatness
        1 minus its peak in the distance map.
    uncertain_beside
        Mean uncertainty of the background beside it: it may be larger.
    ridge
        The highest distance where it touches another object, as a share of its peak: both may be
        one.
    neck
        `neck_depth` of the distance map: it may be two.
    """

    flatness: float = 0.0
    uncertain_beside: float = 0.0
    ridge: float = 0.0
    neck: float = 0.0

    @classmethod
    def from_maps(
        cls, mask: ObjectMask, labels: np.ndarray, uncertainty: np.ndarray, height: np.ndarray
    ) -> NetworkSigns:
        """Look at an object of labels ([Z,] Y, X) in maps of the same shape."""
        around = tuple(
            slice(max(0, w.start - _RING - 1), min(n, w.stop + _RING + 1))
            for w, n in zip(mask.window, labels.shape, strict=True)
        )
        inside, here, seen = mask.within(around), labels[around], height[around]
        ring = ndimage.binary_dilation(inside, iterations=_RING) & ~inside
        beside, others = ring & (here == 0), ring & (here > 0)
        border = inside & ~ndimage.binary_erosion(inside) & ndimage.binary_dilation(others)
        peak = float(seen[inside].max())
        return cls(
            1 - peak,
            float(uncertainty[around][beside].mean()) if beside.any() else 0.0,
            float(seen[border].max()) / max(1e-3, peak) if border.any() else 0.0,
            neck_depth(seen, inside),
        )


def gain_signs(
    doubt: np.ndarray, seen: Sequence[NetworkSigns], descriptors: np.ndarray
) -> NDArray[np.float64]:
    """Return the signs of all objects of labels, (N, `SIGNS`).

    Parameters
    ----------
    doubt
        (N,) 0 to 1.
    seen
        Of each object.
    descriptors
        (N, D) of `describe_objects`.
    """
    looks = descriptors[:, [NAMES.index(name) for name in LOOKS]]
    maps = np.array([astuple(each) for each in seen]).reshape(-1, 4)
    found = np.column_stack([doubt, maps, looks])
    spread = np.maximum(found.std(0), 1e-6)
    scaled = np.clip((found - np.median(found, axis=0)) / spread, -_FURTHEST, _FURTHEST)
    return np.column_stack([doubt, scaled])


def expected_gain(signs: np.ndarray, extents: np.ndarray) -> NDArray[np.float64]:
    """Return what a look at each object is expected to gain, (N,), in true objects found.

    Parameters
    ----------
    signs
        (N, `SIGNS`) of `gain_signs`.
    extents
        (N,) the size of each, in usual objects of the labels.
    """
    known = signs @ WEIGHTS[:-1] + WEIGHTS[-1]
    return np.asarray(known + CLUMP * np.maximum(0, extents - LARGE))
