"""World coordinates of an image: scale and translation of each axis, as OME-Zarr records them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TRANSFORMS = "coordinateTransformations"
_KINDS: dict[str, dict[str, Any]] = {"T": {"type": "time"}, "C": {"type": "channel"}}


@dataclass(frozen=True)
class CoordinateTransform:
    """Scale and translation of an image from its voxels to the world.

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
    def from_metadata(
        cls, letters: str, axes: Sequence[dict[str, Any]], steps: Iterable[dict[str, Any]]
    ) -> CoordinateTransform | None:
        """Build it from the axes and coordinate transformations of an OME-Zarr.

        None if they are not scales other than 0 and translations. A scale below 0 is an axis that
        points the other way.
        """
        scale, translation = combine_transforms(steps, len(letters))
        if not all(map(math.isfinite, (*scale, *translation))) or 0 in scale:
            return None
        kinds = [_KINDS.get(letter, {"type": "space"}) for letter in letters]
        named = tuple({**kind, **axis} for kind, axis in zip(kinds, axes, strict=True))
        return cls(letters, named, tuple(scale), tuple(translation))

    @classmethod
    def from_voxel_size(
        cls, letters: str, size_um: tuple[float, float, float] | None
    ) -> CoordinateTransform:
        """Build it for an image of which nothing but the voxel size is known."""
        unit = {"unit": "micrometer"} if size_um is not None else {}
        size = dict(zip("ZYX", size_um or (1.0, 1.0, 1.0), strict=True))
        axes = tuple(
            {"name": a.lower(), **_KINDS.get(a, {"type": "space", **unit})} for a in letters
        )
        scale = tuple(size.get(letter, 1.0) for letter in letters)
        return cls(letters, axes, scale, (0.0,) * len(letters))

    def select_axes(self, letters: str) -> CoordinateTransform | None:
        """Return the transform of these axes, such as the labels'; None if one is missing."""
        if not set(letters) <= set(self.letters):
            return None
        kept = [self.letters.index(letter) for letter in letters]
        return CoordinateTransform(
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


def combine_transforms(
    steps: Iterable[dict[str, Any]], count: int
) -> tuple[list[float], list[float]]:
    """Combine coordinate transformations, the first applied first, into one scale and translation.

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


_UM = {
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "dm": 1e5, "decimeter": 1e5, "decimetre": 1e5,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "um": 1.0, "micron": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "a": 1e-4, "\u00e5": 1e-4, "angstrom": 1e-4,
    "pm": 1e-6, "picometer": 1e-6, "picometre": 1e-6,
    "in": 25400.0, "inch": 25400.0,
}  # fmt: skip

PRINT_UM = 20.0
"""Pixels of this size and up come from a print resolution (1270 dpi and less), not a microscope."""


def to_um(unit: object) -> float | None:
    """Return how many micrometres one `unit` is; None for pixels and unknown units."""
    if not isinstance(unit, str):
        return None
    # ImageJ writes the micro sign as an escape; the Greek letter is another character.
    name = unit.strip().replace("\\u00B5", "u").replace("\u00b5", "u").replace("\u03bc", "u")
    name = name.lower()
    return _UM.get(name, _UM.get(name.rstrip("s")))


def plausible_voxel_size(y_um: float, x_um: float) -> tuple[float, float, float] | None:
    """Return (1, y, x) in um, or None if a size is missing or a print resolution (`PRINT_UM`)."""
    if not all(math.isfinite(size) and 0 < size < PRINT_UM for size in (y_um, x_um)):
        return None
    return 1.0, y_um, x_um
