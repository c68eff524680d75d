"""How large objects are by the look of a part of an image, before any of them is outlined.

A linear function of what a network's features are on the whole, as in the size model of Cellpose
(Stringer et al. 2021). A part that is shown far too large or too small looks different from one at
the working scale, also where nothing is found, or too much. It is fitted once a training is done,
and stored beside the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.core.settings.model_spec import ModelSpec

LARGEST_ERROR = 1.6
"""Scales that are wrong by more than e to this are all alike: far too large, or far too small."""
STATISTICS = ("objects", "peak", "certainty", "share")
"""What of the objects found is looked at, "objects" being log(1 + their number); and their size."""
RIDGE = 0.1
"""Penalty of large weights: there are about as many features as image parts to fit them on."""


@dataclass(frozen=True, eq=False)
class SizeRegressor:
    """A ridge regression from features to the logarithm of the objects' relative size.

    Attributes
    ----------
    weight
        float32 (F,), of the standardised features.
    mean, spread
        float32 (F,): what they are standardised by.
    offset
        float32 (1,).
    """

    weight: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    offset: np.ndarray

    def __call__(self, features: np.ndarray) -> float:
        """Return log(size of the objects / size that the network works on best), in its pixels.

        Parameters
        ----------
        features
            float32 (F,), of `size_features`.
        """
        value = (features - self.mean) / self.spread @ self.weight + self.offset[0]
        return float(np.clip(value, -LARGEST_ERROR, LARGEST_ERROR))

    @classmethod
    def fit(cls, features: np.ndarray, errors: np.ndarray, weights: np.ndarray) -> SizeRegressor:
        """Fit it to image parts of known size.

        Parameters
        ----------
        features
            (N, F).
        errors
            (N,): the logarithm of the relative size of each part's objects.
        weights
            (N,): how much each part counts.
        """
        wanted = np.clip(errors, -LARGEST_ERROR, LARGEST_ERROR)
        shares = weights / weights.sum()
        mean, spread = shares @ features, features.std(0) + 1e-6
        values = (features - mean) / spread
        offset = float(shares @ wanted)
        square = (values * shares[:, None]).T @ values + RIDGE * np.eye(values.shape[1])
        weight = np.linalg.solve(square, (values * shares[:, None]).T @ (wanted - offset))
        parts = (weight, mean, spread, np.array([offset]))
        return cls(*(part.astype(np.float32) for part in parts))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return its numbers by name, to be stored."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], spec: ModelSpec) -> SizeRegressor | None:
        """Return what `to_arrays` was called on; None unless all of it is there and fits."""
        count = 2 * sum(spec.widths) + len(STATISTICS) + 1
        shapes = {"weight": (count,), "mean": (count,), "spread": (count,), "offset": (1,)}
        if {name: values.shape for name, values in arrays.items()} != shapes:
            return None
        return cls(**{name: values.astype(np.float32) for name, values in arrays.items()})


def size_features(summary: np.ndarray, statistics: Mapping[str, float], ratio: float) -> np.ndarray:
    """Return the features of an image part that its objects' size is read off.

    Parameters
    ----------
    summary
        float32 (F,), of `Runner.summary`.
    statistics
        Of a scale trial; of them `STATISTICS` are used.
    ratio
        Diameter of the objects found, as a share of that which the network works on best.
    """
    found = (
        np.log1p(statistics["objects"]),
        *(statistics[name] for name in ("peak", "certainty", "share")),
    )
    values = np.sign(summary) * np.log1p(np.abs(summary))
    size = np.log(max(ratio, 1e-2))
    return np.concatenate([values, np.array([*found, size])]).astype(np.float32)
