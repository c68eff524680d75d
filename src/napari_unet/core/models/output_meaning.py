"""What the output of a network that others built means, from the names of its channels."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.core.settings.foreign_spec import CLASSES, IMAGE, OBJECTS, ForeignSpec

if TYPE_CHECKING:
    from collections.abc import Sequence


def with_meaning(spec: ForeignSpec, said: str = "", wanted: str = "auto") -> ForeignSpec:
    """Return a spec with what its output means, from the names of its channels or what is said.

    Parameters
    ----------
    said
        Descriptions, in which foreground and boundary may be named.
    wanted
        "auto", or one of the meanings.
    """
    names = [name.casefold() for name in spec.names]
    inside = r"(?!.*(bound|border|contour|edge|membrane|outline|dist|back.?ground)).*"
    foreground = _find(names, f"^{inside}(fore.?ground|^fg|interior|nucle|cell|mask|object|body)")
    boundary = _find(names, r"bound|border|contour|edge|membrane|outline")
    distance = _find(names, r"dist")
    text = said.casefold()
    if foreground is None and boundary is None and len(names) == 2:
        both = re.search(r"fore.?ground", text) and re.search(r"boundar|border|contour", text)
        if both and re.fullmatch(r"channel.?0", names[0]):
            foreground, boundary = 0, 1
    last = [step.name for step in spec.postprocessing]
    meaning = IMAGE
    if foreground is not None and (boundary is not None or distance is not None):
        meaning = OBJECTS
    elif "softmax" in last or (len(names) > 1 and _find(names, r"back.?ground|^bg\b") is not None):
        meaning = CLASSES
    elif len(names) == 1 and distance is None:
        tells = foreground is not None or boundary is not None
        said_so = re.search(r"probab|segmentation|foreground|mask", text)
        meaning = CLASSES if "sigmoid" in last or tells or said_so else IMAGE
    if wanted != "auto":
        meaning = wanted
        if wanted == OBJECTS and foreground is None:
            foreground = 0
    if meaning != OBJECTS:
        classes = max(2, len(names))
        return replace(spec, head="semantic", classes=classes, meaning=meaning)
    return replace(
        spec,
        head="instance",
        classes=1,
        meaning=OBJECTS,
        foreground=foreground,
        boundary=boundary if distance is None else None,
        distance=distance,
    )


def _find(names: Sequence[str], pattern: str) -> int | None:
    return next((at for at, name in enumerate(names) if re.search(pattern, name)), None)
