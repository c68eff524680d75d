"""Numbers in sentences, and rows of text in columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def pluralise(number: int, what: str) -> str:
    """Return a number with its noun, such as "1 object" or "1,200 objects"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def format_duration(seconds: float) -> str:
    """Return a duration as 0:07, 12:30 or 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with aligned columns; the first is text, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]).rstrip()
        for first, *others in rows
    ]
