"""Fields of settings, which know their bounds, unit and help text, and the check against them."""

from __future__ import annotations

import math
from dataclasses import field, fields
from typing import Any

import numpy as np

from napari_unet.core.errors import SettingsError


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Return a dataclass field with help text, unit, bounds and choices."""
    return field(
        default=default,
        metadata={"help": help, "unit": unit, "low": low, "high": high, "choices": choices},
    )


def check_settings(settings: Any) -> None:
    """Check the fields that were declared with `setting` against their bounds and choices.

    A whole number of another type, such as 64.0, is stored as an int.

    Raises
    ------
    SettingsError
        It names the setting, the value given and the values allowed. ``None`` is allowed where it
        is the default, and means that the program decides.
    """
    for item in fields(settings):
        value, meta = getattr(settings, item.name), item.metadata
        if not meta or (value is None and item.default is None):
            continue
        if meta["choices"] and value not in meta["choices"]:
            raise SettingsError(
                f"{item.name} is {value!r}; choose one of: {', '.join(meta['choices'])}."
            )
        low, high = meta["low"], meta["high"]
        if low is None and high is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise SettingsError(f"{item.name} is {value!r}; give a number.")
        if str(item.type).startswith("int"):
            if not float(value).is_integer():
                raise SettingsError(f"{item.name} is {value!r}; give a whole number.")
            object.__setattr__(settings, item.name, int(value))
        too_low, too_high = low is not None and value < low, high is not None and value > high
        if math.isnan(value) or too_low or too_high:
            unit = f" {meta['unit']}" if meta["unit"] else ""
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            raise SettingsError(f"{item.name} is {value}{unit}; it must be {bounds}{unit}.")
