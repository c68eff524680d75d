"""Where an image lies in the world: what the coordinate transformations of an OME-Zarr say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TRANSFORMS = "coordinateTransformations"
_KINDS: dict[str, dict[str, Any]] = {"T": {"type": "time"}, "C": {"type": "channel"}}


@dataclass(frozen=True)
class ImagePlace:
    """Where an image lies.

    Attributes
    ----------
    letters
        One of "TCZYX" for each axis.
    axes
        The axes as NGFF has them: name, type and, where it is known, unit.
    scale, translation
        Of each axis, in its unit; of the full resolution.
    """

    letters: str
    axes: tuple[dict[str, Any], ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    @classmethod
    def told(
        cls, letters: str, axes: Sequence[dict[str, Any]], steps: Iterable[dict[str, Any]]
    ) -> ImagePlace | None:
        """Return what metadata say: axes and coordinate transformations; None where that is odd."""
        scale, translation = combined(steps, len(letters))
        if not all(map(math.isfinite, (*scale, *translation))) or min(scale, default=1) <= 0:
            return None
        kinds = [_KINDS.get(letter, {"type": "space"}) for letter in letters]
        named = tuple({**kind, **axis} for kind, axis in zip(kinds, axes, strict=True))
        return cls(letters, named, tuple(scale), tuple(translation))

    @classmethod
    def of_voxels(cls, letters: str, size_um: tuple[float, float, float] | None) -> ImagePlace:
        """Return the place of an image of which nothing but the size of a voxel is known."""
        unit = {"unit": "micrometer"} if size_um is not None else {}
        size = dict(zip("ZYX", size_um or (1.0, 1.0, 1.0), strict=True))
        axes = tuple(
            {"name": a.lower(), **_KINDS.get(a, {"type": "space", **unit})} for a in letters
        )
        scale = tuple(size.get(letter, 1.0) for letter in letters)
        return cls(letters, axes, scale, (0.0,) * len(letters))

    def along(self, letters: str) -> ImagePlace | None:
        """Return the place of what has these axes of the image, such as its labels.

        None if the image lacks one of them.
        """
        if not set(letters) <= set(self.letters):
            return None
        kept = [self.letters.index(letter) for letter in letters]
        return ImagePlace(
            letters,
            tuple(self.axes[at] for at in kept),
            tuple(self.scale[at] for at in kept),
            tuple(self.translation[at] for at in kept),
        )

    def transforms(self, level: int) -> list[dict[str, Any]]:
        """Return the coordinate transformations of a level whose Y and X are halved `level` times.

        Every second voxel is kept, so the first voxel's centre stays where it was.
        """
        scale = [
            float(size) * (2.0**level if letter in "YX" else 1.0)
            for letter, size in zip(self.letters, self.scale, strict=True)
        ]
        found: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(self.translation):
            found.append({"type": "translation", "translation": list(map(float, self.translation))})
        return found


def combined(steps: Iterable[dict[str, Any]], count: int) -> tuple[list[float], list[float]]:
    """Do coordinate transformations one after the other; return their scale and translation.

    Parameters
    ----------
    count
        Number of axes.

    Returns
    -------
    scale, translation
        One number for each axis; NaN where a transformation is no scale or translation of the axes.
    """
    scale, translation = [1.0] * count, [0.0] * count
    for step in steps:
        kind = step.get("type")
        if kind == "identity":
            continue
        values = step.get(kind) if kind in ("scale", "translation") else None
        if not isinstance(values, (list, tuple)) or len(values) != count:
            values = [math.nan] * count
        numbers = [float(v) if isinstance(v, (int, float)) else math.nan for v in values]
        if kind == "translation":
            translation = [at + more for at, more in zip(translation, numbers, strict=True)]
        else:
            scale = [size * factor for size, factor in zip(scale, numbers, strict=True)]
            translation = [at * factor for at, factor in zip(translation, numbers, strict=True)]
    return scale, translation
