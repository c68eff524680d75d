"""Showing the user what went wrong, in the same way in every part of the window."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error

from napari_unet.core.errors import UnetError
from napari_unet.gui.widgets.settings_form import sentence

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def report_error(error: Exception, what: str, show: Callable[[str], object]) -> None:
    """Show an error in one sentence, by `show` and as a notification.

    Parameters
    ----------
    what
        What failed, for the log: an error that is no `UnetError` goes there with its traceback.
    """
    if not isinstance(error, UnetError):
        logger.error(what, exc_info=error)
    show(sentence(error))
    show_error(sentence(error))
