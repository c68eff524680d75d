"""JSON files of other programs, read up to a size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_unet.core.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 2**29
"""Bytes of a file, at most."""


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        It cannot be read, is too large, or is no JSON.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(f"{path} is larger than outlines may be ({LARGEST:,} bytes).")
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); export it again.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def is_count(value: Any, below: int) -> bool:
    """Return whether a value of JSON is a whole number from 0 on, below a bound."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below
