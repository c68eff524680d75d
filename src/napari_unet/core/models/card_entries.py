"""What the entries of a model card may hold: types and ranges, checked when a card is read.

A card may come from a stranger. Whatever the program reads from it later is checked here once;
other parts, which only people read, may be any JSON of finite numbers and printable text.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import ModelError
from napari_unet.core.image.domain_shift import WORDS
from napari_unet.core.settings.model_spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Check = Callable[[str, Any], None]

DEEPEST = 20
"""Levels of lists and entries in each other, at most."""
LARGEST_WHOLE = 2**63
"""Whole numbers are below this; others could not be held by an array."""
LARGEST_DIAMETER = 100_000.0
"""Diameter of an object in pixels, at most."""


def check_entries(values: Mapping[str, Any]) -> None:
    """Check the values of a card of the present schema.

    Raises
    ------
    ModelError
        It names the entry, and what it holds.
    """
    for name, value in values.items():
        _check_plain(name, value, DEEPEST)
    for name, check in _ENTRIES.items():
        if name in values:
            check(name, values[name])


def _wrong(name: str, value: Any, wanted: str) -> ModelError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return ModelError(
        f"The model card's entry {name!r} is {shown}; it must be {wanted}. Get the model once more."
    )


def _check_plain(name: str, value: Any, depth: int) -> None:
    """Refuse numbers that are not finite, text that cannot be written, and endless nesting."""
    if depth == 0:
        raise ModelError(f"The model card's entry {name[:80]} is nested too deeply.")
    if isinstance(value, str):
        _check_text(name, value)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) >= LARGEST_WHOLE:
            raise ModelError(f"The model card's entry {name[:80]} is a number beyond 64 bits.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _wrong(name, value, "a finite number")
    elif isinstance(value, dict):
        for key, part in value.items():
            _check_text(f"a name in {name}", key)
            _check_plain(f"{name}.{key}", part, depth - 1)
    else:
        for part in value:
            _check_plain(name, part, depth - 1)


def _check_text(name: str, value: str) -> None:
    """Refuse halves of characters, which no file can hold, and what controls a terminal."""
    if _UNREADABLE.search(value):
        raise ModelError(
            f"The model card's entry {ascii(name)[1:-1]:.80} holds {value!a:.60}, which is no "
            "readable text."
        )


def _number(low: float, high: float, *, whole: bool = False, nothing: bool = False) -> Check:
    """Return a check for a number within bounds, perhaps missing."""

    def check(name: str, value: Any) -> None:
        if value is None and nothing:
            return
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            raise _wrong(name, value, f"{kind} from {low:g} to {high:g}")

    return check


def _size(name: str, value: Any) -> None:
    """Check a diameter in pixels; 0 and nothing stand for an unknown one."""
    _number(0, LARGEST_DIAMETER, nothing=True)(name, value)
    if value and value < 0.5:
        raise _wrong(name, value, "0, or at least half a pixel")


def _kind(wanted: type | tuple[type, ...], what: str) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, wanted):
            raise _wrong(name, value, what)

    return check


_UNREADABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Halves of characters, and all that controls a terminal but tabs and new lines."""
_text, _entries = _kind(str, "text"), _kind(dict, "entries")


def _parts(checks: Mapping[str, Check], *, only: bool = False, needed: Iterable[str] = ()) -> Check:
    """Return a check for entries by name; `only`: there are no others."""

    def check(name: str, value: Any) -> None:
        _entries(name, value)
        if only and (unknown := sorted(set(value) - set(checks))):
            raise ModelError(
                f"The model card's entry {name} has unknown parts: {', '.join(unknown)}; "
                "update napari-unet."
            )
        for part, inside in value.items():
            if part in checks:
                checks[part](f"{name}.{part}", inside)
        if missing := [part for part in needed if part not in value]:
            raise ModelError(f"The model card's entry {name} lacks {' and '.join(missing)}.")

    return check


def _every(inside: Check) -> Check:
    """Return a check for entries of any name, each checked alike."""

    def check(name: str, value: Any) -> None:
        _entries(name, value)
        for part, found in value.items():
            inside(f"{name}.{part}", found)

    return check


def _check_normalisation(name: str, value: Any) -> None:
    both = {"low": _number(0, 100), "high": _number(0, 100)}
    _parts(both, only=True, needed=both)(name, value)
    if value["low"] >= value["high"]:
        raise _wrong(name, value, "two percentiles, the lower one first")


def _check_statistics(name: str, value: Any) -> None:
    if value is None:
        return
    ranges = dict.fromkeys(WORDS, _check_range)
    _parts(ranges, only=True)(name, value)


def _check_range(name: str, value: Any) -> None:
    number = _number(-1e9, 1e9)
    if not isinstance(value, list) or len(value) != 2:
        raise _wrong(name, value, "a range of two numbers")
    for end in value:
        number(name, end)
    if value[0] > value[1]:
        raise _wrong(name, value, "a range, its lower end first")


def _check_rounds(name: str, value: Any) -> None:
    counts, scores = _number(0, 1e15, whole=True), _number(-1e9, 1e9)
    if not isinstance(value, list):
        raise _wrong(name, value, "a list of rounds")
    for entry in value:
        if not isinstance(entry, list) or len(entry) != 2:
            raise _wrong(name, entry, "a round: what was learned from, and the score")
        counts(name, entry[0])
        scores(name, entry[1])


def _check_flag(name: str, value: Any) -> None:
    _kind(bool, "true or false")(name, value)


def _check_spec(name: str, value: Any) -> None:
    _entries(name, value)
    try:
        ModelSpec.from_json(value)
    except ModelError as error:
        raise ModelError(f"The model card's entry {name} cannot be used. {error}") from error


_COUNT = _number(0, 1e15, whole=True)
_SCORE = _number(-1e9, 1e9, nothing=True)

_HEAD: dict[str, Check] = {"spec": _check_spec, "training": _entries, "metrics": _entries}

_ENTRIES: dict[str, Check] = {
    "name": _text,
    "spec": _entries,
    "normalisation": _check_normalisation,
    "decode": _parts(
        {
            "threshold": _number(0, 1),
            "merge": _number(0, 1),
            "min_size": _number(0, 1e12),
        },
        only=True,
    ),
    "training": _parts(
        {
            "images": _COUNT,
            "objects": _COUNT,
            "known_px": _COUNT,
            "steps": _COUNT,
            "seconds": _number(0, 1e15),
            "diameter_px": _every(_size),
            "working_diameter_px": _size,
            "voxel_ratio": _number(1e-6, 1e6),
            "taught_diameter": _every(_number(0, LARGEST_DIAMETER)),
            "statistics": _check_statistics,
            "rounds": _check_rounds,
            "data_hash": _text,
            "unfinished": _check_flag,
        }
    ),
    "metrics": _parts(
        {
            "bfloat16_dice": _number(0, 1, nothing=True),
            "tuning": _parts(
                {
                    "metric": _text,
                    "verdict": _text,
                    "reason": _text,
                    "before": _SCORE,
                    "after": _SCORE,
                    "replay_before": _SCORE,
                    "replay_after": _SCORE,
                    "taught_before": _SCORE,
                    "taught_after": _SCORE,
                }
            ),
        }
    ),
    "click": _parts({**_HEAD, "refiner": _parts(_HEAD)}),
    "licence": _text,
    "parent": _kind((str, type(None)), "the hash of a model, or nothing"),
    "hash": _text,
    "replay": _text,
}
