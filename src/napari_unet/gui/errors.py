"""Telling the user what went wrong, the same way in every part of the window."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error

from napari_unet.core.errors import UnetError

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def describe_error(error: BaseException) -> str:
    """Return an error as the one sentence that the window shows."""
    if isinstance(error, UnetError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory; close other programs, or run on a part of the stack."
    lines = str(error).strip().splitlines()
    first = lines[0] if lines else "no reason given"
    return f"The run failed: {type(error).__name__}: {first}"


def report_error(error: Exception, what: str, show: Callable[[str], object]) -> None:
    """Show an error in one sentence, by `show` and as a notification.

    Parameters
    ----------
    what
        What failed, for the log: an error that is no `UnetError` goes there with its traceback.
    """
    if not isinstance(error, UnetError):
        logger.error(what, exc_info=error)
    show(describe_error(error))
    show_error(describe_error(error))
