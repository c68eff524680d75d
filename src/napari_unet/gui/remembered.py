"""What the panels remember between sessions: `window.json` beside the models."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from napari_unet.core.models.store import home

if TYPE_CHECKING:
    from napari_unet.gui.widgets.panel import CollapsibleSection

logger = logging.getLogger(__name__)


def remembered(section: str) -> dict[str, Any]:
    """Return what was remembered under a name; {} where the file is missing or damaged."""
    values = _read().get(section)
    return values if isinstance(values, dict) else {}


def remember(section: str, values: dict[str, Any]) -> None:
    """Remember JSON values under a name. A folder that cannot be written is no reason to stop."""
    known = _read()
    if known.get(section) == values:
        return
    path = home() / "window.json"
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({**known, section: values}, indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        logger.info("settings are not remembered: %s", error)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def remember_open(fold: CollapsibleSection, section: str) -> None:
    """Open a section if it was open when the last session ended, and remember it from now on.

    Parameters
    ----------
    section
        The name that it is remembered under; nothing else may be.
    """
    fold.open(remembered(section).get("open") is True)
    fold.toggled.connect(lambda is_open: remember(section, {"open": is_open}))


def _read() -> dict[str, Any]:
    try:
        values = json.loads((home() / "window.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
