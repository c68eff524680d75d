"""Frames as a network of others wants them: its operations, with statistics of the whole frame.

Operations that depend on the image, such as a mean, are measured once for each frame, as those of
`normalise` are, never in a tile. Measured, each is a few numbers for each channel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, softmax

from napari_unet.core.errors import ModelError
from napari_unet.core.image.frames import Frame
from napari_unet.core.image.normalise import Normaliser, sample_blocks
from napari_unet.core.settings.foreign_spec import Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.core.io.stack import Stack
    from napari_unet.core.tiles import Window

MEASURED = ("scale_range", "zero_mean_unit_variance")
"""Operations whose numbers come from the frame."""
BEFORE = (
    *MEASURED,
    "fixed_zero_mean_unit_variance",
    "scale_linear",
    "clip",
    "binarize",
    "sigmoid",
    "ensure_dtype",
)
"""Operations that can be done to a frame before the network."""
AFTER = (
    "fixed_zero_mean_unit_variance",
    "scale_linear",
    "clip",
    "binarize",
    "sigmoid",
    "softmax",
    "ensure_dtype",
)
"""Operations that can be done to a tile of the output: none depends on the rest of the frame."""


def apply_operation(values: np.ndarray, step: Operation) -> np.ndarray:
    """Do one operation whose numbers are known to values (C, ...).

    Raises
    ------
    ModelError
        The operation is unknown, or would have to be measured first.
    """
    name, given = step.name, step.values

    def each(key: str, default: float = 0.0) -> np.ndarray:
        """Return a number for each channel, in the shape of the values."""
        number = np.atleast_1d(np.asarray(given.get(key, default), np.float32))
        return number.reshape(-1, *(1,) * (values.ndim - 1))

    result: Any
    if name == "scale_linear":
        result = values * each("gain", 1.0) + each("offset")
    elif name == "fixed_zero_mean_unit_variance":
        result = (values - each("mean")) / (each("std", 1.0) + np.float32(1e-6))
    elif name == "standardise":  # a measured `zero_mean_unit_variance` or `scale_range`
        result = (values - each("low")) / each("span", 1.0)
    elif name == "clip":
        low = each("min") if given.get("min") is not None else None
        high = each("max") if given.get("max") is not None else None
        result = np.clip(values, low, high)
    elif name == "binarize":
        result = (values > each("threshold")).astype(np.float32)
    elif name == "sigmoid":
        result = expit(values)
    elif name == "softmax":
        result = softmax(values, axis=0)
    elif name == "ensure_dtype":
        result = _as_type(values, str(given.get("dtype", "float32")))
    else:
        raise ModelError(f"The operation {name!r} is unknown.")
    return np.asarray(result)


def _as_type(values: np.ndarray, dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        values = np.trunc(np.clip(values, limits.min, limits.max))
    elif kind.kind == "b":
        values = values != 0
    return values.astype(np.float32)


def measure_operation(sample: Sequence[np.ndarray], step: Operation) -> Operation:
    """Return an operation with its numbers, from a sample (N,) of each channel's values."""
    given = step.values
    joint = bool(given.get("joint"))
    groups = [np.concatenate(sample)] * len(sample) if joint else list(sample)
    groups = [group if group.size else np.zeros(1) for group in groups]
    eps = float(given.get("eps", 1e-6))
    if step.name == "scale_range":
        limits = (given.get("min_percentile", 0.0), given.get("max_percentile", 100.0))
        found = np.array([np.percentile(group, limits) for group in groups])
        low, span = found[:, 0], found[:, 1] - found[:, 0] + eps
    elif step.name == "zero_mean_unit_variance":
        low = np.array([group.mean() for group in groups])
        span = np.array([group.std() for group in groups]) + eps
    elif step.name == "clip" and {"min_percentile", "max_percentile"} & given.keys():
        values = dict(given)
        for end in ("min", "max"):
            if (percentile := given.get(f"{end}_percentile")) is not None:
                values[end] = [float(np.percentile(group, percentile)) for group in groups]
        return type(step)("clip", values)
    else:
        return step
    return type(step)("standardise", {"low": low.tolist(), "span": span.tolist()})


@dataclass(frozen=True, eq=False)
class ForeignNormaliser(Normaliser):
    """A frame's preprocessing, with its numbers.

    Attributes
    ----------
    steps
        Operations, none of which has to be measured; for channels in the order of the network's.
    """

    steps: tuple[Operation, ...] = field(default=())

    @classmethod
    def measure(
        cls,
        stack: Stack,
        index: tuple[int, ...],
        ndim: int,
        channels: tuple[int, ...],
        operations: Sequence[Operation],
        skip: tuple[type[Exception], ...] = (),
    ) -> ForeignNormaliser:
        """Measure what the operations need, from the same sample as `Normaliser.from_stack`."""
        plain = Normaliser(np.zeros(1), np.zeros(1), stack.name, stack.notices)
        found: dict[int, np.ndarray] = {}
        for channel in dict.fromkeys(channels):
            parts = sample_blocks(stack, index, ndim, channel, skip)
            found[channel] = np.concatenate([np.zeros(0), *map(plain.finite, parts)])
        sample = [found[channel].astype(np.float32) for channel in channels]
        ends = np.array([(s.min(), s.max()) if s.size else (0.0, 0.0) for s in sample], float)
        steps = []
        for operation in operations:
            step = measure_operation([part.astype(np.float64) for part in sample], operation)
            steps.append(step)
            # In one array, so that numbers for each channel find theirs.
            length = max(part.size for part in sample)
            padded = np.stack([np.resize(part, length) for part in sample])
            after = apply_operation(padded, step)
            sample = [row[: part.size] for row, part in zip(after, sample, strict=True)]
        return cls(ends[:, 0], ends[:, 1], stack.name, stack.notices, tuple(steps))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Do the steps to a part of the frame (C, [Z,] Y, X); float32 of the same shape."""
        result = values.astype(np.float32)
        if values.dtype.kind == "f" and not (finite := np.isfinite(result)).all():
            self.warn()
            low = self.low.astype(np.float32).reshape(-1, *(1,) * (values.ndim - 1))
            result = np.where(finite, result, low)
        for step in self.steps:
            result = apply_operation(result, step)
        return result.astype(np.float32, copy=False)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain JSON values."""
        steps = [{"name": step.name, "values": step.values} for step in self.steps]
        return {"low": self.low.tolist(), "high": self.high.tolist(), "steps": steps}


def restore_normaliser(values: dict[str, Any], name: str, notices: set[str]) -> Normaliser:
    """Build a normaliser of either kind from its `to_json`; `name` and `notices` are a stack's."""
    low, high = np.array(values["low"]), np.array(values["high"])
    if "steps" not in values:
        return Normaliser(low, high, name, notices)
    steps = tuple(Operation(step["name"], step["values"]) for step in values["steps"])
    return ForeignNormaliser(low, high, name, notices, steps)


class ForeignFrame(Frame):
    """A frame for a network of others: never rescaled, every channel with its own numbers."""

    def read(self, window: Window) -> np.ndarray:
        """Read a window, which may reach beyond the far end of any axis; float32 (C, *window)."""
        inside = tuple(
            slice(w.start, min(w.stop, n)) for w, n in zip(window, self.shape, strict=True)
        )
        values = self.normaliser(self.stack.read(self.index, inside, self.channels))
        beyond = [(0, w.stop - i.stop) for w, i in zip(window, inside, strict=True)]
        return np.pad(values, [(0, 0), *beyond], mode="symmetric")
