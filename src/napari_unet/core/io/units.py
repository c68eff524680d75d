"""Lengths in files, in whatever unit, as micrometres."""

from __future__ import annotations

import math

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
    """Return how many micrometres one `unit` is; None for pixels and for what is unknown."""
    if not isinstance(unit, str):
        return None
    # ImageJ writes the micro sign as an escape; the Greek letter is another character.
    name = unit.strip().replace("\\u00B5", "u").replace("\u00b5", "u").replace("\u03bc", "u")
    name = name.lower()
    return _UM.get(name, _UM.get(name.rstrip("s")))


def believable(y_um: float, x_um: float) -> tuple[float, float, float] | None:
    """Return (1, y, x) in micrometres, or None when the size is missing or a print resolution."""
    if not all(math.isfinite(size) and 0 < size < PRINT_UM for size in (y_um, x_um)):
        return None
    return 1.0, y_um, x_um
