"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """Return how many there are of something, such as "1 object" or "1,200 objects"."""
    return f"{number:,} {what}{'s' * (number != 1)}"
